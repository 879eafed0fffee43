"""The gaps: the same picture everywhere, and truth that stays true."""

from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.arrays import Image
from edge_sdk.errors import ConfigError, RangeError
from edge_sdk.quality.datasets import DEFAULT_GAP
from training.data import gaps


def plate(height: int = 60, width: int = 80) -> Image:
    """A bright part on a dark ground, with a dark spot on it."""
    image = np.random.default_rng(0).normal(40, 4, (height, width, 3)).clip(0, 255).astype(np.uint8)
    image[height // 4 : -height // 4, width // 4 : -width // 4] = (120, 170, 200)
    image[height // 2 - 4 : height // 2 + 4, width // 2 - 4 : width // 2 + 4] = (30, 20, 20)
    return image


@pytest.mark.parametrize("name", gaps.names())
def test_a_picture_looks_the_same_each_time_and_its_source_is_left_alone(name: str) -> None:
    image = plate()
    before = image.copy()
    one, again = gaps.apply(name, image, key="a.png"), gaps.apply(name, image, key="a.png")
    assert np.array_equal(one, again)
    assert np.array_equal(image, before)
    assert one.shape == image.shape and one.dtype == np.uint8
    assert not np.array_equal(one, image)


@pytest.mark.parametrize("name", ["lamp", "stains"])
def test_another_picture_has_another_draw(name: str) -> None:
    assert not np.array_equal(gaps.apply(name, plate(), key="a.png"), gaps.apply(name, plate(), key="b.png"))


@pytest.mark.parametrize("name", gaps.names())
def test_no_strength_changes_nothing(name: str) -> None:
    assert np.array_equal(gaps.apply(name, plate(), key="a", strength=0), plate())


@pytest.mark.parametrize("name", ["grey", "chromaticity", "gamma", "brightness", "tint"])
def test_colour_gaps_look_at_each_pixel_alone(name: str) -> None:
    image = plate()
    shown = gaps.apply(name, image, key="a")
    assert np.array_equal(gaps.apply(name, image[:, ::-1], key="a"), shown[:, ::-1])


def test_nothing_moves_under_a_lamp() -> None:
    image = plate(200, 240)
    shown = gaps.apply("lamp", image, key="a").astype(float).mean(axis=2)
    spot = shown[96:104, 116:124].mean()
    assert spot < shown[96:104, 90:110].mean() - 15
    assert spot < shown[96:104, 130:150].mean() - 15


def test_stains_lie_on_the_part_and_have_no_colour_of_their_own() -> None:
    image = np.full((200, 240, 3), (40, 40, 40), np.uint8)
    image[50:150, 60:180] = (180, 180, 180)
    for key in "abcdef":
        changed = np.abs(gaps.apply("stains", image, key=key).astype(int) - image).max(axis=2) > 12
        assert 0 < changed.mean() < 0.25
        rows, columns = np.nonzero(changed)
        assert 50 < rows.mean() < 150 and 60 < columns.mean() < 180
        assert not changed[:10].any() and not changed[-10:].any()


def test_a_picture_without_a_ground_is_stained_anywhere() -> None:
    flat = np.full((100, 100, 3), 128, np.uint8)
    assert not np.array_equal(gaps.apply("stains", flat, key="a"), flat)


def test_joined_gaps_are_applied_from_left_to_right() -> None:
    image = plate()
    by_hand = gaps.apply("gamma", gaps.apply("grey", image, key="a"), key="a").astype(int)
    assert np.abs(gaps.apply("grey+gamma", image, key="a").astype(int) - by_hand).max() <= 2


def test_the_default_is_one_that_there_is() -> None:
    assert gaps.DEFAULT_GAP == DEFAULT_GAP
    assert DEFAULT_GAP in gaps.names()


def test_a_gap_or_strength_that_there_is_not_is_told() -> None:
    with pytest.raises(ConfigError, match=r"there is no gap named 'fog'; give one of grey, .*, or several joined"):
        gaps.apply("lamp+fog", plate(), key="a")
    with pytest.raises(RangeError, match="the strength of the gap is 3; give 0 to 2, 1 is what results state"):
        gaps.apply("lamp", plate(), key="a", strength=3)


def test_another_viewpoint_moves_the_mask_with_the_picture_and_cuts_nothing_off() -> None:
    image = np.full((120, 160, 3), 200, np.uint8)
    mask = np.zeros((120, 160), np.uint8)
    for value, (top, left) in enumerate([(0, 0), (0, 150), (110, 150), (110, 0), (50, 70)], start=1):
        image[top : top + 10, left : left + 10] = 10 * value
        mask[top : top + 10, left : left + 10] = value
    for strength in (0.5, 1.0, 2.0):
        shown = gaps.apply("viewpoint", image, key="a", strength=strength)
        where = gaps.moved("viewpoint", mask, strength=strength)
        assert where.dtype == np.uint8 and set(np.unique(where)) == {0, 1, 2, 3, 4, 5}
        for value in range(1, 6):
            inside = shown[where == value].mean(axis=1)
            assert np.median(inside) == pytest.approx(10 * value, abs=2)
        assert np.median(shown[where == 0]) == 200
        assert not np.array_equal(where, mask)


def test_a_defect_of_a_pixel_is_not_lost_and_other_gaps_move_nothing() -> None:
    mask = np.zeros((90, 90), np.uint8)
    for row in range(3, 90, 7):
        mask[:] = 0
        mask[row, 60] = 2
        found = gaps.moved("stains+viewpoint", mask, strength=2)
        assert (found == 2).any()
    assert gaps.moved("lamp+grey", mask) is mask
    assert gaps.moved("viewpoint", mask, strength=0) is mask
