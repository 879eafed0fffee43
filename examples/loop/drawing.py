"""Pictures for the report: what a model reports on a part, and where the defect really is."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, geometry

__all__ = ["outlined", "reported", "warmed"]

SIDE = 360
"""Longest side in the report, pixels."""
CELLS = (110, 45, 255)
"""Blue, green, red of what a model reports."""


def reported(image: Image, mask: Array | None, cells: Array, spec: PreprocessSpec) -> bytes:
    """A picture with the cells that a model reports, and the outline of the truth.

    Args:
        image: ``(H, W, 3)`` uint8, blue green red.
        mask: ``(H, W)``, not zero where defective; ``None`` draws no outline.
        cells: ``(h, w)`` bool on the network's input.
        spec: Of the network.

    Returns:
        A JPEG without the padding.
    """
    large = _large(spec)
    place = geometry(large, image.shape[0], image.shape[1])
    canvas = np.asarray(fitted(image, large), np.float32)
    marked = cv2.resize(cells.astype(np.uint8), (large.width, large.height), interpolation=cv2.INTER_NEAREST)
    tint = np.array(CELLS, np.float32)
    shade = (marked > 0)[:, :, None]
    drawn: Array = np.where(shade, 0.72 * canvas + 0.28 * tint, canvas).astype(np.uint8)
    cv2.drawContours(drawn, _contours(marked), -1, CELLS, 2, cv2.LINE_AA)
    if mask is not None and mask.any():
        inner = cv2.resize(
            (mask != 0).astype(np.uint8),
            (place.inner_width, place.inner_height),
            interpolation=cv2.INTER_AREA,
        )
        truth = np.zeros((large.height, large.width), np.uint8)
        truth[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width] = inner
        edges = _contours(truth)
        cv2.drawContours(drawn, edges, -1, (24, 22, 20), 4, cv2.LINE_AA)
        cv2.drawContours(drawn, edges, -1, (255, 255, 255), 2, cv2.LINE_AA)
    return _jpeg(
        drawn[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width]
    )


def warmed(image: Image, confidence: Array, spec: PreprocessSpec) -> bytes:
    """A picture with its map over it: the surer, the redder; where the map is 0 the picture as it is.

    Args:
        image: ``(H, W, 3)`` uint8, blue green red.
        confidence: ``(h, w)`` in [0, 1] on the network's input.
        spec: Of the network.

    Returns:
        A JPEG without the padding.
    """
    large = _large(spec)
    place = geometry(large, image.shape[0], image.shape[1])
    canvas = np.asarray(fitted(image, large), np.float32)
    share = cv2.resize(np.asarray(confidence, np.float32), (large.width, large.height), interpolation=cv2.INTER_LINEAR)
    shade = 0.75 * np.clip(share, 0, 1)[:, :, None]
    drawn = np.rint(canvas * (1 - shade) + np.array(CELLS, np.float32) * shade).astype(np.uint8)
    return _jpeg(
        drawn[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width]
    )


def outlined(picture: bytes, rectangles: Sequence[Sequence[float]]) -> bytes:
    """An encoded picture with the cells that a question is about, as the operator's page marks them.

    Args:
        picture: PNG or JPEG.
        rectangles: Left, top, right, bottom of each cell or run of cells, pixels.
    """
    image = np.asarray(cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR), np.uint8)
    scale = SIDE / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    drawn = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    marked = np.zeros(drawn.shape[:2], np.uint8)
    for rectangle in rectangles:
        left, top, right, bottom = (round(float(edge) * scale) for edge in rectangle)
        cv2.rectangle(marked, (left, top), (max(left, right - 1), max(top, bottom - 1)), 1, -1)
    edges = _contours(marked)
    cv2.drawContours(drawn, edges, -1, (24, 22, 20), 5, cv2.LINE_AA)
    cv2.drawContours(drawn, edges, -1, (255, 255, 255), 2, cv2.LINE_AA)
    return _jpeg(drawn)


def _large(spec: PreprocessSpec) -> PreprocessSpec:
    scale = SIDE / max(spec.width, spec.height)
    return PreprocessSpec(
        max(1, round(spec.width * scale)),
        max(1, round(spec.height * scale)),
        resize=spec.resize,
        pad=spec.pad,
    )


def _contours(marked: Array) -> Sequence[Array]:
    found = cv2.findContours(marked, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)[0]
    return [np.asarray(edge) for edge in found]


def _jpeg(image: Array) -> bytes:
    return bytes(
        cv2.imencode(".jpg", np.ascontiguousarray(image), [cv2.IMWRITE_JPEG_QUALITY, 86])[1].tobytes()
    )
