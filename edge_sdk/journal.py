"""Inspections as lines of JSON, ``inspections.jsonl``: what ``run --inspections`` and ``replay`` write.

A line of a replay holds nothing that differs between two replays of the same pictures, so two files
are equal byte for byte; the digest of the confidence map makes that a statement about every value.
"""

from __future__ import annotations

import hashlib
from typing import Any

from edge_sdk.documents import canonical_json, utc_text
from edge_sdk.inspections import Inspection
from edge_sdk.labels import Labels

__all__ = ["inspection_line"]


def inspection_line(inspection: Inspection, labels: Labels, *, timed: bool) -> bytes:
    """One inspection as canonical JSON with a line end (``inspection/1``).

    Args:
        inspection: Of any verdict.
        labels: Names of the classes.
        timed: Also when it was captured, and how long the verdict took.
    """
    frame, found = inspection.frame, inspection.detections
    cells: list[list[list[int]]] = [[] for _ in range(len(found))]
    for number, row, column in found.cells.tolist():
        cells[number].append([row, column])
    detections = [
        {
            "box": [float(edge) for edge in found.boxes[number]],
            "class": labels.names[int(found.classes[number])],
            "confidence": float(found.confidence[number]),
            "cells": cells[number],
            **({"continued": True} if number in inspection.continued else {}),
        }
        for number in range(len(found))
    ]
    questions = [
        {
            "box": list(question.box),
            "class": labels.names[question.class_id],
            "confidence": question.confidence,
            "cells": [list(cell) for cell in question.cells],
        }
        for question in inspection.questions
    ]
    line: dict[str, Any] = {
        "schema": "inspection/1",
        "camera": frame.camera,
        "index": frame.index,
        "verdict": inspection.verdict.value,
        "reason": inspection.reason,
        "model": inspection.model,
        "detections": detections,
        "questions": questions,
    }
    if inspection.repeated_lines:
        line["repeated_lines"] = inspection.repeated_lines
    if inspection.confidence is not None:
        line["confidence_sha256"] = hashlib.sha256(inspection.confidence.tobytes()).hexdigest()
    if timed:
        timing = inspection.timing
        line["captured_at"] = utc_text(frame.captured_at)
        if timing.captured_ns and timing.decided_ns:
            line["latency_ms"] = round(timing.latency_ms, 3)
    return canonical_json(line) + b"\n"
