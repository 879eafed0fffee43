"""Environments of their own for what is measured beside ours: never in the one that ours is installed in.

    python -m benchmarks peer anomalib          makes build/peers/anomalib

A benchmark asks ``python_of`` and runs the peer in a process of its own; without the environment its row says so.
``EDGE_SDK_PEERS`` names another folder for them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks import machine
from edge_sdk.documents import write_atomic
from edge_sdk.errors import ConfigError, EdgeError

__all__ = ["PEERS", "VARIABLE", "PeerError", "make_peer", "python_of", "why_missing"]

VARIABLE = "EDGE_SDK_PEERS"
PEERS: dict[str, tuple[str, ...]] = {
    "anomalib": ("anomalib==2.7.0", "torch"),
    "modelopt": ("nvidia-modelopt[onnx]==0.47.0", "onnx==1.21.0", "onnxruntime-gpu==1.24.4", "torch"),
    "openvino": ("openvino==2026.4.1", "nncf==3.4.0", "onnx"),
}
"""What each environment is made of; ``constraints.txt`` pins what is not pinned here."""
_COMPLETE = "complete.txt"


class PeerError(EdgeError, RuntimeError):
    """A peer's environment could not be made, or the peer did not answer."""


def python_of(name: str) -> Path | None:
    """The interpreter of a peer's environment, or ``None`` where it was not made, or of other requirements.

    Raises:
        ConfigError: There is no such peer.
    """
    wanted = _wanted(name)
    folder = _folder(name)
    try:
        made = (folder / _COMPLETE).read_text(encoding="utf-8").split()
    except OSError:
        return None
    python = folder / "bin" / "python"
    return python if made == list(wanted) and python.exists() else None


def why_missing(name: str) -> str:
    """What a row says that was skipped for want of the environment."""
    return f"not installed here; python -m benchmarks peer {name}"


def make_peer(name: str) -> Path:
    """Make a peer's environment with pip, unless it is there; minutes, and about 2 GB each.

    Returns:
        Its interpreter.

    Raises:
        ConfigError: There is no such peer.
        PeerError: It could not be installed; the last thing that was said.
    """
    wanted = _wanted(name)
    there = python_of(name)
    if there is not None:
        return there
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    _said_well([sys.executable, "-m", "venv", "--clear", str(folder)], name)
    pins = folder / "constraints.txt"
    write_atomic(pins, _pins_beside(wanted).encode())
    _said_well([str(python), "-m", "pip", "install", "--progress-bar", "off", "-c", str(pins), *wanted], name)
    write_atomic(folder / _COMPLETE, "\n".join([*wanted, ""]).encode())
    return python


def _pins_beside(wanted: tuple[str, ...]) -> str:
    """The lines of ``constraints.txt``, less those of what a peer wants in another version."""
    own = {words.partition("==")[0] for words in wanted if "==" in words}
    lines = (machine.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    return "".join(line for line in lines if line.partition("==")[0] not in own)


def _folder(name: str) -> Path:
    named = os.environ.get(VARIABLE)
    return (Path(named) if named else machine.ROOT / "build" / "peers") / name


def _wanted(name: str) -> tuple[str, ...]:
    if name not in PEERS:
        raise ConfigError(f"there is no peer named {name!r}; there is {', '.join(sorted(PEERS))}")
    return PEERS[name]


def _said_well(words: list[str], name: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        why = said[-1] if said else f"ended with {done.returncode}"
        raise PeerError(f"{name} could not be installed ({why}); is the package registry in reach?")
