"""How well an anomaly map shows where a defect is: pixels ranked, and defects covered at few false alarms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError, ShapeError

__all__ = ["FALSE_ALARMS", "au_pro"]

FALSE_ALARMS = 0.3
"""Share of healthy pixels up to which the overlap is averaged, as the paper does."""


def au_pro(maps: Sequence[Array], truth: Sequence[Array], *, limit: float = FALSE_ALARMS) -> float:
    """Area under the per-region overlap, so that a small defect weighs as much as a large one.

    At each threshold ``t``, ``PRO(t) = mean_j |P_t & C_j| / |C_j|`` over the connected defects ``C_j``
    (8-neighbourhood) of all pictures, where ``P_t`` are the pixels at or above ``t``; ``FPR(t)`` is the share of the
    healthy pixels of all pictures that are in ``P_t``.  PRO is integrated over FPR from 0 to ``limit`` by trapezoids
    and divided by ``limit``.

    Args:
        maps: N of ``(H, W)``, finite; sizes may differ from picture to picture.
        truth: N of ``(H, W)``, nonzero where defective.
        limit: In (0, 1].

    Returns:
        In [0, 1]; NaN where no picture shows a defect or no pixel is healthy.

    Raises:
        ShapeError: A map and its truth differ in size, or in number.
        RangeError: A distance is not finite, or ``limit`` is no share.

    Reference:
        Bergmann, Batzner, Fauser, Sattlegger and Steger, The MVTec anomaly detection dataset, IJCV 2021, section 5.2.
    """
    import cv2

    if not 0 < limit <= 1:
        raise RangeError(f"limit is {limit:g}; give a share of the healthy pixels above 0 and at most 1")
    if len(maps) != len(truth):
        raise ShapeError(f"{len(maps)} maps for {len(truth)} truths; give one of each for every picture")
    scores, covers, healthy = [], [], []
    defects = 0
    for one, true in zip(maps, truth, strict=True):
        if one.shape != true.shape:
            raise ShapeError(f"a map is {one.shape} and its truth {true.shape}; give both at the same size")
        count, labelled = cv2.connectedComponents((np.asarray(true) != 0).astype(np.uint8), connectivity=8)
        sizes = np.bincount(labelled.ravel(), minlength=count).astype(np.float64)
        share = np.concatenate([[0.0], 1 / sizes[1:]])
        scores.append(np.asarray(one, np.float64).ravel())
        covers.append(share[labelled.ravel()])
        healthy.append(labelled.ravel() == 0)
        defects += count - 1
    if not defects or not any(one.any() for one in healthy):
        return float("nan")
    ranked = np.concatenate(scores)
    if not np.isfinite(ranked).all():
        raise RangeError("a distance is NaN or infinite; give finite maps")
    order = np.argsort(-ranked, kind="stable")
    ranked = ranked[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    overlap = np.cumsum(np.concatenate(covers)[order])[last] / defects
    alarms = np.cumsum(np.concatenate(healthy)[order])[last].astype(np.float64)
    alarms /= alarms[-1]
    overlap, alarms = np.r_[0.0, overlap], np.r_[0.0, alarms]
    inside = alarms <= limit
    x = np.r_[alarms[inside], limit]
    y = np.r_[overlap[inside], np.interp(limit, alarms, overlap)]
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / limit)
