"""What a figure was measured on: the machine, the versions, the commit, the data."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from edge_sdk.documents import sha256_file

__all__ = ["ROOT", "commit", "data_digest", "facts", "load", "versions"]

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: results, docs and build output lie below it."""

ALWAYS = {
    "edge-sdk": "edge_sdk",
    "numpy": "numpy",
    "opencv-python-headless": "opencv",
    "onnxruntime": "onnxruntime",
    "onnx": "onnx",
    "torch": "torch",
}
"""Distribution to the name it has in a result."""
NOT_CODE = (":!benchmarks/results", ":!docs/reference", ":!docs/images")
"""What the commands themselves write: changing it does not make the measured code another."""


def load() -> float:
    """Processes that wanted a core, over the last minute."""
    return round(os.getloadavg()[0], 2)


def facts(*, load_before: float) -> dict[str, object]:
    """The ``machine`` section; nothing in it names a host."""
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_before": load_before,
        "accelerator": _accelerator(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _accelerator() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name", "--format=csv,noheader"]
    found = subprocess.run(query, capture_output=True, text=True, check=False)
    return found.stdout.strip().partition("\n")[0] or None if found.returncode == 0 else None


def versions(more: Iterable[str] = ()) -> dict[str, str]:
    """Of Python, the usual packages and ``more`` distributions; one that is not installed is left out."""
    found = {"python": platform.python_version()}
    for distribution, name in {**ALWAYS, **{name: name for name in more}}.items():
        try:
            found[name] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> dict[str, object]:
    """``commit`` and ``dirty``: whether code, not results, differs from it."""
    name = _git("rev-parse", "--short=7", "HEAD")
    if name is None:
        return {"commit": "unknown", "dirty": True}
    changed = _git("status", "--porcelain", "--", ".", *NOT_CODE)
    return {"commit": name, "dirty": changed != ""}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def data_digest(folder: Path) -> dict[str, object]:
    """How many pictures a folder holds, and the digest of the sorted list of (path, sha256).

    Args:
        folder: Searched downwards for ``.png .jpg .jpeg .bmp .tif .tiff``.
    """
    kinds = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"}
    listed = hashlib.sha256()
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds)
    for path in paths:
        listed.update(f"{path.relative_to(folder).as_posix()} {sha256_file(path)}\n".encode())
    return {"images": len(paths), "sha256": listed.hexdigest()}
