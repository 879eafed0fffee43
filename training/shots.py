"""The test pictures where people would rather look: the surest false alarms and the misses, cells outlined."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edge_sdk.arrays import Array, Bools, Image
from edge_sdk.labels import Thresholds
from training.evaluate import Judged

__all__ = ["Shot", "jpeg_of", "outlined", "worst"]

SIDE = 360
"""Pixels of a shown picture's longer side, at least; small inputs are enlarged, or an outline hides a cell."""
FOUND, TRUE = (0, 120, 255), (235, 140, 30)
"""Blue green red: what the model reports, and what the truth says."""


@dataclass(frozen=True)
class Shot:
    """A picture with what is reported and what is true on it."""

    name: str
    what: str
    """``false alarm`` or ``missed``, or in another page's words."""
    confidence: float
    """Of the surest cell that is a false alarm, or of the surest cell of the defect that was missed."""
    jpeg: bytes

    @property
    def source(self) -> str:
        """For an ``img``, with everything inside."""
        return "data:image/jpeg;base64," + base64.b64encode(self.jpeg).decode()


def worst(judged: Judged, thresholds: Thresholds, *, most: int = 4) -> list[Shot]:
    """The surest false alarms, then the misses that the model came least near to.

    Cells count where the truth of a picture's cells is known, else its surest cell.

    Args:
        judged: Of one line.
        thresholds: Of the same line; a cell is reported from its class's ``boundary`` on.
        most: Of each kind.
    """
    views = judged.views
    boundary = thresholds.boundary[None, :, None, None]
    valid = views.valid[:, None]
    found = (judged.confidence >= boundary) & valid
    true = (views.truth > 0) & (views.known > 0)
    false = found & (views.known > 0) & ~true & (views.maximum[:, :, None, None] == 0)
    alarms = [(float(judged.confidence[n][false[n]].max()), n) for n in range(len(views)) if false[n].any()]
    missed = list(_missed(judged, found, true))

    def shot(n: int, what: str, confidence: float) -> Shot:
        picture = outlined(views.images[n], found[n].any(axis=0), true[n].any(axis=0))
        return Shot(views.names[n], what, confidence, jpeg_of(picture))

    surest = sorted(alarms, key=lambda one: (-one[0], one[1]))[:most]
    farthest = sorted(missed)[:most]
    return [shot(n, "false alarm", sure) for sure, n in surest] + [shot(n, "missed", sure) for sure, n in farthest]


def _missed(judged: Judged, found: Bools, true: Bools) -> Iterator[tuple[float, int]]:
    """Pictures with a defect of which no cell was reported, with how sure the model was of it at most.

    A defect is a connected group of cells (8-neighbourhood) of one class, or the picture where no map is known.  Where
    a seam of tiles cuts it, what is reported of it in any of them counts.
    """
    views = judged.views
    wholes = zip(views.whole(true), views.whole(found), strict=True)
    known = views.pieces([_reported(one, said) for one, said in wholes]) > 0 if len(views) else found
    for n in np.flatnonzero(views.defective):
        missed = [
            float(judged.confidence[n, k][defect].max())
            for k, defect in _defects(true[n], views.valid[n])
            if not ((found[n, k] | known[n, k]) & defect).any()
        ]
        if missed:
            yield min(missed), int(n)


def _reported(true: Array, found: Array) -> Bools:
    """``(K, h, w)`` the cells of those defects of a picture of which any cell is reported."""
    cells = np.zeros(true.shape, bool)
    if true.any():
        for k, defect in _defects(true, np.ones(true.shape[1:], bool)):
            cells[k] |= defect & (found[k] & defect).any()
    return cells


def _defects(true: Bools, valid: Bools) -> Iterator[tuple[Any, Bools]]:
    """Class and cells, ``(h, w)``, of each defect; all classes of the whole picture where none has a place."""
    if not true.any():
        yield slice(None), np.broadcast_to(valid, true.shape)
    for k, cells in enumerate(true):
        count, numbers = cv2.connectedComponents(cells.astype(np.uint8), connectivity=8)
        for number in range(1, count):
            yield k, numbers == number


def outlined(image: Image, found: Bools, true: Bools) -> Image:
    """A picture with the outlines of cells: reported in orange, true in blue.

    Args:
        image: ``(H, W, 3)`` uint8 blue green red.
        found: ``(h, w)``.
        true: ``(h, w)``.
    """
    scale = max(1, round(SIDE / max(image.shape[:2])))
    size = (image.shape[1] * scale, image.shape[0] * scale)
    canvas = np.ascontiguousarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
    for cells, colour, width in ((true, TRUE, 4), (found, FOUND, 2)):
        mask: Array = cv2.resize(cells.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
        cv2.drawContours(canvas, contours, -1, colour, width, cv2.LINE_AA)
    return np.asarray(canvas, np.uint8)


def jpeg_of(image: Image) -> bytes:
    """A picture as it stands in a page."""
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 84])
    return bytes(data.tobytes())
