"""What a graph says of several pictures, area by area, and which of the areas speak at all.

Two graphs are compared here on what their verdicts are made of: padding around a picture is no part of it, a detector's
box beside the picture is no detection, and where tiles overlap one of them speaks.  What nobody speaks for is alike in
every graph; counted, it would make a bad graph look like a good one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats
from edge_sdk.errors import ShapeError
from edge_sdk.vision.decode import area_logits, confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec, geometry, valid_cells
from edge_sdk.vision.tiles import NOTHING, tiles_of

__all__ = ["Areas", "areas_from_outputs"]


@dataclass(frozen=True, eq=False)
class Areas:
    """The areas of N pictures as one graph gives them."""

    logits: Array
    """``(N, K, h, w)``, of a detector ``(N, K, A, 1)``."""
    valid: Bools
    """``(N, h, w)`` areas that show the picture and that their tile speaks for."""
    raw: Array | None = None
    """What the logits do not say all of: a detector's boxes ``(N, A, 4)`` in pixels of their own tile, or an anomaly
    map's distances ``(N, 1, h, w)``."""

    def __post_init__(self) -> None:
        if self.logits.ndim != 4:
            raise ShapeError(f"logits is {self.logits.shape}; give (N, K, h, w), one map a class and picture")
        wanted = (len(self.logits), *self.logits.shape[2:])
        if self.valid.shape != wanted:
            raise ShapeError(f"valid is {self.valid.shape} for logits {self.logits.shape}; give {wanted}")

    def __len__(self) -> int:
        return len(self.logits)

    def __getitem__(self, places: Sequence[int]) -> Areas:
        """Of some of the pictures."""
        chosen = list(places)
        return Areas(self.logits[chosen], self.valid[chosen], None if self.raw is None else self.raw[chosen])

    def confidence(self, temperature: Array | float = 1.0) -> Floats:
        """``(N, K, h, w)`` in [0, 1]; 0 where no area speaks.

        Args:
            temperature: One number, or ``(K,)``, above 0.
        """
        found = confidence_from_logits(self.logits, temperature)
        return np.where(self.valid[:, None], found, np.float32(0))

    def surest(self, temperature: Array | float = 1.0) -> Floats:
        """``(N, K)`` tempered logit of each picture's surest area a class; minus infinity where no area speaks.

        Args:
            temperature: One number, or ``(K,)``, above 0.
        """
        warmth = np.broadcast_to(np.asarray(temperature, np.float32), self.logits.shape[1:2])
        tempered = np.where(self.valid[:, None], self.logits / warmth.reshape(-1, 1, 1), -np.inf)
        return np.asarray(tempered.max(axis=(2, 3), initial=-np.inf), np.float32)


def areas_from_outputs(
    outputs: Mapping[str, Array],
    spec: PreprocessSpec,
    sizes: Sequence[tuple[int, int]],
    *,
    normals: Sequence[float] | None = None,
) -> Areas | None:
    """The areas in a graph's outputs of N pictures, as ``outputs_of_frame`` gives them of each.

    Args:
        outputs: By name, ``(N, …)`` each.
        spec: What the pictures were preprocessed with.
        sizes: Height and width of each picture, in frame pixels.
        normals: Of an anomaly map, see ``area_logits``.

    Returns:
        ``None`` where the graph gives no areas, or an anomaly map without normals.

    Raises:
        ShapeError: There are not as many sizes as pictures, or the boxes do not go with the scores.
    """
    logits = area_logits(outputs, normals=normals)
    if logits is None:
        return None
    if len(sizes) != len(logits):
        raise ShapeError(f"{len(sizes)} sizes for {len(logits)} pictures; give one of each")
    if "cells" in outputs or "novelty" in outputs:
        grid = (logits.shape[2], logits.shape[3])
        known = {size: valid_cells(spec, *size, grid) for size in set(sizes)}
        valid = np.array([known[size] for size in sizes], bool).reshape(len(sizes), *grid)
        return Areas(logits, valid, None if "cells" in outputs else outputs["novelty"])
    boxes = outputs.get("boxes")
    if boxes is None:
        return Areas(logits, np.ones((len(logits), *logits.shape[2:]), bool))
    if boxes.shape != (len(logits), logits.shape[2], 4):
        raise ShapeError(f"boxes is {boxes.shape} for {logits.shape[2]} anchors; give (N, A, 4), one row an anchor")
    rows = zip(boxes, logits, sizes, strict=True)
    valid = np.stack([_on_the_picture(box, scores, spec, size) for box, scores, size in rows])
    placed = np.stack([_within_tiles(one, spec, size) for one, size in zip(boxes, sizes, strict=True)])
    return Areas(logits, valid[..., None], placed)


def _on_the_picture(boxes: Floats, logits: Array, spec: PreprocessSpec, size: tuple[int, int]) -> Bools:
    """``(A,)`` whether a box has a pixel on the picture, as ``decode_anchors`` asks, and its tile speaks for it."""
    on_frame = geometry(spec, *size).boxes_to_frame(boxes)
    # not the other way round: what is no number is looked at, not left out
    beside = (on_frame[:, 2:] - on_frame[:, :2] < 1).any(axis=1)
    if spec.tile_overlap_px is not None:
        beside |= (logits <= NOTHING).all(axis=(0, 2))
    return np.asarray(~beside)


def _within_tiles(boxes: Floats, spec: PreprocessSpec, size: tuple[int, int]) -> Floats:
    """Boxes as each tile's network gave them: a frame's far corner is no louder than its near one."""
    if spec.tile_overlap_px is None:
        return boxes
    tiles = tiles_of(spec, *size)
    shift = np.array([[tile.left, tile.top, tile.left, tile.top] for tile in tiles], np.float32)
    return np.asarray(boxes - np.repeat(shift, len(boxes) // len(tiles), axis=0), np.float32)
