"""The watch for drift: its maths against a slow version, how often it is wrong, what it sees, and what it says."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.quality.cusum import BETWEEN, LEARNT, RateWatch
from edge_sdk.quality.drift import Watch
from edge_sdk.quality.drift_reference import (
    FALSE_ALARMS,
    LEVELS,
    Reference,
    areas_of,
    reference_of,
    statistic,
    summary_of,
)
from edge_sdk.quality.facts import FACTS

D, W = 12, 32
MIX = np.random.default_rng(7).standard_normal((D, D))
"""Features go together, as a network's do."""
LOOKS = (0.5, 0.9, 1.0, 1.1, 0.3, 1.0)


def line(count: int, seed: int, *, shift: float = 0.0, sameness: float = 0.0) -> np.ndarray:
    """``(count, D)`` features; neighbours are as alike as ``sameness`` in [0, 1) says."""
    chance = np.random.default_rng(seed)
    steps = chance.standard_normal((count, D))
    for before, after in pairwise(steps):
        after *= np.sqrt(1 - sameness**2)
        after += sameness * before
    return (steps @ MIX + shift * MIX.std(axis=0)).astype(np.float32)


def looks(count: int, seed: int, **changed: float) -> np.ndarray:
    """``(count, 6)`` facts."""
    chance = np.random.default_rng(seed)
    mean = np.array([changed.get(name, usual) for name, usual in zip(FACTS, LOOKS, strict=True)])
    return (mean + 0.001 * chance.standard_normal((count, len(FACTS)))).astype(np.float32)


def made(count: int = 256, seed: int = 100, **more: object) -> Reference:
    sure = np.random.default_rng(seed).uniform(0, 0.3, count).astype(np.float32)
    sameness = float(more.pop("sameness", 0.0))  # type: ignore[arg-type]
    features = line(count, seed, sameness=sameness)
    return reference_of(features, sure, looks(count, seed), np.zeros(count, bool), **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def reference() -> Reference:
    return made()


def fed(watch: Watch, features: np.ndarray, seed: int = 5, *, top: float = 0.3, **changed: float) -> list[str]:
    """The state after every window."""
    scores = np.random.default_rng(seed).uniform(0, top, len(features))
    found = []
    for x, score, facts in zip(features, scores, looks(len(features), seed, **changed), strict=True):
        drift = watch.see(x, float(score), detected=False, facts=facts)
        found += [] if drift is None else [drift.state]
    return found


# -- maths


def test_the_statistic_equals_the_printed_formula(reference: Reference) -> None:
    window = line(W, 1).astype(np.float64)
    total = 0.0
    for j in range(D):
        m = sum(float(row[j]) for row in window) / W
        total += ((m - float(reference.mean[j])) / float(reference.sd[j])) ** 2
    assert statistic(window.mean(axis=0), reference.mean, reference.sd, window=W) == pytest.approx(W * total / D)


def test_the_watch_computes_what_the_formula_gives_of_each_whole_window(reference: Reference) -> None:
    features, watch, found = line(3 * W + 5, 2), Watch(reference), []
    for x in features:
        drift = watch.see(x, 0.1, detected=False)
        found += [] if drift is None else [drift.statistic]
    slow = [
        statistic(features[n : n + W].astype(float).mean(axis=0), reference.mean, reference.sd, window=W)
        for n in (0, W, 2 * W)
    ]
    assert found == pytest.approx(slow, rel=1e-9)


def test_a_reference_holds_the_moments_of_the_pictures_that_pass_alone() -> None:
    features, detected = line(100, 3), np.arange(100) % 5 == 0
    features[detected] += 1e3
    scores = np.where(detected, 0.9, 0.1).astype(np.float32)
    found = reference_of(features, scores, looks(100, 3), detected, as_they_come=True, rounds=50)
    np.testing.assert_allclose(found.mean, features[~detected].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(found.sd, features[~detected].std(axis=0), rtol=1e-5)
    assert (found.n, found.detected, found.looked_at) == (80, 0.2, 100)
    np.testing.assert_allclose(found.below, 1.0)


def test_shares_below_each_quantile_are_those_of_the_reference(reference: Reference) -> None:
    np.testing.assert_allclose(reference.below, LEVELS, atol=0.01)


def test_the_same_pictures_give_the_same_reference() -> None:
    assert made(rounds=200).threshold == made(rounds=200).threshold


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False))
def test_order_within_a_window_does_not_matter(random) -> None:
    reference, features = made(64, rounds=20), line(W, 11)
    order = list(range(W))
    random.shuffle(order)
    one, other = Watch(reference), Watch(reference)
    for n in range(W):
        one.see(features[n], 0.01 * n, detected=False)
        other.see(features[order[n]], 0.01 * order[n], detected=False)
    assert one.last is not None and other.last is not None
    assert one.last.statistic == pytest.approx(other.last.statistic, rel=1e-9)
    assert one.last.score_shift == pytest.approx(other.last.score_shift)


