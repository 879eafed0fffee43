"""How tests are shared out among the processes of one run (``make test``; by hand there is one process).

A file stays together, so what its tests share is made once.  Every file with a ``system`` test goes to one and the
same process, one test after another: its servers, browsers, cameras and stations get no others for neighbours.
Those files come first and the other slow ones next; the many quick ones fill up what is left at the end.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

__all__ = ["by_weight", "share"]

ROOT = Path(__file__).resolve().parent.parent


@cache
def share(file: str) -> str:
    """The name of what goes to one process together with a test file, e.g. ``system`` or the file itself.

    Args:
        file: As it stands in a test's id, relative to the root.
    """
    path = ROOT / file
    return "system" if path.is_file() and "pytest.mark.system" in path.read_text(encoding="utf-8") else file


def by_weight(items: list[pytest.Item]) -> None:
    """Put files with system tests first, files with slow tests next; within them all stays as it is."""
    heavy = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        return 0 if share(item.nodeid.partition("::")[0]) == "system" else 1 if item.path in heavy else 2

    items.sort(key=rank)
