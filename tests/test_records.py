"""The wire: items survive it whole, and a changed bit is found."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_sdk.answers import Answer, MentoredExport
from edge_sdk.detections import Detections
from edge_sdk.errors import FormatError
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.records import (
    Record,
    confidence_of,
    decode_item,
    encode_item,
    item_id,
    picture_of,
    read_header,
    record_from_inspection,
)
from edge_sdk.vision.decode import decode_cells, questions
from edge_sdk.vision.preprocess import PreprocessSpec, geometry


def record(
    seed: int = 0, *, size: tuple[int, int] = (24, 32), grid: tuple[int, int] = (3, 4), **changed: Any
) -> Record:
    """A record as a station makes it, of a drawn frame."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (*size, 3), np.uint8)
    confidence = rng.random((2, *grid), np.float32)
    place = geometry(PreprocessSpec(width=grid[1] * 8, height=grid[0] * 8), *size)
    thresholds = Thresholds.uniform(2, boundary=0.5, pass_below=0.3, defective_from=0.9)
    found = decode_cells(confidence, thresholds.pass_below, place=place, cell_px=8)
    inspection = Inspection(
        frame=Frame(pixels, "left", 7, datetime(2026, 11, 21, 10, tzinfo=timezone.utc)),
        detections=found,
        verdict=Verdict.UNCERTAIN,
        reason="crack 0.61",
        questions=questions(confidence, thresholds.pass_below, place=place, cell_px=8),
        confidence=confidence,
        model="f" * 64,
    )
    arguments: dict[str, Any] = {
        "station": "press-3",
        "boot_id": "b",
        "seq": seed,
        "reason": "uncertain",
        "stratum": "left/uncertain",
        "value": 0.61,
        "inclusion_probability": 1.0,
    } | changed
    return record_from_inspection(inspection, labels=Labels(("crack", "dent")), thresholds=thresholds, **arguments)


@given(st.integers(0, 1000), st.floats(0.01, 1), st.sampled_from(["uncertain", "defect", "control"]))
@settings(max_examples=30, deadline=None)
def test_a_record_survives_the_wire(seed: int, probability: float, reason: str) -> None:
    before = record(seed, reason=reason, inclusion_probability=probability)
    item = encode_item(before)
    after = decode_item(item)
    assert after.header == before.header
    assert dict(after.parts) == dict(before.parts)
    assert encode_item(after) == item
    assert read_header(item)[0] == before.header


def test_the_picture_comes_back_pixel_by_pixel_and_the_map_as_float16() -> None:
    rng = np.random.default_rng(3)
    back = decode_item(encode_item(record(3)))
    assert np.array_equal(picture_of(back), rng.integers(0, 256, (24, 32, 3), np.uint8))
    found = confidence_of(back)
    assert found is not None and found.dtype == np.float16 and found.shape == (2, 3, 4)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_one_changed_bit_is_found_or_changes_the_name(data: st.DataObject) -> None:
    item = bytearray(encode_item(record(1)))
    before = item_id(bytes(item))
    position = data.draw(st.integers(0, len(item) - 1))
    item[position] ^= 1 << data.draw(st.integers(0, 7))
    assert item_id(bytes(item)) != before
    start = read_header(encode_item(record(1)))[1]
    if position >= start:
        with pytest.raises(FormatError, match="is not what its digest says; the item is damaged"):
            decode_item(bytes(item))


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_torn_item_is_never_taken_for_whole(cut: int) -> None:
    item = encode_item(record(1))
    with pytest.raises(FormatError):
        decode_item(item[: cut % len(item)])


def test_bytes_to_spare_are_told() -> None:
    with pytest.raises(FormatError, match="the item has 3 bytes after its last part; it is damaged"):
        decode_item(encode_item(record(1)) + b"abc")
    with pytest.raises(FormatError, match="has no header line within 65536 bytes; it is damaged or no item"):
        decode_item(b"x" * 100_000)


def test_a_part_that_differs_from_the_header_is_not_encoded() -> None:
    whole = record(1)
    with pytest.raises(FormatError, match="part 'frame' is missing or differs from what the header says of it"):
        encode_item(Record(whole.header, {"confidence": whole.parts["confidence"]}))


def test_a_frame_full_of_detections_still_has_a_short_header() -> None:
    place = geometry(PreprocessSpec(width=640, height=640), 64, 64)
    confidence = np.full((1, 80, 80), 0.7, np.float32)
    found = decode_cells(confidence, np.array([0.5], np.float32), place=place, cell_px=8)
    inspection = Inspection(
        frame=Frame(np.zeros((64, 64, 3), np.uint8), "left", 0, datetime(2026, 1, 1, tzinfo=timezone.utc)),
        detections=found,
        verdict=Verdict.UNCERTAIN,
        reason="",
        model="f" * 64,
    )
    large = record_from_inspection(
        inspection,
        station="s",
        boot_id="b",
        seq=0,
        reason="defect",
        stratum="s",
        value=1,
        inclusion_probability=1,
        labels=Labels(("crack",)),
        thresholds=Thresholds.uniform(1),
    )
    back = decode_item(encode_item(large))
    assert [part.role for part in back.header.parts] == ["frame", "cells"]
    assert len(back.header.detections) == 1 and back.header.detections[0].cells == ()


def test_unknown_fields_are_passed_over_and_unknown_versions_are_not() -> None:
    item = encode_item(record(1))
    line, rest = item.split(b"\n", 1)
    assert decode_item(b'{"later":1,' + line[1:] + b"\n" + rest).header == record(1).header
    with pytest.raises(FormatError, match="the item's header: schema is \"item/9\"; give 'item/1'"):
        decode_item(line.replace(b"item/1", b"item/9") + b"\n" + rest)


def test_an_answer_needs_a_time_with_its_zone() -> None:
    fields = {"id": str(uuid4()), "item": "a" * 64, "answer": "confirm", "operator": "ada", "after_ms": 900}
    given_answer = Answer.model_validate(fields | {"answered_at": "2026-11-21T10:00:00Z", "class": "dent"})
    assert Answer.model_validate_json(given_answer.model_dump_json(by_alias=True)) == given_answer
    with pytest.raises(ValidationError, match="give the time with its zone"):
        Answer.model_validate(fields | {"answered_at": "2026-11-21T10:00:00"})


def test_an_export_cannot_name_a_file_outside_itself() -> None:
    with pytest.raises(ValidationError, match="leaves the export"):
        MentoredExport(mark=1, counts={}, files={"../x": "a" * 64})


def test_detections_of_other_shapes_are_refused() -> None:
    from edge_sdk.errors import ShapeError

    with pytest.raises(ShapeError, match=r"boxes is \(7, 5\); give \(D, 4\), one row a detection"):
        Detections(
            np.zeros((7, 5), np.float32),
            np.zeros(7, np.int32),
            np.zeros(7, np.float32),
            np.zeros((0, 3), np.int32),
        )
