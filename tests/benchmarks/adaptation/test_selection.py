"""E6: what each policy picks, at the same budget, and the whole of it on lines that are very small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adaptation.selection import POLICIES, Watched, chosen, drawn_lines, seed_of
from edge_sdk.outbox.quotas import SHARES, Values
from training.recipe import Recipe


def watched(count: int = 80, *, seed: int = 0) -> Watched:
    chance = np.random.default_rng(seed)
    values = [Values(*(float(one) for one in chance.random(4))) for _ in range(count)]
    features, worth = chance.normal(size=(count, 3)), chance.random(count)
    return Watched(values, features.astype(np.float32), chance.random(count) < 0.6, worth.astype(np.float32))


@pytest.mark.parametrize("policy", POLICIES)
def test_every_policy_picks_as_many_different_frames(policy: str) -> None:
    for budget in (8, 10):
        found = chosen(policy, watched(), budget, chance=np.random.default_rng(1))
        assert len(set(found)) == len(found) == budget
        assert found == sorted(found)


@pytest.mark.parametrize("policy", ["strongest", "margin", "entropy", "novelty"])
def test_a_score_picks_its_largest_values(policy: str) -> None:
    seen = watched()
    found = chosen(policy, seen, 10, chance=np.random.default_rng(1))
    score = [getattr(one, policy) for one in seen.values]
    assert min(score[n] for n in found) >= max(score[n] for n in range(80) if n not in found)


def test_the_stations_ways_take_what_they_rank_highest_at_every_frame() -> None:
    seen = watched(2000)
    score = {name: np.argsort(np.argsort([getattr(one, name) for one in seen.values])) / 2000 for name in SHARES}
    found = chosen("quotas", seen, 100, chance=np.random.default_rng(1))
    highest = np.maximum.reduce([score[name][found] for name in SHARES])
    assert sum(highest > 0.9) > 60 and not set(found) <= set(np.flatnonzero(seen.detected))
    assert sum(not seen.detected[n] for n in found) <= 15, "the control sample alone"
    early = replace(seen, values=[*seen.values[:1000], *watched(1000, seed=9).values])
    assert [n for n in found if n < 1000 and seen.detected[n]] == [
        n for n in chosen("quotas", early, 100, chance=np.random.default_rng(1)) if n < 1000 and seen.detected[n]
    ], "what is still to come changes nothing"


def test_k_centre_takes_what_is_far_apart_among_the_detected() -> None:
    features = np.array([[0, 0], [0.1, 0], [5, 0], [0, 5], [9, 9]], np.float32)
    values = [Values(1.0 if n == 0 else 0.5, 0, 0, 0) for n in range(5)]
    seen = Watched(values, features, np.array([True, True, True, True, False]), np.zeros(5, np.float32))
    assert chosen("k-centre", seen, 3, chance=np.random.default_rng(0)) == [0, 2, 3]


def test_the_station_decides_frame_by_frame_among_what_is_detected() -> None:
    seen = watched(2000)
    found = chosen("station", seen, 100, chance=np.random.default_rng(1))
    by_worth = [n for n in found if seen.detected[n] and seen.worth[n] > 0.8]
    assert len(by_worth) > 60
    assert sum(not seen.detected[n] for n in found) <= 15, "the random part alone"


def test_the_masks_that_are_drawn_are_the_cells_truth(tmp_path: Path) -> None:
    from training.data.synthetic import mentoring_new

    dataset = drawn_lines(tmp_path, 103, scale=50)
    truth = mentoring_new(40, 10_000 * 103 + 5, 0.05)[1]
    streamed = [sample for sample in dataset.samples if sample.image.startswith("new/mentor/")]
    assert [sample.healthy is False for sample in streamed] == truth.any(axis=(1, 2)).tolist()
    assert dataset.domains == ("new", "original")


@pytest.mark.slow
def test_one_seed_runs_through_and_every_policy_is_judged() -> None:
    recipe = Recipe(trunk="slim", stages=2, width=0.125, side_px=64, iterations=20, batch=4, seed=103)
    rows = seed_of(recipe, scale=10, policies={"random": None, "quotas": SHARES})
    assert list(rows) == ["deployed", "random", "quotas"]
    for name in ("random", "quotas"):
        assert 0 <= rows[name]["new_ap"] <= 1 and 0 <= rows[name]["original_ap"] <= 1
        assert sum(rows[name]["answers"].values()) >= 10, "at least one answer a frame"
