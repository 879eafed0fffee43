"""Where things lie, and running a command in a clean way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["PACKAGES", "ROOT", "ask", "python", "tracked"]

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("edge_sdk", "calibration", "export", "training", "mentoring", "benchmarks")


def tracked(*patterns: str) -> list[Path]:
    """The files that git keeps or would keep, build output left out."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        capture_output=True,
        check=True,
    ).stdout.decode()
    return sorted(ROOT / name for name in set(listed.split("\0")) if name and (ROOT / name).is_file())


def ask(
    command: list[str], *, cwd: Path = ROOT, extra: dict[str, str] | None = None, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a command without a screen, without colour and without what pytest put into the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    clean = {**kept, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100", **(extra or {})}
    return subprocess.run(
        command,
        cwd=cwd,
        env=clean,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=timeout_s,
        check=False,
    )


def python(program: str, *, cwd: Path, extra: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return ask([sys.executable, "-c", program], cwd=cwd, extra=extra)
