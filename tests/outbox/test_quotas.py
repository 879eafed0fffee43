"""Quotas of an hour's frames: who wins a place, with which probability, and what the random part tells."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from edge_sdk.errors import RangeError
from edge_sdk.outbox.quotas import (
    RANDOM,
    QuotaBudgets,
    Quotas,
    Values,
    miss_rate,
    places_of,
    values_of,
)


def frame(strongest: float = 0, entropy: float = 0, novelty: float = 0) -> Values:
    return Values(strongest, 0.0, entropy, novelty)


def test_each_stratum_has_its_places_and_a_frame_wins_once() -> None:
    quotas: Quotas[int] = Quotas(
        4, chance=np.random.default_rng(0), shares={"strongest": 0.5, "novelty": 0.25, RANDOM: 0.25}
    )
    for n in range(100):
        quotas.offer(n, frame(strongest=n / 100, novelty=n))
    won = quotas.close()
    assert Counter(one.stratum for one in won) == {"strongest": 2, "novelty": 1, RANDOM: 1}
    assert len({one.what for one in won}) == 4
    best = [one.what for one in won if one.stratum != RANDOM]
    assert best == [n for n in (99, 98, 97, 96) if n != won[0].what][:3]
    assert (won[0].stratum, won[0].value, won[0].inclusion_probability) == (RANDOM, 0.5, 0.01)


def test_a_period_begins_anew_and_a_short_one_keeps_everything() -> None:
    quotas: Quotas[str] = Quotas(10, chance=np.random.default_rng(0))
    quotas.offer("only", frame())
    assert [one.what for one in quotas.close()] == ["only"]
    assert quotas.close() == ()
    for name in "abc":
        quotas.offer(name, frame())
    assert {one.what for one in quotas.close()} == set("abc")


def test_frames_are_held_only_as_long_as_they_may_win() -> None:
    quotas: Quotas[object] = Quotas(5, chance=np.random.default_rng(0))
    for n in range(1000):
        quotas.offer(object(), frame(strongest=n, entropy=-n, novelty=n % 7))
    assert sum(len(heap) for heap in quotas._heaps.values()) <= 4 * 5


@given(st.integers(1, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_places_are_whole_and_all_given_out(size: int, raw: list[float]) -> None:
    names = ("strongest", "entropy", "novelty", RANDOM)
    shares = {name: one / sum(raw) for name, one in zip(names, raw, strict=False)}
    found = places_of(size, shares)
    assert sum(found.values()) == size
    assert all(abs(found[name] - size * share) < 1 for name, share in shares.items())


def test_wrong_shares_are_refused_with_the_value() -> None:
    with pytest.raises(RangeError, match=r"the shares are together 0.9; give shares that make 1"):
        places_of(10, {"strongest": 0.9})
    with pytest.raises(RangeError, match=r"there is no score energy; give strongest, margin, entropy, novelty, random"):
        places_of(10, {"energy": 1.0})
    with pytest.raises(RangeError, match=r"the share of margin is 0; give one above 0, or leave it out"):
        places_of(10, {"margin": 0.0, RANDOM: 1.0})
    with pytest.raises(RangeError, match=r"size is 0; give at least 1 place a period"):
        Quotas(0, chance=np.random.default_rng(0))


def test_scores_are_those_of_the_cells_that_show_the_picture() -> None:
    confidence = np.array([[[0.5, 0.9], [0.0, 1.0]]], np.float32)
    found = values_of(confidence)
    assert (found.strongest, found.margin) == (1.0, 1.0)
    # 0.9: 0.469 bits, 0.5: 1 bit, sure cells: none
    assert found.entropy == pytest.approx((1 + 0.469) / 4, abs=1e-3)
    shown = values_of(confidence, valid=np.array([[False, True], [True, False]]))
    assert (shown.strongest, shown.margin) == (pytest.approx(0.9), pytest.approx(0.469, abs=1e-3))
    assert values_of(confidence, valid=np.zeros((2, 2), bool)) == Values(0, 0, 0, 0)
    far = values_of(confidence, feature=np.array([3.0, 0.0]), reference=(np.array([1.0, 0.0]), np.array([1.0, 2.0])))
    assert far.novelty == pytest.approx(2.0)


def test_a_budget_a_score_takes_what_each_ranks_highest() -> None:
    chance, clock = np.random.default_rng(3), FakeClock()
    quotas = QuotaBudgets(100, shift_h=8, clock=clock)
    count = 3000
    sure, doubt, new = chance.random(count), chance.random(count) ** 8, chance.exponential(1, count)
    taken: dict[str, list[int]] = {"strongest": [], "entropy": [], "novelty": []}
    for n in range(count):
        clock.advance(8 * 3600 / count)
        values = Values(float(sure[n]), 0.0, float(doubt[n]), float(new[n]))
        if (stratum := quotas.affords(1, values)) is not None:
            quotas.spend(stratum, 1)
            taken[stratum].append(n)
    counts = {name: len(which) for name, which in taken.items()}
    assert sum(counts.values()) <= 100
    assert counts["strongest"] == pytest.approx(41, abs=3)
    assert counts["novelty"] == pytest.approx(18, abs=3)
    for name, score in (("strongest", sure), ("entropy", doubt), ("novelty", new)):
        ranks = np.argsort(np.argsort(score)) / count
        assert np.median(ranks[taken[name]]) > 0.97, name
    assert quotas.left == 100 - sum(counts.values())


def test_the_random_part_estimates_the_miss_rate_without_bias() -> None:
    """Misses are what no score finds: they look healthy, and the strata by score avoid them."""
    chance = np.random.default_rng(5)
    frames, rate = 500, 0.04
    estimates, errors, naive = [], [], []
    for _ in range(400):
        missed = chance.random(frames) < rate
        score = np.where(missed, chance.uniform(0, 0.2, frames), chance.uniform(0, 1, frames))
        quotas: Quotas[int] = Quotas(60, chance=chance, shares={"strongest": 0.5, RANDOM: 0.5})
        for n in range(frames):
            quotas.offer(n, frame(strongest=float(score[n])))
        won = quotas.close()
        part = [one for one in won if one.stratum == RANDOM]
        found, error = miss_rate(
            [bool(missed[one.what]) for one in part], [one.inclusion_probability for one in part], frames=frames
        )
        estimates.append(found - missed.mean())
        errors.append(error)
        naive.append(float(np.mean([missed[one.what] for one in won])) - missed.mean())
    spread = float(np.std(estimates))
    assert abs(np.mean(estimates)) < 3 * spread / 20, "unbiased"
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(spread, rel=0.15), "the standard error is honest"
    assert np.mean(naive) < -0.01, "all that was queued would tell a rosier story"


def test_a_sample_of_which_a_share_was_lost_still_estimates_it() -> None:
    chance = np.random.default_rng(6)
    found = []
    for _ in range(500):
        missed = chance.random(1000) < 0.05
        kept = (chance.random(1000) < 0.1) & (chance.random(1000) < 0.6)
        found.append(miss_rate(missed[kept].tolist(), [0.1 * 0.6] * int(kept.sum()), frames=1000)[0])
    assert np.mean(found) == pytest.approx(0.05, abs=3 * float(np.std(found)) / np.sqrt(500))


def test_an_impossible_probability_is_refused() -> None:
    with pytest.raises(RangeError, match=r"an inclusion probability is 0; give one above 0 and at most 1"):
        miss_rate([True, False], [0.5, 0.0], frames=10)
    with pytest.raises(RangeError, match=r"frames is 0; give how many were offered, at least 1"):
        miss_rate([], [], frames=0)
