"""A detector's boxes: suppression against a slow version, and by what must hold of any result."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.detections import Detections
from edge_sdk.errors import ShapeError
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.quality.gates import verdicts
from edge_sdk.vision.boxes import overlaps
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import IOU, area_logits, box_questions, decode_anchors
from edge_sdk.vision.preprocess import PreprocessSpec, geometry

Floats = npt.NDArray[np.float32]
SAME = geometry(PreprocessSpec(width=64, height=64), 64, 64)
HALF = np.array([0.5, 0.5], np.float32)
LABELS = Labels(("crack", "dent"))


@st.composite
def detectors(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Boxes within the picture, many alike, and confidences of two classes with ties."""
    number = draw(st.integers(0, 14))
    edge = st.integers(0, 48)
    rows = [
        [x := draw(edge), y := draw(edge), x + draw(st.integers(1, 16)), y + draw(st.integers(1, 16))]
        for _ in range(number)
    ]
    sure = st.sampled_from([0.1, 0.5, 0.6, 0.75, 0.9])
    confidence = [[draw(sure), draw(sure)] for _ in range(number)]
    return np.array(rows, np.float32).reshape(-1, 4), np.array(confidence, np.float32).reshape(-1, 2)


def slow_overlap(one: Floats, other: Floats) -> float:
    """Pixel by pixel, as boxes of whole pixels allow."""

    def pixels(box: Floats) -> set[tuple[int, int]]:
        left, top, right, bottom = (int(edge) for edge in box)
        return {(x, y) for x in range(left, right) for y in range(top, bottom)}

    first, second = pixels(one), pixels(other)
    return len(first & second) / len(first | second) if first | second else 0.0


def slow_suppression(boxes: Floats, confidence: Floats, threshold: float) -> list[tuple[int, int]]:
    """Class and anchor of what is kept, one candidate at a time from the surest down."""
    kept: list[tuple[int, int]] = []
    for k in range(confidence.shape[1]):
        mine: list[int] = []
        for anchor in sorted(range(len(boxes)), key=lambda a: (-confidence[a, k], a)):
            if confidence[anchor, k] < threshold:
                continue
            if all(slow_overlap(boxes[anchor], boxes[other]) <= IOU for other in mine):
                mine.append(anchor)
        kept += [(k, anchor) for anchor in mine]
    return sorted(kept, key=lambda one: (-confidence[one[1], one[0]], one[0], one[1]))


def reported(found: Detections) -> list[tuple[int, int]]:
    """Class and reported anchor of each detection."""
    first = [int(found.cells[found.cells[:, 0] == n][0, 1]) for n in range(len(found))]
    return [(int(k), anchor) for k, anchor in zip(found.classes, first, strict=True)]


@given(detectors())
def test_overlaps_are_those_of_counted_pixels(given_: tuple[Floats, Floats]) -> None:
    boxes, _ = given_
    found = overlaps(boxes, boxes)
    for n in range(len(boxes)):
        for m in range(len(boxes)):
            assert found[n, m] == pytest.approx(slow_overlap(boxes[n], boxes[m]), abs=1e-6)


@given(detectors())
def test_what_is_kept_is_what_a_slow_version_keeps(given_: tuple[Floats, Floats]) -> None:
    boxes, confidence = given_
    found = decode_anchors(boxes, confidence, HALF, place=SAME)
    assert reported(found) == slow_suppression(boxes, confidence, 0.5)


@given(detectors())
def test_no_two_boxes_of_a_class_overlap_and_the_surest_is_kept(given_: tuple[Floats, Floats]) -> None:
    boxes, confidence = given_
    found = decode_anchors(boxes, confidence, HALF, place=SAME)
    for k in (0, 1):
        mine = found.boxes[found.classes == k]
        between = overlaps(mine, mine)
        np.fill_diagonal(between, 0)
        assert between.max(initial=0) <= IOU
        over = confidence[:, k] >= 0.5
        if over.any():
            assert found.confidence[found.classes == k].max() == confidence[over, k].max()
    assert (np.diff(found.confidence) <= 0).all()


