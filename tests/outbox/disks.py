"""Disks that fail as told, and one that tells what a power cut would leave."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.outbox.disk import Disk

__all__ = ["Call", "FailingDisk", "RecordingDisk", "after_power_cut", "memory_folder"]


@contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory where there is one: for disks that are thought, whose real fsync is only slow."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield otherwise
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="edge-sdk-") as folder:
        yield Path(folder)


class FailingDisk(Disk):
    """Counts the calls and raises at those that ``when`` picks.

    A write that fails has written half of its bytes before, as a full disk does.
    """

    def __init__(self, when: Callable[[int, str], int | None] = lambda number, call: None) -> None:
        """
        Args:
            when: Takes the number of the call, from 0, and its name; returns the errno to fail with, or ``None``.
        """
        self.when = when
        self.calls: list[str] = []

    def _count(self, call: str, path: Path | None = None) -> None:
        number = len(self.calls)
        self.calls.append(call)
        error = self.when(number, call)
        if error is not None:
            raise OSError(error, os.strerror(error), None if path is None else str(path))

    def create(self, path: Path) -> int:
        self._count("create", path)
        return super().create(path)

    def append(self, path: Path) -> int:
        self._count("append", path)
        return super().append(path)

    def write(self, descriptor: int, data: bytes) -> None:
        try:
            self._count("write")
        except OSError:
            super().write(descriptor, data[: len(data) // 2])
            raise
        super().write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        self._count("fsync")
        super().fsync(descriptor)

    def close(self, descriptor: int) -> None:
        super().close(descriptor)
        self._count("close")

    def rename(self, old: Path, new: Path) -> None:
        self._count("rename", new)
        super().rename(old, new)

    def fsync_folder(self, folder: Path) -> None:
        self._count("fsync_folder", folder)
        super().fsync_folder(folder)

    def unlink(self, path: Path) -> None:
        self._count("unlink", path)
        super().unlink(path)


@dataclass
class Call:
    """One call that changes the disk."""

    kind: str
    name: str = ""
    """The file's name within its folder; of a rename, the new one."""
    folder: str = ""
    inode: int = -1
    data: bytes = b""
    old: str = ""
    """Of a rename, the name before; of ``note``, what the program had been told by then."""


class RecordingDisk(Disk):
    """Writes down every call, so that a test can think through what a power cut would have left."""

    def __init__(self, root: Path) -> None:
        self.calls: list[Call] = []
        self._root = root
        self._open: dict[int, int] = {}
        self._inodes = 0
        self._names: dict[str, int] = {}

    def note(self, what: str) -> None:
        """Mark a moment between calls."""
        self.calls.append(Call("note", old=what))

    def _call(self, kind: str, path: Path, **more: object) -> None:
        self.calls.append(
            Call(kind, path.name, str(path.parent.relative_to(self._root)), **more)  # type: ignore[arg-type]
        )

    def create(self, path: Path) -> int:
        descriptor = super().create(path)
        self._inodes += 1
        self._names[str(path)] = self._open[descriptor] = self._inodes
        self._call("create", path, inode=self._inodes)
        return descriptor

    def append(self, path: Path) -> int:
        if str(path) not in self._names:
            os.close(self.create(path))
        descriptor = super().append(path)
        self._open[descriptor] = self._names[str(path)]
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        super().write(descriptor, data)
        self.calls.append(Call("write", inode=self._open[descriptor], data=bytes(data)))

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        self.calls.append(Call("fsync", inode=self._open[descriptor]))

    def rename(self, old: Path, new: Path) -> None:
        super().rename(old, new)
        self._names[str(new)] = self._names.pop(str(old), -1)
        self._call("rename", new, inode=self._names[str(new)], old=old.name)

    def fsync_folder(self, folder: Path) -> None:
        super().fsync_folder(folder)
        if folder.is_relative_to(self._root):
            self.calls.append(Call("fsync_folder", folder=str(folder.relative_to(self._root))))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self._call("unlink", path)


def after_power_cut(calls: list[Call], lot: random.Random, *, in_order: bool) -> dict[tuple[str, str], bytes]:
    """What may stand on the disk when the power goes after ``calls``.

    Names that were not followed by an fsync of their folder are there or not: any of them (what POSIX promises), or,
    ``in_order``, all up to some moment (what a journalling file system does, where any fsync writes the journal).
    Bytes that were not followed by an fsync of their file are lost, kept, or torn at a sector.

    Returns:
        Bytes by folder and name.
    """
    names = [n for n, call in enumerate(calls) if call.kind in ("create", "rename", "unlink")]
    if in_order:
        safe_to = max((n for n, call in enumerate(calls) if call.kind.startswith("fsync")), default=-1)
        cut = lot.randint(safe_to + 1, len(calls))
        applied = [n for n in names if n < cut]
    else:
        last = {call.folder: n for n, call in enumerate(calls) if call.kind == "fsync_folder"}
        applied = [n for n in names if n < last.get(calls[n].folder, -1) or lot.random() < 0.5]
    table: dict[tuple[str, str], int] = {}
    for call in (calls[n] for n in applied):
        if call.kind == "unlink":
            table.pop((call.folder, call.name), None)
            continue
        if call.kind == "rename":
            table.pop((call.folder, call.old), None)
        table[call.folder, call.name] = call.inode
    return {name: _bytes_left(calls, inode, lot) for name, inode in table.items()}


def _bytes_left(calls: list[Call], inode: int, lot: random.Random) -> bytes:
    safe = pending = b""
    for call in calls:
        if call.inode == inode and call.kind == "write":
            pending += call.data
        elif call.inode == inode and call.kind == "fsync":
            safe, pending = safe + pending, b""
    if not pending:
        return safe
    kind = lot.choice(("lost", "kept", "torn", "zeros"))
    if kind == "lost":
        return safe
    if kind == "kept":
        return safe + pending
    sectors = lot.randint(0, len(pending) // 512) * 512
    return safe + pending[:sectors] + (b"\0" * (len(pending) - sectors) if kind == "zeros" else b"")
