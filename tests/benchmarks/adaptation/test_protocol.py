"""Figures are computed inside folds, compared in pairs, and their intervals cover what they say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adaptation.protocol import (
    Paired,
    averaged,
    best_of_others,
    by_seed,
    cross_folds,
    over_seeds,
    paired,
)
from benchmarks.adaptation.scored import MEASURES, Scored, auroc, average_precision, balanced_accuracy
from edge_sdk.arrays import Array
from edge_sdk.errors import DatasetError, RangeError, ShapeError, TruthWithheld
from edge_sdk.quality import measures
from edge_sdk.quality.samples import Dataset, Sample


def areas(chance: np.random.Generator, *, groups: int = 6, size: int = 5, skill: float = 1.0) -> Scored:
    truth = chance.integers(0, 2, groups * size)
    truth[:2] = 0, 1
    scores = np.round(skill * truth + chance.normal(0, 1, len(truth)), 1)  # rounded, so that some are equal
    return Scored(scores, truth, tuple(f"g{n // size}" for n in range(len(truth))))


def repeated(scored: Scored, counts: Array) -> tuple[Array, Array]:
    """The slow way: the rows of a group written down as often as it came."""
    rows = [n for n, group in enumerate(scored.groups) for _ in range(int(counts[int(group[1:])]))]
    return scored.scores[rows], scored.truth[rows]


def slow_balanced_accuracy(scores: Array, truth: Array) -> float:
    return float(np.mean([np.mean(scores[truth == 1] >= 0), np.mean(scores[truth == 0] < 0)]))


SLOW = {
    "auroc": measures.auroc,
    "ap": measures.average_precision,
    "balanced_accuracy": slow_balanced_accuracy,
}


@pytest.mark.parametrize("name", sorted(MEASURES))
def test_a_weight_counts_as_often_as_the_row_written_down_again(name: str) -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        scored = areas(chance)
        counts = chance.integers(0, 4, (5, 6))
        counts[:, 0] += 1  # the group that holds both kinds
        found = MEASURES[name](scored, scored.weights(counts, [f"g{k}" for k in range(6)]))
        wanted = [SLOW[name](*repeated(scored, one)) for one in counts]
        np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_a_draw_of_one_kind_alone_has_no_rank() -> None:
    scored = Scored(np.array([1.0, 2.0]), np.array([0, 1]), ("a", "b"))
    only = scored.weights(np.array([[2, 0], [0, 2], [1, 1]]), ["a", "b"])
    np.testing.assert_array_equal(auroc(scored, only), [np.nan, np.nan, 1.0])
    np.testing.assert_array_equal(balanced_accuracy(scored, only), [np.nan, np.nan, 0.5])
    np.testing.assert_array_equal(average_precision(scored, only), [np.nan, 1.0, 1.0])


def test_scores_of_different_models_are_never_ranked_together() -> None:
    # each fold's model ranks perfectly, but on a scale of its own: pooled, the ranking would be worse than chance
    low = Scored(np.array([-9.0, -8.0]), np.array([0, 1]), ("a", "b"))
    high = Scored(np.array([5.0, 6.0, 7.0]), np.array([0, 0, 1]), ("c", "d", "e"))
    assert averaged([[low, high]], auroc) == 1.0
    pooled = measures.auroc(np.r_[low.scores, high.scores], np.r_[low.truth, high.truth])
    assert pooled < 0.7


def test_the_bootstrap_is_that_of_groups_written_down_again() -> None:
    chance = np.random.default_rng(1)
    after = [[areas(chance, skill=2.0), areas(chance, skill=2.0)] for _ in range(2)]
    before = [[Scored(chance.normal(one.truth, 1.0), one.truth, one.groups) for one in folds] for folds in after]
    found = paired(after, before, auroc, rounds=60, seed=7)
    names = [f"g{k}" for k in range(6)]
    drawn = np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=60)
    slow = []
    for counts in drawn:
        seeds = []
        for mine, other in zip(after, before, strict=True):
            each = [
                measures.auroc(*repeated(a, counts)) - measures.auroc(*repeated(b, counts))
                for a, b in zip(mine, other, strict=True)
            ]
            seeds.append(np.nanmean(each) if np.isfinite(each).any() else np.nan)
        slow.append(np.nanmean(seeds) if np.isfinite(seeds).any() else np.nan)
    wanted = np.quantile([value for value in slow if np.isfinite(value)], [0.025, 0.975])
    np.testing.assert_allclose([found.low, found.high], wanted, atol=1e-12)
    np.testing.assert_allclose(found.mean, (by_seed(after, auroc) - by_seed(before, auroc)).mean())
    assert sorted(found.groups or {}) == names  # six groups are few, so they are listed
    assert sorted(found.without or {}) == names


def population(chance: np.random.Generator, groups: int) -> tuple[Scored, Scored]:
    """Two models on the same pictures; what a group has in common makes its pictures dependent."""
    truth = np.tile([0, 0, 0, 1, 1, 1], groups)
    of = np.repeat(np.arange(groups), 6)
    names = tuple(f"g{k:04d}" for k in of)
    hard = chance.normal(0, 0.8, groups)[of]
    gained = 0.6 + chance.normal(0, 0.9, groups)[of]
    noise = chance.normal(0, 1, len(truth))
    before = Scored(truth * (1.0 + hard) + noise, truth, names)
    after = Scored(truth * (1.0 + hard + gained) + noise + chance.normal(0, 0.5, len(truth)), truth, names)
    return after, before


def test_the_interval_covers_what_it_says_and_one_over_pictures_would_not() -> None:
    chance = np.random.default_rng(2)
    after, before = population(chance, 4000)
    true = averaged([[after]], auroc) - averaged([[before]], auroc)
    hits = naive = 0
    trials = 120
    for trial in range(trials):
        after, before = population(np.random.default_rng([3, trial]), 30)
        found = paired([[after]], [[before]], auroc, rounds=300, seed=trial)
        hits += found.low <= true <= found.high
        alone = tuple(f"{n}" for n in range(len(after.truth)))
        torn = paired(
            [[Scored(after.scores, after.truth, alone)]],
            [[Scored(before.scores, before.truth, alone)]],
            auroc,
            rounds=300,
            seed=trial,
        )
        naive += torn.low <= true <= torn.high
    assert 0.88 <= hits / trials <= 0.99
    assert naive < hits


def test_synthetic_lines_have_the_t_interval_over_seeds() -> None:
    found = over_seeds([0.9, 0.8, 0.95, 0.85, 0.9], [0.7, 0.7, 0.7, 0.7, 0.7])
    wanted = measures.paired_t_interval([0.2, 0.1, 0.25, 0.15, 0.2])
    np.testing.assert_allclose([found.mean, found.low, found.high], [0.18, *wanted])
    assert found.kind == "seeds"
    assert found.row("x") == {
        "name": "x",
        "difference": 0.18,
        "low": round(wanted.low, 4),
        "high": round(wanted.high, 4),
        "each": [0.2, 0.1, 0.25, 0.15, 0.2],
    }


def test_the_best_row_is_chosen_on_the_other_seeds_and_never_saw_target_labels() -> None:
    rows = {"lucky": [1.0, 0.5, 0.5], "steady": [0.7, 0.7, 0.7], "oracle": [1.0, 1.0, 1.0]}
    found = best_of_others(rows, excluded=("oracle",))
    # on seeds 1 and 2 the first seed's luck speaks for "lucky": .75 on the mean of the others
    assert found == [("steady", 0.7), ("lucky", 0.5), ("lucky", 0.5)]


def test_no_row_without_target_labels_is_no_best_row() -> None:
    with pytest.raises(RangeError, match="every row saw target labels; give one that did not"):
        best_of_others({"oracle": [1.0, 1.0]}, excluded=("oracle",))
    with pytest.raises(RangeError, match="rows of \\[1\\] seeds; give the same two or more of each"):
        best_of_others({"adabn": [1.0]})


def test_rows_of_different_pictures_are_not_compared() -> None:
    one = Scored(np.array([0.0, 1.0]), np.array([0, 1]), ("a", "b"))
    other = Scored(np.array([0.0, 1.0]), np.array([1, 0]), ("a", "b"))
    with pytest.raises(ShapeError, match="the rows stand on different areas"):
        paired([[one]], [[other]], auroc)


def test_a_fold_of_one_kind_is_no_figure() -> None:
    one = Scored(np.array([0.0, 1.0]), np.array([1, 1]), ("a", "b"))
    with pytest.raises(RangeError, match="a fold has healthy or defective areas alone"):
        averaged([[one]], auroc)


def test_scores_come_back_from_a_kept_step_to_the_last_bit() -> None:
    scored = areas(np.random.default_rng(4))
    scored = Scored(np.float32(scored.scores) / 3, scored.truth, scored.groups, boundary=-1.25)
    back = Scored.read(json.loads(json.dumps(scored.document())))
    np.testing.assert_array_equal(back.scores, scored.scores)
    np.testing.assert_array_equal(back.truth, scored.truth)
    assert (back.groups, back.boundary) == (scored.groups, scored.boundary)


def set_of(groups: int, *, each: int = 4, defective: int = 2) -> Dataset:
    """Two domains; every group has as many defective pictures, and the rest of it is healthy."""
    samples = tuple(
        Sample(
            path=Path(f"{domain}{group}{n}.png"),
            image=f"{domain}{group}{n}.png",
            label="dent" if n < defective else "good",
            domain=domain,
            group=f"{domain}-{group}",
            healthy=n >= defective,
        )
        for domain in ("bright", "dark")
        for group in range(groups)
        for n in range(each)
    )
    return Dataset(Path("set"), "drawn", "CC0", samples, ("dent",), ("good",))


def test_every_group_is_left_out_once_and_never_torn() -> None:
    found = cross_folds(set_of(6), seed=3)
    tested = [{sample.image for sample in fold.judging.new[0].test} for fold in found]
    assert len(found) == 2
    assert not tested[0] & tested[1]
    assert len(tested[0] | tested[1]) == 24
    for fold in found:
        for line in (fold.lines.original, *fold.lines.new):
            left_out = {sample.unit for sample in line.test}
            learnt = {sample.unit for part in ("train", "validate", "mentor") for sample in line.part(part)}
            assert not left_out & learnt
        with pytest.raises(TruthWithheld, match="only an evaluation may ask"):
            fold.lines.new[0].truth(fold.lines.new[0].test[0])
    assert [fold.number for fold in found] == [0, 1]
    assert tested[0] != {sample.image for sample in cross_folds(set_of(6), seed=4)[0].judging.new[0].test}


def test_a_gap_may_stand_before_the_original_line_on_the_same_folds() -> None:
    there = cross_folds(set_of(6), seed=0, original="bright", gap="tint")
    back = cross_folds(set_of(6), seed=0, original="bright", gap="tint", gap_on="original")
    for one, other in zip(there, back, strict=True):
        assert (one.lines.original.gap, one.lines.new[0].gap) == (None, "tint")
        assert (other.lines.original.gap, other.lines.new[0].gap) == ("tint", None)
        for part in ("train", "test"):
            mine, theirs = (
                [sample.image for sample in fold.judging.new[0].part(part)] for fold in (one, other)
            )
            assert mine == theirs


def test_a_gap_shows_the_same_test_pictures_on_both_lines() -> None:
    for fold in cross_folds(set_of(6), seed=0, original="bright", gap="tint"):
        both = [[sample.image for sample in line.test] for line in (fold.judging.original, *fold.judging.new)]
        assert both[0] == both[1]
        assert fold.judging.new[0].gap == "tint"


def test_a_fold_without_a_defect_is_refused() -> None:
    lonely = set_of(1)
    with pytest.raises(DatasetError, match="part test of line original has no"):
        cross_folds(lonely, seed=0)


def test_a_row_says_what_few_groups_say_each() -> None:
    found = Paired(0.1, 0.0, 0.2, (0.1,), "groups", {"a": None, "b": 0.3}, {"a": 0.05, "b": 0.1})
    assert found.row("x")["groups"] == {"a": None, "b": 0.3}
    assert found.row("x")["without_group"] == {"a": 0.05, "b": 0.1}
