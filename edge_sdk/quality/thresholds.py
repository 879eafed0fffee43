"""A line's thresholds from labelled pictures, with a guarantee where there are enough of them.

Training calibrates a line's model here and calibration each INT8 rendering of it, so both mean the same by *uncertain*.
A line without labels keeps the fixed band, and says so.
"""

from __future__ import annotations

import math

import numpy as np

from edge_sdk.arrays import Array, Bools
from edge_sdk.errors import RangeError
from edge_sdk.labels import Thresholds

__all__ = ["ALPHA", "BAND", "VALIDATE", "calibrated_band", "enough_for", "fixed_band", "healthy_band", "missing"]

BAND = (0.3, 0.5, 0.8)
"""``pass_below``, ``boundary`` and ``defective_from`` where nothing better is known."""
ALPHA = 0.1
"""Share of pictures of a kind that may fall on the wrong side, over all classes."""
VALIDATE = "part validate"
"""Whence the original line's labelled pictures come."""
LEAST = 0.02
"""Lowest confidence that an operator is asked from without a calibration."""
EDGE = 1e-4
"""Nearest that a threshold comes to 0 or 1: beyond it float16 maps say nothing."""
STEP = 2e-6
"""Beside a quantile: thresholds are stored with six decimals."""


def fixed_band(classes: int, *, why: str, ask_from: Array | None = None) -> Thresholds:
    """The same band for every class, which guarantees nothing.

    Args:
        classes: K.
        why: Why there is no guarantee, as it will stand behind ``none:``.
        ask_from: ``(K,)`` where the usual ``pass_below`` is too high for a model that is never so sure.
    """
    low, middle, high = BAND
    usual = np.full(classes, low, np.float32)
    asked = usual if ask_from is None else np.minimum(usual, np.maximum(ask_from, LEAST)).astype(np.float32)
    lowest = float(asked.min())
    lowered = f", lowered to {lowest:.2g} where defects score no higher" if lowest < low else ""
    return Thresholds(
        boundary=np.full(classes, middle, np.float32),
        pass_below=asked,
        defective_from=np.full(classes, high, np.float32),
        how=f"fixed: ask from {low:g}{lowered}, count from {middle:g}, reject from {high:g}",
        guarantee=f"none: {why}",
    )


def healthy_band(maxima: Array, *, alpha: float = ALPHA, of: str = "healthy pictures") -> Thresholds:
    """Split-conformal thresholds from the strongest cell of healthy pictures alone.

    Of healthy pictures to come at most ``alpha`` reach ``pass_below`` of any class, if they are like those given; it is
    the decision boundary too, since no defect says where a better one lies.  How many defects stay below nobody knows.

    Args:
        maxima: ``(N, K)`` confidence of each picture's strongest cell, in [0, 1]; of pictures that belong together,
            such as those of one part, a row holds the highest, since only such groups are independent.
        alpha: In (0, 1).
        of: What the rows are, for those who read it.

    Raises:
        RangeError: There are fewer rows than a quantile at ``alpha / K`` needs.

    Reference:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 2.2.
    """
    count, classes = maxima.shape
    wanted = enough_for(alpha / classes)
    if count < wanted:
        raise RangeError(
            f"{count} {of} are too few for a threshold at alpha {alpha:g} of {classes} classes; "
            f"give {wanted} or more"
        )
    place = math.ceil(round((count + 1) * (1 - alpha / classes), 9)) - 1
    top = np.sort(maxima, axis=0)[place]
    low = np.clip(top + STEP, EDGE, 1 - EDGE).astype(np.float32)
    saturated = bool((low <= top).any())
    return Thresholds(
        boundary=low,
        pass_below=low,
        defective_from=np.maximum(low, np.float32(BAND[2])),
        how=f"conformal quantile of the strongest cell of {count} {of}",
        guarantee=f"none: too many healthy pictures lie nearer than {EDGE:g} to confidence 1"
        if saturated
        else f"conformal alpha {alpha:g} n {count}, of {of} alone",
    )


