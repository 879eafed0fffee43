"""``edge-sdk doctor``: what a station needs, read one by one, with what to do where it is missing.

The machine's checks are those of ``platforms``; here are those of one station.  An error keeps the
station from inspecting, a warning does not.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edge_sdk.errors import EdgeError, EndOfFrames, FrameTimeout
from edge_sdk.platforms import Check, machine_checks

if TYPE_CHECKING:
    from edge_sdk.config import StationConfig
    from edge_sdk.judge import Judge

__all__ = ["check_text", "findings", "station_checks"]

FREE_MIB = 256
"""Beside the outbox, for the state, logs and the system."""
MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


def check_text(check: Check) -> str:
    """A check for a person, one line."""
    mend = f"; {check.mend}" if check.mend else ""
    return f"{MARKS[check.level]} {check.name}: {check.read}; {check.sentence}{mend}"


def findings(station: Path | None, *, root: Path = Path("/")) -> list[Check]:
    """All checks, those of the machine first.

    Args:
        station: Also check this ``station.yaml``.
        root: Where the system's files are.
    """
    rows = list(machine_checks(root))
    if station is not None:
        rows += station_checks(station)
    return rows


def station_checks(path: Path) -> Iterator[Check]:
    """Settings, bundle, camera and disk of one station."""
    from edge_sdk.config import load_station
    from edge_sdk.state import StateFolder

    try:
        config = load_station(path)
    except EdgeError as error:
        yield Check("settings", str(path), "error", str(error))
        return
    yield Check("settings", str(path), "ok", f"they describe station {config.station}")
    yield from _bundle(config)
    if StateFolder(config.state, station=config.station).held:
        yield Check("camera", "in use", "ok", "not touched, as the station is running and owns it")
    else:
        yield _guarded("camera", config.camera.name, lambda: _camera(config))
    yield _guarded("state", str(config.state), lambda: _writable("state", config.state, needs_mib=0))
    mentoring = config.mentoring
    if mentoring is not None:
        folder, most = mentoring.outbox, mentoring.outbox_mib
        yield _guarded("outbox", str(folder), lambda: _writable("outbox", folder, needs_mib=most))
    if config.trust == "unsigned":
        yield Check(
            "trust",
            "unsigned",
            "warning",
            "any bundle is taken, whoever made it",
            "make keys with python -m export keys and write trust: [keys/release.pub]",
        )


def _guarded(name: str, read: str, look: Callable[[], Check]) -> Check:
    """A check that fails is a finding, never the end of the examination."""
    try:
        return look()
    except EdgeError as error:
        return Check(name, read, "error", str(error))
    except OSError as error:
        return Check(name, read, "error", f"{error.filename or name}: {error.strerror}")


def _bundle(config: StationConfig) -> Iterator[Check]:
    from edge_sdk.loading import judge_from

    try:
        judge = judge_from(config.bundle, config)
    except EdgeError as error:
        yield Check("bundle", str(config.bundle), "error", str(error))
        return
    except OSError as error:
        yield Check("bundle", str(config.bundle), "error", f"{error.filename or 'bundle'}: {error.strerror}")
        return
    judge.close()
    manifest = judge.manifest
    yield Check(
        "bundle",
        f"{manifest.name}-{manifest.version} ({judge.model[:12]}) for line {manifest.line}",
        "ok",
        f"every byte verified, {judge.rendering} proved on its golden frames",
    )
    yield _drift(judge)


def _drift(judge: Judge) -> Check:
    from edge_sdk.watching import reference_or_why

    found = reference_or_why(judge.manifest, judge.rendering)
    if isinstance(found, str):
        why, _, mend = found.partition("; ")
        return Check("drift", "no reference", "warning", f"the watch for drift is {why}", mend)
    said, reference = found
    read = f"{len(said.mean)} numbers of {said.n} pictures, window {said.window}"
    rate = f"{reference.false_alarms:.0%} of an unchanged line's windows lie above {reference.threshold:.2f}"
    return Check("drift", read, "ok", f"the input is watched; {rate}")


def _camera(config: StationConfig) -> Check:
    from edge_sdk.cameras import open_camera
    from edge_sdk.cameras.photograph import PhotographCheck

    camera = open_camera(config.camera.uri, config.camera)
    name = config.camera.name
    try:
        frame = camera.read(config.camera.open_timeout_s + config.camera.read_timeout_s)
    except FrameTimeout as error:
        return Check("camera", name, "error", str(error), "is it on, connected, and triggered?")
    except EndOfFrames as error:
        return Check("camera", name, "error", f"it has no frame: {error}")
    finally:
        camera.close()
    height, width = frame.pixels.shape[:2]
    read = f"{name}, {width} x {height}"
    fault = PhotographCheck(config.camera).fault(frame)
    if fault is not None:
        return Check("camera", read, "error", fault, "look at lens, light and mode")
    return Check("camera", read, "ok", f"it gave a frame, stamped by {frame.stamp}")


def _writable(name: str, folder: Path, *, needs_mib: int) -> Check:
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        return Check(
            name,
            str(folder),
            "error",
            f"{there} cannot be written by this user",
            f"chown it, or name another {name}",
        )
    free_mib = shutil.disk_usage(there).free >> 20
    used_mib = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) >> 20
    read = f"{folder}, {free_mib} MiB free"
    if free_mib + used_mib < needs_mib + FREE_MIB:
        return Check(
            name,
            read,
            "warning",
            f"less than the {needs_mib} MiB that it may take and {FREE_MIB} MiB beside",
            "make room, or lower mentoring.outbox_mib",
        )
    return Check(name, read, "ok", "it can be written")
