"""Whether to adapt, decided from scores alone."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.rules import Facts, Scores, _wasserstein, candidates, decide_method, facts_of, noise_of


def scores(seed: int, count: int = 40, *, shift: float = 0.0, alarms: float = 0.3) -> Scores:
    """Pictures of 4 x 4 cells around -6, some of which hold a cell around +4."""
    chance = np.random.default_rng(seed)
    logits = chance.normal(-6 + shift, 1, (count, 1, 4, 4)).astype(np.float32)
    defective = chance.random(count) < alarms
    logits[defective, 0, 1, 2] = chance.normal(4 + shift, 1, int(defective.sum()))
    features = chance.normal(shift, 1, (count, 8)).astype(np.float32)
    return Scores(logits, features, np.ones((count, 4, 4), bool))


def facts(distance: float, rate: float = 0.3) -> Facts:
    return Facts(
        positive_rate_new=rate,
        positive_rate_original=0.3,
        unsure_new=0.1,
        unsure_original=0.1,
        score_distance=distance,
        feature_distance=1.0,
    )


def test_a_line_that_scores_as_the_original_does_is_left_as_it_is() -> None:
    found = decide_method({"source": facts(0.5), "adabn": facts(0.1)}, noise=0.3)
    assert found.method == "source"
    assert "so it is left as it is" in found.why


def test_a_method_that_brings_the_scores_closer_is_taken() -> None:
    found = decide_method({"source": facts(3.0, 1.0), "adabn": facts(0.6), "dann": facts(0.4)}, noise=0.3)
    assert found.method == "adabn", "the one that changes least, where it does"
    assert "from 3.00 to 0.60" in found.why
    assert (
        decide_method({"source": facts(3.0), "adabn": facts(2.9), "dann": facts(0.4)}, noise=0.3).method
        == "dann"
    )


def test_a_method_that_the_original_line_pays_for_gives_way_to_one_that_it_does_not() -> None:
    source, first, second = (replace(facts(d), kept=0.9) for d in (3.0, 0.4, 0.6))
    order = ("mmd", "adabn")

    def taken(mmd: float | None, adabn: float | None) -> str:
        found = {"source": source, "mmd": replace(first, kept=mmd), "adabn": replace(second, kept=adabn)}
        return decide_method(found, noise=0.3, order=order).method

    assert taken(0.88, 0.9) == "mmd", "the limit itself is held"
    assert taken(0.87, 0.9) == "adabn"
    assert taken(0.87, 0.8) == "mmd", "with both too dear nothing ships, and the order counts"
    assert taken(None, 0.9) == "mmd"
    dear = {"source": source, "mmd": replace(first, kept=0.5), "adabn": second}
    assert decide_method(dear, noise=0.3, order=order).why.endswith(
        "mmd would too, but costs the original line more than 2% of balanced accuracy"
    )
    distant = {**dear, "adabn": replace(second, score_distance=2.9)}
    assert decide_method(distant, noise=0.3, order=order).method == "mmd", "one that helps nothing is no way out"


@pytest.mark.parametrize("rate", [0.0, 0.02, 1.0])
def test_silence_and_a_crowd_of_alarms_are_not_plausible(rate: float) -> None:
    found = decide_method({"source": facts(3.0, 0.6), "adabn": facts(0.6, rate)}, noise=0.3)
    assert found.method == "source"
    assert found.why.endswith("so it is left as it is: undecided")


def test_a_shift_of_the_scores_is_far_beyond_their_noise() -> None:
    original = scores(0)
    noise = noise_of(original, 20)
    assert facts_of(original, scores(1)).score_distance < 2 * noise
    moved = facts_of(original, scores(2, shift=6))
    assert moved.score_distance > 4 * noise
    assert moved.positive_rate_new > 0.9 and moved.feature_distance > 3


@given(st.integers(0, 500))
@settings(max_examples=20, deadline=None)
def test_nothing_is_nearer_to_a_line_than_itself(seed: int) -> None:
    original = scores(seed)
    found = facts_of(original, original)
    assert found.score_distance == 0 and found.feature_distance == 0
    assert found.positive_rate_new == found.positive_rate_original


def test_padding_has_no_say() -> None:
    one = scores(3)
    padded = np.array(one.logits)
    padded[:, :, 0] = 50
    valid = np.array(one.valid)
    valid[:, 0] = False
    masked = Scores(one.logits, one.features, valid)
    assert facts_of(masked, Scores(padded, one.features, valid)).score_distance == 0


def test_the_decision_is_a_document() -> None:
    said = decide_method({"source": facts(0.5)}, noise=0.3).document()
    assert said["method"] == said["advised"] == "source" and said["noise"] == 0.3 and said["undecided"] is False
    assert said["facts"] == {"source": {**vars(facts(0.5))}}


def test_scores_that_come_closer_while_features_move_away_decide_nothing() -> None:
    away = replace(facts(0.6), feature_distance=6.5)
    found = decide_method({"source": facts(3.0, 1.0), "adabn": away}, noise=0.3)
    assert found.method == "source"
    assert found.why.endswith("undecided")


def labelled(seed: int, count: int, alarms: float) -> Scores:
    """As ``scores``, with the truth of each picture."""
    found = scores(seed, count, alarms=alarms)
    return replace(found, defective=found.maxima > 0)


def test_a_line_with_fewer_defects_is_not_a_distant_one() -> None:
    original, rare = labelled(0, 80, 0.5), scores(1, 80, alarms=0.05)
    plain = facts_of(replace(original, defective=None), rare)
    found = facts_of(original, rare)
    assert plain.share_new is None and plain.score_distance > 1
    assert found.score_distance < 0.35 * plain.score_distance
    assert found.share_new is not None and found.share_new <= 0.1
    noise = noise_of(original, 80)
    assert found.score_distance <= 2 * noise
    moved = facts_of(original, scores(2, 80, shift=3, alarms=0.05))
    assert moved.score_distance > 4 * noise


def test_a_crowd_of_alarms_is_looked_at_however_near_the_scores_are() -> None:
    crowd = replace(facts(0.5), positive_rate_new=1.0)
    calm = facts(0.35)
    found = decide_method({"source": crowd, "adabn": calm}, noise=0.3)
    assert found.method == "adabn"


def test_noise_shrinks_with_the_pictures() -> None:
    original = labelled(3, 60, 0.4)
    few, many = noise_of(original, 8), noise_of(original, 200)
    assert 0 < many < few
    assert noise_of(labelled(4, 1, 0.0), 5) == float("inf")


def test_one_picture_of_the_original_line_decides_nothing_and_is_said_so() -> None:
    for alarms in (0.0, 1.0):
        source = replace(facts(9.0), positive_rate_new=alarms)
        found = decide_method({"source": source, "adabn": facts(0.1)}, noise=float("inf"))
        assert found.method == "source" and found.undecided
        assert found.why.startswith("one picture of the original line is all that the new one's scores could be")
        assert json.loads(json.dumps(found.document(), allow_nan=False))["noise"] is None


def test_weights_count_as_repeats_do() -> None:
    original = labelled(5, 12, 0.5)
    assert original.defective is not None
    sick = np.flatnonzero(original.defective)
    more = np.concatenate([np.arange(12), *[sick] * 3])
    there = scores(6, 40)

    def some(which: np.ndarray) -> Scores:
        return Scores(original.logits[which], original.features[which], original.valid[which])

    share = 4 * len(sick) / (12 + 3 * len(sick))
    assert 0 < share < 1
    own = len(sick) / 12
    weight = np.where(original.defective, share / own, (1 - share) / (1 - own))
    weighted = _wasserstein(original.maxima, there.maxima, weight)
    repeated = _wasserstein(some(more).maxima, there.maxima)
    assert weighted == pytest.approx(repeated, rel=0.15)


def test_a_crowd_that_was_there_before_does_not_forbid_a_better_ranking() -> None:
    crowd = {"source": facts(3.0, 1.0), "adabn": facts(0.6, 1.0)}
    assert decide_method(crowd, noise=0.3).method == "adabn"
    assert decide_method({**crowd, "adabn": facts(2.9, 1.0)}, noise=0.3).undecided


@pytest.mark.parametrize(
    ("head", "frozen", "tried"),
    [
        ("cells", False, ("adabn", "dann")),
        ("classifier", False, ("mmd", "adabn")),
        ("cells", True, ("dann",)),
        ("classifier", True, ("mmd",)),
    ],
)
def test_a_frozen_trunk_keeps_the_statistics_it_was_pretrained_with(
    head: str, frozen: bool, tried: tuple[str, ...]
) -> None:
    assert candidates(head, frozen=frozen) == tried
