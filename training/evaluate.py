"""How good a checkpoint is on the test part of both lines: the one place that asks for its truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.arrays import Array, Bools
from edge_sdk.quality.datasets import Lines
from edge_sdk.quality.measures import auroc, average_precision, bootstrap_over_groups, precision_recall_at
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views, views_of
from training.lines import confidence, predicted
from training.train import Progress, quiet

__all__ = ["Evaluation", "Judged", "evaluate", "figures_of", "judge", "save_arrays"]

ROUNDS = 500
"""Of the bootstrap over groups."""


@dataclass(frozen=True, eq=False)
class Judged:
    """One line's test pictures with what the model says of them."""

    views: Views
    logits: Array
    """``(N, K, h, w)``."""
    confidence: Array
    """``(N, K, h, w)`` in [0, 1]."""
    features: Array
    """``(N, F)`` pooled."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Figures of both lines, and what they were computed from."""

    figures: Mapping[str, Mapping[str, Any]]
    """By line ``{ap, ap_low, ap_high, auroc, precision, recall, picture_ap, picture_auroc, balanced_accuracy, n,
    unit}``."""
    judged: Mapping[str, Judged]


def evaluate(checkpoint: Checkpoint, lines: Lines, *, progress: Progress = quiet) -> Evaluation:
    """Judge the test part of every line, each with its own statistics.

    A line that the checkpoint does not know is judged with the original's, as a station would before
    anybody adapts.

    Args:
        checkpoint: Of any state of its life.
        lines: Made with ``evaluating=True``.
        progress: Told of every picture.

    Raises:
        TruthWithheld: ``lines`` was made for training.
    """
    found, judged = {}, {}
    for line in (lines.original, *lines.new):
        done = 0

        def step(name: str = line.name, total: int = len(line.test)) -> None:
            nonlocal done
            done += 1
            progress(f"test {name}", done, total, {})

        views = views_of(line, line.test, checkpoint.preprocess, grid=checkpoint.grid, labelled=True, step=step)
        judged[line.name] = judge(checkpoint, line.name, views)
        state = _state_of(checkpoint, line.name)
        found[line.name] = figures_of(judged[line.name], boundary=float(state.thresholds.boundary.min()))
    return Evaluation(found, judged)


def judge(checkpoint: Checkpoint, line: str, views: Views) -> Judged:
    """What a checkpoint says of a line's pictures, already read: for many checkpoints on the same pictures."""
    state = _state_of(checkpoint, line)
    logits, features = predicted(checkpoint.network, state.statistics, views.images, checkpoint.preprocess)
    return Judged(views, logits, confidence(logits, state), features)


def _state_of(checkpoint: Checkpoint, line: str) -> LineState:
    return checkpoint.lines.get(line, checkpoint.line("original"))


def figures_of(judged: Judged, *, boundary: float, rounds: int = ROUNDS) -> dict[str, Any]:
    """AP, AUROC, precision and recall, by cells where any picture says where its defect is, else by pictures.

    Scores are logits, so that saturated confidences do not become ties; of several classes the largest
    counts.  Padding is left out, and of a picture that is known as a whole only its maximum is a unit.

    Args:
        judged: Of one line.
        boundary: Confidence at which precision and recall are stated, in (0, 1).
        rounds: Of the bootstrap; 0 for no interval.

    Returns:
        ``ap`` with its 95 % bootstrap interval over groups, ``auroc``, ``precision``, ``recall``, ``n``
        pictures, ``unit``; of whole pictures, by their strongest cell, ``picture_ap``, ``picture_auroc`` and
        ``balanced_accuracy`` at the boundary.  A figure that the pictures do not allow is ``None``.
    """
    views, scores = judged.views, judged.logits.max(axis=1)
    truth, known = views.truth.max(axis=1), views.known.max(axis=1)
    by_cells = bool((truth * known).any()) and truth[0].size > 1
    sure = judged.confidence.max(axis=1)
    # a view without a valid cell is a tile of nothing but padding
    strongest = [
        (scores[n][views.valid[n]].max(initial=-np.inf), float(views.defective[n]),
         sure[n][views.valid[n]].max(initial=-np.inf))
        for n in range(len(views))
    ]  # fmt: skip
    of = views.pictures
    members = [np.flatnonzero(of == one) for one in range(int(of.max(initial=-1)) + 1)]
    pictures = [tuple(np.array([max(strongest[n][part] for n in those)]) for part in range(3)) for those in members]
    pieces, units = pictures, [views.units[those[0]] for those in members]
    if by_cells:
        judged_cells: list[Bools] = [views.valid[n] & (known[n] > 0) for n in range(len(views))]
        pieces = [(scores[n][at], truth[n][at], sure[n][at]) for n, at in enumerate(judged_cells)]
        units = list(views.units)

    def precision_of(which: Array) -> float:
        return average_precision(*(np.concatenate([pieces[int(n)][part] for n in which]) for part in (0, 1)))

    found: dict[str, Any] = {
        "ap": None,
        "ap_low": None,
        "ap_high": None,
        "auroc": None,
        "precision": None,
        "recall": None,
        "picture_ap": None,
        "picture_auroc": None,
        "balanced_accuracy": None,
        "n": len(pictures),
        "unit": "cells" if by_cells else "pictures",
    }
    if not pieces:
        return found
    all_scores, all_truth, all_sure = (np.concatenate([one[part] for one in pieces]) for part in range(3))
    if not all_truth.any():
        return found
    found["ap"] = _round(average_precision(all_scores, all_truth))
    found["auroc"] = _round(auroc(all_scores, all_truth))
    precision, recall = precision_recall_at(all_sure, all_truth, boundary)
    found["precision"], found["recall"] = _round(precision), _round(recall)
    score, defective, certain = (np.concatenate([one[part] for one in pictures]) for part in range(3))
    found["picture_ap"] = _round(average_precision(score, defective))
    found["picture_auroc"] = _round(auroc(score, defective))
    found["balanced_accuracy"] = _round(_balanced(certain >= boundary, defective > 0))
    if rounds and len(set(units)) > 1:
        interval = bootstrap_over_groups(precision_of, units, rounds=rounds)
        found["ap_low"], found["ap_high"] = _round(interval.low), _round(interval.high)
    return found


def _balanced(alarm: Array, defective: Array) -> float:
    """Mean of the shares that are right among defective and among healthy pictures; NaN of one kind alone."""
    if defective.all() or not defective.any():
        return float("nan")
    return float(alarm[defective].mean() + (~alarm[~defective]).mean()) / 2


def save_arrays(evaluation: Evaluation, folder: Path) -> None:
    """Write what pictures are made of: ``features.npz`` and ``cells.npz``, by line."""
    folder.mkdir(parents=True, exist_ok=True)
    features: dict[str, Array] = {}
    cells: dict[str, Array] = {}
    for name, one in evaluation.judged.items():
        common = {f"{name}_names": np.array(one.views.names), f"{name}_defective": one.views.defective}
        features |= common | {f"{name}_feature": one.features.astype(np.float32)}
        cells |= common | {
            f"{name}_confidence": one.confidence.astype(np.float16),
            f"{name}_logits": one.logits.astype(np.float32),
            f"{name}_truth": one.views.truth.astype(np.uint8),
            f"{name}_known": one.views.known.astype(np.uint8),
            f"{name}_valid": one.views.valid,
        }
    np.savez_compressed(folder / "features.npz", **features)  # type: ignore[arg-type]
    np.savez_compressed(folder / "cells.npz", **cells)  # type: ignore[arg-type]


def _round(value: float) -> float | None:
    return None if not np.isfinite(value) else round(float(value), 4)
