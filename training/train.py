"""Source training: a network for the original line, from labelled pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Line, Lines, read_image, require_masks
from edge_sdk.vision.preprocess import PreprocessSpec
from training.checkpoint import Checkpoint, LineState
from training.data.frozen import Feed
from training.data.sides import check_sides
from training.data.views import Views, batches_of, views_of
from training.fitting import Terms, fit, loss_of
from training.lines import calibrated, line_state
from training.losses.supervised import supervised_loss
from training.networks.cellnet import CellNetwork, stride_of
from training.recipe import Recipe
from training.statistics import Statistics, estimated, statistics_of
from training.trunks import Start, start_of

__all__ = ["Progress", "original_state", "preprocess_of", "train"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, Mapping[str, float]], None]
"""What is being done, steps done, steps in all, the loss term by term."""


def quiet(what: str, step: int, steps: int, terms: Mapping[str, float]) -> None:
    """No progress shown."""


def train(
    dataset: Dataset,
    lines: Lines,
    recipe: Recipe,
    *,
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Train for the original line; the new line is not looked at.

    Args:
        dataset: As read.
        lines: Its roles and parts.
        recipe: Everything else.
        resume: File that keeps the state of a training under way.
        progress: Told of every step.

    Returns:
        A checkpoint with the line ``original``.

    Raises:
        DatasetError: Train has no defect or nothing healthy, or ``masks: required`` and one is missing.
        ConfigError: The trunk's weights are asked for and not there.
    """
    if recipe.masks == "required":
        require_masks(dataset)
    line = lines.original
    pooled = is_classifier(line, recipe)
    start, spec, grid, views = _prepared(line, recipe, len(dataset.classes), pooled, progress)
    if not views.defective.any():
        raise DatasetError(f"part train of {dataset.root} has no defective picture; label more, or choose another seed")
    if pooled and views.defective.all():
        raise DatasetError(
            f"part train of {dataset.root} has no healthy picture, and a classifier sees whole pictures; add some, "
            "or give head cells where masks say what is healthy"
        )
    if not ((views.known > 0) & views.valid[:, None]).any():
        raise DatasetError(
            f"part train of {dataset.root} has neither a healthy picture nor a mask, so nothing shows what healthy "
            "looks like; add some, or train a detector on its boxes: --head anchors"
        )
    network = start.network(recipe.seed)
    told = f"train {start.arguments['trunk']} {recipe.model_dump_json()} {views.digest}"
    history = _fitted(network, views, spec, recipe, "train", progress, resume=resume, told=told)
    state = original_state(network, line, views, spec, grid=grid, method="source")
    return Checkpoint(
        network=network,
        arguments=start.arguments,
        preprocess=spec,
        cell_px=spec.height // grid[0],
        classes=dataset.classes,
        lines={"original": state},
        recipe=recipe.model_dump(mode="json"),
        data=data_of(dataset, lines),
        figures={
            "loss_first": _mean(history[:10]),
            "loss_last": _mean(history[-10:]),
        },
    )


def _prepared(
    line: Line, recipe: Recipe, classes: int, pooled: bool, progress: Progress
) -> tuple[Start, PreprocessSpec, tuple[int, int], Views]:
    """What to start from, the network's input and cells, and the training pictures as it sees them."""
    start = start_of(recipe, classes=classes, pooled=pooled)
    spec = preprocess_of(line, recipe, pretrained=start.weights is not None, square=pooled)
    cell_px = spec.height if pooled else stride_of(start.network(recipe.seed))
    grid = spec.height // cell_px, spec.width // cell_px
    return start, spec, grid, _read(line, "train", spec, grid, progress)


def _fitted(
    network: CellNetwork,
    views: Views,
    spec: PreprocessSpec,
    recipe: Recipe,
    what: str,
    progress: Progress,
    *,
    resume: Path | None = None,
    told: str = "",
) -> list[dict[str, float]]:
    """Train a network in place on labelled pictures; the loss terms of each step."""
    chance = np.random.default_rng(recipe.seed)
    feed = Feed(network, views, spec, recipe, chance)

    def losses(_: float) -> Terms:
        batch, last = feed.next()
        cells = network.head(last)
        return {"supervised": supervised_loss(cells, batch.truth, batch.known, batch.maximum, shown=batch.shown)}

    return fit(
        {"network": network},
        losses,
        iterations=recipe.iterations,
        rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=told,
        progress=lambda step, steps, terms: progress(what, step, steps, terms),
    )


def original_state(
    network: CellNetwork,
    line: Line,
    views: Views,
    spec: PreprocessSpec,
    *,
    grid: tuple[int, int],
    method: str,
    statistics: Statistics | None = None,
) -> LineState:
    """What belongs to the original line once the weights stand.

    Its statistics are measured on its training pictures unless they are given, its temperature and thresholds fitted
    on its part validate.
    """
    if statistics is None and network.frozen:
        statistics = statistics_of(network)
    elif statistics is None:
        statistics = estimated(network, batches_of(views.images, spec, flips=True))
    held_out = views_of(line, line.validate, spec, grid=grid, labelled=True)
    certainty = calibrated(network, statistics, held_out, spec)
    return line_state(network, statistics, views.images, spec, method=method, certainty=certainty)


def is_classifier(line: Line, recipe: Recipe) -> bool:
    """Whether whole pictures are judged: as the recipe says, else where no training picture has a mask."""
    if recipe.head == "auto":
        return not any(sample.mask for sample in line.train)
    return recipe.head == "classifier"


def preprocess_of(line: Line, recipe: Recipe, *, pretrained: bool, square: bool = False) -> PreprocessSpec:
    """A network input of about ``side_px`` squared pixels in the usual ratio of the line's pictures, or square.

    Raises:
        DatasetError: There is no picture, or one is smaller than a cell.
    """
    check_sides(line.train)
    shapes = [read_image(sample).shape[:2] for sample in line.train[:16]]
    if not shapes:
        raise DatasetError("part train of the original line is empty; add pictures, or choose other domains")
    ratio = float(np.median([width / height for height, width in shapes]))
    ratio = 1.0 if square else min(4.0, max(0.25, ratio))
    across = max(32, 32 * round(recipe.side_px * ratio**0.5 / 32))
    down = max(32, 32 * round(recipe.side_px / ratio**0.5 / 32))
    if recipe.tile_overlap_px is not None:
        across = down = max(32, 32 * round(recipe.side_px / 32))
    spec = PreprocessSpec(
        width=across,
        height=down,
        sampling=recipe.sampling,
        defect_px=recipe.defect_px,
        tile_overlap_px=recipe.tile_overlap_px,
        shrink=recipe.shrink,
    )
    return replace(spec, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)) if pretrained else spec


def data_of(dataset: Dataset, lines: Lines) -> dict[str, Any]:
    """What a checkpoint says of the pictures it was made of."""
    return {
        "root": dataset.root.name,
        "digest": dataset.digest,
        "pictures": len(dataset.samples),
        "notes": list(lines.notes),
        "original": list(lines.original.domains),
        "new": [list(line.domains) for line in lines.new],
        "gap": lines.original.gap or (lines.new[0].gap if lines.new else None),
        "gap_on": "original" if lines.original.gap else "new",
    }


def _read(line: Line, part: str, spec: PreprocessSpec, grid: tuple[int, int], progress: Progress) -> Views:
    samples = line.part(part)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("read pictures", done, len(samples), {})

    return views_of(line, samples, spec, grid=grid, labelled=True, step=step)


def _mean(history: list[dict[str, float]]) -> float:
    return round(float(np.mean([loss_of(terms) for terms in history])), 6)
