"""Is a frame a photograph at all?  Asked before the model is.

A dark lens, a lost light, a stuck driver or a wrong mode give pictures on which every model finds
nothing, and nothing found must never mean passed.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.clock import Clock, SystemClock

if TYPE_CHECKING:
    from edge_sdk.config import CameraConfig
    from edge_sdk.frames import Frame

__all__ = ["PhotographCheck"]

SAMPLES = 128
"""Rows and columns that are looked at, about: a larger picture is looked at more coarsely."""
PARTS = 16
"""A picture is judged by the mean of each of 16 x 16 parts, so that a hot pixel lights up no dark one."""


class PhotographCheck:
    """Finds frames that no camera in order took.  One check a camera; frames in their order.

    Black: every part is below ``black_below``.  White: every part is as close to 255.  Flat: every
    sample has one value, which no lens and sensor produce.  Frozen: ``frozen_frames`` identical
    frames in a row *and* more than ``frozen_s`` between the first and the last of them, because a
    fast camera may repeat itself and a slow one must not go on for minutes.

    Args:
        config: The camera's settings.
        clock: For frames that carry no capture time.
    """

    def __init__(self, config: CameraConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._samples: Array | None = None
        self._digest: int | None = None
        self._since_ns = 0
        self._alike = 0

    def fault(self, frame: Frame) -> str | None:
        """Why this frame must not be judged, or ``None``.  Under 0.3 ms at 1920 x 1080."""
        reason = self._wrong_size(frame)
        if reason is not None:
            return reason
        samples = _samples(frame.pixels)
        reason = self._unlit(samples)
        if reason is not None:
            self._samples = None
            return reason
        return self._frozen(frame, samples)

    judge = fault

    def _wrong_size(self, frame: Frame) -> str | None:
        height, width = frame.pixels.shape[:2]
        if not height or not width:
            return f"the frame is {width} x {height}: no picture"
        wanted_width = self._config.width or width
        wanted_height = self._config.height or height
        if (width, height) != (wanted_width, wanted_height):
            wanted = f"{wanted_width} x {wanted_height}"
            return f"the frame is {width} x {height}, not the {wanted} of camera.width and camera.height"
        return None

    def _unlit(self, samples: Array) -> str | None:
        edge = self._config.black_below
        darkest, brightest = int(samples.min()), int(samples.max())
        if darkest == brightest and 0 < darkest < 255:
            return f"the frame is flat: every pixel is {darkest} of 255"
        if darkest < edge or brightest > 255 - edge:
            parts = _parts(samples)
            if parts.max() < edge:
                return f"the frame is black: its brightest part is {parts.max():.1f} of 255"
            if parts.min() > 255 - edge:
                return f"the frame is white: its darkest part is {parts.min():.1f} of 255"
        return None

    def _frozen(self, frame: Frame, samples: Array) -> str | None:
        now_ns = frame.captured_ns or self._clock.monotonic_ns()
        lasted_s = (now_ns - self._since_ns) / 1e9
        alike = self._samples is not None and np.array_equal(samples, self._samples)
        digest: int | None = None
        if alike and self._alike + 2 >= self._config.frozen_frames and lasted_s > self._config.frozen_s / 2:
            # Something may move between the samples: before a frame is called frozen it is read whole.
            digest = zlib.crc32(np.ascontiguousarray(frame.pixels).data)
            alike = self._digest is None or digest == self._digest
        self._digest = digest
        if not alike:
            self._samples = samples
            self._since_ns = now_ns
            self._alike = 1
            return None
        self._alike += 1
        if self._alike >= self._config.frozen_frames and lasted_s > self._config.frozen_s:
            return f"the camera is frozen: {self._alike} identical frames in {lasted_s:.1f} s"
        return None


def _samples(pixels: Array) -> Array:
    """``(h, w, 3)``: every n-th row and column, copied, as the camera may use its memory again."""
    step = max(1, min(pixels.shape[:2]) // SAMPLES)
    samples: Array = pixels[::step, ::step].copy()
    return samples


def _parts(samples: Array) -> Array:
    """``(≤16, ≤16)`` mean grey level of each part of the picture."""
    rows = np.linspace(0, samples.shape[0], PARTS, endpoint=False).astype(int)
    columns = np.linspace(0, samples.shape[1], PARTS, endpoint=False).astype(int)
    rows, columns = np.unique(rows), np.unique(columns)
    sums = np.add.reduceat(
        np.add.reduceat(samples.sum(axis=2, dtype=np.float32), rows, axis=0), columns, axis=1
    )
    height = np.diff(np.append(rows, samples.shape[0]))
    width = np.diff(np.append(columns, samples.shape[1]))
    means: Array = sums / (3 * height[:, None] * width[None, :])
    return means
