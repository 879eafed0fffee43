"""Inspections for the mentor's tests: pictures are noise of a seed, verdicts are as told."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from edge_sdk.arrays import Image
from edge_sdk.detections import Detections, Question
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Verdict

__all__ = ["detection", "inspected", "picture"]


def picture(seed: int, height: int = 240, width: int = 320) -> Image:
    """Coarse grey patches, another pattern for every seed."""
    import cv2

    coarse = np.random.default_rng(seed).integers(40, 200, (6, 8, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def detection(confidence: float) -> Detections:
    """One of class 0 in two cells."""
    return Detections(
        np.array([[8, 8, 24, 16]], np.float32),
        np.zeros(1, np.int32),
        np.array([confidence], np.float32),
        np.array([[0, 1, 1], [0, 1, 2]], np.int32),
    )


def inspected(
    seed: int = 0,
    *,
    verdict: Verdict = Verdict.UNCERTAIN,
    confidence: float = 0.5,
    questions: int = 1,
    model: str = "",
    detections: Detections | None = None,
) -> Inspection:
    """An inspection of ``picture(seed)``."""
    if detections is None:
        detections = Detections.none() if verdict is Verdict.PASSED else detection(confidence)
    return Inspection(
        frame=Frame(picture(seed), "left", seed, datetime(2026, 11, 21, 10, tzinfo=timezone.utc)),
        detections=detections,
        verdict=verdict,
        reason="as told",
        questions=tuple(
            Question(0, confidence, (8.0, 8.0, 24.0, 16.0), ((1, 1), (1, 2))) for _ in range(questions)
        ),
        confidence=np.full((1, 4, 4), confidence, np.float32),
        model=model,
    )
