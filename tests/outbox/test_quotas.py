"""A budget of questions a score: who gets a place, and by which score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from edge_sdk.errors import RangeError
from edge_sdk.outbox.quotas import QuotaBudgets, Values, places_of, values_of


@given(st.integers(1, 200), st.lists(st.floats(0.01, 1), min_size=1, max_size=4))
def test_places_are_whole_and_all_given_out(size: int, raw: list[float]) -> None:
    names = ("strongest", "margin", "entropy", "novelty")
    shares = {name: one / sum(raw) for name, one in zip(names, raw, strict=False)}
    found = places_of(size, shares)
    assert sum(found.values()) == size
    assert all(abs(found[name] - size * share) < 1 for name, share in shares.items())


def test_wrong_shares_are_refused_with_the_value() -> None:
    with pytest.raises(RangeError, match=r"the shares are together 0.9; give shares that make 1"):
        places_of(10, {"strongest": 0.9})
    with pytest.raises(RangeError, match=r"there is no score energy; give strongest, margin, entropy, novelty"):
        places_of(10, {"energy": 1.0})
    with pytest.raises(RangeError, match=r"the share of margin is 0; give one above 0, or leave it out"):
        places_of(10, {"margin": 0.0, "novelty": 1.0})


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
    assert counts["strongest"] == pytest.approx(40, abs=3)
    assert counts["novelty"] == pytest.approx(20, abs=3)
    for name, score in (("strongest", sure), ("entropy", doubt), ("novelty", new)):
        ranks = np.argsort(np.argsort(score)) / count
        assert np.median(ranks[taken[name]]) > 0.97, name
    assert quotas.left == 100 - sum(counts.values())
