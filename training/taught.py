"""What a strategy trains on of the new line: answered pictures, pseudo-labels or labels.

``retrain`` asks here; the rest of it is the same for all strategies.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_sdk.answers import MentoredRow
from edge_sdk.arrays import Bools
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, read_picture
from edge_sdk.vision.preprocess import fitted, valid_cells
from training.answers import Mentored
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views, views_of
from training.lines import confidence, predicted
from training.strategies import Strategy
from training.truth import standing_answers, truth_and_mentored

__all__ = ["new_data", "pseudo_labels", "state_of"]


def state_of(baseline: Checkpoint, name: str) -> LineState:
    """Of the line, or of the original one, as a station would use before anybody adapts."""
    return baseline.lines.get(name, baseline.line("original"))


def new_data(
    baseline: Checkpoint, line: Line, mentored: Mentored | Views | None, called: str, way: Strategy
) -> Views | None:
    """What the strategy trains on of the new line."""
    if not way.new_data:
        return None
    if way.asks:
        if mentored is None:
            raise DatasetError(f"strategy {called} needs answers; give the folder of a hub's export")
        return mentored if isinstance(mentored, Views) else _taught(baseline, mentored, way)
    if not line.mentor:
        raise DatasetError(f"line {line.name} has no pictures in part mentor; {called} has nothing to train on")
    spec, grid = baseline.preprocess, baseline.grid
    views = views_of(line, line.mentor, spec, grid=grid, labelled=way.known == "full")
    return views if way.known == "full" else pseudo_labels(baseline, views, line.name)


def pseudo_labels(baseline: Checkpoint, views: Views, name: str) -> Views:
    """Pseudo-labels: of the pictures where the baseline sees anything, all that it says is truth."""
    state = state_of(baseline, name)
    logits, _ = predicted(baseline.network, state.statistics, views.images, baseline.preprocess)
    boundary = state.thresholds.boundary.reshape(-1, 1, 1)
    truth = ((confidence(logits, state) >= boundary) & views.valid[:, None]).astype(np.float32)
    defective: Bools = np.asarray(truth.any(axis=(1, 2, 3)))
    whole = replace(views, truth=truth, known=np.ones_like(truth), defective=defective)
    return whole.taken(defective) if defective.any() else whole


def _taught(baseline: Checkpoint, mentored: Mentored, strategy: Strategy) -> Views:
    """The pictures on which an answer or the line says something, with what it says."""
    spec, grid, classes = baseline.preprocess, baseline.grid, baseline.classes
    images, truths, knowns, maxima, valids, names = [], [], [], [], [], []
    for row in mentored.rows:
        answers = mentored.answers.get(row.item, ())
        flagged = strategy.healthy and row.header.reason == "healthy"
        if not (flagged or standing_answers(answers)):
            continue
        said = _confidence(mentored.root, row, (len(classes), *grid)) if strategy.omnia else None
        truth, known, maximum = truth_and_mentored(
            row.header, answers, classes=classes, grid=grid, strategy=strategy, baseline=said
        )
        picture = read_picture(mentored.root / row.picture)
        images.append(fitted(picture, spec))
        valids.append(valid_cells(spec, picture.shape[0], picture.shape[1], grid))
        truths.append(truth)
        knowns.append(known)
        maxima.append(maximum)
        names.append(row.item)
    if not images:
        raise DatasetError(
            f"no answer in {mentored.root} says anything (all unsure or withdrawn, or none given); "
            "answer some questions and export again"
        )
    return Views(
        images=np.stack(images),
        truth=np.stack(truths),
        known=np.stack(knowns),
        maximum=np.stack(maxima),
        valid=np.stack(valids),
        defective=np.array([bool(truth.any() or top.any()) for truth, top in zip(truths, maxima, strict=True)]),
        units=tuple(names),
        names=tuple(names),
    )


def _confidence(root: Path, row: MentoredRow, shape: tuple[int, ...]) -> np.ndarray | None:
    """``shape``, what the model that asked said of each cell."""
    if row.confidence is None:
        return None
    try:
        found = np.asarray(np.load(root / row.confidence, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{root / row.confidence} cannot be read ({error}); export the hub again") from error
    if found.shape != shape:
        raise DatasetError(
            f"{root / row.confidence} is of shape {found.shape}, but the model's maps are {shape} (classes, rows, "
            "columns); retrain from the model that asked"
        )
    return found
