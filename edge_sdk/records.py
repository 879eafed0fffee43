"""The wire: items on their way to the hub; what comes back is in ``answers``.

A *record* is the decoded content, an *item* is the file it is stored and sent as: one line of
canonical JSON, then the bytes of its parts, nothing else.  An item's id is the sha256 of the whole
file, so the same item is the same everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_serializer

from edge_sdk.arrays import Array, Image
from edge_sdk.documents import Tolerant, canonical_json, parse_json, sha256_hex, utc_text
from edge_sdk.errors import FormatError
from edge_sdk.inspections import Inspection
from edge_sdk.labels import Labels, Thresholds

__all__ = [
    "HEADER_BYTES",
    "ClassBand",
    "DetectionEntry",
    "DriftNote",
    "ItemHeader",
    "Part",
    "Position",
    "QuestionEntry",
    "Record",
    "confidence_of",
    "decode_item",
    "encode_item",
    "item_id",
    "picture_of",
    "read_header",
    "record_from_inspection",
]

HEADER_BYTES = 64 * 1024
"""The most an item's first line may take, its line feed not counted."""

Reason = Literal["uncertain", "defect", "novelty", "disagreement", "control", "healthy"]
Box = tuple[float, float, float, float]
Cell = tuple[int, int]
Sha256 = Field(pattern=r"^[0-9a-f]{64}$")


class DetectionEntry(Tolerant):
    """A detection in an item's header."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    box: Box
    class_name: str = Field(alias="class")
    confidence: float = Field(ge=0, le=1)
    cells: tuple[Cell, ...] = ()


class QuestionEntry(DetectionEntry):
    """A question in an item's header; its place in the list is its number."""


class ClassBand(Tolerant):
    """The thresholds of one class when the frame was judged."""

    boundary: float
    pass_below: float
    defective_from: float


class Position(Tolerant):
    """Where on the part or the web the frame was taken."""

    x_mm: float | None = None
    y_mm: float | None = None
    encoder: int | None = None


class DriftNote(Tolerant):
    """What the station's watch for drift said when the frame was kept; absent while nothing had changed."""

    state: str = Field(max_length=40)
    """``input changed``, ``detections changed`` or ``alarm``."""
    sentence: str = Field(max_length=1000)
    since: str = Field("", max_length=40)


class Part(Tolerant):
    """One of the pieces of bytes after the header."""

    role: Literal["frame", "confidence", "cells", "reference", "thumbnail"]
    type: str
    bytes: int = Field(ge=0)
    sha256: str = Sha256


