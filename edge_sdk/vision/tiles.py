"""A frame that is larger than the network's input: cut into tiles, judged tile by tile, put together again.

The station, the proof on golden frames, calibration, the export checks and training's evaluation all go from a frame to
the network's outputs here, so whoever judges a frame judges the same tiles.  Without ``tile_overlap_px`` a frame is one
tile, and this is ``preprocess`` and the network.

Each tile speaks for its core alone, which ends in the middle of what it shares with its neighbour.  The maps of the
cores are put together to one map of the frame *before* anything is decoded: a defect across a seam is one group of
cells there, reported once.  What a network with a reach of ``R`` pixels says is that of the whole frame at once where
the overlap is ``2 R`` or more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.detections import Detections
from edge_sdk.errors import ShapeError
from edge_sdk.vision.boxes import overlaps
from edge_sdk.vision.preprocess import (
    Adjustment,
    PreprocessSpec,
    fitted,
    geometry,
    normalised,
    shown,
    tiled,
    valid_cells,
)

__all__ = ["Tile", "joined_over_seams", "outputs_of_frame", "pictures_of_frame", "tiles_of"]

Infer = Callable[[Floats], Mapping[str, Array]]
"""From ``(1, 3, H, W)`` float32 to the graph's outputs by name."""
SLACK = 8
"""A box whose centre lies just beyond its tile's core, by up to an eighth of the overlap, is kept too: two tiles that
place a defect's centre a pixel apart would else both leave it to the other."""
NOTHING = -30.0
"""Logit of an anchor that its tile does not speak for: no threshold is as low."""


@dataclass(frozen=True)
class Tile:
    """One tile of a frame, in pixels of the network's input at the frame's scale."""

    row: int
    """Among the tiles, from the top."""
    column: int
    top: int
    left: int


def tiles_of(spec: PreprocessSpec, height: int, width: int) -> tuple[Tile, ...]:
    """The tiles of a frame of ``height`` x ``width`` pixels, row by row."""
    down, across = tiled(spec, height, width)
    return tuple(
        Tile(row, column, top, left)
        for row, top in enumerate(down.starts)
        for column, left in enumerate(across.starts)
    )


def pictures_of_frame(
    image: Image, spec: PreprocessSpec, *, adjust: Adjustment | None = None
) -> Iterator[tuple[Tile, Image]]:
    """Each tile with its picture, ``(height, width, 3)`` uint8 blue green red; behind the frame's border it is padded.

    Raises:
        ShapeError: The picture is not ``(H, W, 3)`` uint8.
        DefectErased: The resize would erase the smallest defect that must be seen.
    """
    if spec.tile_overlap_px is None:
        yield Tile(0, 0, 0, 0), fitted(image, spec, adjust=adjust)
        return
    whole = shown(image, spec, adjust=adjust)
    for tile in tiles_of(spec, image.shape[0], image.shape[1]):
        piece = whole[tile.top : tile.top + spec.height, tile.left : tile.left + spec.width]
        if piece.shape[:2] != (spec.height, spec.width):
            canvas = np.empty((spec.height, spec.width, 3), np.uint8)
            canvas[:] = spec.pad
            canvas[: piece.shape[0], : piece.shape[1]] = piece
            piece = canvas
        yield tile, piece


def outputs_of_frame(
    image: Image,
    spec: PreprocessSpec,
    infer: Infer,
    *,
    out: Floats | None = None,
    adjust: Adjustment | None = None,
) -> dict[str, Array]:
    """What the network says of a frame, whatever its size.

    Args:
        image: ``(H, W, 3)`` uint8 blue green red.
        spec: What the network was trained with.
        infer: Executes the graph on one input.
        out: ``(1, 3, height, width)`` float32 that each input is written into; a new array without it.
        adjust: The station's gain and offset; none as a rule.

    Returns:
        The graph's outputs of the whole frame: ``cells`` or ``novelty`` ``(1, K, h, w)`` of all its cells, of which
        ``novelty`` is 0 behind the frame's border; ``boxes`` ``(1, A, 4)`` in input pixels at the frame's scale, with
        ``scores`` ``(1, A, K)``, of the anchors of all tiles, tile by tile, where those that another tile speaks for
        score nothing; ``feature`` ``(1, F)`` the mean over tiles.  Without tiles they are the graph's own.

    Raises:
        ShapeError: The picture is not ``(H, W, 3)`` uint8, or the network's cells do not fit the tiles.
        DefectErased: The resize would erase the smallest defect that must be seen.
    """
    if out is None:
        out = np.empty((1, 3, spec.height, spec.width), np.float32)
    found: list[tuple[Tile, Mapping[str, Array]]] = []
    for tile, picture in pictures_of_frame(image, spec, adjust=adjust):
        found.append((tile, infer(normalised(picture, spec, out=out))))
    if spec.tile_overlap_px is None:
        return dict(found[0][1])
    return _together(found, spec, image.shape[0], image.shape[1])


