"""Every row of a table on one fold: the product's own training, adapting and judging, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.adaptation.scored import Scored
from edge_sdk.quality.datasets import Dataset, Line, Lines
from training.adapt import adapt
from training.checkpoint import Checkpoint
from training.data.views import Views, views_of
from training.evaluate import Judged, judge
from training.health import health_of
from training.methods import METHODS
from training.recipe import Recipe
from training.train import train
from training.trunks import start_of

__all__ = ["BESIDE", "LABELLED", "TRUNKS", "Kept", "Task", "at_prior", "auto_trunk", "boundary_of", "cells_of",
           "oracle_lines", "pictures_of", "rows_of", "step_of"]  # fmt: skip

TRUNKS = ("slim", "mobilenetv2")
"""From scratch, and frozen with ImageNet weights."""
LABELLED = ("oracle",)
"""Rows that saw target labels."""
BESIDE = ("default", "decided", "plain")
"""Rows that are no method by name, and so never the best row."""


@dataclass(frozen=True)
class Task:
    """One new line for a source model: a gap with a share of defects among the unlabelled pictures."""

    name: str
    lines: Lines
    judging: Lines
    prior: float | None = None
    """Of defects among the unlabelled pictures; ``None``: as they come."""
    cells: bool = False
    """Whether cells are judged too: the set has masks."""
    oracle: bool = True
    """Whether a network is trained on the new line's own labels."""
    plain: bool = False
    """Whether a source without photometric jitter stands beside."""
    others: Sequence[str] | None = None
    """Methods beside those that the rules try; ``None``: every one."""


@dataclass
class Kept:
    """Models of one fold by trunk and by what they learnt from, trained once for all tasks that ask for them.

    The oracle of one direction is the source of the other.
    """

    dataset: Dataset
    recipe: Recipe
    made: dict[tuple[str, tuple[str, ...], str | None, bool], Checkpoint] = field(default_factory=dict)

    def source(self, lines: Lines, trunk: str, *, jitter: bool = True) -> Checkpoint:
        """Trained on these lines' original pictures."""
        key = trunk, tuple(sample.image for sample in lines.original.train), lines.original.gap, jitter
        if key not in self.made:
            changed = {"trunk": trunk, "jitter": jitter}
            self.made[key] = train(self.dataset, lines, self.recipe.model_copy(update=changed))
        return self.made[key]


def auto_trunk(recipe: Recipe) -> str:
    """The trunk that training takes where none is named."""
    start = start_of(recipe.model_copy(update={"trunk": "auto"}), classes=1, pooled=False)
    return TRUNKS[0] if start.weights is None else TRUNKS[1]


def step_of(tasks: Sequence[Task], kept: Kept, adapting: Recipe, trunks: Sequence[str]) -> dict[str, Any]:
    """Every task with every trunk.

    Returns:
        By trunk the tasks' ``rows_of``, and as ``auto`` by task the trunk that the recommended default takes; of one
        trunk there is nothing to choose.
    """
    taken = auto_trunk(kept.recipe) if len(trunks) > 1 else trunks[0]
    found = {trunk: {task.name: rows_of(task, kept, adapting, trunk) for task in tasks} for trunk in trunks}
    return {**found, "auto": {task.name: taken for task in tasks}}