class ItemHeader(Tolerant):
    """The first line of an item (``item/1``)."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    schema_: Literal["item/1"] = Field("item/1", alias="schema")
    station: str
    camera: str
    boot_id: str
    seq: int = Field(ge=0)
    captured_at: datetime
    model: str
    reason: Reason
    stratum: str
    value: float
    inclusion_probability: float = Field(gt=0, le=1)
    verdict: Literal["passed", "defective", "uncertain", "not_inspected"]
    thresholds: dict[str, ClassBand]
    detections: tuple[DetectionEntry, ...] = ()
    questions: tuple[QuestionEntry, ...] = ()
    position: Position | None = None
    drift: DriftNote | None = None
    parts: tuple[Part, ...]

    @field_serializer("captured_at")
    def _captured_at_text(self, moment: datetime) -> str:
        return utc_text(moment)


@dataclass(frozen=True)
class Record:
    """The content of an item."""

    header: ItemHeader
    parts: Mapping[str, bytes] = field(default_factory=dict)
    """Bytes by role, in the order of the header."""


def encode_item(record: Record) -> bytes:
    """A record as the bytes of its item.

    Raises:
        FormatError: The header is larger than 64 KiB, or disagrees with the parts.
    """
    line = canonical_json(record.header.model_dump(mode="json", by_alias=True, exclude_none=True))
    if len(line) > HEADER_BYTES:
        raise FormatError(f"the item's header takes {len(line)} bytes; at most {HEADER_BYTES} are allowed")
    pieces = [line, b"\n"]
    for part in record.header.parts:
        data = record.parts.get(part.role)
        if data is None or len(data) != part.bytes or sha256_hex(data) != part.sha256:
            raise FormatError(f"part {part.role!r} is missing or differs from what the header says of it")
        pieces.append(data)
    return b"".join(pieces)


def item_id(item: bytes) -> str:
    """The id of an item: sha256 of the whole file, hexadecimal."""
    return sha256_hex(item)


def read_header(item: bytes) -> tuple[ItemHeader, int]:
    """The header alone, and where the parts begin.

    Args:
        item: The item or any beginning of it that holds the first line.

    Raises:
        FormatError: The first line is missing, too long, or not a header of ``item/1``.
    """
    end = item.find(b"\n", 0, HEADER_BYTES + 1)
    if end < 0:
        raise FormatError(f"the item has no header line within {HEADER_BYTES} bytes; it is damaged or no item")
    return parse_json(item[:end], ItemHeader, name="the item's header"), end + 1


def decode_item(item: bytes) -> Record:
    """The record of an item; every part is checked against its digest.

    Raises:
        FormatError: The item is torn, altered or has bytes to spare.
    """
    header, start = read_header(item)
    parts: dict[str, bytes] = {}
    for part in header.parts:
        data = item[start : start + part.bytes]
        if part.role in parts:
            raise FormatError(f"part {part.role!r} stands twice in the item; it is damaged")
        if len(data) != part.bytes:
            raise FormatError(f"part {part.role!r} has {len(data)} of {part.bytes} bytes; the item is torn")
        if sha256_hex(data) != part.sha256:
            raise FormatError(f"part {part.role!r} is not what its digest says; the item is damaged")
        parts[part.role] = data
        start += part.bytes
    if start != len(item):
        raise FormatError(f"the item has {len(item) - start} bytes after its last part; it is damaged")
    return Record(header, parts)


def record_from_inspection(
    inspection: Inspection,
    *,
    station: str,
    boot_id: str,
    seq: int,
    reason: Reason,
    stratum: str,
    value: float,
    inclusion_probability: float,
    labels: Labels,
    thresholds: Thresholds,
    position: Position | None = None,
    drift: Mapping[str, Any] | None = None,
) -> Record:
    """What an operator and a later training need of an inspection.

    The picture goes in as it was judged, before preprocessing, as PNG; the confidence map goes in as
    float16.  Cells of detections move into a part of their own where the header would grow too large.

    Args:
        inspection: One with a verdict by a model.
        seq: Counts up within ``boot_id``.
        reason: Why it was chosen.
        stratum: The group that it was chosen within.
        value: Rank within its stratum; larger is kept longer.
        inclusion_probability: With which a frame like it is chosen, in (0, 1].
        drift: What the watch for drift says now, as ``DriftNote``.

    Raises:
        FormatError: The picture cannot be encoded.
    """
    found = inspection.detections
    entries = [
        DetectionEntry(
            box=_box(found.boxes[n]),
            class_name=labels.names[int(found.classes[n])],
            confidence=_share(found.confidence[n]),
            cells=tuple((int(r), int(c)) for _, r, c in found.cells[found.cells[:, 0] == n]),
        )
        for n in range(len(found))
    ]
    asked = tuple(
        QuestionEntry(
            box=_box(question.box),
            class_name=labels.names[question.class_id],
            confidence=_share(question.confidence),
            cells=question.cells,
        )
        for question in inspection.questions
    )
    bands = {
        name: ClassBand(
            boundary=_share(thresholds.boundary[k]),
            pass_below=_share(thresholds.pass_below[k]),
            defective_from=_share(thresholds.defective_from[k]),
        )
        for k, name in enumerate(labels.names)
    }
    parts: dict[str, bytes] = {"frame": _png(inspection.frame.pixels)}
    kinds = {"frame": "image/png", "confidence": "application/x-npy", "cells": "application/x-npy"}
    if inspection.confidence is not None:
        parts["confidence"] = _npy(inspection.confidence.astype(np.float16))
    many = sum(len(entry.cells) for entry in entries) > 2000
    if many:
        parts["cells"] = _npy(found.cells)
        entries = [entry.model_copy(update={"cells": ()}) for entry in entries[:200]]
    header = ItemHeader(
        station=station,
        camera=inspection.frame.camera,
        boot_id=boot_id,
        seq=seq,
        captured_at=inspection.frame.captured_at,
        model=inspection.model,
        reason=reason,
        stratum=stratum,
        value=round(float(value), 6),
        inclusion_probability=inclusion_probability,
        verdict=inspection.verdict.value,
        thresholds=bands,
        detections=tuple(entries),
        questions=asked,
        position=position,
        drift=None if drift is None else DriftNote.model_validate(drift),
        parts=tuple(
            Part(role=role, type=kinds[role], bytes=len(data), sha256=sha256_hex(data))
            for role, data in parts.items()
        ),
    )
    return Record(header, parts)


def picture_of(record: Record) -> Image:
    """The picture as it was judged, ``(H, W, 3)`` uint8 blue green red.

    Raises:
        FormatError: The item has no picture, or it cannot be read.
    """
    import cv2

    data = record.parts.get("frame")
    if data is None:
        raise FormatError("the item has no part 'frame'; it holds no picture")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise FormatError("the item's picture cannot be read; it is damaged or of an unknown type")
    return np.asarray(image, np.uint8)


def confidence_of(record: Record) -> Array | None:
    """The baseline's confidence, float16 ``(K, h, w)`` or of a detector ``(A, K)``; ``None`` where the item has none.

    Raises:
        FormatError: The part is no array.
    """
    data = record.parts.get("confidence")
    if data is None:
        return None
    try:
        return np.asarray(np.load(io.BytesIO(data), allow_pickle=False))
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"the item's confidence map cannot be read ({error}); it is damaged") from error


def _box(box: Array | Box) -> Box:
    left, top, right, bottom = (round(float(edge), 2) for edge in box)
    return left, top, right, bottom


def _share(value: object) -> float:
    return round(float(value), 6)  # type: ignore[arg-type]


def _png(pixels: Image) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not done:
        raise FormatError(f"the picture {pixels.shape} cannot be encoded as PNG")
    return bytes(data.tobytes())


def _npy(array: Array) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()
