"""Thresholds: the guarantee holds where one is given, and none is given where pictures are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import RangeError
from training.lines import uncalibrated
from training.thresholds import BAND, LEAST, calibrated_band, enough_for, fixed_band


def test_as_many_pictures_are_needed_as_the_quantile_has_places() -> None:
    assert [enough_for(alpha) for alpha in (0.5, 0.1, 0.05, 0.02)] == [1, 9, 19, 49]
    with pytest.raises(RangeError, match="alpha is 1; give a share above 0 and below 1"):
        enough_for(1.0)


def test_with_too_few_pictures_the_fixed_band_says_why() -> None:
    found = calibrated_band(np.full((12, 1), 0.5), np.arange(12) < 4, (np.arange(12) >= 4)[:, None])
    assert (found.pass_below[0], found.boundary[0], found.defective_from[0]) == pytest.approx(BAND)
    assert found.guarantee == (
        "none: part validate holds 4 healthy pictures and at least 8 of each defect; "
        "conformal at alpha 0.1 needs 9 of each"
    )


def test_the_quantiles_are_those_counted_by_hand() -> None:
    good = np.arange(1, 20) / 100  # 19 pictures: the 18th smallest
    bad = 0.6 + np.arange(1, 20) / 100  # the 2nd smallest
    maxima = np.concatenate([good, bad])[:, None]
    healthy = np.arange(38) < 19
    found = calibrated_band(maxima, healthy, ~healthy[:, None])
    assert found.pass_below[0] == pytest.approx(0.18)
    assert found.defective_from[0] == pytest.approx(0.62)
    assert found.boundary[0] == 0.5
    assert found.guarantee == "conformal alpha 0.1 n 19"


def test_where_the_kinds_overlap_the_doubtful_lie_between() -> None:
    maxima = np.concatenate([np.linspace(0.2, 0.95, 19), np.linspace(0.05, 0.8, 19)])[:, None]
    healthy = np.arange(38) < 19
    found = calibrated_band(maxima, healthy, ~healthy[:, None])
    assert found.pass_below[0] < found.boundary[0] < found.defective_from[0]


@given(st.integers(0, 2**32 - 1), st.integers(9, 40), st.integers(1, 3))
def test_on_the_pictures_given_no_more_than_the_share_is_on_the_wrong_side(seed: int, count: int, classes: int) -> None:
    chance = np.random.default_rng(seed)
    healthy = np.arange((1 + classes) * count) < count
    shows = np.zeros((len(healthy), classes), bool)
    for k in range(classes):
        shows[(k + 1) * count : (k + 2) * count, k] = True
    maxima = chance.uniform(0.01, 0.99, shows.shape)
    found = calibrated_band(maxima, healthy, shows, alpha=0.1 * classes)
    assert np.all(found.pass_below <= found.boundary) and np.all(found.boundary <= found.defective_from)
    for k in range(classes):
        assert (maxima[healthy, k] > found.defective_from[k] + 1e-6).mean() <= 0.1
        assert (maxima[shows[:, k], k] < found.pass_below[k] - 1e-6).mean() <= 0.1


def test_a_model_that_is_never_sure_still_asks() -> None:
    maxima = np.array([[0.01, 0.02], [0.12, 0.01], [0.16, 0.01], [0.05, 0.9]])
    shows = np.array([[False, False], [True, False], [True, False], [False, True]])
    found = calibrated_band(maxima, ~shows.any(axis=1), shows)
    assert found.pass_below == pytest.approx([0.14, 0.3])
    assert found.boundary == pytest.approx([0.5, 0.5])
    assert found.how == (
        "fixed: ask from 0.3, lowered to 0.14 where defects score no higher, count from 0.5, reject from 0.8"
    )
    faint = calibrated_band(maxima / 100, ~shows.any(axis=1), shows)
    assert faint.pass_below == pytest.approx([LEAST, LEAST])


def test_a_class_that_validate_lacks_asks_where_the_others_do() -> None:
    maxima, shows = np.array([[0.1, 0.2], [0.0, 0.0]]), np.array([[True, False], [False, False]])
    found = calibrated_band(maxima, np.array([False, True]), shows)
    assert found.pass_below == pytest.approx([0.1, 0.2])


def test_a_line_without_labels_asks_where_the_original_does_but_takes_over_no_guarantee() -> None:
    low = fixed_band(1, why="few", ask_from=np.array([0.1]))
    assert uncalibrated(low).pass_below == pytest.approx([0.1])
    maxima = np.concatenate([np.arange(1, 20) / 100, 0.6 + np.arange(1, 20) / 100])[:, None]
    healthy = np.arange(38) < 19
    found = uncalibrated(calibrated_band(maxima, healthy, ~healthy[:, None]))
    assert found.pass_below == pytest.approx([BAND[0]])
    assert found.guarantee == "none: the line has no labelled pictures to calibrate on"
