"""Items as a station makes them, of drawn pictures: brushed metal with scratches and pits."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import cv2
import numpy as np

from edge_sdk.arrays import Image
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.records import Reason, encode_item, item_id, record_from_inspection
from edge_sdk.vision.decode import decode_cells, questions
from edge_sdk.vision.preprocess import PreprocessSpec, geometry

CELL_PX = 16
LABELS = Labels(("scratch", "pit"))
THRESHOLDS = Thresholds.uniform(2, boundary=0.6, pass_below=0.5, defective_from=0.9)


def drawn_item(
    number: int = 0,
    *,
    peaks: int = 2,
    reason: Reason = "uncertain",
    stratum: str | None = None,
    value: float = 0.5,
    height: int = 300,
    width: int = 400,
    side: int = 192,
) -> tuple[str, bytes]:
    """The id and the bytes of an item with up to ``peaks`` questions."""
    rng = np.random.default_rng(number)
    picture = metal(rng, height, width)
    spec = PreprocessSpec(side, side, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    place = geometry(spec, height, width)
    cells = side // CELL_PX
    confidence = rng.uniform(0.02, 0.2, (2, cells, cells)).astype(np.float32)
    for peak in range(peaks):
        row, column = int(rng.integers(cells // 3, 2 * cells // 3)), 1 + peak * (cells // 3)
        x = ((column + 1) * CELL_PX - place.left) / place.scale_x
        y = ((row + 0.5) * CELL_PX - place.top) / place.scale_y
        class_id = (number + peak) % 2
        draw_defect(picture, class_id, (int(x), int(y)), rng)
        confidence[class_id, row, column] = 0.85 - 0.05 * peak
        confidence[class_id, row, column + 1] = 0.6
    bands = THRESHOLDS.pass_below
    asked = questions(confidence, bands, place=place, cell_px=CELL_PX)
    inspection = Inspection(
        frame=Frame(picture, "left", number, moment(number)),
        detections=decode_cells(confidence, bands, place=place, cell_px=CELL_PX),
        verdict=Verdict.UNCERTAIN if peaks else Verdict.PASSED,
        reason="drawn",
        questions=asked,
        confidence=confidence,
        model="0" * 64,
    )
    return made(inspection, number, reason=reason, stratum=stratum or f"left/{reason}", value=value)


def made(
    inspection: Inspection, number: int, *, reason: Reason, stratum: str, value: float
) -> tuple[str, bytes]:
    """The id and the bytes of an inspection's item."""
    record = record_from_inspection(
        inspection,
        station="press-3",
        boot_id="boot",
        seq=number,
        reason=reason,
        stratum=stratum,
        value=value,
        inclusion_probability=0.5,
        labels=LABELS,
        thresholds=THRESHOLDS,
    )
    item = encode_item(record)
    return item_id(item), item


def metal(rng: np.random.Generator, height: int, width: int) -> Image:
    """A sheet of brushed metal under an uneven lamp."""
    grain = cv2.GaussianBlur(
        rng.normal(0, 26, (height, width)).astype(np.float32), (0, 0), sigmaX=14, sigmaY=0.6
    )
    y, x = np.mgrid[0:height, 0:width]
    light = 128 + 46 * np.exp(-((x / width - 0.45) ** 2 + (y / height - 0.4) ** 2) / 0.18)
    grey = light + 3.2 * grain + rng.normal(0, 2, (height, width))
    picture: Image = np.clip(grey[..., None] * np.array([1.04, 1.0, 0.95]), 0, 255).astype(np.uint8)
    return picture


def draw_defect(picture: Image, class_id: int, at: tuple[int, int], rng: np.random.Generator) -> None:
    """A scratch or a pit, drawn into the picture."""
    size = max(5, picture.shape[1] // 32)
    if class_id == 0:
        bend = rng.integers(-size, size, (6, 2)) * (1, 0.5) + np.linspace(
            (-size, -size / 2), (size, size / 2), 6
        )
        points = (bend + at).astype(np.int32)
        cv2.polylines(picture, [points], False, (225, 225, 220), 2, cv2.LINE_AA)
        cv2.polylines(picture, [points + 1], False, (70, 66, 60), 1, cv2.LINE_AA)
    else:
        cv2.ellipse(
            picture,
            at,
            (size // 2, size // 3),
            float(rng.uniform(0, 180)),
            0,
            360,
            (48, 46, 44),
            -1,
            cv2.LINE_AA,
        )


def moment(number: int) -> datetime:
    return datetime(2026, 11, 21, 10, tzinfo=timezone.utc) + timedelta(seconds=number)


def answer(
    item: str,
    question: int | None = 0,
    says: str = "confirm",
    *,
    id: UUID | str | None = None,
    withdraws: UUID | str | None = None,
    **more: Any,
) -> dict[str, Any]:
    """An answer as the page sends it."""
    plain = {
        "schema": "answer/1",
        "id": str(id or uuid4()),
        "item": item,
        "question": question,
        "answer": says,
        "class": None,
        "operator": "anna",
        "device": "web-1",
        "answered_at": "2026-11-21T10:00:00Z",
        "after_ms": 900,
        "page": "mentoring/1",
        "withdraws": None if withdraws is None else str(withdraws),
    }
    return {**plain, **more}


def altered(item: bytes, **header: Any) -> tuple[str, bytes]:
    """The item with other values in its header."""
    line, _, parts = item.partition(b"\n")
    changed = json.dumps({**json.loads(line), **header}, sort_keys=True, separators=(",", ":")).encode()
    item = changed + b"\n" + parts
    return item_id(item), item
