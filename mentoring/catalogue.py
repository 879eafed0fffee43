"""The rows of an item: what the hub knows of it without opening its file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Connection, insert, select

from edge_sdk.arrays import Array
from edge_sdk.documents import canonical_json
from edge_sdk.errors import FormatError
from edge_sdk.records import ItemHeader, Record, confidence_of, decode_item, read_header
from mentoring.database import us_of
from mentoring.pictures import PictureKind, kind_of
from mentoring.problems import NotAcceptable, WrongKind
from mentoring.schema import items, questions, strata

__all__ = ["WHOLE_PICTURE", "Entry", "add", "entry_of", "known_of"]

WHOLE_PICTURE = -1
"""The place of the question that is asked about the picture as a whole."""

_MOST = 2**63 - 1


@dataclass(frozen=True)
class Entry:
    """A checked item, ready to be written into the tables."""

    header: ItemHeader
    picture: PictureKind
    grid: tuple[int, int] | None
    """Rows and columns of the confidence map, where it is one of cells."""
    bytes: int


def entry_of(item: bytes) -> Entry:
    """Check an item from end to end.

    Raises:
        WrongKind: The bytes are no item, or its picture is neither PNG nor JPEG.
        NotAcceptable: It is torn or altered, or says what cannot be.
        TooLarge: Its picture has more pixels than the hub takes.
    """
    try:
        read_header(item)
    except FormatError as error:
        raise WrongKind(f"these bytes are no item of item/1: {error}") from error
    try:
        record = decode_item(item)
        scores = confidence_of(record)
    except FormatError as error:
        raise NotAcceptable(str(error)) from error
    except MemoryError as error:  # numpy makes room for what a map claims before it reads it
        raise NotAcceptable("the item's confidence map claims more cells than fit into memory") from error
    frame = record.parts.get("frame")
    if frame is None:
        raise NotAcceptable("the item has no part 'frame'; without a picture there is nothing to ask")
    picture = kind_of(frame)
    declared = next(part.type for part in record.header.parts if part.role == "frame")
    if declared != picture.type:
        raise WrongKind(
            f"the item calls its picture {declared}, but it is {picture.type}; name it what it is"
        )
    grid = _grid(scores)
    _check_numbers(record, picture, grid)
    return Entry(record.header, picture, grid, len(item))


def known_of(connection: Connection, digests: Iterable[str]) -> set[str]:
    """Those of the digests that have a row."""
    found = connection.scalars(select(items.c.sha256).where(items.c.sha256.in_(list(digests))))
    return set(found)


def add(connection: Connection, digest: str, entry: Entry, *, received_at_us: int) -> bool:
    """Write the rows of an item, unless they are there.

    A frame with questions is asked question by question; one without is asked as a whole picture.
    Every frame may be *answered* as a whole picture.
    """
    if known_of(connection, [digest]):
        return False
    header = entry.header
    number = connection.execute(
        insert(items).values(
            sha256=digest,
            stratum=_stratum(connection, header.stratum),
            value=header.value,
            station=header.station,
            camera=header.camera,
            boot_id=header.boot_id,
            seq=header.seq,
            captured_at_us=us_of(header.captured_at),
            received_at_us=received_at_us,
            model=header.model,
            reason=header.reason,
            inclusion_probability=header.inclusion_probability,
            bytes=entry.bytes,
            picture_type=entry.picture.type,
            width=entry.picture.width,
            height=entry.picture.height,
            grid_rows=None if entry.grid is None else entry.grid[0],
            grid_columns=None if entry.grid is None else entry.grid[1],
            open=max(1, len(header.questions)),
        )
    ).inserted_primary_key
    assert number is not None  # an insert of one row returns its key
    rows = [
        {
            "item": number[0],
            "place": place,
            "class_name": question.class_name,
            "confidence": question.confidence,
            "box": json.dumps(question.box),
            "cells": json.dumps(question.cells),
            "asked": 1,
        }
        for place, question in enumerate(header.questions)
    ]
    whole = {"place": WHOLE_PICTURE, "class_name": None, "confidence": None, "box": None, "cells": None}
    rows.append({"item": number[0], **whole, "asked": int(not header.questions)})
    connection.execute(insert(questions), rows)
    return True


def _stratum(connection: Connection, name: str) -> int:
    found = connection.scalar(select(strata.c.number).where(strata.c.name == name))
    if found is None:
        key = connection.execute(insert(strata).values(name=name)).inserted_primary_key
        assert key is not None  # as above
        found = key[0]
    return int(found)


def _grid(scores: Array | None) -> tuple[int, int] | None:
    """Of ``(K, h, w)`` the last two; a detector's ``(A, K)`` has no cells."""
    if scores is None:
        return None
    if scores.ndim not in (2, 3) or not scores.size or not np.issubdtype(scores.dtype, np.floating):
        raise NotAcceptable(
            f"the item's confidence map is {scores.shape} of {scores.dtype}; "
            "give (K, h, w) or (A, K) of float16"
        )
    if not bool(np.isfinite(scores).all()):
        raise NotAcceptable("the item's confidence map holds NaN or infinity; give confidences in [0, 1]")
    return (int(scores.shape[1]), int(scores.shape[2])) if scores.ndim == 3 else None


def _check_numbers(record: Record, picture: PictureKind, grid: tuple[int, int] | None) -> None:
    header = record.header
    if not math.isfinite(header.value):
        raise NotAcceptable(f"the item's value is {header.value}; give a finite number")
    try:
        text = canonical_json(header)
    except (FormatError, UnicodeEncodeError) as error:
        raise NotAcceptable(f"the item's header cannot be kept: {error}") from error
    if b"\\u0000" in text:
        raise NotAcceptable("the item's header holds a NUL character, which no database keeps; leave it out")
    if header.seq > _MOST:
        raise NotAcceptable(f"the item's seq is {header.seq}; give one below 2^63")
    if header.captured_at.tzinfo is None:
        raise NotAcceptable(f"the item's captured_at is {header.captured_at}; give it in UTC with a Z")
    for place, question in enumerate(header.questions):
        left, top, right, bottom = question.box
        if not (0 <= left < right <= picture.width + 1 and 0 <= top < bottom <= picture.height + 1):
            raise NotAcceptable(
                f"question {place} asks about the box {list(question.box)} on a picture of "
                f"{picture.width} x {picture.height}; give left, top, right, bottom inside it"
            )
        if grid is not None and any(not (0 <= r < grid[0] and 0 <= c < grid[1]) for r, c in question.cells):
            raise NotAcceptable(
                f"question {place} asks about a cell outside the confidence map "
                f"of {grid[0]} x {grid[1]} cells"
            )
