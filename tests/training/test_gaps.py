"""The gaps: the same picture everywhere, and truth that stays true."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def box_of(mask: Image) -> list[int]:
    rows, columns = np.nonzero(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@given(
    left=st.integers(0, 100),
    top=st.integers(0, 60),
    wide=st.integers(8, 60),
    high=st.integers(8, 60),
    strength=st.floats(0.1, 2),
)
def test_another_viewpoint_moves_a_box_as_it_moves_a_mask_of_it(
    left: int, top: int, wide: int, high: int, strength: float
) -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[top : top + high, left : left + wide] = 1
    seen, kept = gaps.moved_boxes("viewpoint", np.array([box_of(mask)]), height=120, width=160, strength=strength)
    assert kept.all()
    assert np.abs(seen[0] - box_of(gaps.moved("viewpoint", mask, strength=strength))).max() <= 1.5


@given(
    left=st.integers(0, 100),
    top=st.integers(0, 60),
    wide=st.integers(12, 60),
    high=st.integers(12, 60),
    aside=st.tuples(st.floats(-150, 150), st.floats(-110, 110)),
    turn=st.floats(-0.8, 0.8),
    tilt=st.tuples(st.floats(-8e-4, 8e-4), st.floats(-8e-4, 8e-4)),
)
def test_a_box_behind_any_homography_surrounds_what_is_seen_and_goes_with_it(
    left: int, top: int, wide: int, high: int, aside: tuple[float, float], turn: float, tilt: tuple[float, float]
) -> None:
    turned = np.array(
        [[np.cos(turn), -np.sin(turn), aside[0]], [np.sin(turn), np.cos(turn), aside[1]], [*tilt, 1]], np.float64
    )
    mask = np.zeros((120, 160), np.uint8)
    mask[top : top + high, left : left + wide] = 1
    box = np.array([box_of(mask)])
    # a wide border shows how much there is to see, the picture in its middle what is seen
    border = np.array([[1, 0, 600], [0, 1, 600], [0, 0, 1]], np.float64)
    whole = cv2.warpPerspective(mask, border @ turned, (1360, 1320), flags=cv2.INTER_NEAREST)
    shown = whole[600:720, 600:760]
    share = shown.sum() / whole.sum()
    seen, kept = gaps.boxes_seen(box, turned, height=120, width=160)
    assert len(seen) == kept.sum()
    if share > gaps.LEAST_SHOWN + 0.06:
        assert kept[0]
        assert np.abs(seen[0] - box_of(shown)).max() <= 2
        assert 0 <= seen[0, 0] < seen[0, 2] <= 160 and 0 <= seen[0, 1] < seen[0, 3] <= 120
    elif share < gaps.LEAST_SHOWN - 0.06:
        assert not kept[0]


def test_a_box_of_which_less_than_a_third_is_seen_is_dropped_and_the_others_keep_their_order() -> None:
    boxes = np.array([[0, 0, 10, 10], [40, 0, 60, 10], [80, 0, 100, 10]])
    away = np.array([[1, 0, -53], [0, 1, 0], [0, 0, 1]], np.float64)
    seen, kept = gaps.boxes_seen(boxes, away, height=50, width=100)
    assert kept.tolist() == [False, True, True]
    assert np.allclose(seen, [[0, 0, 7, 10], [27, 0, 47, 10]], atol=1e-3)
    seen, kept = gaps.boxes_seen(boxes, away - [[0, 0, 1], [0, 0, 0], [0, 0, 0]], height=50, width=100)
    assert kept.tolist() == [False, False, True]


def test_gaps_that_move_nothing_leave_boxes_alone() -> None:
    boxes = np.array([[1, 2, 30, 40]])
    for name, strength in (("lamp+grey", 1.0), ("viewpoint", 0.0)):
        seen, kept = gaps.moved_boxes(name, boxes, height=60, width=80, strength=strength)
        assert np.array_equal(seen, boxes) and kept.all()
