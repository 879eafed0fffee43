"""What was drawn for the control sample and then given up.

The control sample is only worth its name if its losses are known: an estimate takes the probability
of being drawn times the share that was kept.  So every control item that is evicted, or finds no room,
leaves a line here, in a file beside the items.
"""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.documents import canonical_json
from edge_sdk.outbox.disk import Disk, append_durably, write_durably

__all__ = ["CONTROL", "Tombstone", "Tombstones", "read_tombstones"]

log = logging.getLogger(__name__)

CONTROL = "control"
"""The stratum of the control sample."""

MERGE_BYTES = 128 * 1024
"""Beyond this the single lines are merged into counts, so that the file stays bounded."""


@dataclass(frozen=True)
class Tombstone:
    """One item, or ``count`` of them merged, that was drawn and not kept."""

    stratum: str
    probability: float
    """With which it was drawn, in (0, 1]."""
    why: str
    """``evicted``, ``no room``, ``failed``, or ``not put`` for what never became an item."""
    item: str = ""
    """Its id; empty for merged ones and for what never became an item."""
    count: int = 1


class Tombstones:
    """The file ``tombstones.jsonl`` of an outbox; the station alone writes it."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._unwritten: list[Tombstone] = []
        self._torn = _ends_torn(path)

    def add(self, stone: Tombstone) -> None:
        """Write one down, durably; on a full disk it is kept and written with the next.

        Nothing is raised: losing a count must not cost an item.
        """
        self._unwritten.append(stone)
        self.flush()

    def flush(self) -> None:
        """Write what could not be written before."""
        if not self._unwritten:
            return
        lines = b"".join(_line(stone) for stone in self._unwritten)
        try:
            # a line that tore on the way is ended first, so that it spoils no other
            append_durably(self._disk, self._path, b"\n" + lines if self._torn else lines)
        except OSError as error:
            self._torn = True
            log.warning(
                "tombstone not written yet", extra={"count": len(self._unwritten), "error": str(error)}
            )
            return
        self._torn = False
        self._unwritten = []
        if self.bytes() > MERGE_BYTES:
            self._merge()

    def read(self) -> tuple[Tombstone, ...]:
        """All of them; a torn or foreign line is passed over.  An item that stands twice counts once."""
        return (*read_tombstones(self._path), *self._unwritten)

    def bytes(self) -> int:
        """Size of the file."""
        try:
            return os.stat(self._path).st_size
        except OSError:
            return 0

    def void(self, items: set[str]) -> None:
        """Take back the tombstones of items that turned out to be here after all."""
        stones = read_tombstones(self._path)
        if any(stone.item in items for stone in stones):
            self._rewrite([stone for stone in stones if stone.item not in items])

    def _merge(self) -> None:
        counts: Counter[tuple[str, float, str]] = Counter()
        for stone in read_tombstones(self._path):
            counts[stone.stratum, stone.probability, stone.why] += stone.count
        self._rewrite([Tombstone(*key, count=count) for key, count in sorted(counts.items())])

    def _rewrite(self, stones: list[Tombstone]) -> None:
        with suppress(OSError):  # the longer file says the same
            write_durably(self._disk, self._path, b"".join(_line(stone) for stone in stones))


def read_tombstones(path: Path) -> tuple[Tombstone, ...]:
    """The tombstones in a file, for the station and for who merely looks."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError:
        return ()
    stones: dict[object, Tombstone] = {}
    for number, line in enumerate(lines):
        try:
            value = json.loads(line)
            stone = Tombstone(
                stratum=str(value["stratum"]),
                probability=float(value["probability"]),
                why=str(value["why"]),
                item=str(value.get("item", "")),
                count=int(value.get("count", 1)),
            )
        except (ValueError, KeyError, TypeError):
            continue
        stones.setdefault(stone.item or number, stone)
    return tuple(stones.values())


def _ends_torn(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False


def _line(stone: Tombstone) -> bytes:
    value = {
        "stratum": stone.stratum,
        "probability": stone.probability,
        "why": stone.why,
        "count": stone.count,
    }
    if stone.item:
        value["item"] = stone.item
    return canonical_json(value) + b"\n"
