"""Which questions are asked next, and of whom.

Operators' time is what runs out first, so the agenda spends it evenly: the stratum that has been
asked least so far comes next, and within it the frame of the highest value.  A control sample is a
stratum like the others and so gets its share however many frames a failing model sends.

A frame is leased as a whole, to one holder (a browser tab), for a while: its questions are asked in
order and no question is ever asked of two at once.  A lease runs out by itself when its tab dies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, Row, Select, func, or_, select, update

from edge_sdk.clock import Clock
from edge_sdk.documents import utc_text
from mentoring.catalogue import WHOLE_PICTURE
from mentoring.database import Database, moment_of, us_of
from mentoring.outline import Rectangle, rectangles_of
from mentoring.schema import items, questions, strata

__all__ = ["LEASE_S", "MAX_LEASE", "Agenda", "Asked", "Lease"]

LEASE_S = 60
"""How long a frame stays with its holder unless it asks again."""
MAX_LEASE = 100
"""Questions in one lease; more than a page can prefetch would only keep them from others."""
_COUNTED = 1000
"""Open questions are counted up to here: a page shows more as "many"."""


@dataclass(frozen=True)
class Asked:
    """One question as an operator gets it."""

    item: str
    question: int | None
    """Number of the question in its item; ``None`` for the whole picture."""
    of: int
    """How many questions the frame was sent with; 0 for a whole picture."""
    class_name: str | None
    confidence: float | None
    box: Rectangle | None
    cells: tuple[tuple[int, int], ...]
    outline: tuple[Rectangle, ...]
    """The cells on the frame, in its pixels."""
    grid: tuple[int, int] | None
    """Rows and columns of the confidence map."""
    width: int
    height: int
    station: str
    camera: str
    boot_id: str
    seq: int
    captured_at: datetime
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The question as ``GET /v1/next`` sends it."""
        plain = {key: value for key, value in vars(self).items() if key not in ("class_name", "captured_at")}
        return {
            **plain,
            "class": self.class_name,
            "captured_at": utc_text(self.captured_at),
            "picture": f"/v1/pictures/{self.item}",
        }


@dataclass(frozen=True)
class Lease:
    """The questions that one holder is to answer before ``until``."""

    holder: str
    until: datetime
    questions: tuple[Asked, ...]
    open: int
    """Questions still to be answered by anyone, these included; counted up to 1000."""
    elsewhere: int
    """Those of them that others hold just now."""


class Agenda:
    """Hands questions out."""

    def __init__(self, database: Database, *, clock: Clock, lease_s: int = LEASE_S) -> None:
        self.lease_s = lease_s
        self._database = database
        self._clock = clock

    def next(self, count: int, *, holder: str | None = None) -> Lease:
        """Lease up to ``count`` questions, whole frames at a time.

        What the holder has already and has not answered comes first and its lease starts afresh, so
        asking again is both the heart-beat and the way back after a reload.

        Args:
            count: At least 1; a first frame with more questions is handed out all the same.
            holder: Who asks; without a name the caller gets a new one, and so never anything twice.
        """
        holder = holder or uuid4().hex
        now_us = us_of(self._clock.now())
        until_us = now_us + self.lease_s * 1_000_000
        with self._database.change() as connection:
            mine = list(connection.execute(_held(holder, now_us)))
            taken = sum(row.open for row in mine)
            behind = {
                row.number: row.asked for row in connection.execute(select(strata).order_by(strata.c.number))
            }
            while behind and taken < min(count, MAX_LEASE):
                stratum = min(behind, key=lambda number: (behind[number], number))
                row = connection.execute(
                    _best_of(stratum, now_us, until_us - now_us, {r.number for r in mine})
                ).first()
                if row is None:
                    del behind[stratum]
                    continue
                if mine and taken + row.open > count:
                    break
                mine.append(row)
                taken += row.open
                behind[stratum] += 1
                connection.execute(
                    update(strata).where(strata.c.number == stratum).values(asked=behind[stratum])
                )
            numbers = [row.number for row in mine]
            connection.execute(
                update(items)
                .where(items.c.number.in_(numbers))
                .values(holder=holder, leased_until_us=until_us)
            )
            asked = _questions(connection, mine)
            still_open, elsewhere = _open(connection, holder, now_us)
        return Lease(holder, moment_of(until_us), asked, still_open, elsewhere)

    def open(self) -> int:
        """Questions that wait for an answer, counted over 1000 frames at most."""
        with self._database.look() as connection:
            return _open(connection, None, 0)[0]

    def release(self, holder: str) -> int:
        """Give back what a holder has; its tab was closed.

        Returns:
            How many frames others may be asked about again.
        """
        with self._database.change() as connection:
            done = connection.execute(
                update(items)
                .where(items.c.holder == holder, items.c.open > 0)
                .values(holder=None, leased_until_us=0)
            )
        return done.rowcount


def _held(holder: str, now_us: int) -> Select[Any]:
    mine = (items.c.holder == holder, items.c.open > 0, items.c.leased_until_us > now_us)
    return select(items).where(*mine).order_by(items.c.number)


def _best_of(stratum: int, now_us: int, lease_us: int, but: set[int]) -> Select[Any]:
    # a lease beyond what is given out now was made before the clock was set back
    over = or_(items.c.leased_until_us <= now_us, items.c.leased_until_us > now_us + lease_us)
    free = (items.c.stratum == stratum, items.c.open > 0, over)
    found = (
        select(items).where(*free, items.c.number.not_in(but)).order_by(items.c.value.desc(), items.c.number)
    )
    # on SQLite there is one writer; elsewhere two hubs pass over each other's rows
    return found.limit(1).with_for_update(skip_locked=True)


def _questions(connection: Connection, rows: list[Row[Any]]) -> tuple[Asked, ...]:
    wanted = questions.c.item.in_([row.number for row in rows])
    of: dict[int, list[Row[Any]]] = {row.number: [] for row in rows}
    for question in connection.execute(select(questions).where(wanted).order_by(questions.c.place)):
        of[question.item].append(question)
    return tuple(
        _asked(row, question, len(of[row.number]) - 1)
        for row in rows
        for question in of[row.number]
        if question.asked and not question.answered
    )


def _asked(row: Row[Any], question: Row[Any], count: int) -> Asked:
    grid = None if row.grid_rows is None else (row.grid_rows, row.grid_columns)
    whole = question.place == WHOLE_PICTURE
    cells = () if whole else tuple((r, c) for r, c in json.loads(question.cells))
    box = None if whole else tuple(json.loads(question.box))
    outline = () if box is None else rectangles_of(cells, box, grid=grid, width=row.width, height=row.height)
    return Asked(
        item=row.sha256,
        question=None if whole else question.place,
        of=count,
        class_name=question.class_name,
        confidence=question.confidence,
        box=box,
        cells=cells,
        outline=tuple(outline),
        grid=grid,
        width=row.width,
        height=row.height,
        station=row.station,
        camera=row.camera,
        boot_id=row.boot_id,
        seq=row.seq,
        captured_at=moment_of(row.captured_at_us),
        reason=row.reason,
    )


def _open(connection: Connection, holder: str | None, now_us: int) -> tuple[int, int]:
    """Questions open to anyone, and those that others hold, each counted over 1000 frames at most."""

    def counted(*where: Any) -> int:
        some = select(items.c.open).where(items.c.open > 0, *where).limit(_COUNTED).subquery()
        return int(connection.scalar(select(func.coalesce(func.sum(some.c.open), 0))) or 0)

    others = (items.c.holder.is_not(None), items.c.holder != holder)
    return counted(), counted(items.c.leased_until_us > now_us, *others) if holder else 0
