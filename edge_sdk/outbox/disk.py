"""The disk as the outbox uses it: every system call in one small object that a test can make fail.

The store above decides what is written when; this module knows how a file becomes durable and how a
lock tells who holds it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from edge_sdk.documents import utc_text
from edge_sdk.errors import OutboxBusy, OutboxError

__all__ = ["Disk", "FolderLock", "append_durably", "blocks", "disk_trouble", "write_durably"]

BLOCK = 4096
"""What a file takes at least on the usual file systems."""
TRIES = 4


def blocks(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes on the disk."""
    return max(1, -(-size // BLOCK)) * BLOCK


class Disk:
    """The real one.  Tests derive from it, to fail a call or to record the calls."""

    def create(self, path: Path) -> int:
        """Open a new, empty file for writing."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)

    def append(self, path: Path) -> int:
        """Open a file for writing at its end."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def write(self, descriptor: int, data: bytes) -> None:
        """Write all of ``data``."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def fsync(self, descriptor: int) -> None:
        """Return once the file's bytes are on the disk."""
        os.fsync(descriptor)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        os.replace(old, new)

    def fsync_folder(self, folder: Path) -> None:
        """Return once the folder's names are on the disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def unlink(self, path: Path) -> None:
        os.unlink(path)


def write_durably(disk: Disk, path: Path, data: bytes) -> None:
    """Write a file that is either whole and safe from a power cut, or not there.

    Temporary file in the same folder, fsync, rename, fsync of the folder.  Returning is the promise.
    A failed fsync is never tried again on its file: the kernel may have dropped the pages and say yes
    the second time.

    Raises:
        OSError: The disk refused.  The temporary file is gone, and so is ``path``, unless it was there
            before with the same content.
    """
    was_there = path.exists()
    temporary = path.with_name(f".{path.name[:32]}.{os.getpid()}.tmp")
    try:
        descriptor = disk.create(temporary)
        try:
            disk.write(descriptor, data)
            disk.fsync(descriptor)
        finally:
            disk.close(descriptor)
        disk.rename(temporary, path)
        disk.fsync_folder(path.parent)
    except OSError:
        for leftover in (temporary,) if was_there else (temporary, path):
            with suppress(OSError):
                disk.unlink(leftover)
        raise


def append_durably(disk: Disk, path: Path, line: bytes) -> None:
    """Add a line to a file; after a crash the line is there, torn at the end of the file, or not there."""
    fresh = not path.exists()
    descriptor = disk.append(path)
    try:
        disk.write(descriptor, line)
        disk.fsync(descriptor)
    finally:
        disk.close(descriptor)
    if fresh:
        disk.fsync_folder(path.parent)


def disk_trouble(folder: Path, done: str, error: OSError) -> OutboxError:
    """The sentence for a disk that refused; ``done`` as in "could not be written"."""
    return OutboxError(
        f"{folder} could not be {done} ({error.strerror or error}); nothing acknowledged is lost: see to the disk"
    )


class FolderLock:
    """One process at a time, by ``flock`` on a file that says who holds it.

    The kernel lets go when the holder ends, however it ends; the text in the file is only for people.
    """

    def __init__(self, path: Path, *, doing: str, advice: str) -> None:
        """
        Args:
            doing: What the holder does, as in "is being written by process 12".
            advice: What the one who is refused should do.

        Raises:
            OutboxBusy: Another holder has it; the message says who.
            OutboxError: The lock file cannot be made.
        """
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutboxError(
                f"{path} cannot be opened ({error.strerror}); is the disk there and writable?"
            ) from error
        try:
            self._take()
        except OSError as error:
            who = os.pread(self._descriptor, 400, 0).decode("utf-8", "replace").strip()
            os.close(self._descriptor)
            raise OutboxBusy(f"{path.parent} {doing} {who or 'another process'}; {advice}") from error
        since = utc_text(datetime.now(timezone.utc))
        who = f"process {os.getpid()} on {socket.gethostname()} since {since}\n"
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, who.encode(), 0)

    def _take(self) -> None:
        # someone who merely asks (``held``) holds the lock for microseconds: that is no refusal
        for attempt in range(TRIES):
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(0.005)

    def release(self) -> None:
        """Let go; may be called twice."""
        if self._descriptor >= 0:
            with suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1

    @staticmethod
    def held(path: Path) -> bool:
        """Whether anyone, this process included, holds the lock now."""
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False
