"""Folders that are written to: whether they can be, and checkpoints, which are replaced as a whole.

No file system swaps two folders in one step everywhere, so the older one is moved aside while the new one takes its
place.  A kill in between leaves both, whole, beside an empty place; ``settle`` then puts the new one there.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from edge_sdk.errors import ConfigError

__all__ = ["begun", "check_file", "check_folder", "put_in_place", "settle"]


def check_folder(folder: Path) -> None:
    """Whether files can be written into a folder that is there or still to be made: best asked before long work.

    Raises:
        ConfigError: It is a file, or there is no way to make it or to write into it.
    """
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    why = "" if there.is_dir() else "is a file"
    if not why:
        try:
            # only writing tells: permissions may be the superuser's, and the disk read-only
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            why = f"cannot be written to ({error.strerror})"
    if why:
        raise ConfigError(f"nothing can be made in {folder}: {there} {why}; give another place")


def check_file(path: Path) -> None:
    """Whether a file can be written there, in place of an older one: best asked before long work.

    Raises:
        ConfigError: It is a folder, or its folder cannot be made or written into.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of a file to write")
    check_folder(path.absolute().parent)


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
