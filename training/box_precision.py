"""How good a detector's boxes are: precision over recall at an overlap, for training's figures and the benchmarks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, Ints
from edge_sdk.detections import Detections
from edge_sdk.errors import ShapeError
from edge_sdk.vision.boxes import overlaps
from training.data.boxes import Drawn

__all__ = ["IOU", "Hits", "average_precisions", "hits_of", "precision_recall"]

IOU = 0.5
"""From which a reported box is the drawn one."""


@dataclass(frozen=True, eq=False)
class Hits:
    """What was reported on N pictures, and what of it is true."""

    confidence: Floats
    """``(n,)``."""
    true: Bools
    """``(n,)``: whether a box drawn on the picture was reported by this one first."""
    classes: Ints
    """``(n,)``."""
    picture: Ints
    """``(n,)`` in 0 to N - 1."""
    drawn: Ints
    """``(N, K)`` boxes drawn."""


def hits_of(found: Sequence[Detections], drawn: Sequence[Drawn], *, count: int, iou: float = IOU) -> Hits:
    """Tell true boxes from false ones, picture by picture and class by class.

    Surest first, each reported box takes the drawn one of its class that it overlaps most of those still free; it is
    true if they overlap by ``iou`` or more.

    Args:
        found: Of N pictures, surest first.
        drawn: Of the same pictures, in the same pixels.
        count: K.
        iou: In (0, 1].

    Raises:
        ShapeError: There are detections of more or fewer pictures.

    Reference:
        The rule of COCO's evaluation; PASCAL VOC's differs only where two reports overlap one box most.
    """
    if len(found) != len(drawn):
        raise ShapeError(f"detections of {len(found)} pictures, but {len(drawn)} were drawn on; give the same ones")
    totals = np.zeros((len(drawn), count), np.int32)
    true = []
    for n, (reported, truth) in enumerate(zip(found, drawn, strict=True)):
        np.add.at(totals[n], truth.classes, 1)
        shared = overlaps(reported.boxes, truth.boxes)
        shared[reported.classes[:, None] != truth.classes[None]] = 0
        for row in shared:
            best = int(row.argmax()) if len(row) else 0
            hit = bool(len(row)) and bool(row[best] >= iou)
            if hit:
                shared[:, best] = 0
            true.append(hit)
    pictures = np.repeat(np.arange(len(found)), [len(one) for one in found])
    return Hits(
        confidence=np.concatenate([np.zeros(0, np.float32), *(one.confidence for one in found)]),
        true=np.array(true, bool),
        classes=np.concatenate([np.zeros(0, np.int32), *(one.classes for one in found)]),
        picture=pictures.astype(np.int32),
        drawn=totals,
    )


def average_precisions(hits: Hits, weights: Array | None = None) -> Array:
    """Average precision of each class: the area under the precision that is still reached at each recall.

    ``AP_k = sum_j (r_j - r_{j-1}) max_{i >= j} p_i`` over the reports of class ``k``, surest first, with ``p_j`` and
    ``r_j`` precision and recall of the first ``j``: all-point interpolation.

    Args:
        hits: Of ``hits_of``.
        weights: ``(R, N)`` how often each picture counts; a draw of a bootstrap is a row.  Without them once.

    Returns:
        ``(R, K)`` in [0, 1], or ``(K,)`` without weights; NaN for a class that nobody drew.

    Reference:
        Everingham et al., The PASCAL visual object classes challenge, 2010 development kit, section 3.4.1.
    """
    counts = np.ones((1, len(hits.drawn))) if weights is None else np.asarray(weights, np.float64)
    found = np.full((len(counts), hits.drawn.shape[1]), np.nan)
    for k in range(hits.drawn.shape[1]):
        total = counts @ hits.drawn[:, k]
        mine = np.flatnonzero(hits.classes == k)
        mine = mine[np.argsort(-hits.confidence[mine], kind="stable")]
        often = counts[:, hits.picture[mine]]
        right = np.cumsum(often * hits.true[mine], axis=1)
        precision = right / np.maximum(np.cumsum(often, axis=1), 1e-12)
        reached = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        steps = np.diff(right, axis=1, prepend=0.0)
        there = total > 0
        found[there, k] = (steps * reached).sum(axis=1)[there] / total[there]
    return found[0] if weights is None else found


def precision_recall(hits: Hits, boundary: float) -> tuple[float, float]:
    """Precision and recall of the boxes from a confidence up; a precision of nothing reported is 0."""
    reported = hits.confidence >= boundary
    right = float((reported & hits.true).sum())
    return right / max(int(reported.sum()), 1), right / max(int(hits.drawn.sum()), 1)
