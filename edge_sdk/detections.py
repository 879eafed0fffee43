"""What a model reports on a frame, and what an operator is asked about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Floats, Ints, check_shape

__all__ = ["Detections", "Question"]


@dataclass(frozen=True, eq=False)
class Detections:
    """The D detections on a frame, side by side in arrays."""

    boxes: Floats
    """``(D, 4)`` left, top, right, bottom in frame pixels; right and bottom lie outside."""
    classes: Ints
    """``(D,)`` ids of the bundle's classes."""
    confidence: Floats
    """``(D,)`` in [0, 1], of its surest cell."""
    cells: Ints
    """``(n, 3)`` rows of detection, row, column; of a detector rows of detection, anchor, 0."""

    def __post_init__(self) -> None:
        count = len(self.boxes)
        check_shape("boxes", self.boxes, (None, 4), as_text="(D, 4), one row a detection")
        check_shape("classes", self.classes, (count,), as_text=f"({count},), one id a detection")
        check_shape("confidence", self.confidence, (count,), as_text=f"({count},), one value a detection")
        check_shape("cells", self.cells, (None, 3), as_text="(n, 3), rows of detection, row, column")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, keep: Array) -> Detections:
        """``detections[detections.confidence > 0.5]``; cells are renumbered."""
        chosen = np.arange(len(self))[keep]
        new_number = np.full(len(self) + 1, -1, np.int32)
        new_number[chosen] = np.arange(len(chosen), dtype=np.int32)
        kept = new_number[self.cells[:, 0]] >= 0
        cells = self.cells[kept].copy()
        cells[:, 0] = new_number[cells[:, 0]]
        return Detections(self.boxes[chosen], self.classes[chosen], self.confidence[chosen], cells)

    @staticmethod
    def none() -> Detections:
        """A frame without detections."""
        return Detections(
            np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 3), np.int32)
        )


@dataclass(frozen=True)
class Question:
    """The small place an operator is asked about: a peak of the confidence map with its neighbours, or a box."""

    class_id: int
    confidence: float
    """Of the peak, in [0, 1]."""
    box: tuple[float, float, float, float]
    """Left, top, right, bottom in frame pixels; right and bottom lie outside."""
    cells: tuple[tuple[int, int], ...]
    """Row and column of each cell asked about, the peak first; of a detector the box's anchor and 0."""
