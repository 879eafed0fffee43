"""What the outbox may take on the disk, and what it gives up for something better.

The least valuable goes first; what is leased stays; what was drawn for the control sample leaves a tombstone.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from edge_sdk.clock import Clock
from edge_sdk.errors import OutboxFull
from edge_sdk.outbox.disk import FolderLock, blocks, disk_trouble
from edge_sdk.outbox.index import Entry, Index
from edge_sdk.outbox.items import ItemFolder, look
from edge_sdk.outbox.tombstones import CONTROL, Tombstone, Tombstones

__all__ = ["Room"]

MIB = 1024 * 1024
FULL = (errno.ENOSPC, errno.EDQUOT)


class Room:
    """The bound of an outbox, kept by the station alone."""

    def __init__(
        self,
        folder: Path,
        *,
        items: ItemFolder,
        index: Index,
        tombstones: Tombstones,
        limit_mib: float,
        clock: Clock,
    ) -> None:
        """
        Args:
            folder: The outbox.
            items: Its files.
            index: Knows them in giving-up order.
            tombstones: Takes what is given up of the control sample.
            limit_mib: The most that everything in the folder may take, counted in blocks.
            clock: For the ends of leases.
        """
        self._folder = folder
        self._items, self._index, self._tombstones = items, index, tombstones
        self._limit = int(limit_mib * MIB)
        self._clock = clock
        self.evicted = 0
        """How many items were given up."""

    def keep(self, entry: Entry, data: bytes) -> None:
        """Write an item within the bound, giving up for it what ranks lower.

        Raises:
            OutboxFull: There is no room, and nothing that ranks lower waits.
            OSError: The disk refused.
        """
        if entry.id not in self._items:
            self._make(entry)
        while True:
            try:
                return self._items.write(entry.id, data)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                # someone else has filled the disk: what is worth less than this makes room for it
                self._items.drop_aside()
                if not self._give_up(entry, need=entry.bytes):
                    raise OutboxFull(
                        f"the disk of {self._folder} is full, and nothing of less value waits in the outbox; "
                        "free some space"
                    ) from error

    def _make(self, entry: Entry) -> None:
        if self._used() + entry.bytes <= self._limit:
            return
        self._items.drop_aside()
        used = self._used()
        short = used + entry.bytes - self._limit
        if short > 0 and not self._give_up(entry, need=short):
            raise OutboxFull(
                f"{self._folder} is full ({used / MIB:.1f} of {self._limit / MIB:g} MiB) and nothing in it is worth "
                f"less than this record ({entry.value:g}); see why nothing is uploaded, or raise mentoring.outbox_mib"
            )

    def _used(self) -> int:
        try:
            items = self._index.totals().bytes
        except sqlite3.Error:
            items = look(self._folder).bytes
        return items + self._index.bytes() + blocks(self._tombstones.bytes()) + self._items.aside_bytes()

    def _give_up(self, entry: Entry, *, need: int) -> bool:
        """Remove items that rank under ``entry`` until ``need`` bytes are free; so much or nothing."""
        # a lease dies with the uploader that holds it
        watched = FolderLock.held(self._folder / "sender.lock")
        now = self._clock.monotonic_ns() if watched else None
        for victims in self._least_first(entry, now):
            if sum(victim.bytes for victim in victims) >= need:
                self._evict(victims, need)
                return True
        return False

    def _least_first(self, entry: Entry, now: int | None) -> Iterator[list[Entry]]:
        """Longer and longer lists of what could be given up for ``entry``, the least first."""
        count, found = 16, 16
        while found == count:
            count *= 4
            try:
                victims = self._index.least(count, below=entry.rank, now=now)
            except sqlite3.Error:
                return
            found = len(victims)
            gone = {victim.id for victim in victims if victim.id not in self._items}
            self._index.forget(gone)
            yield [victim for victim in victims if victim.id not in gone]

    def _evict(self, victims: list[Entry], need: int) -> None:
        for victim in victims:
            if need <= 0:
                break
            if victim.stratum == CONTROL:
                self._tombstones.add(Tombstone(CONTROL, victim.probability, "evicted", victim.id))
            try:
                self._items.remove(victim.id)
            except OSError as error:
                raise disk_trouble(self._folder, "emptied", error) from error
            self._index.forget([victim.id])
            self.evicted += 1
            need -= victim.bytes
        self._tombstones.flush()