@given(detectors())
def test_suppressing_again_changes_nothing(given_: tuple[Floats, Floats]) -> None:
    boxes, confidence = given_
    found = decode_anchors(boxes, confidence, HALF, place=SAME)
    alone = np.zeros((len(found), 2), np.float32)
    alone[np.arange(len(found)), found.classes] = found.confidence
    again = decode_anchors(found.boxes, alone, HALF, place=SAME)
    np.testing.assert_array_equal(again.boxes, found.boxes)
    np.testing.assert_array_equal(again.classes, found.classes)


@given(detectors())
def test_every_candidate_is_reported_or_belongs_to_a_reported_box(given_: tuple[Floats, Floats]) -> None:
    boxes, confidence = given_
    found = decode_anchors(boxes, confidence, HALF, place=SAME)
    owned = sorted((int(found.classes[n]), int(anchor)) for n, anchor, _ in found.cells)
    assert owned == sorted((int(k), int(anchor)) for anchor, k in np.argwhere(confidence >= 0.5))


@given(detectors())
def test_the_gates_see_the_verdict_that_the_boxes_give(given_: tuple[Floats, Floats]) -> None:
    boxes, confidence = given_
    if not len(boxes):
        return
    bands = Thresholds(HALF, HALF, np.array([0.8, 0.7], np.float32))
    areas = area_logits({"boxes": boxes[None], "scores": confidence[None]})
    assert areas is not None
    seen = int(verdicts(areas, bands)[0])
    verdict, _ = decide(decode_anchors(boxes, confidence, HALF, place=SAME), bands, LABELS)
    assert ("passed", "uncertain", "defective")[seen] == verdict.value


def test_boxes_come_out_in_frame_pixels_cut_at_the_border() -> None:
    place = geometry(PreprocessSpec(width=64, height=64), 128, 256)  # a quarter of the size, 16 rows of padding
    boxes = np.array([[-8, 20, 8, 40], [0, 0, 64, 15]], np.float32)
    found = decode_anchors(boxes, np.array([[0.9, 0], [0.8, 0]], np.float32), HALF, place=place)
    np.testing.assert_allclose(found.boxes, [[0, 16, 32, 96]])  # the second lies in the padding


def test_no_more_boxes_than_asked_for_are_reported() -> None:
    boxes = np.array([[8 * n, 0, 8 * n + 8, 8] for n in range(8)], np.float32)
    confidence = np.linspace(0.9, 0.6, 8, dtype=np.float32)[:, None]
    found = decode_anchors(boxes, confidence, HALF[:1], place=SAME, most=3)
    np.testing.assert_allclose(found.confidence, confidence[:3, 0])


def test_a_question_is_the_box_with_its_anchor() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [40, 40, 60, 60], [20, 0, 30, 10], [0, 30, 9, 39]], np.float32)
    confidence = np.array([[0.6], [0.9], [0.8], [0.7], [0.65]], np.float32)
    asked = box_questions(decode_anchors(boxes, confidence, HALF[:1], place=SAME))
    assert [one.cells for one in asked] == [((1, 0),), ((2, 0),), ((3, 0),)]
    assert asked[0].box == (1, 0, 11, 10)
    assert [round(one.confidence, 2) for one in asked] == [0.9, 0.8, 0.7]


def test_areas_of_cells_and_anchors_have_one_form() -> None:
    scores = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    areas = area_logits({"scores": scores})
    assert areas is not None
    assert areas.shape == (2, 3, 4, 1)
    assert areas[1, 2, 3, 0] == scores[1, 3, 2]
    cells = np.zeros((1, 2, 3, 3), np.float32)
    assert area_logits({"cells": cells}) is cells
    assert area_logits({"novelty": cells}) is None


def test_boxes_and_scores_of_different_anchors_are_refused() -> None:
    with pytest.raises(ShapeError) as caught:
        decode_anchors(np.zeros((3, 4), np.float32), np.zeros((4, 2), np.float32), HALF, place=SAME)
    assert "boxes is (3, 4); give (4, 4), one row an anchor" in str(caught.value)
    with pytest.raises(ShapeError) as caught:
        decode_anchors(np.zeros((4, 4), np.float32), np.zeros((4, 3), np.float32), HALF, place=SAME)
    assert str(caught.value) == "thresholds is (2,) for 3 classes; give (3,), one a class"
