"""The outbox: where records wait, on the station's disk, for the hub.

What it promises, with the power cut or the process killed at any point:

1. *Acknowledged is kept.*  ``put`` returns only after the item file, its name and its folder are on the disk.
   A put that fails leaves nothing behind.
2. *The files are the truth.*  An item says all about itself and is named by its digest; the index beside
   them may be lost or damaged at any time and is made again from them.
3. *Released after the hub's yes alone.*  ``acknowledge`` is called after a 2xx, which the hub gives when the
   bytes are on its disk.  A lost release means one repeat.
4. *Effectively once.*  The repeat is the same bytes under the same digest, and the hub keeps one.

The station writes and gives up, the uploader leases and releases: two processes, each under its own lock.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import OutboxError, OutboxFull
from edge_sdk.outbox.boots import next_boot
from edge_sdk.outbox.disk import Disk, FolderLock, disk_trouble
from edge_sdk.outbox.index import Entry, Index
from edge_sdk.outbox.items import ItemFolder, OutboxCounts, entry_from_header, look
from edge_sdk.outbox.room import Room
from edge_sdk.outbox.tombstones import CONTROL, Tombstone, Tombstones
from edge_sdk.records import Record, encode_item, item_id

__all__ = ["Item", "Outbox", "OutboxCounts", "RecordId", "look"]

log = logging.getLogger(__name__)

RecordId = str
"""sha256 of the item file, 64 lower-case hex digits."""

RESCAN_S = 30.0


@dataclass(frozen=True)
class Item:
    """A leased item: its bytes were checked against its id when it was leased."""

    id: RecordId
    data: bytes = field(repr=False)


class Outbox:
    """Records on their way to the hub, bounded in bytes, the least valuable given up first.

    May be used by several threads of a process.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writing: bool = False,
        sending: bool = False,
        limit_mib: float = 2048,
        clock: Clock | None = None,
        disk: Disk | None = None,
    ) -> None:
        """Open an outbox, made if it is not there, and repair what a crash left.

        Args:
            folder: Where it lives; all of it.
            writing: Take the station's place: ``put``, and give up what finds no room.
            sending: Take the uploader's place: ``lease``, ``acknowledge``, ``release``.
            limit_mib: The most that everything in the folder may take, counted in blocks.
            clock: For the ends of leases.
            disk: How files are written.

        Raises:
            OutboxBusy: Another process has that place; the message says which.
            OutboxError: The folder cannot be made or written to.
        """
        if not (writing or sending):
            raise OutboxError(
                f"{folder} is opened for nothing; give writing=True or sending=True, or use look()"
            )
        self._folder = folder
        self._clock = clock or SystemClock()
        self._disk = disk or Disk()
        self._items = ItemFolder(folder, self._disk)
        self._tombstones = Tombstones(folder / "tombstones.jsonl", self._disk)
        self._lock = threading.RLock()
        self._locks: list[FolderLock] = []
        self._writing, self._sending = writing, sending
        self._unindexed: dict[RecordId, Entry] = {}
        self._leases: dict[RecordId, int] = {}
        self._scanned_ns = self._clock.monotonic_ns()
        self._counters: Counter[str] = Counter()
        self.boot_id = ""
        """Of this opening for writing; later openings sort after earlier ones, whatever the clock says."""
        try:
            self._items.make()
            self._take_places()
            if writing:
                self._counters["orphans"] = self._items.clean()
            self._index = Index(folder, self._items.entries)
            self._room = Room(
                folder,
                items=self._items,
                index=self._index,
                tombstones=self._tombstones,
                limit_mib=limit_mib,
                clock=self._clock,
            )
        except BaseException as error:
            self._let_go()
            if isinstance(error, OSError) and not isinstance(error, OutboxError):
                raise disk_trouble(folder, "opened", error) from error
            raise
        with suppress(sqlite3.Error):
            if not self._index.rebuilt:
                self._reconcile()
            if sending:
                self._index.end_leases()
        if writing:
            self.boot_id = next_boot(folder / "boots", latest=self._latest_boot(), disk=self._disk)
            self._tombstones.void(
                {stone.item for stone in self._tombstones.read() if stone.item in self._items}
            )

    def __enter__(self) -> Outbox:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the index and the locks; may be called twice.  Nothing needs to be flushed."""
        with self._lock:
            self._index.close()
            self._let_go()

    @property
    def counters(self) -> dict[str, int]:
        """What this process has ``put``, ``evicted``, ``sent`` and ``quarantined``; ``orphans`` cleaned, index
        ``rebuilt``."""
        found = {name: self._counters[name] for name in ("put", "sent", "orphans")}
        elsewhere = {
            "evicted": self._room.evicted,
            "quarantined": self._items.set_aside_count,
            "rebuilt": self._index.rebuilt,
        }
        return found | elsewhere

    def counts(self) -> OutboxCounts:
        """How much waits, lies aside, and was given up of the control sample; cheap enough to ask every second."""
        found = look(self._folder, without_items=True)
        with self._lock:
            try:
                totals = self._index.totals()
            except sqlite3.Error:
                return look(self._folder)
        return replace(found, waiting=totals.items, bytes=totals.bytes)

    # -- the station's place ---------------------------------------------------------------------

    def put(self, record: Record) -> RecordId:
        """Keep a record.  When this returns, it survives a power cut.

        Where the outbox or the disk is full, items of less value are given up for it, the least first;
        leased ones are passed over.  A control item that is given up or finds no room leaves a tombstone.

        Raises:
            FormatError: The record's header and parts disagree, or its header is too long.
            OutboxFull: There is no room, and nothing of less value waits.
            OutboxError: The disk refused; nothing of the record is left behind.
        """
        self._need(self._writing, "writing")
        data = encode_item(record)
        entry = entry_from_header(item_id(data), record.header, len(data))
        with self._lock:
            self._index_the_unindexed()
            try:
                self._room.keep(entry, data)
            except OutboxFull:
                self.lost(entry.stratum, entry.probability, why="no room", item=entry.id)
                raise
            except OSError as error:
                self.lost(entry.stratum, entry.probability, why="failed", item=entry.id)
                if isinstance(error, OutboxError):
                    raise
                raise disk_trouble(self._folder, "written", error) from error
            # from here on the item is kept, whatever becomes of the index
            self._counters["put"] += 1
            self._unindexed[entry.id] = entry
            self._index_the_unindexed()
        return entry.id

    def lost(self, stratum: str, probability: float, *, why: str, item: str = "", count: int = 1) -> None:
        """Write down that something drawn for the control sample was not kept; other strata leave no trace."""
        if stratum == CONTROL:
            with self._lock:
                self._tombstones.add(Tombstone(stratum, probability, why, item, count))

    # -- the uploader's place --------------------------------------------------------------------

    def lease(self, count: int, *, for_s: float) -> tuple[Item, ...]:
        """Take up to ``count`` items for ``for_s`` seconds, the most valuable lane first, then the oldest.

        Every item's bytes are checked against its id; a damaged one is set aside, counted and never handed
        out.  A lease ends by :meth:`acknowledge`, by :meth:`release`, with its time, or with this process.
        """
        self._need(self._sending, "sending")
        leased: list[Item] = []
        with self._lock:
            until = self._clock.monotonic_ns() + round(for_s * 1e9)
            while len(leased) < count:
                ids = self._take(count - len(leased), until)
                if not ids:
                    if leased or not self._rescan_due():
                        break
                    with suppress(sqlite3.Error):
                        self._reconcile()
                    if not (ids := self._take(count, until)):
                        break
                leased.extend(item for name in ids if (item := self._read(name)) is not None)
        return tuple(leased)

    def recheck(self, name: RecordId) -> bool:
        """Whether an item's file is still what its name says; a damaged one is set aside."""
        with self._lock:
            return self._read(name) is not None

    def waiting_ids(self, count: int) -> tuple[RecordId, ...]:
        """Up to ``count`` ids without a lease, in sending order, for asking the hub which it knows."""
        with self._lock:
            return tuple(self._waiting(count))

    def acknowledge(self, ids: Iterable[RecordId]) -> None:
        """The hub has them on its disk: remove them.  Ids that are not here are passed over.

        Raises:
            OutboxError: The disk refused to remove one; it will be offered again, which the hub absorbs.
        """
        self._need(self._sending, "sending")
        gone: list[RecordId] = []
        trouble: OSError | None = None
        with self._lock:
            for name in ids:
                try:
                    self._counters["sent"] += self._items.remove(name)
                except OSError as error:
                    trouble = error
                    continue
                gone.append(name)
                self._leases.pop(name, None)
            self._index.forget(gone)
        if trouble is not None:
            raise disk_trouble(self._folder, "emptied", trouble) from trouble

    def release(self, ids: Iterable[RecordId], *, after_s: float = 0.0) -> None:
        """Give leased items back, to be offered again once ``after_s`` has passed."""
        self._need(self._sending, "sending")
        with self._lock:
            until = self._clock.monotonic_ns() + round(after_s * 1e9) if after_s > 0 else 0
            names = list(ids)
            for name in names:
                self._leases.pop(name, None)
                if until:
                    self._leases[name] = until
            with suppress(sqlite3.Error):
                self._index.lease(names, until=until)

    def set_aside(self, name: RecordId, why: str) -> None:
        """Quarantine an item: it is never offered again, and lies in ``quarantine`` with the reason beside it."""
        with self._lock:
            self._items.set_aside(name, why)
            self._leases.pop(name, None)
            self._index.forget([name])

    # -- opening ---------------------------------------------------------------------------------

    def _take_places(self) -> None:
        if self._writing:
            advice = "stop it, or give this station an outbox of its own (mentoring.outbox)"
            self._locks.append(
                FolderLock(self._folder / "writer.lock", doing="is already written by", advice=advice)
            )
        if self._sending:
            advice = "let it finish, or stop it first"
            self._locks.append(
                FolderLock(self._folder / "sender.lock", doing="is already uploaded by", advice=advice)
            )

    def _let_go(self) -> None:
        while self._locks:
            self._locks.pop().release()

    def _reconcile(self) -> None:
        """Make the index agree with the folder: after a crash, or where the other process could not write it."""
        self._scanned_ns = self._clock.monotonic_ns()
        # ids first: what is put meanwhile then shows as new, never as gone
        known = self._index.ids()
        names = set(self._items.names())
        fresh = [entry for name in sorted(names - known) if (entry := self._items.entry(name)) is not None]
        if fresh:
            self._index.add(fresh)
        if gone := known - names:
            self._index.remove(gone)

    def _rescan_due(self) -> bool:
        return self._clock.monotonic_ns() - self._scanned_ns > RESCAN_S * 1e9

    def _index_the_unindexed(self) -> None:
        if self._unindexed:
            try:
                self._index.add(self._unindexed.values())
                self._unindexed.clear()
            except sqlite3.Error as error:
                log.warning(
                    "index not written yet", extra={"items": len(self._unindexed), "error": str(error)}
                )

    # -- handing out -----------------------------------------------------------------------------

    def _take(self, count: int, until: int) -> list[RecordId]:
        now = self._clock.monotonic_ns()
        self._leases = {name: end for name, end in self._leases.items() if end > now}
        try:
            ids = self._index.take(count, now=now, until=until)
        except sqlite3.Error:
            # a full disk takes no lease, yet only sending can empty it: the lease is kept in memory alone
            ids = self._waiting(count)
        self._leases.update(dict.fromkeys(ids, until))
        return ids

    def _waiting(self, count: int) -> list[RecordId]:
        try:
            found = self._index.waiting(count + len(self._leases), now=self._clock.monotonic_ns())
        except sqlite3.Error as error:
            raise OutboxError(
                f"the index of {self._folder} does not answer ({error}); trying again helps"
            ) from error
        return [name for name in found if name not in self._leases][:count]

    def _read(self, name: RecordId) -> Item | None:
        data = self._items.read(name)
        if data is not None:
            return Item(name, data)
        self._leases.pop(name, None)
        self._index.forget([name])
        return None

    def _latest_boot(self) -> str:
        with suppress(sqlite3.Error):
            return self._index.latest_boot()
        return ""

    # -- small things ----------------------------------------------------------------------------

    def _need(self, has: bool, place: str) -> None:
        if not has or not self._locks:
            raise OutboxError(f"{self._folder} is not open for {place}; open it with {place}=True")