def test_a_map_and_a_detectors_confidence_are_summed_up_class_by_class() -> None:
    maps = np.random.default_rng(0).uniform(0.1, 0.9, (2, 3, 4)).astype(np.float32)
    anchors = maps.reshape(2, 12).T
    np.testing.assert_allclose(summary_of(maps), summary_of(anchors), rtol=1e-6)
    logits = np.log(maps[1].astype(float) / (1 - maps[1]))
    found = summary_of(maps)
    np.testing.assert_allclose(found[[1, 3, 5]], [logits.mean(), logits.std(), logits.max()], rtol=1e-4)
    assert areas_of(maps).shape == (2, 12) and np.isfinite(summary_of(np.array([[[0.0, 1.0]]], np.float32))).all()


# -- how often it is wrong, and what it sees


@pytest.mark.parametrize("count", [64, 256])
def test_an_unchanged_lines_windows_seldom_lie_above_the_threshold(count: int) -> None:
    shares = []
    for seed in range(100, 116):
        reference = made(count, seed, rounds=800)
        watch = Watch(reference)
        over = 0
        for x in line(40 * W, 1000 + seed):
            drift = watch.see(x, 0.1, detected=False)
            over += drift is not None and drift.statistic is not None and drift.statistic > reference.threshold
        shares.append(over / 40)
    # 640 windows: at alpha = 0.01 more than 2.5 % would be three standard errors above
    assert np.mean(shares) <= 0.025, shares
    assert FALSE_ALARMS == 0.01


def test_frames_that_are_alike_raise_the_threshold_instead_of_alarms() -> None:
    apart, alike = made(512, 100, rounds=800), made(512, 100, rounds=800, sameness=0.8)
    assert alike.threshold > 2 * apart.threshold
    watch, over = Watch(alike), []
    for x in line(100 * W, 4, sameness=0.8):
        drift = watch.see(x, 0.1, detected=False)
        over += [] if drift is None else [float(drift.statistic or 0) > alike.threshold]
    assert np.mean(over) <= 0.05
    naive, wrong = Watch(apart), []
    for x in line(100 * W, 4, sameness=0.8):
        drift = naive.see(x, 0.1, detected=False)
        wrong += [] if drift is None else [float(drift.statistic or 0) > apart.threshold]
    assert np.mean(wrong) > 0.2


def test_a_small_shift_of_every_feature_is_seen_within_five_windows(reference: Reference) -> None:
    states = fed(Watch(reference), line(5 * W, 6, shift=1.0))
    assert states[2:] == ["input changed"] * 3


def test_what_moves_no_score_is_a_change_and_no_alarm_and_what_moves_them_is(reference: Reference) -> None:
    harmless, harmful = Watch(reference), Watch(reference)
    assert fed(harmless, line(5 * W, 6, shift=1.0))[-1] == "input changed"
    assert fed(harmful, line(5 * W, 6, shift=1.0), top=0.1)[-1] == "alarm"


def test_one_odd_window_is_no_change(reference: Reference) -> None:
    odd = np.concatenate([line(2 * W, 7), line(W, 8, shift=3.0), line(2 * W, 9)])
    assert fed(Watch(reference), odd) == ["starting", "starting", "unchanged", "unchanged", "unchanged"]


