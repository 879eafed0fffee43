"""What operators said up to a mark, as the folder that training reads (``mentored/1``).

A mark is the number of an answer; it covers that answer and all before it.  Answers are never
changed and items never go, so the same mark gives the same bytes, as a folder or as a tar.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, func, select

from edge_sdk.answers import MentoredExport
from edge_sdk.clock import Clock
from edge_sdk.documents import canonical_json, sha256_hex, utc_text
from edge_sdk.errors import ConfigError
from edge_sdk.folders import begun, put_in_place, settle
from mentoring.answers import answer_of, counts_of
from mentoring.database import Database, moment_of, us_of
from mentoring.problems import NotFound, NotSettled
from mentoring.schema import answers, items
from mentoring.store import ItemStore

__all__ = ["SETTLE_S", "Export", "Exports", "Member", "write_folder"]

SETTLE_S = 10.0
"""For so long an answer may be taken back before a mark covers it."""
_SUFFIX = {"image/png": "png", "image/jpeg": "jpg"}


@dataclass(frozen=True)
class Member:
    """One file of an export."""

    path: str
    """Relative, POSIX."""
    sha256: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class Export:
    """All that a mark covers; the pixels are read when they are written."""

    summary: MentoredExport
    members: tuple[Member, ...]
    """In order of their paths."""

    def tar(self) -> Iterator[bytes]:
        """The export as an uncompressed tar, piece by piece: members sorted, no times, no owners."""
        for member in self.members:
            entry = tarfile.TarInfo(member.path)
            entry.size, entry.mode = member.size, 0o644
            yield entry.tobuf(tarfile.USTAR_FORMAT)
            yield member.read()
            yield b"\0" * (-member.size % tarfile.BLOCKSIZE)
        yield b"\0" * 2 * tarfile.BLOCKSIZE


class Exports:
    """Makes exports of one hub."""

    def __init__(self, store: ItemStore, database: Database, *, clock: Clock) -> None:
        self._store = store
        self._database = database
        self._clock = clock

    def newest_mark(self, *, settle_s: float = SETTLE_S) -> int:
        """The newest mark that covers no answer younger than ``settle_s``; 0 covers none."""
        with self._database.look() as connection:
            return self._newest(connection, settle_s)

    def at(self, mark: int | None = None, *, settle_s: float = SETTLE_S) -> Export:
        """What a mark covers, by default the newest.

        Raises:
            NotFound: There is no such mark yet.
            NotSettled: The mark covers an answer younger than ``settle_s``.
        """
        with self._database.look() as connection:
            newest = self._newest(connection, settle_s)
            if mark is None:
                mark = newest
            last = connection.scalar(select(func.max(answers.c.number))) or 0
            if not 0 <= mark <= last:
                raise NotFound(f"there is no mark {mark}; the last answer is number {last}")
            if mark > newest:
                raise NotSettled(
                    f"mark {mark} covers an answer younger than {settle_s:g} s, which may still be taken back; "
                    f"ask again then, or for mark {newest}",
                    retry_after_s=max(1, round(settle_s)),
                )
            said, sent = _answers_until(connection, mark)
            counts = {"records": len(sent), **counts_of(connection, mark=mark)}
        members = [_text("answers.jsonl", said)]
        rows: list[bytes] = []
        for digest in sorted(sent):
            row, parts = self._record(digest)
            rows.append(row)
            members += parts
        members.append(_text("records.jsonl", rows))
        files = {member.path: member.sha256 for member in members}
        summary = MentoredExport(mark=mark, counts=counts, files=files)
        members.append(_text("export.json", [canonical_json(summary)]))
        return Export(summary, tuple(sorted(members, key=lambda member: member.path)))

    def _newest(self, connection: Connection, settle_s: float) -> int:
        since_us = us_of(self._clock.now()) - round(settle_s * 1e6)
        numbers = select(func.min(answers.c.number), func.max(answers.c.number))
        young = (
            None
            if settle_s <= 0
            else connection.execute(numbers.where(answers.c.received_at_us > since_us)).one()
        )
        if young is not None and young[0] is not None:
            return int(young[0]) - 1
        return int(connection.execute(numbers).one()[1] or 0)

    def _record(self, digest: str) -> tuple[bytes, list[Member]]:
        """A line of ``records.jsonl`` with the header as it was sent, and the files it names."""
        header = self._store.header_of(digest)
        members: dict[str, Member] = {}
        for part in header.parts:
            if part.role == "frame":
                path = f"pictures/{digest}.{_SUFFIX[part.type]}"
            elif part.role == "confidence":
                path = f"confidence/{digest}.npy"
            else:
                continue
            read = partial(self._part, digest, part.role)
            members[part.role] = Member(path, part.sha256, part.bytes, read)
        row = {
            "item": digest,
            "picture": members["frame"].path,
            "confidence": members["confidence"].path if "confidence" in members else None,
            "header": json.loads(self._store.header_bytes(digest)),
        }
        return canonical_json(row), list(members.values())

    def _part(self, digest: str, role: str) -> bytes:
        return self._store.read_part(digest, role)[0]


def write_folder(export: Export, out: Path) -> None:
    """Write an export as a folder, whole or not at all.

    An older export at ``out`` is replaced once the new one is whole and on disk; anything else there is left alone.

    Raises:
        ConfigError: ``out`` is there and is no export.
        OSError: The disk refused; ``out`` is as it was.
    """
    settle(out)
    if out.exists() and not (out / "export.json").is_file() and (out.is_file() or any(out.iterdir())):
        raise ConfigError(f"{out} is there and is no export; give another --out, or an empty folder")
    out = out.resolve()
    part = begun(out)
    try:
        for folder in (part / "pictures", part / "confidence"):
            folder.mkdir()
        for member in export.members:
            with (part / member.path).open("wb") as file:
                file.write(member.read())
                file.flush()
                os.fsync(file.fileno())
        for folder in (part / "pictures", part / "confidence", part):
            _fsync_folder(folder)
        put_in_place(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        settle(out)
        raise
    _fsync_folder(out.parent)


def _answers_until(connection: Connection, mark: int) -> tuple[list[bytes], set[str]]:
    """The lines of ``answers.jsonl`` in order of arrival, and the items they are about."""
    query = (
        select(answers, items.c.sha256)
        .join(items, answers.c.item == items.c.number)
        .where(answers.c.number <= mark)
        .order_by(answers.c.number)
    )
    lines, about = [], set()
    for row in connection.execute(query):
        plain = answer_of(row, row.sha256).model_dump(mode="json", by_alias=True)
        lines.append(canonical_json({**plain, "received_at": utc_text(moment_of(row.received_at_us))}))
        about.add(row.sha256)
    return lines, about


def _text(path: str, lines: list[bytes]) -> Member:
    data = b"".join(line + b"\n" for line in lines)
    return Member(path, sha256_hex(data), len(data), lambda: data)


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
