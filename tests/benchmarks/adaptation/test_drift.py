"""E8's own arithmetic: what else could be watched, and what is made of the watch's words."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.adaptation import drift
from benchmarks.adaptation.drift import _limits, _measure, _row, _Seen, _share_over, _watched
from benchmarks.registry import MODULES
from edge_sdk.quality.drift_reference import reference_of


def seen(count: int, seed: int, *, shift: float = 0.0) -> _Seen:
    chance = np.random.default_rng(seed)
    truth = (chance.random(count) < 0.1).astype(int)
    scores = np.where(truth > 0, 0.9, 0.1 * chance.random(count)).astype(np.float32)
    facts = (1 + 0.01 * chance.standard_normal((count, 6))).astype(np.float32)
    features = (chance.standard_normal((count, 5)) + shift).astype(np.float32)
    return _Seen(features, scores, facts, truth, 0.5)


def test_the_score_watch_equals_kolmogorov_and_smirnovs_statistic() -> None:
    from scipy.stats import ks_2samp

    here, there = np.random.default_rng(0).random(32), np.random.default_rng(1).random(200)
    slow = max(abs((here <= s).mean() - (there <= s).mean()) for s in there)
    assert _measure("score_ks", here, there) == pytest.approx(slow)
    # looked at where the reference's scores lie, so it may miss a little of what lies between them
    assert slow == pytest.approx(ks_2samp(here, there).statistic, abs=0.04)


def test_each_other_watch_is_as_seldom_wrong_and_sees_what_it_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "ROUNDS", 400)
    home = seen(256, 100)
    limits = _limits(home)
    for name in drift.OTHERS:
        assert _share_over(name, home, seen(3200, 101), limits[name]) <= 0.05, name
    assert _share_over("features_of_all_frames", home, seen(640, 102, shift=1.0), limits["features_of_all_frames"]) == 1
    assert _share_over("brightness", home, seen(640, 102, shift=1.0), limits["brightness"]) <= 0.1


def test_a_row_states_the_watchs_words_over_seeds() -> None:
    home = seen(256, 100)
    reference = reference_of(home.features, home.scores, home.facts, home.detected, as_they_come=True, rounds=400)
    clean, shifted = (_watched(reference, seen(960, 103, shift=shift))[0] for shift in (0.0, 1.0))
    assert clean["windows_over"] <= 0.05 and clean["frames_until_said"] is None
    assert (shifted["windows_over"], shifted["defects_found"], shifted["healthy_disturbed"]) == (1.0, 1.0, 0.0)
    assert 96 <= shifted["frames_until_said"] <= 130
    others = dict.fromkeys(drift.OTHERS, 0.5)
    row = _row("shift", [shifted | others, clean | others])
    assert row["windows_over"] == pytest.approx((1 + clean["windows_over"]) / 2, abs=1e-4)
    assert row["each"] == [1.0, round(clean["windows_over"], 3)]


def test_it_is_registered() -> None:
    assert MODULES["E8"] == drift.__name__
