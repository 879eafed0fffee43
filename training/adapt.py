"""Adaptation to a new line from its unlabelled pictures: which method, and whether to adapt at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Dataset, Line, Lines
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views, views_of
from training.lines import boundary_logits, line_state, predicted, uncalibrated
from training.methods import METHODS, Adapted, Task
from training.methods.task import measured_again
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.rules import Decision, Scores, candidates, decide_method, facts_of, noise_of, scores_of
from training.statistics import Statistics
from training.train import Progress, quiet

__all__ = ["Adaptation", "adapt"]

ENOUGH = 16
"""Fewer held-out original pictures than this, and those it was trained on are compared with too."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What came of adapting."""

    chosen: Checkpoint
    """With the line ``new`` (or the name asked for) as the rules decided, or as was asked."""
    methods: Mapping[str, Checkpoint]
    """The same for every method tried, to be evaluated side by side; ``source`` is always there."""
    decision: Decision
    histories: Mapping[str, Sequence[Mapping[str, float]]]
    """By method the loss terms of each step; nothing where nothing was trained."""
    held: Views
    """Unlabelled pictures of the new line that no method saw before the decision: the rules looked at these."""
    reference: Views
    """Pictures of the original line to compare them with, labelled; held out where there are enough."""
    held_out: int
    """The first so many of ``reference`` are of part validate; the rest was trained on."""


def adapt(
    checkpoint: Checkpoint,
    dataset: Dataset,
    lines: Lines,
    recipe: Recipe,
    *,
    methods: Sequence[str] | None = None,
    name: str = "new",
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Adaptation:
    """Adapt to a new line without labels.

    The unlabelled pictures are halved: the methods adapt to one half, the label-free rules look at the
    other.  With no method named the candidates of the rules are tried and the rules choose; with one
    named it is taken, with the rules' opinion beside it; with several the rules choose among those.
    The statistics of every method are then measured on all unlabelled pictures.

    Args:
        checkpoint: Of the original line.
        dataset: As read.
        lines: Its roles and parts; of the new line ``train`` alone is looked at.
        recipe: Iterations, rate and seed.
        methods: Names of ``training.methods.METHODS``, or nothing.
        name: Of the new line.
        resume: File that keeps the state of a training under way; each method puts its name before the suffix.
        progress: Told of every step.

    Raises:
        DatasetError: The new line has fewer than two pictures to adapt to.
        ConfigError: There is no method of that name.
    """
    tried = _tried(methods, checkpoint)
    spec, grid = checkpoint.preprocess, checkpoint.grid
    line = lines.line(name)
    if len(line.train) < 2:
        raise DatasetError(
            f"line {name} has {len(line.train)} unlabelled pictures in part train; give at least 2, better 30"
        )
    new = _unlabelled(line, "train", checkpoint, progress)
    first, held = _halves(new, seed=recipe.seed)
    original = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    validation = views_of(lines.original, lines.original.validate, spec, grid=grid, labelled=True)
    reference = validation if validation.count >= ENOUGH else validation.joined(original)

    found: dict[str, Adapted] = {}
    facts = {}
    noise = 0.0
    for method in tried:
        kept = None if resume is None else resume.with_name(f"{resume.stem}.{method}{resume.suffix}")
        task = Task(checkpoint, lines.original, original, first, recipe, kept, progress)
        one = found[method] = METHODS[method](task)
        there = _scores(one.network, one.statistics, held, checkpoint)
        here = _scores(one.network, one.original.statistics, reference, checkpoint, labelled=True)
        facts[method] = replace(facts_of(here, there), kept=_kept(here, one.original))
        if method == "source":
            noise = noise_of(here, held.count, seed=recipe.seed)
    decision = decide_method(facts, noise=noise, order=[method for method in tried if method != "source"])
    if methods is not None and len(methods) == 1:
        decision = replace(
            decision,
            method=methods[0],
            advised=decision.method,
            why=f"{methods[0]} as asked; the rules would take {decision.method}: {decision.why}",
        )
    made = {method: _checkpoint_of(method, one, new, checkpoint, recipe, name) for method, one in found.items()}
    return Adaptation(
        chosen=made[decision.method],
        methods=made,
        decision=decision,
        histories={method: one.history for method, one in found.items()},
        held=held,
        reference=reference,
        held_out=validation.count,
    )


def _tried(methods: Sequence[str] | None, checkpoint: Checkpoint) -> list[str]:
    """``source`` first, then what was asked for or what the rules choose among."""
    head = "classifier" if checkpoint.grid == (1, 1) else "cells"
    asked = candidates(head, frozen=checkpoint.network.frozen) if methods is None else methods
    for method in asked:
        if method not in METHODS:
            raise ConfigError(f"there is no method named {method!r}; give one of {', '.join(METHODS)}")
    if not asked:
        raise ConfigError(f"no method is named; give one or more of {', '.join(METHODS)}, or leave it to the rules")
    return list(dict.fromkeys(["source", *asked]))


def _checkpoint_of(
    method: str, found: Adapted, new: Views, checkpoint: Checkpoint, recipe: Recipe, name: str
) -> Checkpoint:
    statistics = measured_again(found, new, checkpoint)
    sure = uncalibrated(found.original)
    state = line_state(
        found.network, statistics, new.images, checkpoint.preprocess, method=method, certainty=sure
    )
    if name in checkpoint.lines:  # adapted anew, the weights still know the answers that trained them
        state = replace(state, trained_on=checkpoint.lines[name].trained_on)
    told = {**checkpoint.recipe, **recipe.model_dump(mode="json")}
    whole = replace(checkpoint, network=found.network, recipe=told)
    return whole.with_line("original", found.original).with_line(name, state)


def _unlabelled(line: Line, part: str, checkpoint: Checkpoint, progress: Progress) -> Views:
    samples = line.part(part)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("read pictures", done, len(samples), {})

    return views_of(line, samples, checkpoint.preprocess, grid=checkpoint.grid, labelled=False, step=step)


def _halves(views: Views, *, seed: int) -> tuple[Views, Views]:
    """Whole units by lot: one half to adapt to, one to look at."""
    units = sorted(set(views.units))
    if len(units) < 2:
        units = list(dict.fromkeys(views.names))
        of = np.array(views.names)
    else:
        of = np.array(views.units)
    order = np.random.default_rng([seed, 2]).permutation(len(units))
    chosen = {units[n] for n in order[: (len(units) + 1) // 2]}
    mine = np.array([unit in chosen for unit in of])
    return views.taken(mine), views.taken(~mine)


def _kept(here: Scores, home: LineState) -> float | None:
    """Balanced accuracy of pictures of the original line at its own boundary, which is no probability of 0.5."""
    defective = here.defective
    if defective is None or defective.all() or not defective.any():
        return None
    said = replace(here, logits=here.logits - boundary_logits(home)[None, :, None, None]).maxima >= 0
    return float(said[defective].mean() + (~said[~defective]).mean()) / 2


def _scores(
    network: CellNetwork, statistics: Statistics, views: Views, checkpoint: Checkpoint, *, labelled: bool = False
) -> Scores:
    return scores_of(views, *predicted(network, statistics, views.images, checkpoint.preprocess), labelled=labelled)
