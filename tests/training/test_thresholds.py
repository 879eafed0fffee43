"""Thresholds: the guarantee holds where one is given, and none is given where pictures are too few."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.thresholds import BAND, LEAST, calibrated_band, enough_for, fixed_band
from training.checkpoint import LineState
from training.lines import uncalibrated


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
    assert found.pass_below[0] == pytest.approx(0.18, abs=1e-5)
    assert found.defective_from[0] == pytest.approx(0.62, abs=1e-5)
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
        assert (maxima[healthy, k] >= found.defective_from[k]).mean() <= 0.1
        assert (maxima[shows[:, k], k] < found.pass_below[k]).mean() <= 0.1


def test_saturated_confidences_are_promised_nothing() -> None:
    healthy = np.arange(40) < 20
    sure = np.where(healthy, 1.0, 0.5)[:, None]
    found = calibrated_band(sure, healthy, ~healthy[:, None])
    assert found.guarantee == (
        "none: of part validate, too many pictures lie nearer than 0.0001 to confidence 0 or 1 on the wrong side"
    )
    right = calibrated_band(np.where(healthy, 0.0, 1.0)[:, None], healthy, ~healthy[:, None])
    assert right.guarantee == "conformal alpha 0.1 n 20"


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


def of_line(thresholds: Thresholds, temperature: float = 1.0) -> LineState:
    nothing = np.zeros(1, np.float32)
    warmth = np.full(len(thresholds), temperature, np.float32)
    return LineState({}, thresholds, warmth, "source", nothing, nothing, 1)


def test_a_line_without_labels_asks_where_the_original_does_but_takes_over_no_guarantee() -> None:
    low = uncalibrated(of_line(fixed_band(1, why="few", ask_from=np.array([0.1])), temperature=2.0))
    assert low.thresholds.pass_below == pytest.approx([0.1])
    assert low.temperature == pytest.approx([2.0]), "the weights are the same, and so is their scale"
    maxima = np.concatenate([np.arange(1, 20) / 100, 0.6 + np.arange(1, 20) / 100])[:, None]
    healthy = np.arange(38) < 19
    found = uncalibrated(of_line(calibrated_band(maxima, healthy, ~healthy[:, None]))).thresholds
    assert found.pass_below == pytest.approx([BAND[0]])
    assert found.guarantee == "none: the line has no labelled pictures to calibrate on"


# -- the guarantee, by simulation --------------------------------------------------------------------


def stored(thresholds: Array) -> Array:
    return np.round(thresholds.astype(np.float64), 6).astype(np.float32)


@pytest.mark.parametrize(("classes", "n", "coarse"), [(1, 19, False), (1, 50, True), (2, 39, False)])
def test_pictures_to_come_fall_on_the_wrong_side_no_more_often_than_promised(
    classes: int, n: int, coarse: bool
) -> None:
    """Draws calibration pictures and new ones alike; ``coarse`` confidences are full of ties."""
    alpha, chance = 0.2, np.random.default_rng(classes * n)
    draws, wrong_good, wrong_bad = 1500, 0.0, 0.0
    healthy = np.arange((1 + classes) * n) < n
    shows = np.stack([(np.arange(len(healthy)) // n) == k + 1 for k in range(classes)], axis=1)
    for _ in range(draws):
        raw = np.where(shows, chance.beta(4, 2, shows.shape), chance.beta(2, 4, shows.shape))
        good, bad = chance.beta(2, 4, (200, classes)), chance.beta(4, 2, (200, classes))
        if coarse:
            raw, good, bad = (np.ceil(one * 8) / 9 for one in (raw, good, bad))
        found = calibrated_band(raw, healthy, shows, alpha=alpha)
        assert found.guarantee == f"conformal alpha {alpha:g} n {n}"
        # each class alone may err by alpha / K, so that all together err by alpha
        # as they are stored, and as the station compares
        wrong_good += float((good.astype(np.float32) >= stored(found.defective_from)).any(axis=1).mean())
        wrong_bad += float((bad[:, 0].astype(np.float32) < stored(found.pass_below)[0]).mean())
    # 1500 draws of calibration pictures decide: 3 standard errors of a share
    error = 3 * np.sqrt(alpha * (1 - alpha) / draws)
    assert wrong_good / draws <= alpha + error
    assert wrong_bad / draws <= alpha / classes + error


def test_the_guarantee_is_not_bought_with_needless_doubt() -> None:
    """Without ties the quantile misses its share by at most 1 / (n + 1), so the share is used up."""
    chance, alpha, n, draws = np.random.default_rng(0), 0.2, 24, 1500
    healthy = np.arange(2 * n) < n
    missed = 0.0
    for _ in range(draws):
        maxima = np.where(healthy, chance.uniform(0.5, 0.9, 2 * n), chance.uniform(0.1, 0.6, 2 * n))[:, None]
        found = calibrated_band(maxima, healthy, ~healthy[:, None], alpha=alpha)
        missed += float((chance.uniform(0.5, 0.9, 200) > found.defective_from[0]).mean())
    error = 3 * np.sqrt(alpha * (1 - alpha) / draws)
    assert missed / draws >= alpha - 1 / (n + 1) - error


def test_a_new_line_that_differs_has_no_such_guarantee() -> None:
    """What exchangeability is for: on brighter pictures the same thresholds err more than promised."""
    chance, alpha, n = np.random.default_rng(1), 0.1, 60
    healthy = np.arange(2 * n) < n
    maxima = np.where(healthy, chance.beta(2, 6, 2 * n), chance.beta(6, 2, 2 * n))[:, None]
    found = calibrated_band(maxima, healthy, ~healthy[:, None], alpha=alpha)
    assert (chance.beta(4, 4, 4000) > found.pass_below[0]).mean() > 2 * alpha