def _reached(maxima: Array, shows: Bools) -> Array:
    """``(K,)``: what half of the pictures that show a class reach; of a class without one, of any defect."""
    anything = maxima[shows.any(axis=1)]
    return np.array(
        [
            np.median(maxima[shows[:, k], k]) if shows[:, k].any() else np.median(anything.max(axis=1))
            for k in range(maxima.shape[1])
        ],
        np.float32,
    )


def enough_for(alpha: float) -> int:
    """How many pictures of a kind a quantile at ``alpha`` needs.

    Raises:
        RangeError: ``alpha`` lies outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise RangeError(f"alpha is {alpha:g}; give a share above 0 and below 1")
    # the smallest n with ceil((n + 1)(1 - alpha)) <= n; rounded, since 0.9 / 0.1 is no whole 9
    return math.ceil(round((1 - alpha) / alpha, 9))


def missing(healthy: int, rarest: int, classes: int, *, alpha: float = ALPHA, source: str = VALIDATE) -> str:
    """What a guarantee lacks, as it will stand behind ``none:``; empty where nothing is.

    Args:
        healthy: Pictures without a defect.
        rarest: Pictures that show the rarest class.
        classes: K.
        alpha: In (0, 1).
        source: What the pictures are.
    """
    wanted = enough_for(alpha / classes)
    if min(healthy, rarest) >= wanted:
        return ""
    return (
        f"{source} holds {healthy} healthy pictures and at least {rarest} of each defect; "
        f"conformal at alpha {alpha:g} needs {wanted} of each"
    )


def calibrated_band(
    maxima: Array, healthy: Bools, shows: Bools, *, alpha: float = ALPHA, source: str = VALIDATE
) -> Thresholds:
    """Split-conformal thresholds of each class from the strongest cell of labelled pictures.

    Of a class, at most ``alpha / K`` of the healthy pictures to come reach their quantile, and at most as
    many of the defective ones stay below theirs, if they are like those given.  ``pass_below`` is the
    smaller of the two quantiles and ``defective_from`` the larger; ``boundary`` is 0.5, moved between them.  Ties may
    only make the shares smaller.

    Args:
        maxima: ``(N, K)`` confidence of each picture's strongest cell, in [0, 1].
        healthy: ``(N,)`` pictures without any defect.
        shows: ``(N, K)`` pictures that show a defect of the class.
        alpha: In (0, 1).
        source: What the pictures are, for those who read it.

    Returns:
        The fixed band, with the reason, where a class has too few pictures of a kind or confidences are saturated; it
        asks from where half of the defects are seen, since a model that is never sure would else never be corrected.

    Reference:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 4.5 (class by class).
    """
    classes = maxima.shape[1]
    share = alpha / classes
    rarest = int(shows.sum(axis=0).min())
    fewest = min(int(healthy.sum()), rarest)
    lacking = missing(int(healthy.sum()), rarest, classes, alpha=alpha, source=source)
    if lacking:
        return fixed_band(
            classes,
            why=lacking,
            ask_from=_reached(maxima, shows) if shows.any() else None,
        )
    low, high = np.empty(classes, np.float32), np.empty(classes, np.float32)
    for k in range(classes):
        good, bad = np.sort(maxima[healthy, k]), np.sort(maxima[shows[:, k], k])
        top = good[math.ceil(round((len(good) + 1) * (1 - share), 9)) - 1]
        bottom = bad[math.floor(round((len(bad) + 1) * share, 9)) - 1]
        # reaching a threshold counts, so a healthy picture as sure as its quantile must stay below
        low[k], high[k] = np.clip(sorted((top + STEP, bottom - STEP)), EDGE, 1 - EDGE)
        if not (high[k] > top and low[k] <= bottom):
            return fixed_band(
                classes,
                why=f"of {source}, too many pictures lie nearer than {EDGE:g} to confidence 0 or 1 on the wrong side",
                ask_from=_reached(maxima, shows),
            )
    return Thresholds(
        boundary=np.clip(np.float32(BAND[1]), low, high),
        pass_below=low,
        defective_from=high,
        how=f"conformal quantiles of the strongest cell of {len(maxima)} pictures of {source}",
        guarantee=f"conformal alpha {alpha:g} n {fewest}",
    )
