"""The item files of an outbox: the truth that everything else is made from.

An item says all about itself in its first line and is named by the sha256 of all its bytes, so a folder
of them needs nothing else to be read, checked and sorted.
"""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.documents import sha256_hex
from edge_sdk.errors import FormatError
from edge_sdk.outbox.disk import Disk, blocks, write_durably
from edge_sdk.outbox.index import Entry
from edge_sdk.outbox.tombstones import read_tombstones
from edge_sdk.records import HEADER_BYTES, ItemHeader, read_header

__all__ = ["ItemFolder", "OutboxCounts", "entry_from_header", "look"]

log = logging.getLogger(__name__)

KEPT_ASIDE = 32
"""So many set-aside files are kept for someone to look at."""


@dataclass(frozen=True)
class OutboxCounts:
    """What is in an outbox."""

    waiting: int
    bytes: int
    """Of the waiting items on the disk."""
    quarantined: int
    """Files set aside because they are damaged or the hub refused them for good; the newest are kept."""
    tombstones: dict[str, int]
    """Control items given up, by why."""


class ItemFolder:
    """``items`` with what waits, ``quarantine`` with what must not be sent."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._disk = disk
        self._items = folder / "items"
        self._aside = folder / "quarantine"
        self.set_aside_count = 0
        """How many this process has set aside."""

    def make(self) -> None:
        """Make the folders, durably.

        Raises:
            OSError: The disk refused.
        """
        for folder in (self._items.parent, self._items, self._aside):
            if not folder.is_dir():
                folder.mkdir(parents=True, exist_ok=True)
                self._disk.fsync_folder(folder.parent)

    def clean(self) -> int:
        """Remove what a killed put left: temporary files, which no one was promised; returns how many."""
        orphans = list(self._items.glob(".*.tmp"))
        for orphan in orphans:
            orphan.unlink(missing_ok=True)
        return len(orphans)

    def __contains__(self, name: str) -> bool:
        return bool(name) and (self._items / name).exists()

    def names(self) -> Iterator[str]:
        with os.scandir(self._items) as found:
            for entry in found:
                if not entry.name.startswith("."):
                    yield entry.name

    def entries(self) -> Iterator[Entry]:
        """All items by their headers; what is no item is set aside.  Bodies are checked when they are read."""
        for name in list(self.names()):
            if (entry := self.entry(name)) is not None:
                yield entry

    def entry(self, name: str) -> Entry | None:
        """An item by its header, or ``None`` where it is gone or had to be set aside."""
        try:
            if not re.fullmatch(r"[0-9a-f]{64}", name):
                raise FormatError("its name is no digest")
            with (self._items / name).open("rb") as file:
                header, start = read_header(file.read(HEADER_BYTES + 1))
                size = os.fstat(file.fileno()).st_size
            if size != start + sum(part.bytes for part in header.parts):
                raise FormatError(f"it has {size} bytes, not what its header says")
            return entry_from_header(name, header, size)
        except FileNotFoundError:
            return None
        except (OSError, FormatError) as error:
            self.set_aside(name, str(error))
            return None

    def write(self, name: str, data: bytes) -> None:
        """Keep an item: once this returns it survives a power cut.

        Raises:
            OSError: The disk refused; nothing is left behind.
        """
        write_durably(self._disk, self._items / name, data)

    def read(self, name: str) -> bytes | None:
        """An item's bytes if they are what its name says; ``None`` where it is gone or was set aside now."""
        try:
            data = (self._items / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self.set_aside(name, f"it cannot be read ({error.strerror})")
            return None
        if sha256_hex(data) == name:
            return data
        self.set_aside(name, "its bytes are not what its name says; the disk damaged it")
        return None

    def remove(self, name: str) -> bool:
        """Remove an item; whether it was there.

        Raises:
            OSError: The disk refused.
        """
        try:
            self._disk.unlink(self._items / name)
        except FileNotFoundError:
            return False
        return True

    def set_aside(self, name: str, why: str) -> None:
        """Move an item to ``quarantine``, the reason beside it as ``NAME.why``."""
        try:
            self._disk.rename(self._items / name, self._aside / name)
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("item not set aside", extra={"item": name, "error": str(error)})
            return
        log.warning("item set aside", extra={"item": name, "why": why})
        self.set_aside_count += 1
        with suppress(OSError):
            (self._aside / f"{name}.why").write_text(f"{why}\n", encoding="utf-8")
        self.drop_aside(keep=KEPT_ASIDE)

    def aside_bytes(self) -> int:
        """What the set-aside files take on the disk."""
        total = 0
        with suppress(OSError), os.scandir(self._aside) as found:
            for entry in found:
                with suppress(OSError):
                    total += blocks(entry.stat().st_size)
        return total

    def drop_aside(self, *, keep: int = 0) -> None:
        """Remove set-aside files, all but the ``keep`` newest."""
        with suppress(OSError):
            aside = [path for path in self._aside.iterdir() if path.suffix != ".why"]
            aside.sort(key=lambda path: path.stat().st_ctime_ns, reverse=True)
            for path in aside[keep:]:
                path.unlink(missing_ok=True)
                path.with_name(f"{path.name}.why").unlink(missing_ok=True)


def entry_from_header(name: str, header: ItemHeader, size: int) -> Entry:
    """What the index keeps of an item of ``size`` bytes.

    Raises:
        FormatError: A number of the header is none that a station writes.
    """
    if header.seq >= 2**63:
        raise FormatError(f"its seq is {header.seq}, which no station counts to")
    if header.value != header.value:
        raise FormatError("its value is not a number")
    return Entry(
        id=name,
        # text that is no UTF-8 can stand in JSON as an escape, but not in SQLite
        boot=header.boot_id.encode("utf-8", "replace").decode(),
        seq=header.seq,
        value=header.value,
        stratum=header.stratum.encode("utf-8", "replace").decode(),
        probability=header.inclusion_probability,
        bytes=blocks(size),
    )


def look(folder: Path, *, without_items: bool = False) -> OutboxCounts:
    """Count an outbox from outside, without a lock and without touching it.

    Args:
        folder: The outbox.
        without_items: Leave ``waiting`` and ``bytes`` at 0, which spares going through all items.
    """
    waiting = size = quarantined = 0
    with suppress(OSError), os.scandir(folder / "items") as found:
        for entry in () if without_items else found:
            if not entry.name.startswith("."):
                with suppress(OSError):
                    size += blocks(entry.stat().st_size)
                    waiting += 1
    with suppress(OSError), os.scandir(folder / "quarantine") as found:
        quarantined = sum(not entry.name.endswith(".why") for entry in found)
    stones: Counter[str] = Counter()
    for stone in read_tombstones(folder / "tombstones.jsonl"):
        stones[stone.why] += stone.count
    return OutboxCounts(waiting, size, quarantined, dict(sorted(stones.items())))
