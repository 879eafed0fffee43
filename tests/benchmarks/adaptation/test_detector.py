"""E9's own arithmetic: matched detections, and the paired difference with its interval over groups."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.adaptation.detector import ROWS, _summary
from benchmarks.adaptation.detector_hits import difference, f1, packed, unpacked
from benchmarks.adaptation.detector_int8 import INT8, agreement
from edge_sdk.detections import Detections
from training.box_precision import Hits


def found(*rows: tuple[int, tuple[float, float, float, float]]) -> Detections:
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    classes = np.array([k for k, _ in rows], np.int32)
    return Detections(boxes, classes, np.full(len(rows), 0.5, np.float32), np.zeros((0, 3), np.int32))


def test_detections_are_matched_one_to_one_and_by_class() -> None:
    here, there = (0, 0, 10, 10), (30, 30, 40, 40)
    counts = agreement(
        [found((0, here), (0, there)), found((0, here)), found(), found((0, here), (0, here))],
        [found((0, here), (1, there)), found(), found(), found((0, here))],
    )
    assert counts.tolist() == [[1, 2], [0, 0.5], [0, 0], [1, 1.5]]


def test_f1_is_that_of_precision_and_recall() -> None:
    one = {"units": ["a", "b"], "counts": [[3, 4], [1, 1]]}
    other = {"units": ["a", "b"], "counts": [[2, 4], [1, 1]]}
    value, low, high = f1([one, other])
    assert value == pytest.approx((4 / 5 + 3 / 5) / 2)
    assert low <= value <= high


def hits(confidence: list[float], true: list[bool], picture: list[int], drawn: list[int]) -> Hits:
    classes = np.zeros(len(true), np.int32)
    totals = np.array(drawn, np.int32)[:, None]
    return Hits(np.array(confidence, np.float32), np.array(true), classes, np.array(picture, np.int32), totals)


def test_the_difference_is_paired_by_fold_and_drawn_by_group() -> None:
    before = hits([0.9, 0.8], [False, True], [0, 1], [1, 1])  # AP 1/2 * 1/2
    after = hits([0.9, 0.8], [True, True], [0, 1], [1, 1])  # AP 1
    mean, low, high, each = difference([[after]], [[before]], [[("a", "b")]])
    assert mean == pytest.approx(0.75)
    assert each == [pytest.approx(0.75)]
    # a draw of b alone: both find it; of a alone: only one does
    assert (low, high) == (0.0, 1.0)
    same = difference([[after]], [[after]], [[("a", "b")]])
    assert same[:3] == (0, 0, 0)


def test_what_a_step_keeps_comes_back() -> None:
    one = hits([0.9, 0.125], [False, True], [0, 1], [2, 0])
    again = unpacked(packed(one), 2)
    for name in ("confidence", "true", "classes", "picture", "drawn"):
        np.testing.assert_array_equal(getattr(again, name), getattr(one, name))


def test_the_rows_of_int8_state_what_is_plain_what_is_spared_and_the_precision() -> None:
    one = packed(hits([0.9, 0.8], [True, True], [0, 1], [1, 1]))
    worse = packed(hits([0.9, 0.8], [False, True], [0, 1], [1, 1]))
    judged = {"plain": [[3, 4], [1, 1]], "spared": [[4, 4], [1, 1]], "hits": worse}
    fold = {
        "rows": {name: dict.fromkeys(("original", "new"), one) for name in ROWS},
        "units": {"original": ["a", "b"], "new": ["a", "b"]},
        "int8": {"units": ["a", "b"], "detections": 8, "borderline": 2, "hits": one, **dict.fromkeys(INT8, judged)},
    }
    musts, rows = _summary([[fold, fold]])
    assert musts["E9.detector_int8_agreement"].value == pytest.approx(0.8)
    said = {row["name"]: row for row in rows}
    assert said["share of FP32's detections within 0.05 above the threshold"]["share"] == 0.25
    for words in INT8.values():
        assert said[f"{words}: F1 with FP32"]["f1"] == pytest.approx(0.8)
        assert said[f"{words}: F1 with FP32, scores within 0.05 of the threshold spared"]["f1"] == 1
        assert said[f"{words} - FP32"]["difference_ap"] == pytest.approx(-0.75)
