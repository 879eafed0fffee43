"""Which frames are worth an operator's time.

Two samples are drawn side by side:

- **Questions**: uncertain and defective frames, within a budget of questions a shift (``outbox.budget``), which
  ranks them and does not move the band.  A failing model is wrong with confidence, so defects are asked about as well
  as doubts.
- **Control**: a frame is drawn with the fixed probability ``control_share``, whatever the model says of it and
  outside of the budget.  Its items carry that probability, so rates estimated from them are unbiased.

A frame that is both belongs to the control sample: its stratum is ``control`` and its probability
``control_share``, while its reason stays ``uncertain`` or ``defect``.  An item of the questions carries
probability 1: frames like it are always taken, as long as the budget lasts.  The control sample speaks of
frames that differ from those queued lately; the others are counted as duplicates.

Where the line itself knows a part to be healthy, its frame is chosen as any other, and its reason is ``healthy``:
retraining with healthy knowledge then takes every cell of it for healthy, not only those that were asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.labels import Thresholds
from edge_sdk.outbox.tombstones import CONTROL
from edge_sdk.records import Reason

__all__ = ["Choice", "DuplicateGate", "choice", "kept_as_changed", "strongest", "value_of"]

CONTROL_VALUE = 0.5
"""The same for every control item: what is given up among them is then as good as drawn by lot."""


@dataclass(frozen=True)
class Choice:
    """Why a frame is queued, as its item will say."""

    reason: Reason
    stratum: str
    value: float
    """In [0, 1]; the least is given up first."""
    inclusion_probability: float
    questions: int
    """What it takes from the budget; 0 for the control sample."""


def kept_as_changed(healthy: bool) -> Choice:
    """Of the frame after the watch for drift found the input changed: one a change, beside both samples.

    Its stratum says why it was kept, so a part that the line knows to be healthy keeps the reason that says so.
    """
    return Choice("healthy" if healthy else "novelty", "drift", 1.0, 1.0, 0)


def choice(
    verdict: Verdict,
    *,
    confidence: float,
    questions: int,
    band: tuple[float, float],
    control_share: float | None,
    healthy: bool = False,
) -> Choice | None:
    """Why a frame is queued, if it is.

    Args:
        verdict: Of the frame.
        confidence: Of its surest detection, in [0, 1].
        questions: How many an operator would be asked.
        band: ``pass_below`` and ``defective_from`` of that detection's class.
        control_share: The probability with which it was drawn for the control sample, or ``None`` if it was not.
        healthy: Whether the line knows the part to be healthy; changes the reason and nothing else.

    Returns:
        ``None`` for a passed frame that was not drawn, and for one that was not inspected.
    """
    if verdict is Verdict.NOT_INSPECTED:
        return None
    reasons: dict[Verdict, Reason] = {Verdict.UNCERTAIN: "uncertain", Verdict.DEFECTIVE: "defect"}
    why = reasons.get(verdict)
    said: Reason | None = "healthy" if healthy else why
    if control_share is not None:
        return Choice(said or "control", CONTROL, CONTROL_VALUE, control_share, 0)
    if why is None or said is None:
        return None
    return Choice(said, why, value_of(verdict, confidence, band), 1.0, max(1, questions))


def value_of(verdict: Verdict, confidence: float, band: tuple[float, float]) -> float:
    """How much an answer would teach, in [0, 1].  Ours.

    Of uncertain frames the one nearest to the middle of its band comes first (1 down to 0.5 at the edges);
    of defective ones the surest (0.4 up to 0.9): a false alarm weighs as much as the model is sure of it.
    """
    if verdict is Verdict.DEFECTIVE:
        return 0.4 + 0.5 * confidence
    low, high = band
    half = (high - low) / 2
    off = abs(confidence - (low + high) / 2) / half if half > 0 else 0.0
    return 1.0 - 0.5 * min(1.0, off)


def strongest(inspection: Inspection, thresholds: Thresholds) -> tuple[float, tuple[float, float]]:
    """Confidence of the surest detection, and the band of its class.

    Without a detection: 0, and the first class's band.
    """
    found = inspection.detections
    if not len(found):
        return 0.0, (float(thresholds.pass_below[0]), float(thresholds.defective_from[0]))
    surest = int(np.argmax(found.confidence))
    k = int(found.classes[surest])
    return float(found.confidence[surest]), (
        float(thresholds.pass_below[k]),
        float(thresholds.defective_from[k]),
    )


class DuplicateGate:
    """Tells frames that look like one queued lately, such as those of a looping video.

    Pictures are compared as grey thumbnails: alike where they differ little on the whole and nowhere much,
    so that a small new defect on the same part still counts as another picture.
    """

    SIDE = 32
    MEAN = 1.0
    """Grey levels of mean difference, and …"""
    MOST = 2
    """… of the largest, up to which two thumbnails are alike: sensor noise stays below, being averaged out, and a
    defect of 10 x 10 pixels on a 1920 x 1080 frame shows above."""

    def __init__(self, remember: int = 256) -> None:
        """
        Args:
            remember: How many queued frames to compare with; above a shift's questions, so that a loop cannot
                ask the same ones twice in a shift.
        """
        self._kept = np.zeros((remember, self.SIDE, self.SIDE), np.int16)
        self._count = 0

    def thumbnail(self, image: Image) -> Array:
        """``(32, 32)`` grey levels of an image, every pixel averaged in."""
        import cv2

        small = cv2.resize(np.ascontiguousarray(image), (self.SIDE, self.SIDE), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.int16)

    def seen(self, thumbnail: Array) -> bool:
        """Whether a queued frame looked like this one."""
        kept = self._kept[: min(self._count, len(self._kept))]
        off = np.abs(kept - thumbnail)
        alike = (off.mean(axis=(1, 2)) <= self.MEAN) & (off.max(axis=(1, 2), initial=0) <= self.MOST)
        return bool(alike.any())

    def remember(self, thumbnail: Array) -> None:
        """Compare later frames with this one, which has been queued."""
        self._kept[self._count % len(self._kept)] = thumbnail
        self._count += 1
