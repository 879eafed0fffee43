"""Folders that are replaced as a whole: checkpoints, by training and by whoever reads what it wrote.

No file system swaps two folders in one step everywhere, so the older one is moved aside while the new one takes its
place.  A kill in between leaves both, whole, beside an empty place; ``settle`` then puts the new one there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

__all__ = ["begun", "put_in_place", "settle"]


def begun(folder: Path) -> Path:
    """An empty folder beside ``folder``, in which its next content is written.

    Raises:
        OSError: The disk refused.
    """
    settle(folder)
    part, _ = _beside(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    return part


def put_in_place(folder: Path) -> None:
    """Replace ``folder`` by what was written beside it, which must be whole.

    Raises:
        OSError: The disk refused; the older one is as it was, or the new one is there when the folder is next settled.
    """
    part, old = _beside(folder)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def settle(folder: Path) -> None:
    """Finish a replacement that was cut short; to be asked for before the folder is looked at.

    The older folder is only moved aside once the new one is whole, so where its place is empty, the new one is.

    Raises:
        OSError: The disk refused.
    """
    part, old = _beside(folder)
    if not old.exists():
        return
    if not folder.exists():
        (part if part.exists() else old).rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Where the next one is written, and where the older one waits."""
    whole = folder.absolute()
    return whole.with_name(f".{whole.name}.part"), whole.with_name(f".{whole.name}.old")
