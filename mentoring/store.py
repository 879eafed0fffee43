"""Where items are kept: a file each, named by its digest, and a row once the file is safe.

The order is the promise.  Temporary file, fsync, link under its name, fsync of the folder, then the
row, then the answer to the station: whatever a power cut leaves behind, every acknowledged item is
on disk, and `ItemStore.adopt` gives a file without a row its row at the next start.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal
from uuid import uuid4

from sqlalchemy import func, select

from edge_sdk.clock import Clock
from edge_sdk.records import HEADER_BYTES, ItemHeader, read_header
from mentoring.catalogue import Entry, add, entry_of, known_of
from mentoring.database import Database, us_of
from mentoring.problems import NoRoom, NotAcceptable, NotFound, RefusalError, TooLarge
from mentoring.schema import items

__all__ = ["MAX_ASKED", "MAX_ITEM_BYTES", "Arrival", "ItemStore", "check_id"]

MAX_ITEM_BYTES = 32 * 1024 * 1024
"""A 12-megapixel PNG with its confidence map fits twice."""
MAX_ASKED = 1000
"""Digests in one call of `ItemStore.missing`."""

log = logging.getLogger(__name__)
_ID = re.compile(r"[0-9a-f]{64}")


def check_id(text: str) -> str:
    """The id of an item, if ``text`` is one; nothing else ever becomes a file's name.

    Raises:
        NotAcceptable: It is none.
    """
    if not _ID.fullmatch(text):
        raise NotAcceptable(f"{text[:80]!r} is no item id; give the 64 lower-case hex digits of its sha256")
    return text


class ItemStore:
    """The items of one hub, under ``root/items``."""

    def __init__(
        self, root: Path, database: Database, *, clock: Clock, max_item_bytes: int = MAX_ITEM_BYTES
    ) -> None:
        self.max_item_bytes = max_item_bytes
        self.fsync_s = 0.0
        """Seconds that the last arrival waited for the disk."""
        self._items = root / "items"
        self._incoming = root / "incoming"
        self._database = database
        self._clock = clock
        for folder in (self._items, self._incoming):
            folder.mkdir(parents=True, exist_ok=True)

    def receive(self, digest: str) -> Arrival:
        """Begin to take in the item named ``digest``; a context that leaves nothing half behind.

        Raises:
            NotAcceptable: ``digest`` is no id.
        """
        return Arrival(self, check_id(digest))

    def missing(self, digests: Sequence[str]) -> list[str]:
        """Those of the digests that the hub does not have, in their order.

        Raises:
            NotAcceptable: One is no id, or there are more than 1000.
        """
        if len(digests) > MAX_ASKED:
            raise NotAcceptable(f"{len(digests)} digests were asked for at once; ask for at most {MAX_ASKED}")
        for digest in digests:
            check_id(digest)
        with self._database.look() as connection:
            known = known_of(connection, digests)
        return [digest for digest in digests if digest not in known]

    def count(self) -> int:
        """How many items there are."""
        with self._database.look() as connection:
            return connection.scalar(select(func.count()).select_from(items)) or 0

    def path_of(self, digest: str) -> Path:
        """Where the item's file lies, or would lie.

        Raises:
            NotAcceptable: ``digest`` is no id.
        """
        check_id(digest)
        return self._items / digest[:2] / f"{digest}.item"

    def header_of(self, digest: str) -> ItemHeader:
        """The header of an item on disk.

        Raises:
            NotFound: There is no such item.
        """
        with self._open(digest) as file:
            return read_header(file.read(HEADER_BYTES + 1))[0]

    def header_bytes(self, digest: str) -> bytes:
        """The first line of an item as it was sent, without its line feed."""
        with self._open(digest) as file:
            start = file.read(HEADER_BYTES + 1)
        return start[: read_header(start)[1] - 1]

    def read_part(self, digest: str, role: str) -> tuple[bytes, str]:
        """The bytes of one part of an item, and their type.

        Raises:
            NotFound: There is no such item, or it has no such part.
        """
        with self._open(digest) as file:
            header, start = read_header(file.read(HEADER_BYTES + 1))
            for part in header.parts:
                if part.role == role:
                    file.seek(start)
                    return file.read(part.bytes), part.type
                start += part.bytes
        raise NotFound(
            f"item {digest} has no part {role!r}; it has {', '.join(p.role for p in header.parts)}"
        )

    def adopt(self) -> int:
        """Give every file without a row its row, and clear what a power cut left half written.

        Called once, before the hub serves.  A file that is not what its name says goes to
        ``root/damaged`` and is never asked about.

        Returns:
            How many items were adopted.
        """
        for torn in self._incoming.iterdir():
            torn.unlink()
        adopted = 0
        for folder in sorted(self._items.iterdir()):
            names = [file.stem for file in folder.glob("*.item") if _ID.fullmatch(file.stem)]
            for start in range(0, len(names), MAX_ASKED):
                for digest in self.missing(names[start : start + MAX_ASKED]):
                    adopted += self._adopt(digest)
        return adopted

    def _adopt(self, digest: str) -> bool:
        path = self.path_of(digest)
        data = path.read_bytes()
        try:
            if hashlib.sha256(data).hexdigest() != digest:
                raise NotAcceptable("its bytes are not what its name says")
            entry = entry_of(data)
        except RefusalError as problem:
            damaged = self._items.parent / "damaged"
            damaged.mkdir(exist_ok=True)
            path.replace(damaged / path.name)
            log.warning("item set aside as damaged", extra={"item": digest, "why": str(problem)})
            return False
        return self._add_row(digest, entry)

    def _add_row(self, digest: str, entry: Entry) -> bool:
        with self._database.change() as connection:
            return add(connection, digest, entry, received_at_us=us_of(self._clock.now()))

    def _open(self, digest: str) -> BinaryIO:
        try:
            return self.path_of(digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"there is no item {digest} here") from error


class Arrival:
    """One item on its way in: written piece by piece, then kept whole or not at all."""

    def __init__(self, store: ItemStore, digest: str) -> None:
        self._store = store
        self._digest = digest
        self._sum = hashlib.sha256()
        self._bytes = 0
        self._path = store._incoming / f"{uuid4().hex}.part"
        self._file: BinaryIO | None = None

    def __enter__(self) -> Arrival:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def write(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            TooLarge: The item is longer than the hub takes.
            NoRoom: The disk refused.
        """
        self._bytes += len(piece)
        if self._bytes > self._store.max_item_bytes:
            raise TooLarge(
                f"the item has more than {self._store.max_item_bytes} bytes; the hub takes no more"
            )
        self._sum.update(piece)
        try:
            if self._file is None:
                self._file = self._path.open("xb")
            self._file.write(piece)
        except OSError as error:
            raise _no_room(error) from error

    def finish(self) -> Literal["new", "known"]:
        """Check the item and keep it; once this returns, a power cut does not lose it.

        Raises:
            NotAcceptable: The bytes are not those of the digest, or the item is damaged.
            WrongKind: The bytes are no item.
            TooLarge: Its picture is larger than the hub takes.
            NoRoom: The disk refused; nothing was kept.
        """
        found = self._sum.hexdigest()
        if found != self._digest:
            raise NotAcceptable(
                f"the bytes have the digest {found}, not {self._digest}; "
                "they were altered on the way, send them again"
            )
        store = self._store
        final = store.path_of(self._digest)
        if final.exists() and not store.missing([self._digest]):
            return "known"
        try:
            assert self._file is not None  # no bytes at all have another digest than any item
            self._file.flush()
            entry = entry_of(self._path.read_bytes())
            began = time.perf_counter()
            os.fsync(self._file.fileno())
            _make_folder(final.parent)
            _link(self._path, final)
            _fsync_folder(final.parent)
            store.fsync_s = time.perf_counter() - began
        except OSError as error:
            raise _no_room(error) from error
        return "new" if store._add_row(self._digest, entry) else "known"


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)


def _link(path: Path, final: Path) -> None:
    """Give the file its name; of two that arrive at once the first stays, their bytes are the same."""
    try:
        os.link(path, final)
    except FileExistsError:
        pass
    except OSError:
        # a file system without hard links: rename, which takes the temporary name away with it
        path.replace(final)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _no_room(error: OSError) -> NoRoom:
    return NoRoom(
        f"the hub cannot write to its disk ({error.strerror}); the item was not kept, send it again later",
        retry_after_s=30,
    )
