"""Average precision of boxes against a slow version written out, and what must hold of any."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.detections import Detections
from edge_sdk.errors import ShapeError
from training.box_precision import Hits, average_precisions, hits_of, precision_recall
from training.data.boxes import Drawn


def found(*rows: tuple[float, int, tuple[float, float, float, float]]) -> Detections:
    """Confidence, class and box of each, surest first."""
    return Detections(
        np.array([box for _, _, box in rows], np.float32).reshape(-1, 4),
        np.array([k for _, k, _ in rows], np.int32),
        np.array([sure for sure, _, _ in rows], np.float32),
        np.zeros((0, 3), np.int32),
    )


def drawn(*rows: tuple[int, tuple[float, float, float, float]]) -> Drawn:
    return Drawn(
        np.array([box for _, box in rows], np.float32).reshape(-1, 4), np.array([k for k, _ in rows], np.int32)
    )


HERE, THERE, ASIDE = (0, 0, 10, 10), (20, 20, 40, 40), (0, 4, 10, 14)


def test_a_drawn_box_is_found_once_and_by_its_own_class() -> None:
    hits = hits_of(
        [found((0.9, 0, HERE), (0.8, 0, HERE), (0.7, 1, THERE), (0.6, 0, THERE))],
        [drawn((0, HERE), (0, THERE))],
        count=2,
    )
    assert hits.true.tolist() == [True, False, False, True]
    assert hits.drawn.tolist() == [[2, 0]]


def test_a_second_report_may_take_the_neighbour_that_is_still_free() -> None:
    near, nearer = (0, 1, 10, 11), (0, 2, 10, 12)
    hits = hits_of([found((0.9, 0, near), (0.8, 0, near))], [drawn((0, near), (0, nearer))], count=1)
    assert hits.true.tolist() == [True, True]


def test_an_overlap_below_a_half_is_no_hit() -> None:
    assert hits_of([found((0.9, 0, ASIDE))], [drawn((0, HERE))], count=1).true.tolist() == [False]  # 6/14


def slow_precision(confidence: list[float], true: list[bool], total: int) -> float:
    """At each recall that is reached, the best precision from there on: all points."""
    order = sorted(range(len(true)), key=lambda n: -confidence[n])
    points, right = [], 0
    for seen, n in enumerate(order, 1):
        right += true[n]
        points.append((right / total, right / seen))
    area, before = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        area += (recall - before) * max(p for r, p in points if r >= recall)
        before = recall
    return area


@st.composite
def rankings(draw: st.DrawFn) -> Hits:
    number = draw(st.integers(0, 12))
    confidence = np.array(draw(st.permutations(range(1, number + 1))), np.float32) / 16
    true = np.array([draw(st.booleans()) for _ in range(number)], bool)
    classes = np.array([draw(st.integers(0, 1)) for _ in range(number)], np.int32)
    picture = np.array([draw(st.integers(0, 2)) for _ in range(number)], np.int32)
    totals = np.array([[draw(st.integers(0, 2)) for _ in range(2)] for _ in range(3)], np.int32)
    for n in np.flatnonzero(true):
        totals[picture[n], classes[n]] += 1
    return Hits(confidence, true, classes, picture, totals)


@given(rankings())
def test_the_area_is_that_of_a_slow_version(hits: Hits) -> None:
    each = average_precisions(hits)
    for k in range(2):
        mine = hits.classes == k
        total = int(hits.drawn[:, k].sum())
        if total == 0:
            assert np.isnan(each[k])
        else:
            slow = slow_precision(hits.confidence[mine].tolist(), hits.true[mine].tolist(), total)
            assert each[k] == pytest.approx(slow, abs=1e-9)


@given(rankings(), st.lists(st.integers(0, 2), min_size=3, max_size=3))
def test_a_weight_is_the_picture_standing_there_so_often(hits: Hits, often: list[int]) -> None:
    rows = np.repeat(np.arange(3), often)
    pieces = [np.flatnonzero(hits.picture == n) for n in rows]
    at = np.concatenate([np.zeros(0, int), *pieces])
    new = np.repeat(np.arange(len(rows)), [len(one) for one in pieces])
    again = Hits(hits.confidence[at], hits.true[at], hits.classes[at], new.astype(np.int32), hits.drawn[rows])
    weighed = average_precisions(hits, np.array([often], float))[0]
    np.testing.assert_allclose(weighed, average_precisions(again), atol=1e-9)


def test_precision_and_recall_count_from_the_boundary_up() -> None:
    hits = hits_of(
        [found((0.9, 0, HERE), (0.6, 0, ASIDE), (0.4, 0, THERE))], [drawn((0, HERE), (0, THERE))], count=1
    )
    assert precision_recall(hits, 0.5) == (0.5, 0.5)
    assert precision_recall(hits, 0.4) == (pytest.approx(2 / 3), 1.0)
    assert precision_recall(hits, 0.95) == (0.0, 0.0)


def test_detections_of_other_pictures_are_refused() -> None:
    with pytest.raises(ShapeError, match="detections of 1 pictures, but 0 were drawn on; give the same ones"):
        hits_of([found()], [], count=1)
