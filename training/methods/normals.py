"""Training on a labelled original line and a new line's normals: what the methods for lines without defects share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from edge_sdk.errors import ConfigError, DatasetError
from training.checkpoint import FACTORY, LineState
from training.data.frozen import Feed
from training.data.streams import Batch
from training.data.views import batches_of, views_of
from training.fitting import Terms, fit
from training.lines import calibrated, line_state
from training.methods.task import Task
from training.moments import moments_of, statistics_from
from training.networks.cellnet import CellNetwork
from training.networks.referenced import normal_rows
from training.statistics import Statistics, estimated, statistics_of
from training.team import team

__all__ = ["Losses", "Pair", "Transferred", "by_normals", "check_trainable", "fitted_to_both", "home_state", "mixture"]

MIXED = 96
"""Pictures of each kind that a joint normalisation is measured on."""


@dataclass(frozen=True, eq=False)
class Transferred:
    """What a method makes of a labelled original line and a new line's normals."""

    network: CellNetwork
    original: LineState
    """What belongs to the original line with these weights."""
    statistics: Statistics
    """Of the new line."""
    history: tuple[Mapping[str, float], ...] = ()
    """The loss terms of each step; nothing where nothing was trained."""
    factory: str = FACTORY
    """What makes the network."""
    notes: tuple[str, ...] = field(default=())
    """What a user should be told, a sentence each."""


@dataclass(frozen=True, eq=False)
class Pair:
    """A step's batch: two parts of the original line to one of the new one's normals, so normals, defects and the new
    line's normals come in equal parts."""

    here: Batch
    here_maps: Tensor
    there: Batch
    there_maps: Tensor


Losses = Callable[[Pair, np.random.Generator], Terms]
"""From a step's batch, and what to draw with, to its terms."""


def check_trainable(task: Task, *, normals: bool = False) -> None:
    """Whether there is what a training on both lines needs.

    Args:
        task: Its ``new`` are the new line's normals.
        normals: Healthy pictures of the original line are needed.

    Raises:
        ConfigError: Several processes work together, which no method here takes part in.
        DatasetError: The new line has fewer than two normals, or the original lacks a kind.
    """
    if team().size > 1:
        raise ConfigError("transfer trains in one process; start it without torchrun")
    if task.new.count < 2:
        raise DatasetError(
            f"the new line has {task.new.count} normal pictures; give at least 2 to train with, better 30"
        )
    if not task.original.defective.any():
        raise DatasetError("the original line shows no defect, so there is none to transfer; label some")
    if normals and task.original.defective.all():
        raise DatasetError(
            "the original line has no healthy picture, and its normals are what it is normalised by; add some, or take "
            "another method"
        )


def fitted_to_both(
    task: Task, name: str, network: CellNetwork, losses: Losses, *, joint: bool, rate: float
) -> tuple[Mapping[str, float], ...]:
    """Train a network in place on both lines; the loss terms of each step.

    Args:
        task: Its ``new`` are the new line's normals.
        name: Of the method.
        network: To train.
        losses: Of each step.
        joint: One batch of both lines through the network, so that a normalisation sees their mixture; else each line
            is a batch of its own, of which a normal-referenced normalisation sees the normals.
        rate: Highest learning rate.
    """
    recipe, spec = task.recipe, task.checkpoint.preprocess
    chance = np.random.default_rng([recipe.seed, 11])
    half = recipe.model_copy(update={"batch": max(2, recipe.batch // 2)})
    here = Feed(network, task.original, spec, recipe, chance)
    there = Feed(network, task.new, spec, half, chance, balanced=False)

    def step(_: float) -> Terms:
        one, other = here.drawn(), there.drawn()
        if joint and not network.frozen:
            maps = network.features(torch.cat([one.frame, other.frame]))
            return losses(Pair(one, maps[: len(one.frame)], other, maps[len(one.frame) :]), chance)
        with normal_rows(network, ~_defective(one)):
            mine = here.last_map(network, one)
        with normal_rows(network, torch.ones(len(other.frame), dtype=torch.bool)):
            theirs = there.last_map(network, other)
        return losses(Pair(one, mine, other, theirs), chance)

    history = fit(
        {"network": network},
        step,
        iterations=recipe.iterations,
        rate=rate,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=task.resume,
        told=task.told(name),
        progress=lambda done, steps, terms: task.progress(name, done, steps, terms),
        measure_every=0,
    )
    return tuple(history)


def by_normals(network: CellNetwork, task: Task) -> tuple[Statistics, Statistics]:
    """Statistics of the original line and of the new one, each of its own normals; a frozen trunk keeps its own."""
    if network.frozen:
        return statistics_of(network), statistics_of(network)
    spec = task.checkpoint.preprocess
    normals = task.original.taken(~task.original.defective)
    return tuple(  # type: ignore[return-value]  # of two
        statistics_from(moments_of(network, batches_of(one.images, spec, flips=True)), network)
        for one in (normals, task.new)
    )


def mixture(network: CellNetwork, task: Task) -> Statistics:
    """Statistics of both lines' pictures in the parts that they are trained in; a frozen trunk keeps its own."""
    if network.frozen:
        return statistics_of(network)
    chance = np.random.default_rng([task.recipe.seed, 12])
    kinds = [task.original.images[task.original.defective], task.original.images[~task.original.defective]]
    drawn = [one[chance.integers(0, len(one), MIXED)] for one in (*kinds, task.new.images) if len(one)]
    images = np.concatenate(drawn)[chance.permutation(len(drawn) * MIXED)]
    return estimated(network, batches_of(images, task.checkpoint.preprocess, flips=True))


def home_state(task: Task, network: CellNetwork, statistics: Statistics, *, method: str) -> LineState:
    """What belongs to the original line under these statistics: calibrated on its part validate, or a fixed band."""
    spec, grid = task.checkpoint.preprocess, task.checkpoint.grid
    held_out = views_of(task.line, task.line.validate, spec, grid=grid, labelled=True)
    sure = calibrated(network, statistics, held_out, spec)
    return line_state(network, statistics, task.original.images, spec, method=method, certainty=sure)


def _defective(batch: Batch) -> Tensor:
    """``(N,)`` bool: pictures that show a defect somewhere."""
    return (batch.truth.amax((1, 2, 3)) > 0) | (batch.maximum.amax(1) > 0)
