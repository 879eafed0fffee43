"""Several new lines at once: one model for all of them, against an engine a line.

The colour-gap paper claims a single set of weights for all domains, the rest of this package gives each line
statistics of its own.  A table can call both on the same pictures: this, and ``adapt`` line by line.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from pathlib import Path

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Lines
from training.checkpoint import Checkpoint
from training.data.views import Views, views_of
from training.lines import calibrated, line_state, uncalibrated
from training.methods import METHODS, Task
from training.recipe import Recipe
from training.train import Progress, quiet

__all__ = ["adapt_jointly"]


def adapt_jointly(
    checkpoint: Checkpoint,
    lines: Lines,
    recipe: Recipe,
    *,
    method: str = "adabn",
    with_original: bool = False,
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Adapt to the union of all new lines: every one gets the same weights and the same statistics.

    Args:
        checkpoint: Of the original line.
        lines: Original pictures with labels; of every new line ``train`` without.
        recipe: Iterations, rate and seed.
        method: A name of ``training.methods.METHODS``; its statistics, discriminator or alignment see the union.
        with_original: The original line is in the union too and is judged by the same tensors: a single set
            of weights in the paper's sense.  Without it the original line keeps its own statistics.
        resume: File that keeps the state of a training under way.
        progress: Told of every step.

    Returns:
        The checkpoint with every line of ``lines``.

    Raises:
        ConfigError: There is no method of that name, or no new line.
        DatasetError: A new line has no unlabelled picture, or all have fewer than two.
    """
    if method not in METHODS:
        raise ConfigError(f"there is no method named {method!r}; give one of {', '.join(METHODS)}")
    if not lines.new:
        raise ConfigError("there is no new line; name the domains of one or more")
    spec, grid = checkpoint.preprocess, checkpoint.grid
    for line in lines.new:
        if not line.train:
            raise DatasetError(f"line {line.name} has no unlabelled pictures in part train; give some, better 30")
    seen = [views_of(line, line.train, spec, grid=grid, labelled=False) for line in lines.new]
    if sum(len(views) for views in seen) < 2:
        raise DatasetError("the new lines have 1 unlabelled picture together; give at least 2, better 30 of each")
    original = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    union = reduce(Views.joined, seen)
    if with_original:
        union = union.joined(views_of(lines.original, lines.original.train, spec, grid=grid, labelled=False))
    found = METHODS[method](Task(checkpoint, lines.original, original, union, recipe, resume, progress))
    network, home = found.network, found.original
    if with_original:
        validation = views_of(lines.original, lines.original.validate, spec, grid=grid, labelled=True)
        sure = calibrated(network, found.statistics, validation, spec)
        home = line_state(network, found.statistics, original.images, spec, method=method, certainty=sure)
    told = {**checkpoint.recipe, **recipe.model_dump(mode="json")}
    whole = replace(checkpoint, network=network, recipe=told).with_line("original", home)
    for line, views in zip(lines.new, seen, strict=True):
        state = line_state(
            network, found.statistics, views.images, spec, method=method, certainty=uncalibrated(home)
        )
        whole = whole.with_line(line.name, state)
    return whole
