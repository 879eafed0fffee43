"""The domain probe and the defect prior, on data whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.errors import RangeError, ShapeError
from training.prior import bbse_weights, defect_prior, on_simplex
from training.probe import domain_probe


def features(seed: int, count: int, shift: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, (count, 12)).astype(np.float32)


def test_lines_that_look_alike_are_near_and_others_far() -> None:
    near, far = (domain_probe(features(0, 80, 0), features(1, 80, shift)) for shift in (0, 3))
    assert near is not None and far is not None
    assert near.distance < 0.5 and 0.35 < near.error < 0.65
    assert far.distance > 1.9
    assert far.pictures == 160


def test_the_distance_is_two_minus_four_errors_and_not_below_nothing() -> None:
    found = domain_probe(features(0, 60, 0), features(1, 60, 0.5))
    assert found is not None
    assert found.distance == pytest.approx(max(0, 2 - 4 * found.error))
    assert all(
        one.distance >= 0 for seed in range(6) if (one := domain_probe(features(seed, 8, 0), features(seed + 9, 8, 0)))
    )


def test_the_probe_is_held_out_where_features_outnumber_pictures() -> None:
    chance = np.random.default_rng(0)
    found = domain_probe(chance.normal(size=(20, 400)), chance.normal(size=(20, 400)))
    assert found is not None and found.error > 0.25, "asked about its own training pictures, it would never err"


def test_whole_units_are_held_out() -> None:
    """Each unit has a look of its own, which tells its line to whoever has seen another picture of it."""
    chance = np.random.default_rng(1)
    looks = chance.normal(0, 6, (16, 30))
    units = np.repeat(np.arange(16), 8)
    pictures = looks[units] + chance.normal(0, 0.1, (128, 30))
    names = [f"unit {unit}" for unit in units]
    torn = domain_probe(pictures[:64], pictures[64:])
    whole = domain_probe(pictures[:64], pictures[64:], original_units=names[:64], new_units=names[64:])
    assert torn is not None and whole is not None
    assert torn.distance > 1.9
    assert whole.distance < 1.2


def test_lines_of_different_sizes_count_alike() -> None:
    found = domain_probe(features(0, 200, 0), features(1, 10, 0))
    assert found is not None and found.error > 0.25, "calling everything the larger line is no answer"


def test_the_probe_says_nothing_of_too_little() -> None:
    assert domain_probe(features(0, 5, 0), features(1, 50, 0)) is None
    assert domain_probe(features(0, 9, 0), features(1, 9, 0), original_units=["one"] * 9, new_units=["two"] * 9) is None
    with pytest.raises(ShapeError, match=r"features are \(9, 12\) and \(9, 3\); give \(n, F\) and \(m, F\)"):
        domain_probe(features(0, 9, 0), features(1, 9, 0)[:, :3])
    with pytest.raises(ShapeError, match="11 units for 18 pictures; give one a picture"):
        domain_probe(features(0, 9, 0), features(1, 9, 0), new_units=["a", "b"])


def test_a_seed_gives_the_same_probe() -> None:
    one, other = (domain_probe(features(0, 40, 0), features(1, 40, 0.4), seed=3) for _ in range(2))
    assert one == other


def drawn(seed: int, count: int, share: float, hit: float, alarm: float) -> tuple[np.ndarray, np.ndarray]:
    """What a model with these rates says of pictures, and what they are."""
    chance = np.random.default_rng(seed)
    defective = chance.random(count) < share
    return chance.random(count) < np.where(defective, hit, alarm), defective


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9])
def test_the_prior_is_recovered_within_its_error_under_label_shift(share: float) -> None:
    inside, found = 0, []
    for seed in range(60):
        said, defective = drawn(seed, 300, 0.4, 0.85, 0.1)
        prior = defect_prior(said, defective, drawn(seed + 1000, 300, share, 0.85, 0.1)[0])
        assert prior is not None
        inside += prior.low <= share <= prior.high
        found.append(prior.share)
    assert inside >= 54, f"a 95 % interval held the truth {inside} times of 60"
    assert np.mean(found) == pytest.approx(share, abs=0.02)


def test_the_weights_solve_the_printed_equation() -> None:
    chance = np.random.default_rng(0)
    given = chance.dirichlet(np.ones(4) + 3 * np.eye(4)[0], 4).T
    given = 0.3 * given + 0.7 * np.eye(4)
    old, new = chance.dirichlet(np.ones(4)), chance.dirichlet(np.ones(4))
    weights = bbse_weights(given * old, given @ new)
    for i in range(4):
        assert sum(given[i, j] * old[j] * weights[j] for j in range(4)) == pytest.approx(float((given @ new)[i]))
    assert weights * old == pytest.approx(new)


def test_an_estimate_outside_its_range_is_clipped_and_kept_to_be_seen() -> None:
    said = np.array([True] * 6 + [False] * 4 + [False] * 10)
    defective = np.array([True] * 10 + [False] * 10)
    prior = defect_prior(said, defective, np.ones(20, bool))
    assert prior is not None
    assert prior.share == prior.high == 1
    assert prior.unclipped == pytest.approx(1 / 0.6)
    assert on_simplex(np.array([-0.2, 0.9, 0.3])) == pytest.approx([0, 0.75, 0.25])


def test_a_model_that_cannot_tell_says_that_the_matrix_is_nearly_singular() -> None:
    chance = np.random.default_rng(4)
    said, defective = chance.random(400) < 0.5, chance.random(400) < 0.5
    blind = defect_prior(said, defective, chance.random(100) < 0.5)
    sure = defect_prior(defective, defective, chance.random(100) < 0.5)
    assert blind is not None and sure is not None
    assert blind.singular and blind.high - blind.low > 0.9
    assert sure.condition == pytest.approx(1) and not sure.singular
    everything = defect_prior(np.ones(8, bool), np.array([True, False] * 4), np.ones(8, bool))
    assert everything is not None and everything.singular and np.isfinite(everything.condition)


def test_there_is_no_prior_without_both_kinds() -> None:
    yes, no = np.ones(4, bool), np.zeros(4, bool)
    assert defect_prior(yes, yes, yes) is None
    assert defect_prior(yes, no, yes) is None
    assert defect_prior(np.array([True, False]), np.array([True, False]), np.zeros(0, bool)) is None
    with pytest.raises(ShapeError, match="4 predictions for 2 labels"):
        defect_prior(yes, np.array([True, False]), yes)


def test_shares_that_are_none_are_told() -> None:
    with pytest.raises(RangeError, match="the shares of predicted sum to 2; give shares that sum to 1"):
        bbse_weights(np.eye(2) / 2, np.array([1.0, 1.0]))
    with pytest.raises(ShapeError, match=r"confusion is \(2, 3\) for \(2,\) shares"):
        bbse_weights(np.ones((2, 3)) / 6, np.array([0.5, 0.5]))
