"""The index of an outbox: SQLite, for order, leases and sums; never the truth.

The item files are the truth.  Everything here can be thrown away at any time and is made again from
the files' first lines, so a row is written without waiting for the disk (``synchronous`` NORMAL) and
the write-ahead log is kept small enough to stay within the outbox's bound.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["Entry", "Index", "Totals"]

log = logging.getLogger(__name__)

VERSION = 1
BUSY_S = 5.0
WAL_PAGES = 64
WAL_BYTES = WAL_PAGES * 4096
LOG_BYTES = WAL_BYTES + 128 * 1024
"""Kept free for the write-ahead log and its shared memory."""

SCHEMA = """
CREATE TABLE items(
    id TEXT PRIMARY KEY, boot TEXT NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL, value REAL NOT NULL,
    stratum TEXT NOT NULL, probability REAL NOT NULL, bytes INTEGER NOT NULL, leased_until INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE INDEX in_sending_order ON items(lane, boot, seq, id);
CREATE INDEX in_giving_up_order ON items(value, id);
CREATE TABLE totals(items INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0, 0);
CREATE TRIGGER come AFTER INSERT ON items
    BEGIN UPDATE totals SET items = items + 1, bytes = bytes + new.bytes; END;
CREATE TRIGGER gone AFTER DELETE ON items
    BEGIN UPDATE totals SET items = items - 1, bytes = bytes - old.bytes; END;
"""
INSERT = (
    "INSERT OR IGNORE INTO items(id, boot, seq, lane, value, stratum, probability, bytes) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
WAITING = "SELECT id FROM items WHERE leased_until <= ? ORDER BY lane, boot, seq, id LIMIT ?"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """What the index knows of an item; all of it stands in the item's own header or follows from it."""

    id: str
    boot: str
    seq: int
    value: float
    stratum: str
    probability: float
    bytes: int
    """On the disk, in whole blocks."""

    @property
    def lane(self) -> int:
        """0 is sent first: the value in quarters, the most valuable quarter ahead."""
        return 3 - min(3, max(0, int(self.value * 4)))

    @property
    def rank(self) -> tuple[float, str]:
        """The least is given up first.  Among equal values the id decides, which is as good as drawn by lot."""
        return self.value, self.id


@dataclass(frozen=True)
class Totals:
    """How much waits."""

    items: int
    bytes: int


class Index:
    """One connection to the index, shared by the threads of a process under the store's lock.

    Two processes may have it open.  A damaged one is set aside as ``….bad`` and made anew under the next
    number, so that a process which still has the old file open cannot spoil the new one; it notices that
    its file has moved and follows.
    """

    def __init__(self, folder: Path, refill: Callable[[], Iterable[Entry]]) -> None:
        """
        Args:
            folder: Where the index lives.
            refill: Reads the items' headers, for an index that is new or damaged.
        """
        self._folder = folder
        self._refill = refill
        self.rebuilt = 0
        """How often this process had to make the index anew."""
        self._path: Path | None = None
        self._inode = 0
        self._connection = self._open()

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    @property
    def in_memory(self) -> bool:
        """The disk took no index file: this process works from its own scan, unseen by the other one."""
        return self._path is None

    def bytes(self) -> int:
        """What the index takes on the disk, with what its log may grow to and a damaged one set aside."""
        sizes = {}
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                sizes[suffix] = os.stat(f"{self._path}{suffix}").st_blocks * 512
        table = sizes.pop("", 0)
        for damaged in self._folder.glob("index-*.bad"):
            with suppress(OSError):
                table += damaged.stat().st_blocks * 512
        return table + max(LOG_BYTES, sum(sizes.values()))

    # -- what the store asks ---------------------------------------------------------------------

    def add(self, entries: Iterable[Entry]) -> None:
        rows = [_row(entry) for entry in entries]
        self._change(lambda run: run.executemany(INSERT, rows))

    def remove(self, ids: Iterable[str]) -> None:
        rows = [(item,) for item in ids]
        self._change(lambda run: run.executemany("DELETE FROM items WHERE id = ?", rows))

    def forget(self, ids: Collection[str]) -> None:
        """Remove rows if the index can be written now; a row without its file is dropped when it is next met."""
        with suppress(sqlite3.Error):
            if ids:
                self.remove(ids)

    def ids(self) -> set[str]:
        return {row[0] for row in self._rows("SELECT id FROM items")}

    def totals(self) -> Totals:
        return Totals(*self._rows("SELECT items, bytes FROM totals")[0])

    def by_stratum(self) -> dict[str, int]:
        return dict(self._rows("SELECT stratum, count(*) FROM items GROUP BY stratum ORDER BY stratum"))

    def latest_boot(self) -> str:
        return str(self._rows("SELECT coalesce(max(boot), '') FROM items")[0][0])

    def waiting(self, count: int, *, now: int) -> list[str]:
        """Up to ``count`` items without a lease, in sending order; ``now`` in monotonic nanoseconds."""
        return [row[0] for row in self._rows(WAITING, (now, count))]

    def take(self, count: int, *, now: int, until: int) -> list[str]:
        """Lease what :meth:`waiting` gives, up to ``until``."""

        def lease(run: sqlite3.Connection) -> list[str]:
            found = [row[0] for row in run.execute(WAITING, (now, count))]
            run.executemany(
                "UPDATE items SET leased_until = ? WHERE id = ?", [(until, item) for item in found]
            )
            return found

        return self._change(lease)

    def lease(self, ids: Iterable[str], *, until: int) -> None:
        """Set the end of leases; 0 ends them."""
        rows = [(until, item) for item in ids]
        self._change(lambda run: run.executemany("UPDATE items SET leased_until = ? WHERE id = ?", rows))

    def end_leases(self) -> None:
        self._change(lambda run: run.execute("UPDATE items SET leased_until = 0 WHERE leased_until <> 0"))

    def least(self, count: int, *, below: tuple[float, str], now: int | None) -> list[Entry]:
        """Up to ``count`` items in giving-up order that rank under ``below`` and are not leased at ``now``.

        ``now=None`` says that no one is there who could hold a lease.
        """
        rows = self._rows(
            "SELECT id, boot, seq, value, stratum, probability, bytes FROM items "
            "WHERE (value, id) < (?, ?) AND leased_until <= ? ORDER BY value, id LIMIT ?",
            (*below, 2**63 - 1 if now is None else now, count),
        )
        return [Entry(*row) for row in rows]

    # -- opening, damage -------------------------------------------------------------------------

    def _rows(self, query: str, values: tuple[object, ...] = ()) -> list[Any]:
        return self._run(lambda run: run.execute(query, values).fetchall())

    def _change(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do it all or not at all.  Every action may be repeated without harm."""

        def whole(run: sqlite3.Connection) -> Result:
            run.execute("BEGIN IMMEDIATE")
            try:
                result = action(run)
                run.execute("COMMIT")
            except BaseException:
                if run.in_transaction:
                    with suppress(sqlite3.Error):
                        run.execute("ROLLBACK")
                raise
            return result

        return self._run(whole)

    def _run(self, action: Callable[[sqlite3.Connection], Result]) -> Result:
        """Act, on a new index if this one proves damaged.

        Raises:
            sqlite3.OperationalError: The index is locked for too long, or the disk is full; that passes.
        """
        self._follow()
        try:
            return action(self._connection)
        except sqlite3.DatabaseError as error:
            if not _means_damage(error):
                raise
            log.warning("index is damaged", extra={"index": str(self._path), "error": str(error)})
            self.close()
            self._connection = self._open(distrust=self._path)
            return action(self._connection)

    def _follow(self) -> None:
        """Open the index again if another process has replaced it."""
        if self._path is None:
            return
        try:
            same = os.stat(self._path).st_ino == self._inode
        except OSError:
            same = False
        if not same:
            self.close()
            self._connection = self._open()

    def _open(self, *, distrust: Path | None = None) -> sqlite3.Connection:
        try:
            with self._opening():
                newest = self._newest()
                if newest is not None and newest != distrust:
                    connection = _connect_if_sound(newest)
                    if connection is not None:
                        return self._use(newest, connection)
                number = 1 if newest is None else _number(newest) + 1
                if newest is not None:
                    self._set_aside(newest)
                return self._make(self._folder / f"index-{number:04d}.sqlite")
        except (OSError, sqlite3.Error) as error:
            log.warning("no index on this disk, working from memory", extra={"error": str(error)})
            memory = _connect(":memory:")
            _fill(memory, self._refill())
            self._path, self.rebuilt = None, self.rebuilt + 1
            return memory

    def _make(self, path: Path) -> sqlite3.Connection:
        """A new index, under its name only when it is complete."""
        growing = path.with_name(".index.tmp")
        for suffix in ("", "-journal", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.unlink(f"{growing}{suffix}")
        with closing(_connect(growing)) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            _fill(connection, self._refill())
        os.replace(growing, path)
        self.rebuilt += 1
        made = _connect_if_sound(path)
        if made is None:
            raise sqlite3.DatabaseError("the new index does not open")
        return self._use(path, made)

    def _use(self, path: Path, connection: sqlite3.Connection) -> sqlite3.Connection:
        self._path, self._inode = path, os.stat(path).st_ino
        return connection

    def _newest(self) -> Path | None:
        return max(self._folder.glob("index-*.sqlite"), key=_number, default=None)

    def _set_aside(self, path: Path) -> None:
        for old in self._folder.glob("index-*.bad"):
            old.unlink(missing_ok=True)
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                os.replace(f"{path}{suffix}", f"{path}{suffix}.bad")

    @contextmanager
    def _opening(self) -> Iterator[None]:
        """One process at a time opens or replaces the index."""
        descriptor = os.open(self._folder / "index.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _means_damage(error: sqlite3.DatabaseError) -> bool:
    if not isinstance(error, sqlite3.OperationalError):
        return not isinstance(error, (sqlite3.IntegrityError, sqlite3.ProgrammingError))
    text = str(error).lower()
    return any(sign in text for sign in ("disk i/o error", "malformed", "no such table", "unable to open"))


def _row(entry: Entry) -> tuple[object, ...]:
    e = entry
    return e.id, e.boot, e.seq, e.lane, e.value, e.stratum, e.probability, e.bytes


def _number(path: Path) -> int:
    found = re.fullmatch(r"index-(\d+)\.sqlite", path.name)
    return int(found[1]) if found else 0


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(str(path), timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        if path != ":memory:":
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _connect_if_sound(path: Path) -> sqlite3.Connection | None:
    """The index, or ``None`` where it is damaged or of another version."""
    try:
        connection = _connect(path)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        return None
    try:
        sound = connection.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute("SELECT items, bytes FROM totals").fetchone()
        if sound and version == VERSION:
            return connection
    except sqlite3.DatabaseError as error:
        log.warning("index is damaged", extra={"index": str(path), "error": str(error)})
    connection.close()
    return None


def _fill(connection: sqlite3.Connection, entries: Iterable[Entry]) -> None:
    connection.executescript(SCHEMA)
    connection.execute("BEGIN")
    connection.executemany(INSERT, (_row(entry) for entry in entries))
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")
