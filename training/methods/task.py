"""What every adaptation method is given, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.quality.datasets import Line
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views, batches_of
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.statistics import Statistics, estimated, with_statistics
from training.train import Progress, quiet

__all__ = ["Adapted", "Method", "Task", "measured_again"]


@dataclass(frozen=True, eq=False)
class Task:
    """A trained original line, and a new line that shows pictures without labels."""

    checkpoint: Checkpoint
    """Of the original line; no method changes it."""
    line: Line
    """The original one, whose thresholds are calibrated anew where its weights change."""
    original: Views
    """Its labelled training pictures."""
    new: Views
    """Pictures of the new line; nothing is known of them."""
    recipe: Recipe
    resume: Path | None = None
    """File that keeps the state of a training under way; a method with two stages adds a suffix."""
    progress: Progress = quiet

    def told(self, name: str) -> str:
        """What a method trains on what, as ``fit`` is told."""
        return f"{name} {self.recipe.model_dump_json()} {self.original.digest} {self.new.digest}"


@dataclass(frozen=True, eq=False)
class Adapted:
    """What a method makes of a task."""

    network: CellNetwork
    """With the weights that the lines share."""
    original: LineState
    """What belongs to the original line with these weights."""
    statistics: Statistics
    """Everything of the new line that overrides the weights, by name: by habit its normalisations."""
    history: Sequence[Mapping[str, float]] = ()
    """The loss terms of each step; nothing where nothing was trained."""
    measured: bool = True
    """Whether the normalisations in ``statistics`` were measured on the new pictures, so that more give better ones."""


Method = Callable[[Task], Adapted]


def measured_again(adapted: Adapted, views: Views, checkpoint: Checkpoint) -> Statistics:
    """The new line's tensors with its normalisations measured on these pictures; the others stay."""
    if not adapted.measured:
        return adapted.statistics
    with with_statistics(adapted.network, adapted.statistics):
        fresh = estimated(adapted.network, batches_of(views.images, checkpoint.preprocess, flips=True))
    return {**adapted.statistics, **fresh}
