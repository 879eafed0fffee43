"""What the commands of ``edge-sdk`` do.  ``cli`` parses, catches errors and returns the exit code."""

from __future__ import annotations

import argparse
import faulthandler
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from edge_sdk import logs
from edge_sdk.clock import FakeClock, SystemClock
from edge_sdk.config import load_station
from edge_sdk.console import Talk, ago, outcomes_text, say, show, status_text, summary_text
from edge_sdk.errors import CameraError, ConfigError, EdgeError
from edge_sdk.metrics import metrics_text
from edge_sdk.state import STALE_AFTER_S, StateFolder

__all__ = ["activate", "doctor", "replay", "run", "status", "upload"]


def run(asked: argparse.Namespace) -> int:
    """``edge-sdk run``."""
    from edge_sdk.journal import inspection_line
    from edge_sdk.station import Station

    config = load_station(asked.station)
    with suppress(OSError, ValueError):
        # systemd's watchdog sends SIGQUIT: say where every thread stands, then end, even where a shell that
        # started this in the background had the signal ignored
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        faulthandler.register(signal.SIGQUIT, file=sys.stderr, all_threads=True, chain=True)
    with _written(asked.inspections, append=True) as lines, Station.open(config) as station:
        logs.set_up(stream=sys.stderr, debug=asked.debug, file=config.state / "station.log")
        talk = Talk(every_frame=asked.verdicts)
        with _stopped_by_signals(station.stop):
            for inspection in station.stream(frames=asked.frames, seconds=asked.seconds):
                talk.about(inspection, station.summary)
                if lines is not None:
                    lines.write(inspection_line(inspection, station.labels_of(inspection), timed=True))
        stopped = station.stopping
        station.close()
        found = station.summary()
    talk.end()
    show(found, asked.json, lambda: summary_text(config.station, found))
    came_in = found["station"]["frames_in"]
    if not came_in and not stopped:
        raise CameraError(
            f"no frame came from the camera; {found['station']['camera']['fault'] or 'it ended at once'}"
        )
    return 0


def replay(asked: argparse.Namespace) -> int:
    """``edge-sdk replay``."""
    from edge_sdk.cameras import open_camera
    from edge_sdk.journal import inspection_line
    from edge_sdk.station import Station

    if asked.json and not asked.out:
        raise ConfigError(
            "--json and the inspections would both go to stdout; write those to a file: --out FILE"
        )
    config = load_station(asked.station)
    played = config.camera.model_copy(
        update={"uri": f"file:{Path(asked.pictures).absolute()}", "pace": "real", "loop": False}
    )
    pipeline = config.pipeline.model_copy(update={"policy": "lossless", "deadline_ms": None})
    config = config.model_copy(update={"camera": played, "pipeline": pipeline})
    # a clock that jumps: pictures come as fast as they are read, stamped as if they had come at their own rate
    camera = open_camera(played.uri, played, clock=FakeClock())
    with (
        _written(asked.out, append=False) as lines,
        Station.open(config, camera=camera, rehearsal=True) as station,
    ):
        talk = Talk(timed=False)
        with _stopped_by_signals(station.stop):
            for inspection in station:
                talk.about(inspection, station.summary)
                (lines or sys.stdout.buffer).write(
                    inspection_line(inspection, station.labels_of(inspection), timed=False)
                )
        stopped, model = station.stopping, station.model
        counts = station.summary()["station"]
        refused = None if lines is None else lines.refused
    talk.end()
    sys.stdout.flush()
    if refused is not None:
        raise EdgeError(
            f"{asked.out} could not be written to its end ({refused.strerror}); make room and replay again"
        )
    kept = ("frames_in", "outcomes", "not_inspected_by")
    found = {"schema": "replay/1", "model": model, **{name: counts[name] for name in kept}}
    if asked.json:
        show(found, True, str)
    else:
        say(f"{counts['frames_in']} frames judged again: {outcomes_text(counts)}")
    if stopped:
        raise EdgeError("the replay was stopped before its last picture")
    if not counts["frames_in"]:
        raise CameraError(
            f"{asked.pictures} holds no picture that could be judged; {counts['camera']['fault'] or 'it is empty'}"
        )
    return 0


