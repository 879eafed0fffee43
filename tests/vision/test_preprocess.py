"""Geometry and normalisation: the same place and the same values everywhere."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.vision.preprocess import (
    Adjustment,
    PreprocessSpec,
    cells_of_mask,
    fitted,
    geometry,
    preprocess,
    valid_cells,
)

sides = st.integers(1, 300)


@given(sides, sides, sides, sides)
def test_the_picture_lies_inside_the_input_and_keeps_its_ratio(height: int, width: int, h: int, w: int) -> None:
    place = geometry(PreprocessSpec(width=w, height=h), height, width)
    assert 0 <= place.left and place.left + place.inner_width <= w
    assert 0 <= place.top and place.top + place.inner_height <= h
    assert place.inner_width == w or place.inner_height == h
    # whole pixels: each side is within half a pixel of the exact ratio
    scale = min(w / width, h / height)
    assert abs(place.inner_width - max(1, width * scale)) <= 0.5 + 1e-9
    assert abs(place.inner_height - max(1, height * scale)) <= 0.5 + 1e-9


@given(sides, sides, st.integers(8, 200), st.integers(8, 200), st.randoms())
def test_a_box_on_the_frame_survives_the_way_to_the_input_and_back(
    height: int, width: int, h: int, w: int, random: object
) -> None:
    rng = np.random.default_rng(0)
    place = geometry(PreprocessSpec(width=w, height=h), height, width)
    x = np.sort(rng.uniform(0, width, 2))
    y = np.sort(rng.uniform(0, height, 2))
    box = np.array([[x[0], y[0], x[1], y[1]]], np.float32)
    scale = np.array([place.scale_x, place.scale_y] * 2, np.float32)
    on_input = box * scale + np.array([place.left, place.top] * 2, np.float32)
    np.testing.assert_allclose(place.boxes_to_frame(on_input), box, atol=1e-2)


def test_agrees_with_the_formula_written_out() -> None:
    image = np.random.default_rng(1).integers(0, 256, (20, 30, 3), np.uint8)
    spec = PreprocessSpec(width=30, height=20, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    expected = (image[:, :, ::-1].astype(np.float64) / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(preprocess(image, spec)[0], expected.transpose(2, 0, 1), atol=1e-5)
    bgr = PreprocessSpec(width=30, height=20, mean=spec.mean, std=spec.std, colour="bgr")
    expected = (image.astype(np.float64) / 255 - np.array(spec.mean)) / np.array(spec.std)
    np.testing.assert_allclose(preprocess(image, bgr)[0], expected.transpose(2, 0, 1), atol=1e-5)


def test_writes_into_the_memory_it_is_given() -> None:
    spec = PreprocessSpec(width=32, height=16)
    out = np.full((1, 3, 16, 32), np.nan, np.float32)
    image = np.zeros((40, 40, 3), np.uint8)
    assert preprocess(image, spec, out=out) is out
    assert np.array_equal(out, preprocess(image, spec))


def test_a_dark_picture_is_scaled_as_a_bright_one() -> None:
    spec = PreprocessSpec(width=8, height=8)
    dark = preprocess(np.full((8, 8, 3), 1, np.uint8), spec)
    assert dark.max() < -1.5


def test_a_one_pixel_defect_leaves_a_trace_when_shrunk() -> None:
    spec = PreprocessSpec(width=64, height=36)
    blank = np.full((360, 640, 3), 100, np.uint8)
    for x in range(0, 640, 7):
        spot = blank.copy()
        spot[180, x] = 255
        assert not np.array_equal(preprocess(spot, spec), preprocess(blank, spec))


def test_the_padding_is_the_colour_that_was_asked_for() -> None:
    spec = PreprocessSpec(width=40, height=40, mean=(0, 0, 0), std=(1, 1, 1), colour="bgr", pad=(255, 0, 51))
    planes = preprocess(np.zeros((10, 40, 3), np.uint8), spec)[0]
    assert np.allclose(planes[:, 0, 0], [1, 0, 0.2])


@given(sides, sides)
@settings(max_examples=50)
def test_a_mask_covers_as_much_as_its_picture_shows(height: int, width: int) -> None:
    spec = PreprocessSpec(width=64, height=48)
    shares = cells_of_mask(np.full((height, width), 255, np.uint8), spec, (6, 8))
    place = geometry(spec, height, width)
    assert shares.sum() * 64 == pytest.approx(place.inner_width * place.inner_height, rel=1e-3)
    assert shares.max() <= 1 + 1e-5
    valid = valid_cells(spec, height, width, (6, 8))
    assert valid.any()
    if place.inner_width >= 8 and place.inner_height >= 8:
        # a cell at least half shown is half covered, up to the two directions
        assert (shares[valid] >= 0.24).all()


def test_a_defect_lands_in_the_cell_that_shows_it() -> None:
    spec = PreprocessSpec(width=64, height=64)
    mask = np.zeros((128, 256), np.uint8)
    mask[0:8, 248:256] = 1
    shares = cells_of_mask(mask, spec, (4, 4))
    assert np.argwhere(shares > 0).tolist() == [[1, 3]]


def test_other_shapes_and_sizes_are_refused() -> None:
    spec = PreprocessSpec(width=8, height=8)
    with pytest.raises(ShapeError, match=r"image is \(8, 8\); give \(H, W, 3\)"):
        preprocess(np.zeros((8, 8), np.uint8), spec)
    with pytest.raises(ShapeError, match="image is float32; give uint8, 0 to 255"):
        preprocess(np.zeros((8, 8, 3), np.float32), spec)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"out is float64 \(1, 3, 8, 8\); give float32 \(1, 3, 8, 8\)"):
        preprocess(np.zeros((8, 8, 3), np.uint8), spec, out=np.zeros((1, 3, 8, 8)))  # type: ignore[arg-type]
    with pytest.raises(RangeError, match="the network's input is 0 x 8; give at least 1 x 1 pixels"):
        PreprocessSpec(width=0, height=8)
    with pytest.raises(RangeError, match="give three numbers above 0"):
        PreprocessSpec(width=8, height=8, std=(1, 0, 1))
    with pytest.raises(ShapeError, match="the picture is 0 x 5; give one with at least one pixel"):
        geometry(spec, 5, 0)


def test_an_adjustment_agrees_with_the_formula_and_leaves_the_padding() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    spec = PreprocessSpec(width=40, height=40)
    adjust = Adjustment(gain=(0.5, 1.0, 2.0), offset=(10.0, 0.0, -20.0))
    slow = np.clip(np.rint(image * np.array(adjust.gain) + np.array(adjust.offset)), 0, 255)
    found = fitted(image, spec, adjust=adjust)
    np.testing.assert_array_equal(found[10:30], slow)
    assert (found[:10] == 114).all()
    np.testing.assert_array_equal(
        preprocess(image, spec, adjust=adjust)[:, :, 10:30], preprocess(slow.astype(np.uint8), spec)[:, :, 10:30]
    )


def test_an_adjustment_of_nothing_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    spec = PreprocessSpec(width=64, height=64)
    np.testing.assert_array_equal(preprocess(image, spec, adjust=Adjustment()), preprocess(image, spec))


def test_a_gain_of_nothing_is_refused() -> None:
    with pytest.raises(RangeError, match="give three gains above 0, three offsets"):
        Adjustment(gain=(1.0, 0.0, 1.0))
