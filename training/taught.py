"""What a strategy trains on of the new line: answered pictures, pseudo-labels or labels.

``retrain`` asks here; the rest of it is the same for all strategies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from edge_sdk.answers import MentoredRow
from edge_sdk.arrays import Bools, Floats, Image
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, read_picture
from training.answers import Mentored
from training.checkpoint import Checkpoint, LineState
from training.data.tiles import grid_of
from training.data.views import Views, unlabelled, views_of
from training.lines import confidence, predicted
from training.strategies import Strategy
from training.truth import standing_answers, truth_and_mentored

__all__ = ["new_data", "pseudo_labels", "state_of", "teaching_no_tile"]


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
    core = True if views.tiles is None else views.tiles.cores[:, None]
    whole = replace(views, truth=truth, known=np.ones_like(truth) * core, defective=defective)
    return whole.taken(whole.shown_defective[whole.pictures]) if defective.any() else whole


def _taught(baseline: Checkpoint, mentored: Mentored, strategy: Strategy) -> Views:
    """The pictures on which an answer or the line says something, with what it says."""
    spec, grid, classes = baseline.preprocess, baseline.grid, baseline.classes
    truths: list[Floats] = []
    knowns: list[Floats] = []
    maxima: list[Floats] = []

    def answered() -> Iterator[tuple[Image, str, str]]:
        for row in mentored.rows:
            answers = mentored.answers.get(row.item, ())
            flagged = strategy.healthy and row.header.reason == "healthy"
            if not (flagged or standing_answers(answers)):
                continue
            picture = read_picture(mentored.root / row.picture)
            whole = grid_of(spec, picture.shape[0], picture.shape[1], grid)
            said = _confidence(mentored.root, row, (len(classes), *whole)) if strategy.omnia else None
            truth, known, maximum = truth_and_mentored(
                row.header, answers, classes=classes, grid=whole, strategy=strategy, baseline=said
            )
            truths.append(truth)
            knowns.append(known)
            maxima.append(maximum)
            yield picture, row.item, row.item

    views = unlabelled(answered(), spec, grid=grid, classes=len(classes))
    taught = views.told(truths, knowns, maxima) if truths else views
    if not len(taught):
        tiles = "; and of a picture cut into tiles, confirmed as a whole, nothing says which tile is defective"
        raise DatasetError(
            f"no answer in {mentored.root} says anything (all unsure or withdrawn, or none given"
            f"{tiles if truths else ''}); answer some questions and export again"
        )
    return taught


def teaching_no_tile(baseline: Checkpoint, mentored: Mentored) -> int:
    """Pictures that were confirmed as a whole, which teach a network of tiles nothing: which one shows the defect
    nobody said."""
    if baseline.preprocess.tile_overlap_px is None:
        return 0
    whole = (
        any(one.question is None and one.answer == "confirm" for one in standing_answers(given))
        for given in mentored.answers.values()
    )
    return sum(whole)


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