def test_a_line_that_comes_back_is_unchanged_again(reference: Reference) -> None:
    states = fed(Watch(reference), np.concatenate([line(5 * W, 7, shift=2.0), line(5 * W, 8)]))
    assert "input changed" in states[:5] and states[-1] == "unchanged"


def test_defective_frames_do_not_disturb_the_features_that_are_watched(reference: Reference) -> None:
    watch = Watch(reference)
    for n, x in enumerate(line(6 * W, 10)):
        watch.see(x if n % 3 else x + 100, 0.1, detected=n % 3 == 0)
    assert watch.last is not None and watch.last.over == 0
    assert watch.last.detected == pytest.approx(1 / 3, abs=0.02)


def test_where_next_to_nothing_passes_the_input_counts_as_changed(reference: Reference) -> None:
    watch = Watch(reference)
    for x in line(4 * 4 * W, 10):
        watch.see(x, 0.9, detected=True)
    assert watch.last is not None and watch.last.statistic is None
    assert watch.last.state == "alarm" and "next to no frame passes any more" in watch.last.sentence


# -- the share of frames with a detection


def test_the_cumulative_sums_equal_a_slow_version() -> None:
    watch = RateWatch(0.05, of=10**14)
    up = down = 0.0
    for y in np.random.default_rng(1).random(400) < 0.1:
        watch.see(bool(y))
        up = max(0.0, up + (np.log(0.15 / 0.05) if y else np.log(0.85 / 0.95)))
        down = max(0.0, down + (np.log(1 / 3) if y else np.log((1 - 0.05 / 3) / 0.95)))
        said = watch.document()
        limit = 2 * np.log(BETWEEN)
        up, down = min(up, limit), min(down, limit)
        assert (said["up"], said["down"]) == pytest.approx((up, down), abs=1e-4)


def test_a_rise_and_a_fall_are_seen_and_an_unchanged_share_is_not() -> None:
    chance = np.random.default_rng(2)

    def after(share: float, frames: int, usual: float = 0.2) -> RateWatch:
        watch = RateWatch(usual, of=2000)
        for y in chance.random(frames) < share:
            watch.see(bool(y))
        return watch

    assert after(0.2, 20_000).alarm == ""
    assert after(0.7, 60).alarm == "rose"
    fell = after(0.01, 400)
    assert fell.alarm == "fell"
    assert fell.sentence.startswith("the share of frames with a detection fell from 20.0% to ")


def test_the_usual_share_is_learned_where_the_bundle_does_not_say_it() -> None:
    watch = RateWatch()
    for n in range(LEARNT):
        assert watch.usual is None and watch.sentence == ""
        watch.see(n % 10 == 0)
    assert watch.usual == pytest.approx(0.1)
    for _ in range(40):
        watch.see(True)
    assert watch.alarm == "rose"


def test_a_share_counted_on_few_pictures_is_given_the_benefit_of_the_doubt() -> None:
    few, many = RateWatch(0.05, of=64), RateWatch(0.05, of=64_000)
    for y in np.random.default_rng(3).random(600) < 0.13:
        few.see(bool(y))
        many.see(bool(y))
    assert (few.alarm, many.alarm) == ("", "rose")


# -- what is said


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"level": 0.43}, "the picture became darker: gain 0.86 of the reference"),
        ({"level": 0.55}, "the picture became brighter: gain 1.10 of the reference"),
        ({"sharpness": 0.0}, "the picture became blurred: fine detail 0.37 of the reference"),
        ({"sharpness": 1.5}, "the picture became noisier, or sharper: fine detail 1.65 of the reference"),
        ({"blue": 0.7, "red": 1.3}, "the picture changed its colour: blue 0.78, green 1.00, red 1.18 of the reference"),
        ({"contrast": 0.2}, "the picture lost contrast: 0.67 of the reference"),
        ({}, "brightness, colour, contrast and sharpness are as they were, so look for another product or dirt"),
    ],
)
def test_the_sentence_names_the_cause(reference: Reference, changed: dict[str, float], said: str) -> None:
    watch = Watch(reference)
    fed(watch, line(5 * W, 6, shift=1.0), **changed)
    assert watch.last is not None
    assert watch.last.sentence == f"the input changed, the scores hardly: {said}"