def _together(
    found: list[tuple[Tile, Mapping[str, Array]]], spec: PreprocessSpec, height: int, width: int
) -> dict[str, Array]:
    names = found[0][1].keys()
    whole: dict[str, Array] = {}
    for name in names:
        if name in ("cells", "novelty"):
            whole[name] = _map([(tile, outputs[name]) for tile, outputs in found], name, spec, height, width)
        elif name == "feature":
            whole[name] = np.stack([outputs[name] for _, outputs in found]).mean(axis=0)
    if "boxes" in names and "scores" in names:
        boxes, scores = [], []
        for tile, outputs in found:
            shift = np.array([tile.left, tile.top, tile.left, tile.top], np.float32)
            placed = outputs["boxes"][0] + shift
            others = ~_owned(placed, tile, spec, height, width)
            boxes.append(placed)
            scores.append(np.where(others[:, None], np.minimum(outputs["scores"][0], NOTHING), outputs["scores"][0]))
        whole["boxes"], whole["scores"] = np.concatenate(boxes)[None], np.concatenate(scores)[None]
    return {name: whole[name] for name in names if name in whole}


def _map(
    found: list[tuple[Tile, Array]], name: str, spec: PreprocessSpec, height: int, width: int
) -> Array:
    """The cores of all tiles' maps as one map."""
    _, first = found[0]
    if first.ndim != 4:
        raise ShapeError(f"{name} is {first.shape}; give (1, K, h, w)")
    rows, columns = first.shape[2:]
    down, across = tiled(spec, height, width)
    cell = spec.height // rows, spec.width // columns
    for axis, one, side, count in zip((down, across), cell, (spec.height, spec.width), (rows, columns), strict=True):
        if one * count != side or any(start % one for start in axis.starts):
            given = f"{rows} x {columns} {name} for {spec.height} x {spec.width} pixels"
            raise ShapeError(
                f"the network gives {given}, whose borders do not lie alike in all tiles; "
                "tile with a network whose cells have 8, 16 or 32 pixels"
            )
    tops, lefts = down.cores(cell[0]), across.cores(cell[1])
    whole = np.empty((1, first.shape[1], tops[-1], lefts[-1]), first.dtype)
    for tile, part in found:
        top, bottom = tops[tile.row], tops[tile.row + 1]
        left, right = lefts[tile.column], lefts[tile.column + 1]
        y, x = tile.top // cell[0], tile.left // cell[1]
        whole[:, :, top:bottom, left:right] = part[:, :, top - y : bottom - y, left - x : right - x]
    if name == "novelty":
        # no scorer has seen padding as a part, and it would be the strangest place of every frame
        whole[:, :, ~valid_cells(spec, height, width, (whole.shape[2], whole.shape[3]))] = 0
    return whole


def _owned(boxes: Floats, tile: Tile, spec: PreprocessSpec, height: int, width: int) -> Array:
    """Which boxes have their centre in the tile's core, or hardly beyond."""
    slack = (spec.tile_overlap_px or 0) / SLACK
    kept = np.ones(len(boxes), bool)
    for axis, number, low in zip(tiled(spec, height, width), (tile.row, tile.column), (1, 0), strict=True):
        edges = axis.cores()
        centre = (boxes[:, low] + boxes[:, low + 2]) / 2
        if number > 0:
            kept &= centre >= edges[number] - slack
        if number < len(axis.starts) - 1:
            kept &= centre < edges[number + 1] + slack
    return kept


def joined_over_seams(found: Detections, spec: PreprocessSpec, height: int, width: int) -> Detections:
    """A detector's boxes, with the pieces of a defect that no tile saw whole made one.

    Two boxes of a class are pieces of one where one ends at the end of its tile, the other begins at the begin of the
    next, and they overlap.  A chain of pieces is one detection, as sure as its surest piece.

    Args:
        found: Of ``decode_anchors``, on the frame.
        spec: How the frame was cut.
        height: Of the frame, pixels.
        width: Of the frame.
    """
    if spec.tile_overlap_px is None or len(found) < 2:
        return found
    place = geometry(spec, height, width)
    near = max(2.0, spec.tile_overlap_px / SLACK)
    boxes = place.boxes_to_input(found.boxes)
    meet = np.zeros((len(found), len(found)), bool)
    for axis, low in zip(tiled(spec, height, width), (1, 0), strict=True):
        for before, after in zip(axis.starts, axis.starts[1:], strict=False):
            ends = np.abs(boxes[:, low + 2] - (before + axis.tile)) <= near
            begins = np.abs(boxes[:, low] - after) <= near
            meet |= ends[:, None] & begins[None]
    meet &= (overlaps(boxes, boxes) > 0) & (found.classes[:, None] == found.classes[None])
    group = np.arange(len(found))
    for first, second in np.argwhere(meet):
        group[group == max(group[first], group[second])] = min(group[first], group[second])
    heads = np.unique(group)
    if len(heads) == len(found):
        return found
    whole = found.boxes.copy()
    for head in heads:
        pieces = found.boxes[group == head]
        whole[head] = [*pieces[:, :2].min(axis=0), *pieces[:, 2:].max(axis=0)]
    cells = found.cells.copy()
    cells[:, 0] = group[cells[:, 0]]
    kept = np.zeros(len(found), bool)
    kept[heads] = True
    # surest first: the head of a group is its surest piece
    return replace(found, boxes=whole, cells=cells[np.argsort(cells[:, 0], kind="stable")])[kept]
