"""From an anomaly map to confidence."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.errors import RangeError
from edge_sdk.vision.decode import area_logits, confidence_from_logits
from edge_sdk.vision.novelty import novelty_logits


def confidence(distances: list[float], normals: list[float]) -> np.ndarray:
    return confidence_from_logits(novelty_logits(np.array(distances, np.float32).reshape(-1, 1, 1), normals))[:, 0, 0]


def one_minus_p(distance: float, normals: list[float]) -> float:
    """The conformal p-value as its definition counts it."""
    return 1 - (1 + sum(normal >= distance for normal in normals)) / (len(normals) + 1)


def test_confidence_never_exceeds_one_minus_the_conformal_p_value_among_the_normals() -> None:
    chance = np.random.default_rng(100)
    normals = sorted(chance.gamma(4.0, 1.0, 40).tolist())
    asked = [value for value in chance.gamma(4.0, 1.0, 400).tolist() if normals[0] < value <= normals[-1]]
    found = confidence(asked, normals)
    exact = np.array([one_minus_p(value, normals) for value in asked])
    assert (found <= exact + 1e-6).all()
    assert (found >= exact - 1 / 41 - 1e-6).all()


def test_confidence_rises_with_the_distance_and_never_saturates_where_defects_lie() -> None:
    normals = [1.0, 1.1, 1.1, 1.3, 2.0]
    found = confidence(np.linspace(0, 200, 2001).tolist(), normals)
    assert (np.diff(found[found > 0.01]) > 0).all()
    assert found[-1] < 1
    assert 0 < found[0] < 1 / 6


@pytest.mark.parametrize("normals", [[2.0], [2.0, 2.0, 2.0]])
def test_one_normal_or_equal_ones_still_tell_stranger_from_strange(normals: list[float]) -> None:
    low, same, high, higher = confidence([1.0, 2.0, 2.5, 3.0], normals)
    assert low < same < high < higher


def test_normals_that_are_none_or_no_numbers_are_refused() -> None:
    with pytest.raises(RangeError, match="0 normals, all of which must be finite; give the highest distance of one"):
        novelty_logits(np.zeros((1, 1, 2, 2)), [])
    with pytest.raises(RangeError, match="2 normals, all of which must be finite"):
        novelty_logits(np.zeros((1, 1, 2, 2)), [1.0, float("nan")])


def test_an_anomaly_map_is_judged_only_with_its_normals() -> None:
    outputs = {"novelty": np.ones((1, 1, 2, 2), np.float32)}
    assert area_logits(outputs) is None
    found = area_logits(outputs, normals=(0.5, 2.0))
    assert found is not None and found.shape == (1, 1, 2, 2)