def test_an_alarm_says_that_the_thresholds_no_longer_hold(reference: Reference) -> None:
    watch = Watch(reference)
    fed(watch, line(5 * W, 6, shift=1.0), top=0.05, sharpness=0.0)
    assert watch.last is not None and watch.last.causes
    assert watch.last.sentence.startswith(
        "the input changed and the thresholds no longer hold: the picture became blurred: fine detail 0.37 of the "
        "reference; "
    )
    assert watch.last.sentence.endswith("% of the frames that pass crossed a quantile of the reference's scores")


# -- bad input


def test_a_frame_without_a_usable_feature_is_counted_and_left_out(reference: Reference) -> None:
    watch = Watch(reference)
    for bad in (np.full(D, np.nan, np.float32), np.zeros(D + 1, np.float32)):
        assert watch.see(bad, 0.1, detected=False) is None
    watch.see(np.zeros(D, np.float32), float("nan"), detected=False)
    assert watch.unusable == 3 and watch.document()["windows"] == 0


def test_a_constant_feature_divides_nothing_by_zero() -> None:
    features = line(64, 1)
    features[:, 0] = 0
    found = reference_of(features, np.full(64, 0.1, np.float32), looks(64, 1), np.zeros(64, bool), rounds=50)
    watch = Watch(found)
    fed(watch, np.concatenate([features, features]))
    assert np.isfinite(found.threshold) and watch.last is not None and np.isfinite(watch.last.statistic or np.nan)


def test_a_reference_is_refused_in_a_sentence() -> None:
    none = np.zeros(20, bool)
    with pytest.raises(RangeError, match="20 of 20 pictures pass, too few for a drift reference; give 32 or more"):
        reference_of(line(20, 1), np.zeros(20, np.float32), looks(20, 1), none)
    with pytest.raises(ShapeError, match=r"vectors are \(20, 12\), scores \(19,\)"):
        reference_of(line(20, 1), np.zeros(19, np.float32), looks(20, 1), none)
    with pytest.raises(RangeError, match="false_alarms is 0.7; give a share above 0 and below 0.5"):
        made(64, false_alarms=0.7)
    broken = line(64, 1)
    broken[3, 4] = np.inf
    with pytest.raises(RangeError, match="is not finite; the graph overflows"):
        reference_of(broken, np.zeros(64, np.float32), looks(64, 1), np.zeros(64, bool))


# -- a restart


def test_a_restart_goes_on_from_whole_windows(reference: Reference) -> None:
    features = line(6 * W, 6, shift=1.0)
    whole, first, second = Watch(reference), Watch(reference), Watch(reference)
    fed(whole, features)
    fed(first, features[: 4 * W], 5)
    second.resume(json.loads(json.dumps(first.document())))
    assert second.last == first.last
    fed(second, features[4 * W :], 5)
    assert second.last is not None and whole.last is not None
    assert second.last.statistic == whole.last.statistic and second.last.windows == 6


@pytest.mark.parametrize("damage", ["kept", "rate", "windows", "nan", "short", "endless"])
def test_a_damaged_state_is_refused_and_changes_nothing(reference: Reference, damage: str) -> None:
    watch = Watch(reference)
    fed(watch, line(2 * W, 6))
    said = json.loads(json.dumps(watch.document()))
    if damage == "nan":
        said["kept"][0]["t"] = float("nan")
    elif damage == "short":
        said["kept"][0]["below"] = [1.0]
    elif damage == "endless":
        said["windows"] = float("inf")
    else:
        said[damage] = "x"
    fresh = Watch(reference)
    with pytest.raises(ShapeError, match="it starts clean"):
        fresh.resume(said)
    assert fresh.last is None and fresh.document()["windows"] == 0
