"""Rectangles: how much two overlap, and which of many that overlap are kept.

The station's decoding, training's matching and the figures of a detector all ask here, so an overlap is the same
everywhere.
"""

from __future__ import annotations

import numpy as np

from edge_sdk.arrays import Array, Floats, check_shape

__all__ = ["overlaps", "suppressed"]

TABLE = 512
"""Boxes up to which all pairs are compared at once."""


def overlaps(first: Array, second: Array) -> Floats:
    """Intersection over union of every box of one list with every box of another.

    Args:
        first: ``(n, 4)`` left, top, right, bottom; right and bottom lie outside.
        second: ``(m, 4)``.

    Returns:
        ``(n, m)`` float32 in [0, 1]; 0 with a box that has no area.
    """
    check_shape("first", first, (None, 4), as_text="(n, 4), one row a box")
    check_shape("second", second, (None, 4), as_text="(m, 4), one row a box")
    one, two = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2])
    shared = np.clip(sides, 0, None).prod(axis=2)
    whole = _area(one) + _area(two) - shared
    found: Floats = np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0).astype(np.float32)
    return found


def suppressed(boxes: Array, confidence: Array, *, iou: float, most: int) -> list[Array]:
    """Greedy non-maximum suppression: the surest box is kept, what overlaps it is dropped, and so on.

    Args:
        boxes: ``(n, 4)``.
        confidence: ``(n,)``; of equal ones the first counts as surer.
        iou: Boxes that overlap a kept one by more are dropped.
        most: No more boxes are kept.

    Returns:
        For each kept box, surest first: its place and behind it, surest first, the places it has dropped.
    """
    left = np.argsort(-confidence, kind="stable")
    kept: list[Array] = []
    # a table of all pairs is quicker than a row at a time, while it is small
    pairs = overlaps(boxes, boxes) > iou if len(boxes) <= TABLE else None
    while len(left) and len(kept) < most:
        first = left[0]
        near = overlaps(boxes[left[:1]], boxes[left])[0] > iou if pairs is None else pairs[first][left]
        near[0] = True
        kept.append(left[near])
        left = left[~near]
    return kept


def _area(boxes: Array) -> Array:
    sides = np.clip(boxes[..., 2:] - boxes[..., :2], 0, None)
    return np.asarray(sides.prod(axis=-1))
