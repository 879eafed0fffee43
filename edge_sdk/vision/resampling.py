"""Making a picture smaller: the rules there are, and what each leaves of a small defect.

``preprocess`` resizes here and nowhere else.  What is left of a defect is computed and not guessed: a resize is linear
and treats rows and columns alike, so each axis is worked out by itself for every place a defect may have.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np

from edge_sdk.arrays import Array, Floats

__all__ = ["Sampling", "kept_contrast", "resized"]

Sampling = Literal["area", "linear", "filtered"]
"""``area``: the mean of all pixels that fall together.  ``linear``: between the two nearest, whatever lies between
them and the next two; the quickest, and it steps over small defects.  ``filtered``: linear after a mean over a window
as wide as the step; quicker than ``area`` where the ratio is not whole."""


def resized(image: Array, width: int, height: int, sampling: Sampling) -> Array:
    """A picture of another size.

    Enlarging is linear by every rule.

    Args:
        image: ``(H, W)`` or ``(H, W, C)``, uint8 or float32.
        width: Wanted, pixels.
        height: Wanted, pixels.
        sampling: How it is made smaller.
    """
    import cv2

    rows, columns = image.shape[:2]
    if (rows, columns) == (height, width):
        return image
    if sampling == "filtered":
        window = _window(columns, width), _window(rows, height)
        image = cv2.blur(image, window) if max(window) > 1 else image
    elif sampling == "area":
        # OpenCV averages only where both sides shrink; else it samples linearly, whatever it was asked for
        less = min(width, columns), min(height, rows)
        if less != (columns, rows):
            image = cv2.resize(image, less, interpolation=cv2.INTER_AREA)
        if less == (width, height):
            return image
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def kept_contrast(height: int, width: int, rows: int, columns: int, defect_px: int, sampling: Sampling) -> float:
    """What is left of a square defect's contrast in the pixel that shows it best, where it lies worst.

    Args:
        height: Of the picture, pixels.
        width: Of the picture.
        rows: Of the picture after the resize.
        columns: Of the picture after the resize.
        defect_px: Side of the defect in pixels of the picture, 1 or more.
        sampling: How the picture is made smaller.

    Returns:
        In [0, 1]: 1 leaves it as it is, 0 steps over it.
    """
    return _kept(height, rows, defect_px, sampling) * _kept(width, columns, defect_px, sampling)


@lru_cache(maxsize=256)
def _kept(length: int, wanted: int, side: int, sampling: Sampling) -> float:
    """Of one axis.

    With the step ``r = length / wanted``, pixel ``i`` of the smaller picture answers to a defect on ``[a, a + d]`` by
    ``area``: the share of ``[i r, (i + 1) r]`` that it covers; ``linear``: ``clip((d + 1) / 2 - |p - c|, 0, 1)`` with
    the sample ``p = (i + 1/2) r - 1/2`` and the centre ``c = a + (d - 1) / 2``; ``filtered``: the mean of that over
    the window.  All fall off on both sides of the centre, so the best of the two nearest samples is the best of all.
    """
    side = min(side, length)
    if wanted >= length:
        return 1.0 if side > 1 or wanted == length else _enlarged(length, wanted)
    step = length / wanted
    starts = np.arange(length - side + 1, dtype=np.float64)
    centres = starts + (side - 1) / 2
    nearest = np.floor((centres + 0.5) / step - 0.5)
    best = np.zeros(len(starts))
    for beside in (0, 1):
        at = np.clip(nearest + beside, 0, wanted - 1)
        if sampling == "area":
            shared = np.minimum(starts + side, (at + 1) * step) - np.maximum(starts, at * step)
            answer = np.clip(shared, 0, None) / step
        else:
            reach = _window(length, wanted) // 2 if sampling == "filtered" else 0
            place = (at + 0.5) * step - 0.5
            taps = np.arange(-reach, reach + 1)[:, None]
            answer = _linear(place + taps - centres, side).mean(axis=0)
        best = np.maximum(best, answer)
    return float(best.min())


def _enlarged(length: int, wanted: int) -> float:
    """A single pixel between the samples of a slightly larger picture."""
    places = np.clip((np.arange(wanted) + 0.5) * length / wanted - 0.5, 0, length - 1)
    return float(_linear(places[None] - np.arange(length)[:, None], 1).max(axis=1).min())


def _linear(away: Array, side: int) -> Floats:
    found: Floats = np.clip((side + 1) / 2 - np.abs(away), 0, 1)
    return found


def _window(length: int, wanted: int) -> int:
    """The smallest odd number of pixels as wide as the step."""
    return max(1, 2 * int(np.ceil((length / wanted - 1) / 2)) + 1) if wanted < length else 1
