"""The station as a process: signals, a second one, bundles swapped from outside, systemd's watchdog."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import stations

pytestmark = pytest.mark.system

EDGE = [sys.executable, "-m", "edge_sdk"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Three bundles, pictures, and a station of two slots whose camera plays them for ever."""
    stations.spot_bundle(tmp_path / "first")
    stations.spot_bundle(tmp_path / "second", version="2", dark_below=0.36)
    stations.packed(tmp_path / "second", tmp_path / "second.bundle")
    stations.spot_bundle(tmp_path / "bad", version="3", golden_off=9.0)
    stations.picture_folder(tmp_path / "pictures", 30)
    settings(tmp_path)
    return tmp_path


def settings(place: Path, **more: Any) -> Path:
    told = {
        "bundle": "./bundles/current",
        "camera": {"uri": "file:pictures", "rate_hz": 100, "loop": True},
        "mentoring": {"outbox": "./outbox"},
        **more,
    }
    return stations.settings(place, **told)


def edge(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*EDGE, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, **options
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


class Running:
    """A station in a process of its own."""

    def __init__(self, place: Path, *words: str, env: dict[str, str] | None = None) -> None:
        self.place = place
        self.process = subprocess.Popen(
            [*EDGE, "run", str(place / "station.yaml"), "--json", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )

    @property
    def status(self) -> dict[str, Any]:
        path = self.place / "state/status.json"
        found: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
        return found

    def until(self, true: Callable[[dict[str, Any]], bool], *, within_s: float = 60.0) -> dict[str, Any]:
        began = time.monotonic()
        while not (true(self.status)):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() - began < within_s, self.status
            time.sleep(0.05)
        return self.status

    def judging(self) -> None:
        self.until(lambda status: status.get("station", {}).get("frames_in", 0) > 10)

    def stop(self, number: int = signal.SIGTERM) -> tuple[int, dict[str, Any], str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, json.loads(out), err


@pytest.fixture
def run(place: Path) -> Iterator[Callable[..., Running]]:
    assert edge("activate", place / "station.yaml", place / "first").returncode == 0
    started: list[Running] = []

    def start(*words: str, env: dict[str, str] | None = None) -> Running:
        started.append(Running(place, *words, env=env))
        return started[-1]

    yield start
    for running in started:
        if running.process.poll() is None:
            running.process.kill()
        running.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_run_in_order_and_the_ledger_adds_up(
    run: Callable[..., Running], number: int
) -> None:
    station = run("--inspections", "/dev/null")
    station.judging()
    code, summary, err = station.stop(number)
    assert code == 0, err
    counts = summary["station"]
    assert counts["frames_in"] == sum(counts["outcomes"].values()) > 10
    assert counts["in_flight"] == 0
    assert station.status["state"] == "stopped"
    assert station.status["station"]["frames_in"] == counts["frames_in"]


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])
def test_the_watchdogs_signal_says_where_every_thread_stands(
    run: Callable[..., Running], inherited: signal.Handlers
) -> None:
    before = signal.signal(signal.SIGQUIT, inherited)  # a script's background job inherits it ignored
    try:
        station = run()
    finally:
        signal.signal(signal.SIGQUIT, before)
    station.judging()
    station.process.send_signal(signal.SIGQUIT)
    _, err = station.process.communicate(timeout=60)
    assert station.process.returncode == -signal.SIGQUIT
    assert "most recent call first" in err
    assert "capture.py" in err


def test_a_second_run_on_the_same_state_is_refused_in_one_sentence(run: Callable[..., Running]) -> None:
    station = run()
    station.judging()
    second = edge("run", station.place / "station.yaml")
    assert second.returncode == 1
    assert second.stderr.strip().splitlines() == [
        f"edge-sdk: station press-3 is already run by process {station.process.pid} "
        f"({station.place}/state/station.lock); stop that one first, or give this station a state folder of its own"
    ]
    assert edge("status", station.place / "station.yaml").returncode == 0
    assert station.stop()[0] == 0


def test_a_killed_station_leaves_nothing_that_hinders_the_next(run: Callable[..., Running]) -> None:
    station = run()
    station.judging()
    station.process.kill()
    station.process.communicate()
    told = edge("status", station.place / "station.yaml")
    assert told.returncode == 1
    assert "station press-3 is not running; it wrote its last status" in told.stderr
    again = run()
    again.until(lambda status: status["pid"] == again.process.pid)
    again.judging()
    assert again.stop()[0] == 0


def test_bundles_are_swapped_under_a_running_station_and_no_frame_is_lost(
    run: Callable[..., Running], place: Path
) -> None:
    seen = place / "seen.jsonl"
    station = run("--inspections", str(seen))
    station.judging()
    first = station.status["model"]
    swapped = edge(
        "activate", station.place / "station.yaml", station.place / "second.bundle", "--wait", 60, "--json"
    )
    assert swapped.returncode == 0, swapped.stderr
    second = json.loads(swapped.stdout)["model"]
    assert station.status["model"] == second
    code, summary, err = station.stop()
    assert code == 0, err
    [swap] = summary["swaps"]
    assert (swap["from"], swap["to"], swap["name"], swap["frames_lost"]) == (first, second, "press-3-2", 0)
    lines = [json.loads(line) for line in seen.read_text().splitlines()]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    judged = [line for line in lines if line["reason"] != "station stopped"]
    assert {line["model"] for line in judged} == {first, second}
    assert all(line["verdict"] != "not_inspected" for line in judged)
    counts = summary["station"]
    assert counts["frames_in"] == len(lines) == sum(counts["outcomes"].values())


def test_a_bundle_that_fails_never_reaches_the_running_station(run: Callable[..., Running]) -> None:
    station = run()
    station.judging()
    before = station.status["model"]
    refused = edge("activate", station.place / "station.yaml", station.place / "bad", "--wait", 10)
    assert refused.returncode == 1
    assert "press-3-3 failed on its golden frames as fp32" in refused.stderr.strip().splitlines()[-1]
    assert station.status["model"] == before
    assert station.stop()[0] == 0


def test_systemd_is_told_ready_and_pinged_while_frames_are_judged(
    run: Callable[..., Running], tmp_path: Path
) -> None:
    address = f"@edge-sdk-{os.getpid()}-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind("\0" + address[1:])
        systemd.settimeout(60)
        station = run(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
        assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
        assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        assert station.stop()[0] == 0


def test_a_camera_that_is_away_is_a_fault_in_the_status_and_the_watchdog_is_fed(
    run: Callable[..., Running], place: Path
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        camera = {
            "uri": f"rtsp://127.0.0.1:{port}/line",
            "open_timeout_s": 0.5,
            "read_timeout_s": 0.2,
        }
        address = f"@edge-sdk-away-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
            systemd.bind("\0" + address[1:])
            systemd.settimeout(60)
            settings(place, camera=camera)
            away = run(env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"})
            status = away.until(
                lambda status: bool(((status.get("station") or {}).get("camera") or {}).get("fault"))
            )
            assert status["station"]["frames_in"] == 0
            assert systemd.recv(100) == b"READY=1\nWATCHDOG=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            code, _, err = away.stop()
            assert code == 0, err


def test_help_and_import_load_no_library() -> None:
    """What they cost in seconds is measured by ``python -m benchmarks run R4``."""
    look = "import sys; {0}; print(sorted({{name.partition('.')[0] for name in sys.modules}} & {1}))"
    heavy = {"numpy", "cv2", "yaml", "pydantic", "urllib3", "onnxruntime", "torch", "sqlite3"}
    asked = "from edge_sdk.cli import parser; parser().format_help()"
    for done in ("import edge_sdk", asked):
        found = subprocess.run(
            [sys.executable, "-c", look.format(done, heavy)], check=True, capture_output=True, text=True, timeout=60
        )
        assert found.stdout.strip() == "[]", done