def status(asked: argparse.Namespace) -> int:
    """``edge-sdk status``: 0 where the station runs and writes, 1 where it does not."""
    if asked.json and asked.metrics:
        raise ConfigError("--json and --metrics are two ways to say the same; give one of them")
    config = load_station(asked.station)
    folder = StateFolder(config.state, station=config.station)
    held, found = folder.held, folder.status()
    age_s = None if found is None else folder.age_s(found, now=SystemClock().now())
    if not held:
        health = "not running"
        when = "" if age_s is None else f"; it wrote its last status {ago(age_s)} ago"
        why = f"station {config.station} is not running{when}"
    elif age_s is None or found is None:
        health, why = (
            "starting",
            f"station {config.station} is starting: it holds its lock and wrote no status yet",
        )
    elif age_s > STALE_AFTER_S:
        health = "stale"
        why = (
            f"station {config.station} runs, but wrote its last status {ago(age_s)} ago; "
            f"it hangs, or the disk of {config.state} is full"
        )
    else:
        health, why = "running", ""
    from edge_sdk.outbox.uploader import read_upload_state

    sent = read_upload_state(config.state / "upload.json")
    told = {
        **(found or {}),
        "upload": None if sent is None else asdict(sent),
        "health": health,
        "age_s": age_s if age_s is None or age_s < 1e9 else None,
    }
    text = metrics_text if asked.metrics else status_text
    show(told, asked.json, lambda: text(config.station, health, told))
    if why:
        raise EdgeError(why)
    return 0


def activate(asked: argparse.Namespace) -> int:
    """``edge-sdk activate``."""
    from edge_sdk.loading import activated

    config = load_station(asked.station)
    folder = StateFolder(config.state, station=config.station)
    refused_before = (folder.status() or {}).get("refused")
    done = activated(Path(asked.bundle), config, talk=say)
    found: dict[str, Any] = {"schema": "activated/1", **done}
    found["running"] = folder.held
    if asked.wait is not None and found["running"]:
        _wait_for(folder, done["model"], asked.wait, refused_before)
    elif asked.wait is not None:
        say(f"station {config.station} is not running; it starts with this bundle next time")
    show(found, asked.json, lambda: f"{done['name']} is active ({done['model'][:12]})")
    return 0


def _wait_for(folder: StateFolder, model: str, wait_s: float, refused_before: object) -> None:
    began = time.monotonic()
    while True:
        told = folder.status() or {}
        if told.get("model") == model:
            return
        refused = told.get("refused")
        if refused and refused != refused_before:
            raise EdgeError(f"the running station refused the bundle: {refused['why']}")
        if not folder.held:
            raise EdgeError(f"station {folder.station} stopped before it used the bundle")
        if time.monotonic() - began > wait_s:
            raise EdgeError(
                f"the running station did not take the bundle within {wait_s:g} s; "
                "look at edge-sdk status, or wait longer"
            )
        time.sleep(0.1)


def upload(asked: argparse.Namespace) -> int:
    """``edge-sdk upload``."""
    import threading

    from edge_sdk.health import notify
    from edge_sdk.outbox.uploader import run_uploader

    config = load_station(asked.station)
    ended = threading.Event()

    def stop() -> None:
        # not set here: a handler may interrupt this very thread while it holds the event's lock
        threading.Thread(target=ended.set, name="edge-sdk-stop").start()

    notify("READY=1")
    with _stopped_by_signals(stop):
        found = run_uploader(
            config,
            until_empty=asked.until_empty,
            give_up_after_s=asked.give_up_after,
            clock=SystemClock(),
            stop=ended,
            say=say,
        )
    show(
        {"schema": "upload/1", **asdict(found)},
        asked.json,
        lambda: f"uploaded {found.uploaded}, of these known before {found.known}, waiting {found.waiting}",
    )
    return 0


def doctor(asked: argparse.Namespace) -> int:
    """``edge-sdk doctor``: 0 where nothing is broken, warnings included."""
    from edge_sdk.doctor import check_text, findings

    rows = findings(None if asked.station is None else Path(asked.station))
    broken = [row for row in rows if row.level == "error"]
    show(
        {"schema": "doctor/1", "ok": not broken, "checks": [asdict(row) for row in rows]},
        asked.json,
        lambda: "\n".join(check_text(row) for row in rows),
    )
    if broken:
        raise EdgeError(
            f"{len(broken)} of {len(rows)} checks failed, first {broken[0].name}: {broken[0].sentence}"
        )
    return 0


class _Lines:
    """A file of lines beside the line that inspects: a disk that refuses is told once, and passed over."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refused: OSError | None = None

    def write(self, line: bytes) -> None:
        if self.refused is None:
            try:
                self._file.write(line)
            except OSError as error:
                self.refused = error
                say(f"inspections are no longer written ({error.strerror}); the station goes on")

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()


def _opened(path: str, *, append: bool) -> BinaryIO:
    try:
        return Path(path).open("ab" if append else "wb")
    except OSError as error:
        raise EdgeError(f"{path} cannot be written ({error.strerror}); give another file") from error


@contextmanager
def _written(path: str | None, *, append: bool) -> Iterator[_Lines | None]:
    """A file for lines, or ``None`` where none was asked for."""
    if path is None:
        yield None
        return
    lines = _Lines(_opened(path, append=append))
    try:
        yield lines
    finally:
        lines.close()


@contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and the first Ctrl-C end the iteration in order; the second Ctrl-C interrupts."""

    def on_signal(number: int, frame: object) -> None:
        stop()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
