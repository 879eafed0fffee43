"""``edge-sdk doctor``: what a station needs, read one by one, with what to do where it is missing.

Every check is a sentence about one thing.  An error keeps the station from inspecting, a warning does
not.  Readers of the system take a root folder, so that a Jetson's files can be tested on any machine.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edge_sdk.errors import EdgeError, EndOfFrames, FrameTimeout

if TYPE_CHECKING:
    from edge_sdk.config import StationConfig

__all__ = ["Check", "findings", "machine_checks", "station_checks"]

Level = Literal["ok", "warning", "error"]
FREE_MIB = 256
"""Beside the outbox, for the state, logs and the system."""
MARKS = {"ok": "ok     ", "warning": "warning", "error": "ERROR  "}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    level: Level
    what: str
    """What was found, as a sentence."""
    mend: str = ""
    """A command or setting that mends it."""

    def as_dict(self) -> dict[str, str]:
        """For JSON."""
        return asdict(self)

    def text(self) -> str:
        """For a person, one line."""
        mend = f" → {self.mend}" if self.mend else ""
        return f"{MARKS[self.level]} {self.name}: {self.what}{mend}"


def findings(station: Path | None, *, root: Path = Path("/")) -> list[Check]:
    """All checks, those of the machine first.

    Args:
        station: Also check this ``station.yaml``.
        root: Where the system's files are.
    """
    rows = list(machine_checks(root=root))
    if station is not None:
        rows += station_checks(station)
    return rows


def machine_checks(*, root: Path = Path("/")) -> Iterator[Check]:
    """What is installed, and what it is."""
    yield _board(root)
    version = ".".join(str(part) for part in sys.version_info[:3])
    if sys.version_info >= (3, 10):
        yield Check("python", "ok", version)
    else:
        yield Check(
            "python", "error", f"{version} is too old", "install Python 3.10 or newer (JetPack 6 has 3.10)"
        )
    yield _package("numpy", "pip install numpy")
    yield _opencv(root)
    yield _package("onnxruntime", "pip install 'edge-sdk[cpu]'")


def station_checks(path: Path) -> Iterator[Check]:
    """Settings, bundle, camera and disk of one station."""
    from edge_sdk.config import load_station
    from edge_sdk.state import StateFolder

    try:
        config = load_station(path)
    except EdgeError as error:
        yield Check("settings", "error", str(error))
        return
    yield Check("settings", "ok", f"{path} describes station {config.station}")
    yield _guarded("bundle", lambda: _bundle(config))
    running = StateFolder(config.state, station=config.station).held
    if running:
        yield Check("camera", "ok", "not touched, as the station is running and owns it")
    else:
        yield _guarded("camera", lambda: _camera(config))
    yield _guarded("state", lambda: _writable("state", config.state))
    if config.mentoring is not None:
        yield _guarded(
            "outbox", lambda: _writable("outbox", config.mentoring.outbox, config.mentoring.outbox_mib)
        )
    if config.trust == "unsigned":
        yield Check(
            "trust",
            "warning",
            "any bundle is taken, signed or not",
            "make keys with python -m export keys and write trust: [keys/release.pub]",
        )


def _guarded(name: str, look: Callable[[], Check]) -> Check:
    """A check that fails is a finding, never an end of the examination."""
    try:
        return look()
    except EdgeError as error:
        return Check(name, "error", str(error))
    except OSError as error:
        return Check(name, "error", f"{error.filename or name}: {error.strerror}")


def _board(root: Path) -> Check:
    model = ""
    with suppress(OSError):
        model = (root / "proc/device-tree/model").read_text(errors="replace").strip("\0\n ")
    release = ""
    with suppress(OSError):
        release = (root / "etc/nv_tegra_release").read_text(errors="replace").splitlines()[0].lstrip("# ")
    if not release and "jetson" not in model.lower():
        return Check("board", "ok", f"{model or os.uname().machine}: no Jetson, the CPU runner is used")
    revision = release.partition("REVISION:")[2].partition(",")[0].strip()
    series = release.partition("R")[2][:2]
    if series == "36" and revision == "4.7":
        return Check(
            "board",
            "warning",
            f"{model}: L4T 36.4.7 limits NvMap allocations, which makes large CUDA allocations fail",
            "move to L4T 36.5",
        )
    if series and series < "36":
        return Check(
            "board", "error", f"{model}: L4T {series} is older than JetPack 6", "install JetPack 6 or newer"
        )
    return Check("board", "ok", f"{model or 'Jetson'}, L4T {series}.{revision}" if series else model)


def _package(name: str, install: str) -> Check:
    try:
        module = __import__(name)
    except ImportError as error:
        return Check(name, "error", f"is not there ({error})", install)
    return Check(name, "ok", f"{module.__version__} from {Path(str(module.__file__)).parent}")


def _opencv(root: Path) -> Check:
    found = _package(
        "cv2", "pip install 'edge-sdk[cpu]'; on a Jetson use JetPack's: apt install nvidia-opencv"
    )
    if found.level == "error":
        return found
    import cv2

    gstreamer = any("GStreamer" in line and "YES" in line for line in cv2.getBuildInformation().splitlines())
    is_jetson = (root / "etc/nv_tegra_release").exists()
    if is_jetson and not gstreamer:
        return Check(
            "cv2",
            "warning",
            f"{found.what} has no GStreamer and hides JetPack's build, which has",
            "pip uninstall opencv-python opencv-python-headless",
        )
    return Check("cv2", "ok", f"{found.what}, {'with' if gstreamer else 'without'} GStreamer")


def _bundle(config: StationConfig) -> Check:
    from edge_sdk.loading import judge_from

    judge = judge_from(config.bundle, config)
    judge.close()
    manifest = judge.manifest
    return Check(
        "bundle",
        "ok",
        f"{manifest.name}-{manifest.version} ({judge.model[:12]}) for line {manifest.line}: every byte verified, "
        f"{judge.rendering} proved on its golden frames",
    )


def _camera(config: StationConfig) -> Check:
    from edge_sdk.cameras import open_camera
    from edge_sdk.cameras.photograph import PhotographCheck

    camera = open_camera(config.camera.uri, config.camera)
    try:
        frame = camera.read(config.camera.open_timeout_s + config.camera.read_timeout_s)
    except FrameTimeout as error:
        return Check("camera", "error", str(error), "is it on, connected, and triggered?")
    except EndOfFrames as error:
        return Check("camera", "error", f"it has no frame: {error}")
    finally:
        camera.close()
    height, width = frame.pixels.shape[:2]
    fault = PhotographCheck(config.camera).fault(frame)
    if fault is not None:
        return Check("camera", "error", fault, "look at lens, light and mode")
    return Check(
        "camera", "ok", f"{frame.camera} gave a frame of {width} x {height}, stamped by {frame.stamp}"
    )


def _writable(name: str, folder: Path, needs_mib: int = 0) -> Check:
    there = folder
    while not there.exists():
        there = there.parent
    if not os.access(there, os.W_OK):
        return Check(
            name, "error", f"{there} cannot be written by this user", f"chown it, or name another {name}"
        )
    free_mib = shutil.disk_usage(there).free // (1 << 20)
    used_mib = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) // (1 << 20)
    if free_mib + used_mib < needs_mib + FREE_MIB:
        return Check(
            name,
            "warning",
            f"{folder} may grow to {needs_mib} MiB and {free_mib} MiB are free",
            "make room, or lower mentoring.outbox_mib",
        )
    return Check(name, "ok", f"{folder}, {free_mib} MiB free")
