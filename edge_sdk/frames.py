"""A captured picture, with where and when it was taken."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np

from edge_sdk.arrays import Image, check_shape
from edge_sdk.errors import ShapeError

__all__ = ["Frame"]


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture as a camera delivered it.  Whoever holds a frame must not write to its pixels."""

    pixels: Image
    """``(H, W, 3)`` uint8, blue green red."""
    camera: str
    """Name of the camera."""
    index: int
    """Counts from 0, one up for each frame that the source made, delivered or not."""
    captured_at: datetime
    """Wall clock, UTC; a hint, not an order."""
    captured_ns: int = 0
    """Monotonic nanoseconds; ages and latencies are counted from here."""
    stamp: str = "arrival"
    """Where ``captured_ns`` comes from: ``device``, ``stream`` or ``arrival``."""
    follows: bool = True
    """False where the source was lost before it, so that something may be missing that no index counts."""

    def __post_init__(self) -> None:
        check_shape("pixels", self.pixels, (None, None, 3), as_text="(H, W, 3), blue green red")
        if self.pixels.dtype != np.uint8:
            raise ShapeError(f"pixels is {self.pixels.dtype}; give uint8, 0 to 255")
