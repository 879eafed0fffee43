"""Detections, questions and verdicts against slow versions written out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_sdk.detections import Detections
from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.inspections import Verdict
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import confidence_from_logits, decode_cells, questions
from edge_sdk.vision.preprocess import PreprocessSpec, geometry

Maps = npt.NDArray[np.float32]
maps = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)
SAME = geometry(PreprocessSpec(width=70, height=70), 70, 70)


def slow_groups(confidence: Maps, threshold: float) -> set[tuple[int, frozenset[tuple[int, int]]]]:
    """Flood fill, one cell at a time."""
    found = set()
    for k, plane in enumerate(confidence):
        left = {(int(r), int(c)) for r, c in np.argwhere(plane >= threshold)}
        while left:
            todo, group = [left.pop()], set()
            while todo:
                row, column = todo.pop()
                group.add((row, column))
                near = {(row + dr, column + dc) for dr in (-1, 0, 1) for dc in (-1, 0, 1)} & left
                left -= near
                todo += near
            found.add((k, frozenset(group)))
    return found


@given(maps)
def test_groups_are_those_of_a_flood_fill(confidence: Maps) -> None:
    thresholds = np.full(len(confidence), 0.5, np.float32)
    found = decode_cells(confidence, thresholds, place=SAME, cell_px=10)
    as_sets = {
        (int(found.classes[n]), frozenset((int(r), int(c)) for _, r, c in found.cells[found.cells[:, 0] == n]))
        for n in range(len(found))
    }
    assert as_sets == slow_groups(confidence, 0.5)
    assert (np.diff(found.confidence) <= 0).all()
    for n in range(len(found)):
        cells = found.cells[found.cells[:, 0] == n][:, 1:]
        assert found.confidence[n] == confidence[found.classes[n]][cells[:, 0], cells[:, 1]].max()
        left, top, right, bottom = found.boxes[n]
        assert (left, top) == (cells[:, 1].min() * 10, cells[:, 0].min() * 10)
        assert (right, bottom) == ((cells[:, 1].max() + 1) * 10, (cells[:, 0].max() + 1) * 10)


@given(maps)
def test_a_question_is_a_peak_with_its_neighbours(confidence: Maps) -> None:
    thresholds = np.full(len(confidence), 0.5, np.float32)
    asked = questions(confidence, thresholds, place=SAME, cell_px=10)
    assert len(asked) <= 3
    assert [q.confidence for q in asked] == sorted((q.confidence for q in asked), reverse=True)
    if (confidence >= 0.5).any():
        assert asked[0].confidence == confidence.max()
    else:
        assert asked == ()
    for question in asked:
        row, column = question.cells[0]
        around = confidence[
            question.class_id, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2
        ]
        assert question.confidence == around.max()
        assert len(question.cells) == (around >= 0.5).sum()
        assert len(set(question.cells)) == len(question.cells)


def test_padding_is_never_reported_nor_asked_about() -> None:
    confidence = np.zeros((1, 4, 4), np.float32)
    confidence[0, 0, 0] = 1
    confidence[0, 2, 2] = 0.75
    valid = np.ones((4, 4), bool)
    valid[0] = False
    threshold = np.array([0.5], np.float32)
    asked = questions(confidence, threshold, place=SAME, cell_px=10, valid=valid)
    assert [q.cells for q in asked] == [((2, 2),)]
    found = decode_cells(confidence, threshold, place=SAME, cell_px=10, valid=valid)
    assert found.cells.tolist() == [[0, 2, 2]]


def test_the_sigmoid_neither_overflows_nor_loses_the_rank() -> None:
    logits = np.array([-1e4, -100, -1, 0, 1, 100, 1e4], np.float32).reshape(1, 1, 7)
    with np.errstate(all="raise", under="ignore"):
        found = confidence_from_logits(logits)
    assert found[0, 0, 3] == 0.5
    assert (np.diff(found.ravel()) >= 0).all()
    np.testing.assert_allclose(found[0, 0, 2], 1 / (1 + np.e), rtol=1e-6)
    warm = confidence_from_logits(logits, np.array([2.0]))
    np.testing.assert_allclose(warm[0, 0, 4], 1 / (1 + np.exp(-0.5)), rtol=1e-6)


def test_maps_and_thresholds_must_agree() -> None:
    with pytest.raises(ShapeError, match=r"thresholds is \(1,\) for 2 classes; give \(2,\), one a class"):
        decode_cells(np.zeros((2, 3, 3), np.float32), np.ones(1, np.float32), place=SAME, cell_px=10)
    with pytest.raises(ShapeError, match=r"confidence is \(3, 3\); give \(K, h, w\)"):
        questions(np.zeros((3, 3), np.float32), np.ones(1, np.float32), place=SAME, cell_px=10)


def detections(*confidence: float) -> Detections:
    count = len(confidence)
    return Detections(
        np.zeros((count, 4), np.float32),
        np.zeros(count, np.int32),
        np.array(confidence, np.float32),
        np.array([(n, n, 0) for n in range(count)], np.int32).reshape(-1, 3),
    )


def test_the_verdict_follows_the_band() -> None:
    band = Thresholds.uniform(1, boundary=0.5, pass_below=0.3, defective_from=0.8)
    labels = Labels(("crack",))
    assert decide(detections(), band, labels) == (Verdict.PASSED, "")
    assert decide(detections(0.5, 0.3), band, labels) == (Verdict.UNCERTAIN, "crack 0.50")
    assert decide(detections(0.9, 0.5), band, labels) == (Verdict.DEFECTIVE, "crack 0.90")


def test_choosing_detections_keeps_their_cells() -> None:
    some = detections(0.9, 0.6, 0.4)[np.array([True, False, True])]
    assert some.cells.tolist() == [[0, 0, 0], [1, 2, 0]]
    assert len(some[np.zeros(2, bool)]) == 0


def test_thresholds_out_of_range_or_order_are_refused() -> None:
    with pytest.raises(RangeError, match="boundary is 1.5; give a confidence above 0 and at most 1"):
        Thresholds.uniform(1, boundary=1.5)
    with pytest.raises(RangeError, match="class 0 has pass_below 0.6, boundary 0.5, defective_from 0.8; give them in"):
        Thresholds.uniform(1, boundary=0.5, pass_below=0.6, defective_from=0.8)
    with pytest.raises(RangeError, match="for 2, 1 and 1 classes; give one value a class each"):
        Thresholds(np.full(2, 0.5, np.float32), np.full(1, 0.5, np.float32), np.full(1, 0.5, np.float32))


def test_classes_have_names_of_their_own() -> None:
    with pytest.raises(RangeError, match="class 'crack' is named twice; give every class a name of its own"):
        Labels(("crack", "crack"))
    with pytest.raises(RangeError, match="a model has no class; give at least one name"):
        Labels(())
    with pytest.raises(RangeError, match="no class named 'crak'; did you mean crack?"):
        Labels(("crack", "dent")).id_of("crak")
