"""The report's pictures show reported cells and the outline of the truth where they are."""

from __future__ import annotations

import cv2
import numpy as np

from edge_sdk.vision.preprocess import PreprocessSpec
from examples.loop.drawing import CELLS, outlined, reported

SPEC = PreprocessSpec(64, 64)
GREY = np.full((40, 80, 3), 90, np.uint8)


def decoded(jpeg: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).astype(int)


def test_a_picture_without_anything_to_report_is_the_picture_without_padding():
    shown = decoded(reported(GREY, None, np.zeros((4, 4), bool), SPEC))
    assert shown.shape == (180, 360, 3)
    assert np.abs(shown - 90).max() < 4


def test_a_reported_cell_is_tinted_where_it_lies():
    cells = np.zeros((4, 4), bool)
    cells[1, 0] = True  # the picture fills rows 1 and 2
    shown = decoded(reported(GREY, None, cells, SPEC))
    inside = shown[45, 45]
    expected = 0.72 * 90 + 0.28 * np.array(CELLS)
    assert np.abs(inside - expected).max() < 8
    assert np.abs(shown[135, 300] - 90).max() < 4


def test_the_truth_is_outlined_in_white_on_dark():
    mask = np.zeros((40, 80), np.uint8)
    mask[10:30, 20:60] = 255
    shown = decoded(reported(GREY, mask, np.zeros((4, 4), bool), SPEC))
    row = shown[90].mean(axis=1)
    assert row[:100].max() > 180
    assert row[:100].min() < 70
    assert abs(row[180] - 90) < 6


def test_a_question_is_outlined_on_the_picture_that_was_asked_about():
    picture = cv2.imencode(".png", np.full((100, 200, 3), 90, np.uint8))[1].tobytes()
    shown = decoded(outlined(picture, [(50, 25, 100, 50), (100, 25, 150, 50)]))
    assert shown.shape == (180, 360, 3)
    assert shown[67, 85:95].max() > 180
    assert abs(shown[67, 180].mean() - 90) < 10  # no line between two neighbouring cells
