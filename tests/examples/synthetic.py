"""A report as a good run writes it, made without running anything."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from examples.loop.charts import Point
from examples.loop.page import Compared, PageExtras, Plane, QuestionShot, Shot, Strange
from examples.loop.schema import DemoReport

__all__ = ["made_up_extras", "made_up_report"]


def _both(original: float, new: float, *, spread: float = 0.06, **more: Any) -> dict[str, Any]:
    def figures(ap: float) -> dict[str, Any]:
        low, high = max(0.0, ap - 2 * spread * (1.02 - ap) - 0.01), min(1.0, ap + spread * (1.02 - ap) + 0.01)
        return {
            "ap": ap, "ap_low": low, "ap_high": high, "auroc": min(1.0, ap + 0.03),
            "precision": ap * 0.9, "recall": ap * 0.95, "n": 10, "unit": "cells",
        }  # fmt: skip

    return {"original": figures(original), "new": figures(new), **more}


def made_up_report(**changes: Any) -> DemoReport:
    """A valid ``demo/1``; ``changes`` replace whole top-level entries."""
    names = (
        "data",
        "train",
        "the drop",
        "adapt",
        "export",
        "INT8",
        "bundle",
        "line",
        "answers",
        "retrain",
        "report",
    )
    found: dict[str, Any] = {
        "schema": "demo/1",
        "data": {
            "name": "Hazelnuts with ink", "pictures": 51, "licence": "CC BY 4.0, Intel / anomalib", "sha256": "ab" * 32,
            "original": "hazelnuts as photographed", "new": "the same under another lamp, with harmless stains",
            "notes": ["original line: hazelnut; new line: the same pictures behind the gap stains+lamp"],
        },
        "seed": 3,
        "took_s": 251.0,
        "stages": [{"name": name, "took_s": 3.0 + 17 * (n % 4)} for n, name in enumerate(names)],
        "source_only": _both(0.957, 0.431),
        "source_only_plain": _both(0.949, 0.212),
        "adapted": _both(
            0.957, 0.846, method="adabn",
            why="The model reports a defect on 61 % of the new line's cells against 4 % of its own; with AdaBN on 5 %.",
            methods=[
                {"method": "none", "ap_new": 0.431, "facts": {"positive rate": 0.61, "feature shift": 4.1}},
                {"method": "adabn", "ap_new": 0.846, "facts": {"positive rate": 0.05, "feature shift": 0.6}},
                {"method": "dann", "ap_new": 0.648, "facts": {"positive rate": 0.11, "feature shift": 1.9}},
            ],
        ),
        "retrained": _both(0.961, 0.943, strategy="masked"),
        "retrained_unmasked": _both(0.954, 0.882),
        "full_labels": _both(0.967, 0.951),
        "gains": {
            "adaptation": {"value": 0.415, "low": 0.21, "high": 0.62},
            "mentoring": {"value": 0.097, "low": -0.01, "high": 0.18},
        },
        "good_parts": {"parts": 12, "alpha": 0.143, "good": 7, "stopped": 0, "defective": 3, "found": 3},
        "int8": {
            "rendering": "cpu-int8", "agreement": 0.9981, "sqnr_db": 27.4, "speedup": 1.38, "pictures": 15,
            "flips": [{"picture": "ink_b04.png", "fp32": "uncertain", "int8": "passed",
                       "confidence_fp32": 0.512, "confidence_int8": 0.487}],
        },
        "station": {
            "frames_in": 912, "outcomes": {"passed": 603, "defective": 240, "uncertain": 66, "not_inspected": 3},
            "not_inspected_by": {"queue full": 2, "station stopped": 1}, "fps": 9.98, "p50_ms": 6.4, "p99_ms": 18.2,
        },
        "outbox": {"put": 10, "uploaded": 10, "at_hub": 10},
        "answers": {"confirm": 8, "infirm": 11, "unsure": 2},
        "swap": {"bundle": "hazelnut-2", "frames_lost": 0},
    }  # fmt: skip
    return DemoReport.model_validate({**found, **changes})


def _jpeg(tone: int, *, cells: bool) -> bytes:
    picture = np.full((288, 288, 3), (70, 190, 205), np.uint8)
    cv2.ellipse(picture, (144, 150), (62, 78), 20, 0, 360, (150, 180 + tone, 205), -1)
    cv2.ellipse(picture, (130, 130), (22, 16), 0, 0, 360, (90, 60, 180), -1)
    if cells:
        cv2.rectangle(picture, (104, 104), (160, 160), (110, 45, 255), 2)
    return bytes(cv2.imencode(".jpg", picture)[1].tobytes())


def made_up_extras() -> PageExtras:
    """Pictures, planes and latencies to go with it."""
    generator = np.random.default_rng(0)

    def plane(title: str, apart: float, distance: float) -> Plane:
        points = tuple(
            Point(float(x + apart * new), float(y), bool(new), bool(defective))
            for new in (0, 1)
            for defective in (0, 1)
            for x, y in generator.normal((3 * defective, 0), 1, (20, 2))
        )
        return Plane(title, points, distance)

    return PageExtras(
        compared=tuple(
            Compared(
                f"images/ink_b{n:02d}.jpg", n < 3, n < 3,
                (Shot(_jpeg(0, cells=False), "passed"), Shot(_jpeg(10, cells=n < 3), "uncertain"),
                 Shot(_jpeg(20, cells=n < 3), "defective" if n < 3 else "passed")),
            )
            for n in range(4)
        ),
        strange=(
            Strange(
                "ink_b00.jpg", True, _jpeg(0, cells=False), _jpeg(20, cells=False), _jpeg(0, cells=True), "defective"
            ),
        ),
        planes=(plane("Before", 9, 1.92), plane("After mentoring", 1, 0.61)),
        latencies_ms=tuple((5 + generator.gamma(2, 1.3, 900)).tolist()),
        questions=(
            QuestionShot(_jpeg(0, cells=True), "Ink here? The model was 61 % sure; the operator confirmed it."),
            QuestionShot(_jpeg(0, cells=True), "Ink here? The model was 83 % sure; it was a false alarm."),
        ),
        command="make demo",
        versions={"python": "3.11", "onnxruntime": "1.27"},
    )  # fmt: skip
