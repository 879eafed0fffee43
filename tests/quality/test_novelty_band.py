"""Thresholds from good parts alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.errors import DatasetError, RangeError
from edge_sdk.quality.novelty import band_of_normals, confidence_of_distances


def test_of_good_parts_to_come_at_most_alpha_are_stopped() -> None:
    chance = np.random.default_rng(101)
    stopped = []
    for _ in range(400):
        known, coming = chance.gamma(3.0, 1.0, 59), chance.gamma(3.0, 1.0, 50)
        band = band_of_normals(known, known, alpha=0.05)
        stopped.append(float((confidence_of_distances(coming, known) >= band.pass_below[0]).mean()))
    # of 59, the 57th smallest: 3 of 60 lie above, exactly alpha
    assert 0.04 < np.mean(stopped) <= 0.055


def test_no_normal_at_the_quantile_is_stopped_itself() -> None:
    known = np.arange(1.0, 40.0)
    band = band_of_normals(known, known, alpha=0.05)
    sure = confidence_of_distances(known, known)
    assert (sure >= band.pass_below[0]).sum() == 1
    assert not (sure >= band.defective_from[0]).any()
    assert band.guarantee == "conformal alpha 0.05 n 39"
    assert band.how.startswith("ask above the 38. of 39 distances of good parts")


def test_too_few_normals_promise_nothing_and_are_an_error_where_a_promise_is_asked_for() -> None:
    known = np.arange(1.0, 13.0)
    band = band_of_normals(known, known, alpha=0.05)
    assert band.guarantee == "none: 12 held-out normals; a false-positive rate of 0.05 needs 19"
    assert not (confidence_of_distances(known, known) >= band.pass_below[0]).any()
    said = (
        "^12 normals are held out to set the threshold, but a false-positive rate of 0.05 needs 19; give more good "
        "parts, or ask for a rate of 0.077$"
    )
    with pytest.raises(DatasetError, match=said):
        band_of_normals(known, known, alpha=0.05, strict=True)
    assert band_of_normals(known, known, alpha=0.077, strict=True).guarantee == "conformal alpha 0.077 n 12"


@pytest.mark.parametrize("known", [[1.5], [2.0] * 30])
def test_one_normal_and_equal_ones_give_thresholds_in_order(known: list[float]) -> None:
    band = band_of_normals(np.array(known), known, alpha=0.1)
    assert 0 < band.pass_below[0] <= band.defective_from[0] <= 1
    assert confidence_of_distances(np.array([100.0]), known)[0] >= band.defective_from[0]


def test_no_normal_and_no_share_are_refused() -> None:
    with pytest.raises(DatasetError, match="^0 normals are held out"):
        band_of_normals(np.zeros(0), [1.0])
    with pytest.raises(RangeError, match="^alpha is 0; give a share above 0 and below 1$"):
        band_of_normals(np.ones(3), [1.0], alpha=0)


def test_another_rendering_gets_its_threshold_among_the_normals_of_fp32() -> None:
    known = np.linspace(1, 2, 40)
    shifted = known * 1.05
    band = band_of_normals(shifted, known, alpha=0.1)
    assert (confidence_of_distances(shifted, known) >= band.pass_below[0]).mean() <= 0.1
