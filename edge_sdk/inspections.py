"""What became of a frame."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from edge_sdk.arrays import Floats
from edge_sdk.detections import Detections, Question
from edge_sdk.frames import Frame

__all__ = ["Inspection", "Timing", "Verdict"]


class Verdict(Enum):
    """The answer for one frame.  Every frame gets exactly one."""

    PASSED = "passed"
    DEFECTIVE = "defective"
    UNCERTAIN = "uncertain"
    NOT_INSPECTED = "not_inspected"


@dataclass(frozen=True)
class Timing:
    """Monotonic nanoseconds along a frame's way; 0 where it did not come that far."""

    captured_ns: int = 0
    taken_ns: int = 0
    """Taken out of the hand-over by the deciding thread."""
    inferred_ns: int = 0
    decided_ns: int = 0

    @property
    def latency_ms(self) -> float:
        """Capture to verdict."""
        return (self.decided_ns - self.captured_ns) / 1e6


@dataclass(frozen=True, eq=False)
class Inspection:
    """A frame with its verdict."""

    frame: Frame
    detections: Detections
    verdict: Verdict
    reason: str
    """Why: the class and confidence that decided, or why the frame was not inspected."""
    timing: Timing = field(default_factory=Timing)
    questions: tuple[Question, ...] = ()
    """Where an operator would be asked, strongest first."""
    confidence: Floats | None = None
    """``(K, h, w)`` in [0, 1], of a detector ``(A, K)``, or ``None`` where nothing was inferred."""
    feature: Floats | None = None
    """``(F,)`` pooled feature, or ``None``."""
    model: str = ""
    """Id of the bundle that judged: sha256 of its manifest."""
    continued: tuple[int, ...] = ()
    """Numbers of the detections that the frame before reported in part, or as uncertain (``camera.overlap_lines``):
    whoever counts defects counts them there."""
    reported_before: int = 0
    """Detections in the repeated lines alone that the frame before has reported, so that this one does not."""
    repeated_lines: int = 0
    """Lines on top of ``frame.pixels`` that the frame before ended with (``camera.overlap_lines``)."""
