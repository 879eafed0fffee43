"""How good a detector is on the test part of every line: the one place that asks for its boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_sdk.arrays import Array, Floats
from edge_sdk.detections import Detections
from edge_sdk.quality.datasets import Line, Lines
from edge_sdk.quality.measures import bootstrap_over_groups
from edge_sdk.vision.decode import confidence_from_logits, decode_anchors
from training.box_precision import Hits, average_precisions, hits_of, precision_recall
from training.checkpoint import Checkpoint, LineState
from training.data.boxes import BoxViews, MapCache
from training.detector import detector_of, judged_pictures, read_boxes
from training.recipe import Recipe
from training.train import Progress, quiet

__all__ = ["REPORT_FROM", "JudgedBoxes", "box_figures", "evaluate_detector", "judged_views", "reported"]

REPORT_FROM = 0.05
"""Confidence down to which boxes are ranked: what lies below adds nothing to an average precision but time."""
ROUNDS = 500
"""Of the bootstrap over groups."""


@dataclass(frozen=True, eq=False)
class JudgedBoxes:
    """One line's test pictures with what a detector says of them."""

    views: BoxViews
    boxes: Floats
    """``(N, A, 4)`` pixels of the network's input."""
    confidence: Floats
    """``(N, A, K)`` in [0, 1]."""
    hits: Hits


def evaluate_detector(
    checkpoint: Checkpoint, lines: Lines, *, cache: MapCache | None = None, progress: Progress = quiet
) -> Mapping[str, Mapping[str, Any]]:
    """Judge the test part of every line, each with its own statistics.

    A line that the checkpoint does not know is judged with the original's, as a station would before anybody
    retrains.

    Args:
        checkpoint: A detector.
        lines: Made with ``evaluating=True``.
        cache: See ``training.data.boxes.with_maps``.
        progress: Told of every picture.

    Returns:
        By line ``ap``, ``ap_low``, ``ap_high``, ``precision``, ``recall``, ``n`` pictures, ``unit`` and ``classes``.

    Raises:
        TruthWithheld: ``lines`` was made for training.
        ConfigError: The checkpoint is no detector.
    """
    found = {}
    for line in (lines.original, *lines.new):
        state = checkpoint.lines.get(line.name, checkpoint.line("original"))
        views = _test(checkpoint, line, cache, progress)
        judged = judged_views(checkpoint, state, views)
        found[line.name] = box_figures(
            judged.hits, checkpoint.classes, views.units, boundary=float(state.thresholds.boundary.min())
        )
    return found


def judged_views(checkpoint: Checkpoint, state: LineState, views: BoxViews) -> JudgedBoxes:
    """What a detector says of labelled pictures, and what of it is true."""
    boxes, scores, _ = judged_pictures(detector_of(checkpoint), state.statistics, views, checkpoint.preprocess)
    found = reported(boxes, scores, views, state.temperature)
    drawn = [one for one in views.drawn if one is not None]
    warm = scores / state.temperature
    return JudgedBoxes(
        views, boxes, confidence_from_logits(warm), hits_of(found, drawn, count=len(checkpoint.classes))
    )


def reported(
    boxes: Floats, scores: Floats, views: BoxViews, temperature: Array, *, least: Array | float = REPORT_FROM
) -> list[Detections]:
    """The detections of each picture.

    Args:
        boxes: ``(N, A, 4)``.
        scores: ``(N, A, K)`` logits.
        views: Of the same pictures.
        temperature: ``(K,)``.
        least: Confidence, one or one a class.
    """
    below = np.full(scores.shape[2], least, np.float32) if np.ndim(least) == 0 else np.asarray(least, np.float32)
    sure = confidence_from_logits(scores / temperature)
    return [
        decode_anchors(boxes[n], sure[n], below, place=place) for n, place in enumerate(views.places)
    ]


def box_figures(
    hits: Hits, classes: tuple[str, ...], units: tuple[str, ...], *, boundary: float, rounds: int = ROUNDS
) -> dict[str, Any]:
    """Average precision at an overlap of 0.5, of each class and their mean, with its interval over groups.

    Args:
        hits: Of the pictures.
        classes: Their names.
        units: The group of each picture.
        boundary: Confidence at which precision and recall are stated.
        rounds: Of the bootstrap; 0 for no interval.

    Returns:
        A figure that the pictures do not allow is ``None``.
    """
    each = average_precisions(hits)
    there = np.isfinite(each)
    found: dict[str, Any] = {
        "ap": _round(float(each[there].mean())) if there.any() else None,
        "ap_low": None,
        "ap_high": None,
        "auroc": None,
        "precision": None,
        "recall": None,
        "n": len(hits.drawn),
        "unit": "boxes",
        "classes": {name: _round(float(one)) for name, one in zip(classes, each, strict=True)},
    }
    if not there.any():
        return found
    precision, recall = precision_recall(hits, boundary)
    found["precision"], found["recall"] = _round(precision), _round(recall)
    if rounds and len(set(units)) > 1:
        interval = bootstrap_over_groups(lambda rows: mean_of(hits, rows), list(units), rounds=rounds)
        found["ap_low"], found["ap_high"] = _round(interval.low), _round(interval.high)
    return found


def mean_of(hits: Hits, rows: Array) -> float:
    """Mean average precision of some pictures, with repeats, over the classes drawn on them."""
    often = np.bincount(rows, minlength=len(hits.drawn))[None]
    each = average_precisions(hits, often)[0]
    return float(each[np.isfinite(each)].mean()) if np.isfinite(each).any() else float("nan")


def _test(checkpoint: Checkpoint, line: Line, cache: MapCache | None, progress: Progress) -> BoxViews:
    recipe = Recipe.model_validate({**checkpoint.recipe, "head": "anchors"})
    return read_boxes(
        detector_of(checkpoint),
        line,
        line.test,
        checkpoint.preprocess,
        recipe,
        labelled=True,
        cache=cache,
        flips=False,
        progress=progress,
    )


def _round(value: float) -> float | None:
    return None if not np.isfinite(value) else round(value, 4)
