"""Measures agree with scikit-learn and with closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.quality.measures import (
    agreement,
    auroc,
    average_precision,
    bootstrap_over_groups,
    paired_t_interval,
    precision_recall_at,
    sqnr_db,
)

# few distinct values, so that ties are the rule
ranked = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=2, max_size=60)


@given(ranked)
def test_average_precision_equals_that_of_scikit_learn_with_ties(rows):
    scores, truth = np.array([r[0] for r in rows]) / 3, np.array([r[1] for r in rows])
    assume(truth.any())
    assert average_precision(scores, truth) == pytest.approx(average_precision_score(truth, scores))


@given(ranked)
def test_auroc_equals_that_of_scikit_learn_with_ties(rows):
    scores, truth = np.array([r[0] for r in rows]) / 3, np.array([r[1] for r in rows])
    assume(truth.any() and not truth.all())
    assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


@given(ranked, st.integers(-4, 4))
def test_precision_and_recall_equal_those_of_scikit_learn(rows, boundary):
    scores, truth = np.array([r[0] for r in rows]), np.array([r[1] for r in rows])
    found = precision_recall_at(scores, truth, boundary)
    reported = scores >= boundary
    assert found[0] == pytest.approx(precision_score(truth, reported, zero_division=0))
    assert found[1] == pytest.approx(recall_score(truth, reported, zero_division=0))


def test_a_map_of_any_shape_is_ranked():
    scores = np.arange(12.0).reshape(3, 4)
    assert average_precision(scores, scores > 7) == auroc(scores, scores > 7) == 1.0


def test_without_a_defect_there_is_no_average_precision_and_no_auroc():
    assert math.isnan(average_precision([0.1, 0.2], [0, 0]))
    assert math.isnan(auroc([0.1, 0.2], [0, 0]))
    assert math.isnan(auroc([0.1, 0.2], [1, 1]))


def test_logits_that_float32_confidence_would_tie_are_still_ranked():
    logits, truth = np.array([40.0, 60.0, 50.0], np.float32), [0, 1, 0]
    assert average_precision(logits, truth) == 1.0


@pytest.mark.parametrize(
    ("scores", "truth", "error", "sentence"),
    [
        ([0.1], [0, 1], ShapeError, "1 scores for 2 truths; give one of each for every area"),
        ([0.1, float("nan")], [0, 1], RangeError, "a score is NaN or infinite; give finite scores"),
        ([0.1, 0.2], [0, 255], RangeError, "truth holds 255; give 0 for healthy and 1 for defective"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, truth, error, sentence):
    for measure in (average_precision, auroc):
        with pytest.raises(error, match=sentence):
            measure(scores, truth)


def test_an_interval_over_groups_is_wider_than_one_over_dependent_rows():
    generator = np.random.default_rng(0)
    level = np.repeat(generator.normal(size=20), 50)
    values = level + 0.1 * generator.normal(size=1000)
    by_group = bootstrap_over_groups(
        lambda rows: float(values[rows].mean()), np.repeat(np.arange(20), 50), rounds=300
    )
    by_row = bootstrap_over_groups(lambda rows: float(values[rows].mean()), np.arange(1000), rounds=300)
    assert by_group.low < values.mean() < by_group.high
    assert by_group.high - by_group.low > 4 * (by_row.high - by_row.low)


def test_an_interval_covers_the_mean_about_as_often_as_it_says():
    generator = np.random.default_rng(1)
    covered = 0
    for trial in range(100):
        values = generator.normal(size=40)
        low, high = bootstrap_over_groups(
            lambda rows, v=values: float(v[rows].mean()), range(40), rounds=200, seed=trial
        )
        covered += low <= 0 <= high
    assert 86 <= covered <= 99


def test_the_same_seed_gives_the_same_interval():
    values = np.arange(10.0)
    draws = [
        bootstrap_over_groups(lambda rows: float(values[rows].sum()), "aabbccddee", rounds=50)
        for _ in range(2)
    ]
    assert draws[0] == draws[1]


def test_rounds_without_a_number_are_passed_over():
    truth, scores = np.array([1, 0, 0, 0]), np.array([4.0, 3, 2, 1])
    low, high = bootstrap_over_groups(
        lambda rows: average_precision(scores[rows], truth[rows]), range(4), rounds=200
    )
    assert (low, high) == (1.0, 1.0)
    nothing = bootstrap_over_groups(lambda rows: float("nan"), range(4), rounds=5)
    assert math.isnan(nothing.low) and math.isnan(nothing.high)


def test_a_bootstrap_of_nothing_is_refused():
    with pytest.raises(RangeError, match="no row to draw from; give at least one group"):
        bootstrap_over_groups(lambda rows: 0.0, [])
    with pytest.raises(
        RangeError, match="0 rounds at level 2; give at least 1 round and a level between 0 and 1"
    ):
        bootstrap_over_groups(lambda rows: 0.0, [1], rounds=0, level=2)


@pytest.mark.parametrize("count", [2, 3, 6, 31, 200])
@pytest.mark.parametrize("level", [0.9, 0.95, 0.99])
def test_the_paired_interval_is_students(count, level):
    from scipy import stats

    values = np.random.default_rng(count).normal(0.1, 0.3, count)
    low, high = stats.t.interval(level, count - 1, loc=values.mean(), scale=stats.sem(values))
    assert paired_t_interval(values, level=level) == pytest.approx((low, high), rel=1e-4, abs=1e-6)


def test_one_difference_has_no_interval():
    with pytest.raises(RangeError, match="1 differences, of which 1 finite; give at least two"):
        paired_t_interval([0.3])
    with pytest.raises(RangeError, match="level is 1; give one between 0 and 1"):
        paired_t_interval([0.3, 0.4], level=1)


def test_agreement_is_the_share_of_equal_decisions():
    assert agreement([1, 0, 1, 1], [1, 1, 1, 1]) == 0.75
    assert agreement([], []) == 1.0
    with pytest.raises(
        ShapeError, match=r"decisions of shapes \(1,\) and \(2,\); give the same areas of both"
    ):
        agreement([1], [1, 2])


def test_noise_of_a_tenth_of_the_signal_is_twenty_decibels():
    signal = np.random.default_rng(0).normal(size=1000)
    assert sqnr_db(signal, 1.1 * signal) == pytest.approx(20)
    assert sqnr_db(signal, signal) == math.inf
    assert sqnr_db(0 * signal, signal) == -math.inf
    with pytest.raises(ShapeError, match="outputs of shapes .* give the same outputs of both"):
        sqnr_db([1.0], [1.0, 2.0])
