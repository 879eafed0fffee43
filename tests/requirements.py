"""What a test needs that a machine may lack: said once, counted, and mended by one line.

A test that needs Chromium, a GStreamer server or a folder of real pictures asks ``need`` first.  Where it
is missing the test is skipped, and the run ends with one ``apt-get`` line that would have ended the skips.
Under ``EDGE_SDK_REQUIRE=all`` nothing may be missing: the test fails instead.
"""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

__all__ = ["apt_line", "counted", "everything_required", "missed", "need"]

missed: set[tuple[str, str, str]] = set()
"""What was missing in this run, in which test or file, and the Debian packages that would bring it."""


def everything_required() -> bool:
    """Whether a missing thing fails the run instead of skipping a test."""
    return os.environ.get("EDGE_SDK_REQUIRE", "") == "all"


def need(what: str, *, found: bool, apt: str = "") -> None:
    """Go on where it was found; otherwise skip this test (at module level: this file), or fail.

    Args:
        what: The thing in words, e.g. ``chromium`` or ``../shared/data/magnetic_tile``.
        found: Whether it is here.
        apt: Debian packages that bring it, separated by blanks.
    """
    if found:
        return
    mend = f"; apt-get install {apt}" if apt else ""
    if everything_required():
        pytest.fail(f"{what} is missing and EDGE_SDK_REQUIRE=all{mend}", pytrace=False)
    where = os.environ.get("PYTEST_CURRENT_TEST") or sys._getframe(1).f_code.co_filename
    missed.add((what, where, apt))
    pytest.skip(f"needs {what}{mend}", allow_module_level=True)


def counted() -> Counter[str]:
    """How many tests and files went without each missing thing."""
    return Counter(what for what, _, _ in missed)


def apt_line() -> str:
    """The one command that would have ended this run's skips, or nothing."""
    packages = sorted({package for _, _, apt in missed for package in apt.split()})
    return f"sudo apt-get install -y {' '.join(packages)}" if packages else ""
