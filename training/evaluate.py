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
    """``{ap, ap_low, ap_high, auroc, precision, recall, n, unit}`` by line."""
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
        pictures, ``unit``.  A figure that the pictures do not allow is ``None``.
    """
    views, scores = judged.views, judged.logits.max(axis=1)
    truth, known = views.truth.max(axis=1), views.known.max(axis=1)
    by_cells = bool((truth * known).any())
    pieces: list[tuple[Array, Array]] = []
    for n in range(len(views)):
        where: Bools = views.valid[n] & (known[n] > 0)
        if by_cells:
            pieces.append((scores[n][where], truth[n][where]))
        else:
            shown = scores[n][views.valid[n]]
            pieces.append((np.array([shown.max()]), np.array([float(views.defective[n])])))

    def gathered(which: Array) -> tuple[Array, Array]:
        chosen = [pieces[int(n)] for n in which]
        return np.concatenate([s for s, _ in chosen]), np.concatenate([t for _, t in chosen])

    def precision_of(which: Array) -> float:
        return average_precision(*gathered(which))

    found: dict[str, Any] = {
        "ap": None,
        "ap_low": None,
        "ap_high": None,
        "auroc": None,
        "precision": None,
        "recall": None,
        "n": len(views),
        "unit": "cells" if by_cells else "pictures",
    }
    if not pieces:
        return found
    everything = np.arange(len(pieces))
    all_scores, all_truth = gathered(everything)
    if not all_truth.any():
        return found
    found["ap"] = _round(average_precision(all_scores, all_truth))
    found["auroc"] = _round(auroc(all_scores, all_truth))
    at = float(np.log(boundary / (1 - boundary)))
    precision, recall = precision_recall_at(all_scores, all_truth, at)
    found["precision"], found["recall"] = _round(precision), _round(recall)
    if rounds and len(set(views.units)) > 1:
        interval = bootstrap_over_groups(precision_of, list(views.units), rounds=rounds)
        found["ap_low"], found["ap_high"] = _round(interval.low), _round(interval.high)
    return found


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
