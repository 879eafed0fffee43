"""``edge-sdk``: data on stdout, talk on stderr, one sentence and an exit code, never a traceback."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk import cli, commands, console
from edge_sdk.cli import parser
from tests import stations
from tests.edge import Edge, caller


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stations.three_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    return stations.place(tmp_path, made)


@pytest.fixture
def edge(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Edge]:
    yield from caller(capfdbinary)


def test_run_prints_a_summary_that_adds_up_with_the_keys_of_the_report(place: Path, edge: Edge) -> None:
    path = stations.settings(place, mentoring={"outbox": "./outbox"})
    said = edge("run", path, "--json")
    assert said.code == 0
    station, outbox = said.json["station"], said.json["outbox"]
    assert station["frames_in"] == 9 == sum(station["outcomes"].values())
    assert station["outcomes"] == {"passed": 6, "defective": 3, "uncertain": 0, "not_inspected": 0}
    assert station.keys() >= {"frames_in", "outcomes", "not_inspected_by", "fps", "p50_ms", "p99_ms"}
    assert outbox["put"] >= 3
    assert said.json["swaps"] == []


def test_run_tells_a_person_the_same_in_words(place: Path, edge: Edge) -> None:
    said = edge("run", stations.settings(place, mentoring={"outbox": "./outbox"}), "--verdicts")
    assert said.code == 0
    assert said.err.splitlines()[0] == "camera 0: defective (spot 1.00)"
    lines = said.out.splitlines()
    assert lines[:2] == ["press-3: 9 frames", "  passed 6 · defective 3 · uncertain 0 · not inspected 0"]
    assert lines[2].startswith("  capture to verdict p50 ")
    assert lines[3].startswith("  outbox: put ")


def test_run_ends_after_so_many_frames(place: Path, edge: Edge) -> None:
    said = edge(
        "run",
        stations.settings(place, camera={"uri": "file:pictures", "pace": "max", "loop": True}),
        "--frames",
        20,
        "--json",
    )
    assert said.json["station"]["frames_in"] == 20


def test_run_appends_a_line_for_every_frame(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    edge("run", path, "--inspections", place / "seen.jsonl")
    edge("run", path, "--inspections", place / "seen.jsonl")
    lines = [json.loads(line) for line in (place / "seen.jsonl").read_text().splitlines()]
    assert [line["index"] for line in lines] == [*range(9), *range(9)]
    first = lines[0]
    assert first["schema"] == "inspection/1"
    assert first["verdict"] == "defective"
    assert first["detections"][0]["class"] == "spot"
    assert first["detections"][0]["box"] == [60, 40, 100, 80]
    assert len(first["detections"][0]["cells"]) == 4
    assert first["latency_ms"] > 0


def test_two_replays_are_equal_byte_for_byte_and_equal_to_the_run(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    edge("run", path, "--inspections", place / "run.jsonl")
    for name in ("one", "two"):
        said = edge("replay", path, place / "pictures", "--out", place / f"{name}.jsonl", "--json")
        assert said.json["frames_in"] == 9
    one = (place / "one.jsonl").read_bytes()
    assert one == (place / "two.jsonl").read_bytes()
    ran = [json.loads(line) for line in (place / "run.jsonl").read_text().splitlines()]
    for line in ran:
        del line["captured_at"], line["latency_ms"]
    assert ran == [json.loads(line) for line in one.splitlines()]
    assert all("confidence_sha256" in line for line in ran)


def test_a_replay_without_a_file_writes_to_stdout_and_talks_to_stderr(place: Path, edge: Edge) -> None:
    said = edge("replay", stations.settings(place), place / "pictures")
    assert len(said.out.splitlines()) == 9
    assert said.last == "9 frames judged again: passed 6 · defective 3 · uncertain 0 · not inspected 0"


def test_a_frozen_camera_is_found_in_every_replay_whatever_the_speed(place: Path, edge: Edge) -> None:
    for number in range(20):
        shutil.copy(place / "pictures/0001.png", place / f"pictures/1{number:03d}.png")
    path = stations.settings(place, camera={"uri": "file:pictures", "frozen_frames": 5, "frozen_s": 1.0})
    one = edge("replay", path, place / "pictures")
    two = edge("replay", path, place / "pictures")
    assert one.out == two.out
    assert "frozen" in one.out


def test_a_replay_beside_the_running_station_disturbs_nothing(place: Path, edge: Edge) -> None:
    path = stations.settings(place, mentoring={"outbox": "./outbox"})
    with edge_sdk.Station.open(path):
        assert edge("replay", path, place / "pictures").code == 0


def test_activate_then_run_then_activate_again(place: Path, made: Path, edge: Edge) -> None:
    path = stations.settings(place, bundle="./bundles/current")
    said = edge("activate", path, made / "first", "--json")
    assert said.code == 0
    assert said.json["name"] == "press-3-1"
    assert said.err.splitlines() == [
        "press-3-1: every byte verified",
        "press-3-1: installed in slot a",
        "press-3-1: proved on its golden frames",
    ]
    assert said.json["running"] is False
    assert edge("run", path).code == 0
    said = edge("activate", path, made / "second.bundle", "--wait", 5)
    assert said.code == 0
    assert said.out.startswith("press-3-2 is active (")
    assert said.last == "station press-3 is not running; it starts with this bundle next time"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["run", "nowhere.yaml"],
            "nowhere.yaml cannot be read (No such file or directory); is the path right?",
        ),
        (["run"], "the following arguments are required: STATION.yaml; see edge-sdk run --help"),
        (["run", "x", "--frames", "0"], "'0' is no count; give a whole number from 1 up"),
        (["run", "x", "--seconds", "soon"], "'soon' is no time; give seconds above 0"),
        (["upload", "x", "--give-up-after", "-1"], "argument --give-up-after"),
        (["inspect"], "invalid choice: 'inspect'"),
        ([], "the following arguments are required: COMMAND; see edge-sdk --help"),
    ],
)
def test_what_was_asked_wrongly_ends_with_two_and_a_sentence(words: list[str], told: str, edge: Edge) -> None:
    said = edge(*words)
    assert said.code == 2
    assert told in said.last
    assert said.out == ""


def test_a_setting_unknown_is_told_with_file_line_and_a_suggestion(place: Path, edge: Edge) -> None:
    (place / "station.yaml").write_text(
        "station: press-3\nbundle: ./bundle\ntrust: unsigned\ncamera:\n  uri: file:pictures\n  exposure: 3\n"
    )
    said = edge("run", place / "station.yaml")
    assert said.code == 2
    assert said.last.endswith("station.yaml:6: no setting named camera.exposure; did you mean exposure_us?")


def test_a_missing_camera_is_one_sentence_and_one(place: Path, edge: Edge) -> None:
    said = edge("run", stations.settings(place, camera={"uri": "file:line.avi"}))
    assert said.code == 1
    assert "there is no file or folder" in said.last


def test_a_camera_without_one_frame_is_a_failure(place: Path, edge: Edge) -> None:
    for file in (place / "pictures").iterdir():
        file.write_bytes(b"no picture")
    said = edge("run", stations.settings(place))
    assert said.code == 1
    assert said.last.startswith("edge-sdk: no frame came from the camera; none of the 9 pictures")


def test_json_and_inspections_do_not_share_stdout(place: Path, edge: Edge) -> None:
    said = edge("replay", stations.settings(place), place / "pictures", "--json")
    assert (said.code, said.last) == (
        2,
        "edge-sdk: --json and the inspections would both go to stdout; write those to a file: --out FILE",
    )


def test_a_file_that_cannot_be_written_is_one_sentence(place: Path, edge: Edge) -> None:
    said = edge("run", stations.settings(place), "--inspections", place)
    assert (said.code, said.last) == (
        1,
        f"edge-sdk: {place} cannot be written (Is a directory); give another file",
    )


def test_a_full_disk_under_the_inspections_does_not_stop_the_line(place: Path, edge: Edge) -> None:
    said = edge("run", stations.settings(place), "--inspections", "/dev/full", "--json")
    assert said.code == 0
    assert said.json["station"]["frames_in"] == 9


def test_a_full_disk_stops_a_replay_with_a_sentence(
    place: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(commands, "_opened", lambda path, append: Full())
    said = edge("replay", stations.settings(place), place / "pictures", "--out", place / "x.jsonl")
    assert said.code == 1
    assert said.last.endswith(
        "could not be written to its end (No space left on device); make room and replay again"
    )


def test_upload_without_a_hub_is_asked_wrongly(place: Path, edge: Edge) -> None:
    said = edge("upload", stations.settings(place, mentoring={"outbox": "./outbox"}), "--until-empty")
    assert said.code == 2
    assert "there is no hub to upload to" in said.last


def test_upload_gives_up_on_a_hub_that_is_away_when_told_to_and_loses_nothing(
    place: Path, edge: Edge
) -> None:
    hub = {"url": "http://127.0.0.1:9"}
    path = stations.settings(place, mentoring={"outbox": "./outbox"}, hub=hub)
    put = edge("run", path, "--json").json["outbox"]["put"]
    said = edge("upload", path, "--until-empty", "--give-up-after", 0.2)
    assert said.code == 1
    assert "hub" in said.last
    status = edge("status", path)
    assert f"  upload: 0 sent, {put} waiting" in status.out


def test_the_unexpected_is_one_line_and_a_traceback_only_on_demand(
    place: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(asked: object) -> int:
        raise KeyError("lost")

    monkeypatch.setattr(commands, "status", broken)
    said = edge("status", "x")
    assert (said.code, said.last) == (
        1,
        "edge-sdk: unexpected KeyError: 'lost'; --debug shows where, please report it",
    )
    said = edge("status", "x", "--debug")
    assert "Traceback" in said.err
    assert said.last == "edge-sdk: unexpected KeyError: 'lost'"


def test_an_interruption_is_no_traceback(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(asked: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands, "status", interrupted)
    said = edge("status", "x")
    assert (said.code, said.last) == (130, "edge-sdk: interrupted")


def test_version_is_the_packages(edge: Edge) -> None:
    assert edge("--version").out == f"edge-sdk {edge_sdk.__version__}\n"


def test_every_command_has_help_with_an_example() -> None:
    whole = parser()
    assert "examples:" in whole.format_help()
    [choices] = [action.choices for action in whole._actions if isinstance(action.choices, dict)]
    assert list(choices) == sorted(commands.__all__, key=list(choices).index)
    for name, command in choices.items():
        text = command.format_help()
        assert f"example:\n  edge-sdk {name}" in text
        assert "--json" in text
        assert callable(getattr(commands, name))


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.4, "0 s"), (61, "1 min"), (7200, "2 h"), (180000, "2 d"), (2e9, "an unknown time")],
)
def test_ages_are_told_in_the_largest_unit_that_they_fill(seconds: float, told: str) -> None:
    assert console.ago(seconds) == told


def test_the_live_line_is_one_line_on_a_terminal(
    place: Path, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(console, "LIVE_S", 0.0)
    said = edge("run", stations.settings(place))
    assert said.err.count("\n") == 1
    assert said.err.count("\r") >= 2
    assert "9 frames: passed 6" in said.err


def test_a_reader_that_left_is_no_error_to_shout_about(place: Path) -> None:
    import subprocess

    path = stations.settings(place)
    command = f"{sys.executable} -m edge_sdk replay {path} {place / 'pictures'} | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False, env={**os.environ}
    )
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


def test_the_command_is_the_one_that_is_installed() -> None:
    assert cli.__all__ == ["main", "parser"]
