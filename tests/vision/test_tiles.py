"""Tiles: every pixel is in one, the frame's map is that of the frame at once, a defect on a seam is one defect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.arrays import Array, Floats
from edge_sdk.detections import Detections
from edge_sdk.errors import DefectErased, RangeError, ShapeError
from edge_sdk.vision.cuts import STEP, cuts
from edge_sdk.vision.decode import confidence_from_logits, decode_anchors, decode_cells, questions
from edge_sdk.vision.preprocess import (
    PreprocessSpec,
    cells_of_mask,
    fitted,
    geometry,
    kept_of_defect,
    preprocess,
    tiled,
    valid_cells,
)
from edge_sdk.vision.tiles import joined_over_seams, outputs_of_frame, pictures_of_frame, tiles_of

CELL = 8
REACH = 12
"""Pixels that ``network`` looks at around a cell."""
SPEC = PreprocessSpec(width=64, height=96, mean=(0, 0, 0), std=(1, 1, 1), tile_overlap_px=32)
lengths, sides = st.integers(1, 700), st.sampled_from([64, 96, 128, 160])


def network(frame: Floats) -> dict[str, Array]:
    """Moves with its input: a blur that reaches 4 pixels, then a mean over cells, then over the cell's neighbours."""
    blurred = cv2.blur(frame[0].sum(axis=0), (9, 9), borderType=cv2.BORDER_CONSTANT)
    cells = cv2.resize(blurred, (frame.shape[3] // CELL, frame.shape[2] // CELL), interpolation=cv2.INTER_AREA)
    around = cv2.blur(cells, (3, 3), borderType=cv2.BORDER_CONSTANT)
    return {"cells": (3 * cells + around)[None, None], "feature": frame.mean(axis=(2, 3))}


def detector(frame: Floats) -> dict[str, Array]:
    """A box around each bright connected thing that it sees, and a few anchors that see nothing."""
    bright = (frame[0].sum(axis=0) > 2.0).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(bright, connectivity=8)
    boxes = [[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]]
    nothing = [[0, 0, 8, 8]] * 2
    scores = [[5.0]] * len(boxes) + [[-9.0]] * 2
    return {"boxes": np.array([boxes + nothing], np.float32), "scores": np.array([scores], np.float32)}


@given(lengths, sides, st.integers(0, 96))
def test_every_pixel_is_in_a_tile_and_in_exactly_one_core(length: int, tile: int, overlap: int) -> None:
    overlap = min(overlap, tile - STEP)
    found = cuts(length, tile, overlap)
    seen = np.zeros(found.total, int)
    for start in found.starts:
        assert start % STEP == 0
        seen[start : start + tile] += 1
    assert seen.min() >= 1 and found.total >= length and found.total - max(length, tile) < STEP
    shared = [before + tile - after for before, after in zip(found.starts, found.starts[1:], strict=False)]
    assert all(one >= overlap for one in shared)
    edges = found.cores()
    assert edges[0] == 0 and edges[-1] == found.total and list(edges) == sorted(set(edges))
    for n, start in enumerate(found.starts):
        assert start <= edges[n] and edges[n + 1] <= start + tile


@given(st.integers(1, 260), st.integers(1, 260), st.sampled_from([None, 1, 2]))
@settings(max_examples=40)
def test_the_frames_map_is_that_of_the_frame_at_once(height: int, width: int, shrink: int | None) -> None:
    spec = replace(SPEC, shrink=shrink)
    image = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)
    found = outputs_of_frame(image, spec, network)
    down, across = (axis.total for axis in tiled(spec, height, width))
    place = geometry(spec, height, width)
    canvas = np.full((down, across, 3), spec.pad[0], np.uint8)
    canvas[: place.inner_height, : place.inner_width] = fitted(
        image, replace(spec, tile_overlap_px=None, shrink=None, width=place.inner_width, height=place.inner_height,
                       resize="stretch")
    )  # fmt: skip
    at_once = network(preprocess(canvas, replace(spec, tile_overlap_px=None, shrink=None, width=across, height=down)))
    assert found["cells"].shape == at_once["cells"].shape == (1, 1, down // CELL, across // CELL)
    np.testing.assert_allclose(found["cells"], at_once["cells"], atol=1e-4)
    valid = valid_cells(spec, height, width, found["cells"].shape[2:])  # type: ignore[arg-type]
    assert valid.any() and valid.sum() * CELL**2 <= (place.inner_height + CELL) * (place.inner_width + CELL)


def test_with_less_overlap_than_the_network_reaches_the_seams_show() -> None:
    image = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    spec = replace(SPEC, tile_overlap_px=0)
    at_once = preprocess(image, replace(spec, tile_overlap_px=None, width=224, height=224))
    found = outputs_of_frame(image, spec, network)["cells"]
    assert found.shape[2:] != (1, 1)
    with_room = outputs_of_frame(image, SPEC, network)["cells"]
    rows, columns = min(found.shape[2], with_room.shape[2]), min(found.shape[3], with_room.shape[3])
    assert not np.allclose(found[..., :rows, :columns], with_room[..., :rows, :columns], atol=1e-3)
    assert at_once.shape == (1, 3, 224, 224)


@given(st.integers(0, 170), st.integers(0, 170), st.integers(2, 24))
@settings(max_examples=60)
def test_a_defect_anywhere_is_reported_once_and_asked_about_where_it_lies(y: int, x: int, side: int) -> None:
    image = np.zeros((200, 200, 3), np.uint8)
    image[y : y + side, x : x + side] = 255
    spec = replace(SPEC, pad=(0, 0, 0))
    logits = outputs_of_frame(image, spec, network)["cells"][0] * 200 - 6
    confidence = confidence_from_logits(logits)
    place, valid = geometry(spec, 200, 200), valid_cells(spec, 200, 200, (confidence.shape[1], confidence.shape[2]))
    below = np.array([0.5], np.float32)
    found = decode_cells(confidence, below, place=place, cell_px=CELL, valid=valid)
    assert len(found) == 1
    left, top, right, bottom = found.boxes[0]
    assert left <= x and top <= y and right >= min(200, x + side) - CELL and bottom >= min(200, y + side) - CELL
    assert right - left <= side + 5 * CELL and bottom - top <= side + 5 * CELL
    asked = questions(confidence, below, place=place, cell_px=CELL, valid=valid)
    assert asked and asked[0].box[0] <= x + side and asked[0].box[2] >= x


@given(st.integers(0, 190), st.integers(0, 190), st.integers(3, 24), st.integers(3, 24))
@settings(max_examples=100)
def test_a_detectors_box_on_a_seam_is_whole_and_reported_once(y: int, x: int, height: int, width: int) -> None:
    image = np.zeros((220, 230, 3), np.uint8)
    image[y : y + height, x : x + width] = 255
    found = boxes_of(image, replace(SPEC, pad=(0, 0, 0)))
    assert found.boxes.tolist() == [[x, y, min(230, x + width), min(220, y + height)]]


@pytest.mark.parametrize("width", [100, 150, 200])
def test_a_defect_that_no_tile_sees_whole_is_one_detection(width: int) -> None:
    image = np.zeros((90, 230, 3), np.uint8)
    image[20:30, 10 : 10 + width] = 255
    image[60:70, 40:50] = 255
    found = boxes_of(image, replace(SPEC, pad=(0, 0, 0)))
    assert sorted(found.boxes.tolist()) == [[10, 20, 10 + width, 30], [40, 60, 50, 70]]
    assert sorted(set(found.cells[:, 0].tolist())) == [0, 1]


def test_two_defects_on_both_sides_of_a_seam_stay_two() -> None:
    image = np.zeros((90, 128, 3), np.uint8)
    image[20:30, 30:44] = 255
    image[20:30, 50:64] = 255
    found = boxes_of(image, replace(SPEC, pad=(0, 0, 0)))
    assert sorted(found.boxes.tolist()) == [[30, 20, 44, 30], [50, 20, 64, 30]]


def boxes_of(image: Array, spec: PreprocessSpec) -> Detections:
    """As the station decodes them."""
    outputs = outputs_of_frame(image, spec, detector)
    height, width = image.shape[:2]
    sure = confidence_from_logits(outputs["scores"][0].T[:, :, None])[..., 0].T
    place = geometry(spec, height, width)
    found = decode_anchors(outputs["boxes"][0], np.ascontiguousarray(sure), np.array([0.5], np.float32), place=place)
    return joined_over_seams(found, spec, height, width)


def test_a_mask_lies_where_the_cells_of_its_frame_lie() -> None:
    mask = np.zeros((200, 200), np.uint8)
    mask[88:104, 56:72] = 1  # across the seams of both axes
    down, across = (axis.total // CELL for axis in tiled(SPEC, 200, 200))
    shares = cells_of_mask(mask, SPEC, (down, across))
    assert np.argwhere(shares > 0.5).tolist() == [[11, 7], [11, 8], [12, 7], [12, 8]]


def test_without_tiles_a_frame_is_its_one_input() -> None:
    image = np.random.default_rng(3).integers(0, 256, (130, 70, 3), np.uint8)
    spec = PreprocessSpec(width=64, height=64)
    kept: list[Array] = []

    def infer(frame: Floats) -> Mapping[str, Array]:
        kept.append(frame.copy())
        return {"cells": frame[:, :1], "other": frame[:, 1:]}

    found = outputs_of_frame(image, spec, infer)
    np.testing.assert_array_equal(kept[0], preprocess(image, spec))
    assert list(found) == ["cells", "other"] and len(kept) == 1


def test_a_frame_smaller_than_a_tile_is_one_padded_tile() -> None:
    image = np.full((10, 20, 3), 7, np.uint8)
    (tile, picture), *others = pictures_of_frame(image, SPEC)
    assert not others and (tile.top, tile.left) == (0, 0) and picture.shape == (96, 64, 3)
    assert (picture[:10, :20] == 7).all() and (picture[10:] == 114).all() and (picture[:, 20:] == 114).all()


def test_a_line_scan_frame_of_any_length_is_cut_and_judged() -> None:
    image = np.zeros((5000, 60, 3), np.uint8)
    image[4321:4330, 20:29] = 255
    assert len(tiles_of(SPEC, 5000, 60)) == 78
    found = boxes_of(image, replace(SPEC, pad=(0, 0, 0)))
    assert found.boxes.tolist() == [[20, 4321, 29, 4330]]


def test_nothing_is_erased_where_the_frame_keeps_its_scale() -> None:
    image = np.zeros((400, 600, 3), np.uint8)
    assert kept_of_defect(replace(SPEC, defect_px=1), 400, 600) == 1
    outputs_of_frame(image, replace(SPEC, defect_px=1), network)
    with pytest.raises(DefectErased, match=r"^a defect of 1 px on a frame of 600 x 400 would keep 6 % of its contrast"):
        outputs_of_frame(image, replace(SPEC, defect_px=1, shrink=4), network)


def test_a_small_defect_is_told_of_tiles() -> None:
    spec = PreprocessSpec(width=320, height=320, sampling="linear", defect_px=2)
    with pytest.raises(DefectErased) as caught:
        preprocess(np.zeros((1080, 1920, 3), np.uint8), spec)
    assert re.search(r"tiles of 320 x 320 \(tile_overlap_px: 64\) keeps 100 % at .* 32\.0 times", caught.value.priced())


def test_what_cannot_be_tiled_is_refused() -> None:
    with pytest.raises(RangeError, match="^tile_overlap_px is 80 on an input of 64; give at most 32, or a larger in"):
        PreprocessSpec(width=64, height=640, tile_overlap_px=80)
    with pytest.raises(RangeError, match="^tile_overlap_px is -1; give 0 or more pixels$"):
        PreprocessSpec(width=64, height=64, tile_overlap_px=-1)
    with pytest.raises(RangeError, match="^shrink is 2; give a whole ratio of 1 or more, and tile_overlap_px with it$"):
        PreprocessSpec(width=64, height=64, shrink=2)
    with pytest.raises(ShapeError, match=r"^pictures are cut into tiles here \(tile_overlap_px\), and this takes"):
        fitted(np.zeros((8, 8, 3), np.uint8), SPEC)
    with pytest.raises(ShapeError, match="^the network gives 1 x 1 cells for 96 x 64 pixels, whose borders do not lie"):
        outputs_of_frame(
            np.zeros((300, 300, 3), np.uint8), SPEC, lambda frame: {"cells": np.zeros((1, 1, 1, 1), np.float32)}
        )