def rows_of(task: Task, kept: Kept, adapting: Recipe, trunk: str) -> dict[str, Any]:
    """Train, adapt in every way, and judge the new line's test part.

    Args:
        task: With the lines to learn from and to judge on.
        kept: Of this fold.
        adapting: Recipe of the adaptation.
        trunk: Of the source.

    Returns:
        ``rows``: by name ``pictures`` and ``cells`` as ``Scored`` documents, ``default`` as it reaches the line and
        ``decided`` as the rules would have it without the health panel; ``original``: the same of the source model
        on its own line; ``decision``, ``ship`` of the health panel and the CPU ``seconds``.
    """
    began = time.process_time()
    lines = task.lines if task.prior is None else _with_prior(task.lines, task.prior, seed=adapting.seed)
    source = kept.source(lines, trunk)
    default = adapt(source, kept.dataset, lines, adapting)
    wanted = METHODS if task.others is None else task.others
    others = [name for name in wanted if name not in default.methods]
    found = dict(default.methods)
    if others:
        found |= adapt(source, kept.dataset, lines, adapting, methods=others).methods
    verdict = health_of(default).verdict
    # what the panel refuses does not reach the line; the model that is there stays
    shipped = default.chosen if verdict.ship else default.methods["source"]
    found = {name: found[name] for name in METHODS if name in found} | {"default": shipped, "decided": default.chosen}
    if task.plain:
        found["plain"] = kept.source(lines, trunk, jitter=False)
    new = task.judging.new[0]
    views = _views(source, new)
    once = {id(one): _judged(judge(one, "new", views), one, "new", task) for one in found.values()}
    rows = {name: once[id(one)] for name, one in found.items()}
    if task.oracle:
        own = kept.source(oracle_lines(task.lines), trunk)
        rows["oracle"] = _judged(judge(own, "original", _views(own, new)), own, "original", task)
    at_home = judge(source, "original", _views(source, task.judging.original))
    return {
        "rows": rows,
        "original": _judged(at_home, source, "original", task),
        "decision": default.decision.document(),
        "ship": verdict.ship,
        "seconds": round(time.process_time() - began, 1),
    }


def pictures_of(judged: Judged, *, boundary: float) -> Scored:
    """Of each picture its surest cell's logit; groups as the set has them."""
    views = judged.views
    shown = np.where(views.valid[:, None], judged.logits, -np.inf)
    return Scored(shown.max(axis=(1, 2, 3)), views.defective.astype(int), views.units, boundary)


def cells_of(judged: Judged) -> Scored:
    """Every cell that shows the picture and whose truth is known; a cell belongs to its picture's group."""
    views = judged.views
    where = views.valid & (views.known.max(axis=1) > 0)
    groups = [unit for unit, count in zip(views.units, where.sum(axis=(1, 2)), strict=True) for _ in range(count)]
    return Scored(judged.logits.max(axis=1)[where], views.truth.max(axis=1)[where].astype(int), tuple(groups))


def at_prior(line: Line, prior: float, *, seed: int) -> Line:
    """The line with another share of defects among its unlabelled pictures.

    Defective pictures too many are left out; where there are too few, those there are come again.  Healthy ones
    stay as they are.

    Args:
        line: Whose part train is meant; its labels are asked here and shown to no method.
        prior: Share of defective pictures, in [0, 1).
        seed: Of the draw.
    """
    healthy = [sample for sample in line.train if sample.healthy]
    defective = [sample for sample in line.train if sample.healthy is False]
    wanted = round(prior / (1 - prior) * len(healthy))
    order = np.random.default_rng([seed, 7]).permutation(len(defective))
    drawn = [defective[order[n % len(order)]] for n in range(wanted)] if defective else []
    return replace(line, train=(*healthy, *drawn))


def oracle_lines(lines: Lines) -> Lines:
    """The new line as if it were the original one: with its labels."""
    own = lines.new[0]
    train_on = tuple(sample for sample in own.train if sample.healthy is not None)
    validated = tuple(sample for sample in own.validate if sample.healthy is not None)
    return replace(lines, original=replace(own, name="original", train=train_on, validate=validated))


def _with_prior(lines: Lines, prior: float, *, seed: int) -> Lines:
    return replace(lines, new=(at_prior(lines.new[0], prior, seed=seed), *lines.new[1:]))


def _views(checkpoint: Checkpoint, line: Line) -> Views:
    return views_of(line, line.test, checkpoint.preprocess, grid=checkpoint.grid, labelled=True)


def boundary_of(checkpoint: Checkpoint, line: str) -> float:
    """Logit from which a line's engine calls a picture defective."""
    from training.lines import boundary_logits

    return float(boundary_logits(checkpoint.lines.get(line, checkpoint.line("original"))).min())


def _judged(judged: Judged, checkpoint: Checkpoint, line: str, task: Task) -> Mapping[str, object]:
    at = boundary_of(checkpoint, line)
    found: dict[str, object] = {"pictures": pictures_of(judged, boundary=at).document()}
    if task.cells:
        found["cells"] = cells_of(judged).document()
    return found


