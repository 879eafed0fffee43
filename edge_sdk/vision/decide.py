"""From detections to a verdict."""

from __future__ import annotations

from edge_sdk.detections import Detections
from edge_sdk.inspections import Verdict
from edge_sdk.labels import Labels, Thresholds

__all__ = ["decide"]


def decide(detections: Detections, thresholds: Thresholds, labels: Labels) -> tuple[Verdict, str]:
    """The verdict on a frame that was inspected, and why.

    Any detection from ``defective_from`` of its class up makes the frame defective; else any
    detection left makes it uncertain; else it passed.

    Args:
        detections: Those at or above ``pass_below``, surest first.
        thresholds: Of the line that the frame comes from.
        labels: Names of the classes, for the reason.

    Returns:
        The verdict, and a reason such as ``"crack 0.93"``; empty where the frame passed.
    """
    if not len(detections):
        return Verdict.PASSED, ""
    sure = detections.confidence >= thresholds.defective_from[detections.classes]
    which = int(sure.argmax())
    reason = f"{labels.names[int(detections.classes[which])]} {float(detections.confidence[which]):.2f}"
    return (Verdict.DEFECTIVE if sure[which] else Verdict.UNCERTAIN), reason
