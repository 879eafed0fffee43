"""What machine is this, and will the SDK be well on it?  Read by ``edge-sdk doctor``.

Every reader takes the root of a file tree, so that a Jetson is a folder of fixtures in a test.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

__all__ = ["JETPACKS", "Check", "Machine", "machine_checks", "read_machine"]

Level = Literal["ok", "warning", "error"]

JETPACKS = {
    (35,): "JetPack 5",
    (36, 3): "JetPack 6.0",
    (36, 4, 0): "JetPack 6.1",
    (36, 4, 3): "JetPack 6.2",
    (36, 4, 4): "JetPack 6.2.1",
    (36, 4, 7): "JetPack 6.2.1",
    (36, 5): "JetPack 6.2.2",
    (38, 2): "JetPack 7.0",
    (38, 4): "JetPack 7.1",
    (39, 2, 0): "JetPack 7.2",
    (39, 2, 1): "JetPack 7.2.1",
}
"""Of an L4T release, by its longest known beginning.  A release that is not here is a newer one."""
PYTHON_FROM = (3, 10)
PYTHON_TO = (3, 13)


@dataclass(frozen=True)
class Check:
    """One line of the doctor."""

    name: str
    read: str
    """What was found."""
    level: Level
    sentence: str
    """What it means."""
    mend: str = ""
    """The command or step that mends it; empty where nothing is to be done."""


@dataclass(frozen=True)
class Machine:
    """What this machine is."""

    architecture: str
    """``x86_64``, ``aarch64``."""
    board: str
    """Of a Jetson, as its device tree says; else empty."""
    l4t: tuple[int, ...]
    """Of a Jetson, e.g. ``(36, 4, 3)``; else empty."""
    python: tuple[int, int, int]

    @property
    def is_jetson(self) -> bool:
        """Whether it is one, by its board or its release."""
        return "jetson" in self.board.lower() or bool(self.l4t)

    @property
    def jetpack(self) -> str:
        """``JetPack 6.2``; of a release that is not in the table ``JetPack unknown (L4T 41.1)``."""
        for length in range(len(self.l4t), 0, -1):
            if self.l4t[:length] in JETPACKS:
                return JETPACKS[self.l4t[:length]]
        return f"JetPack unknown (L4T {_dotted(self.l4t)})" if self.l4t else ""


def read_machine(root: Path = Path("/")) -> Machine:
    """What the files of this machine say."""
    release = _text(root / "etc/nv_tegra_release")
    found = re.search(r"R(\d+) \(release\), REVISION: (\d+(?:\.\d+)*)", release)
    l4t = (int(found[1]), *map(int, found[2].split("."))) if found else ()
    version = sys.version_info
    return Machine(
        architecture=platform.machine(),
        board=_text(root / "proc/device-tree/model").strip("\0 \n"),
        l4t=l4t,
        python=(version.major, version.minor, version.micro),
    )


def machine_checks(root: Path = Path("/"), *, machine: Machine | None = None) -> tuple[Check, ...]:
    """Every check that needs no station, in the order in which they should be mended.

    Args:
        root: Where ``/etc``, ``/proc`` and ``/sys`` are looked for.
        machine: Judged instead of this one.
    """
    machine = machine or read_machine(root)
    readers: tuple[Callable[[Path, Machine], Check | None], ...] = (
        _board,
        _release,
        _python,
        _numpy,
        _opencv,
        _onnxruntime,
        _cryptography,
        _receive_buffer,
        _clock,
    )
    return tuple(check for check in (reader(root, machine) for reader in readers) if check is not None)


def _board(root: Path, machine: Machine) -> Check:
    if machine.is_jetson:
        return Check("board", machine.board or "a Jetson", "ok", f"a Jetson, {machine.architecture}")
    return Check("board", machine.architecture, "ok", "not a Jetson: the CPU runner is used")


def _release(root: Path, machine: Machine) -> Check | None:
    if not machine.is_jetson:
        return None
    if not machine.l4t:
        return Check(
            "release",
            "no /etc/nv_tegra_release",
            "warning",
            "the JetPack cannot be told; in a container the file is there only when mounted",
            "docker run -v /etc/nv_tegra_release:/etc/nv_tegra_release:ro …",
        )
    read = f"L4T {_dotted(machine.l4t)}, {machine.jetpack}"
    if machine.l4t[0] <= 35:
        return Check(
            "release", read, "error", "TensorRT 8 and Python 3.8 are not supported", "install JetPack 6 or 7"
        )
    if machine.l4t[:3] == (36, 4, 7):
        return Check(
            "release",
            read,
            "warning",
            "this release refuses CUDA memory that others give",
            "move to L4T 36.5",
        )
    if machine.jetpack.startswith("JetPack unknown"):
        return Check("release", read, "warning", "a release newer than this SDK knows; it may well work", "")
    return Check("release", read, "ok", "supported")


def _python(root: Path, machine: Machine) -> Check:
    read = _dotted(machine.python)
    if machine.python[:2] < PYTHON_FROM:
        return Check(
            "python", read, "error", f"older than {_dotted(PYTHON_FROM)}", "install Python 3.10 or JetPack 6"
        )
    if machine.python[:2] > PYTHON_TO:
        return Check(
            "python", read, "warning", f"newer than {_dotted(PYTHON_TO)}, which is what was tested", ""
        )
    return Check("python", read, "ok", "supported")


def _numpy(root: Path, machine: Machine) -> Check:
    version = _version("numpy")
    if not version:
        return Check("numpy", "missing", "error", "nothing works without it", "pip install edge-sdk")
    if machine.is_jetson and version.split(".")[0] != "1":
        return Check(
            "numpy",
            version,
            "warning",
            "JetPack's OpenCV and TensorRT are built against numpy 1",
            "pip install 'numpy<2'",
        )
    return Check("numpy", version, "ok", "found")


def _opencv(root: Path, machine: Machine) -> Check:
    mend = "apt-get install nvidia-opencv" if machine.is_jetson else "pip install 'edge-sdk[cpu]'"
    try:
        import cv2
    except ImportError as error:
        return Check("opencv", f"missing ({error})", "error", "no camera and no picture can be read", mend)
    build = cv2.getBuildInformation()
    backends = [
        name
        for name in ("FFMPEG", "GStreamer", "v4l/v4l2")
        if re.search(rf"^\s*{re.escape(name)}:\s+YES", build, re.MULTILINE)
    ]
    read = f"{cv2.__version__} with {', '.join(backends) or 'no video'}, {Path(cv2.__file__).parent}"
    if machine.is_jetson and "GStreamer" not in backends:
        return Check(
            "opencv",
            read,
            "error",
            "this OpenCV has no GStreamer and hides JetPack's, which has",
            "pip uninstall opencv-python opencv-python-headless",
        )
    if "FFMPEG" not in backends and "GStreamer" not in backends:
        return Check("opencv", read, "error", "neither videos nor network cameras can be read", mend)
    return Check("opencv", read, "ok", "found")


def _onnxruntime(root: Path, machine: Machine) -> Check:
    names = ("onnxruntime", "onnxruntime-gpu")
    found = [f"{name} {version}" for name in names if (version := _version(name))]
    if importlib.util.find_spec("onnxruntime") is None:
        extra = "jetson" if machine.is_jetson else "cpu"
        return Check(
            "onnxruntime", "missing", "error", "no model can be executed", f"pip install 'edge-sdk[{extra}]'"
        )
    if len(found) > 1:
        return Check(
            "onnxruntime",
            " and ".join(found),
            "error",
            "two packages write the same files; which one works is chance",
            f"pip uninstall {' '.join(names)}, then pip install one of them",
        )
    return Check("onnxruntime", "".join(found) or "found", "ok", "found")


def _cryptography(root: Path, machine: Machine) -> Check:
    version = _version("cryptography")
    if not version:
        return Check(
            "cryptography",
            "missing",
            "warning",
            "signed bundles cannot be checked; only trust: unsigned works",
            "pip install 'edge-sdk[ota]'",
        )
    return Check("cryptography", version, "ok", "found")


def _receive_buffer(root: Path, machine: Machine) -> Check | None:
    text = _text(root / "proc/sys/net/core/rmem_max").strip()
    if not text.isdigit():
        return None
    size = int(text)
    read = f"net.core.rmem_max {size}"
    if size < 8 << 20 and machine.is_jetson:
        return Check(
            "receive buffer",
            read,
            "warning",
            "a GigE Vision camera loses frames with less than 8 MiB",
            "sysctl -w net.core.rmem_max=33554432",
        )
    return Check("receive buffer", read, "ok", "matters to GigE Vision cameras alone")


def _clock(root: Path, machine: Machine) -> Check | None:
    if not machine.is_jetson:
        return None
    # systemd-timesyncd and chrony touch these; without a battery a Jetson boots in 1970.
    marks = ("run/systemd/timesync/synchronized", "run/chrony/chronyd.pid")
    if any((root / mark).exists() for mark in marks):
        return Check("clock", "synchronised", "ok", "frames carry the right time")
    return Check(
        "clock",
        "not synchronised",
        "warning",
        "frames may carry a wrong time of day",
        "timedatectl set-ntp true",
    )


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return os.read(file.fileno(), 65536).decode("utf-8", "replace")
    except OSError:
        return ""


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
