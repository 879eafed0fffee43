"""Input facts: each answers to its own cause and to no other."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_sdk.errors import ShapeError
from edge_sdk.quality.facts import FACTS, causes, facts_of, facts_of_picture
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import Adjustment, PreprocessSpec


def picture(seed: int) -> np.ndarray:
    fine = np.random.default_rng(seed).normal(0, 12, (96, 128, 3))
    return np.clip(drawn_picture(96, 128, seed=seed) * 0.6 + 50 + fine, 0, 255).astype(np.uint8)


def measured(change=lambda image, n: image) -> np.ndarray:
    return np.stack([facts_of(change(picture(n), n)) for n in range(16)])


USUAL = measured()


def named(change) -> tuple[str, ...]:
    now = measured(change).mean(axis=0)
    return causes(USUAL.mean(axis=0), USUAL.std(axis=0), now, count=16, reference=16)


def scaled(gain: tuple[float, float, float]):
    return lambda image, n: np.clip(image * np.array(gain), 0, 255).astype(np.uint8)


def test_facts_equal_a_slow_version() -> None:
    image = picture(3)
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    inside = np.pad(grey, 1, mode="reflect")
    edges = inside[:-2, 1:-1] + inside[2:, 1:-1] + inside[1:-1, :-2] + inside[1:-1, 2:] - 4 * grey
    means = image.reshape(-1, 3).astype(float).mean(axis=0) + 0.5
    slow = [means.mean() / 255, *(means / means.mean()), grey.std() / means.mean()]
    slow.append(np.log((edges.var() + 1) / (grey.var() + 1)))
    np.testing.assert_allclose(facts_of(image), slow, rtol=1e-4)
    assert len(FACTS) == len(slow)


def test_nothing_is_named_of_the_same_line() -> None:
    now = np.stack([facts_of(picture(n)) for n in range(50, 66)]).mean(axis=0)
    assert causes(USUAL.mean(axis=0), USUAL.std(axis=0), now, count=16, reference=16) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (scaled((0.86, 0.86, 0.86)), "became darker: gain 0.86 of the reference"),
        (scaled((0.8, 1.0, 1.0)), "changed its colour: blue 0.8"),
        (lambda image, n: cv2.GaussianBlur(image, (0, 0), 1.0), "became blurred: fine detail 0."),
        (
            lambda image, n: np.clip(
                image + np.random.default_rng(n).normal(0, 15, image.shape), 0, 255
            ).astype(np.uint8),
            "became noisier, or sharper: fine detail 1.",
        ),
    ],
)
def test_the_surest_cause_is_named_first(change, said: str) -> None:
    assert any(clause.startswith(said) for clause in named(change)[:2]), named(change)


def test_a_gain_is_no_blur_and_a_blur_no_gain() -> None:
    assert not any("blurred" in clause or "noisier" in clause for clause in named(scaled((0.8, 0.8, 0.8))))
    assert not any("darker" in clause for clause in named(lambda image, n: cv2.GaussianBlur(image, (0, 0), 1.0)))


def test_padding_is_left_out_and_the_stations_adjustment_is_in() -> None:
    image = np.full((40, 80, 3), 100, np.uint8)
    spec = PreprocessSpec(width=64, height=64)
    assert facts_of_picture(image, spec)[0] == pytest.approx(100.5 / 255)
    assert facts_of_picture(image, spec, adjust=Adjustment(gain=(2, 2, 2)))[0] == pytest.approx(200.5 / 255)


def test_a_flat_and_a_black_picture_have_finite_facts() -> None:
    for level in (0, 255):
        assert np.isfinite(facts_of(np.full((1, 1, 3), level, np.uint8))).all()


def test_a_grey_picture_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"pixels is \(8, 8\); give \(H, W, 3\), blue green red"):
        facts_of(np.zeros((8, 8), np.uint8))
