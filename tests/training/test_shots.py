"""Which pictures are shown as missed, also where a seam of tiles cuts a defect."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.arrays import Floats
from edge_sdk.labels import Thresholds
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.views import unlabelled
from training.evaluate import Judged
from training.shots import Shot, worst

TILES = PreprocessSpec(width=64, height=64, mean=(0.5,) * 3, std=(0.5,) * 3, tile_overlap_px=32)
THRESHOLDS = Thresholds.uniform(1, boundary=0.5, pass_below=0.4)


def shown(spec: PreprocessSpec, true: Floats, sure: Floats) -> list[Shot]:
    """Of one picture of 96 x 64 pixels, or of its two tiles, by maps ``(1, rows, columns)`` of all its cells."""
    views = unlabelled([(drawn_picture(96, 64, seed=1), "u", "n")], spec, grid=(8, 8), classes=1)
    ones = [np.ones_like(true)]
    told = views.told([true], ones, [np.zeros(1, np.float32)])
    confidence = told.pieces([sure])
    return worst(Judged(told, confidence, confidence, np.zeros((len(told), 1), np.float32)), THRESHOLDS)


@pytest.mark.parametrize(("row", "missed"), [(4, 0), (6, 0), (9, 1)])
def test_a_defect_that_a_seam_cuts_is_missed_where_no_tile_reports_it(row: int, missed: int) -> None:
    true, sure = np.zeros((2, 1, 12, 8), np.float32)
    true[0, 4:8, 2:4] = 1  # the seam lies before row 6
    sure[0, row, 2] = 0.9
    shots = shown(TILES, true, sure)
    assert len({one.confidence for one in shots if one.what == "missed"}) == missed


def test_a_defect_of_a_picture_that_is_not_cut_is_missed_by_itself() -> None:
    spec = PreprocessSpec(width=64, height=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    true, sure = np.zeros((2, 1, 8, 8), np.float32)
    true[0, 2, 2] = true[0, 6, 6] = 1
    sure[0, 2, 2], sure[0, 6, 6] = 0.9, 0.3
    (one,) = shown(spec, true, sure)
    assert one.what == "missed" and one.confidence == pytest.approx(0.3)
