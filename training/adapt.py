"""Adaptation to a new line from its unlabelled pictures: AdaBN, DANN, and whether to adapt at all."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Line, Lines
from training.checkpoint import Checkpoint, LineState
from training.data.streams import Stream
from training.data.views import Views, batches_of, views_of
from training.fitting import Terms, fit
from training.lines import line_state, predicted, uncalibrated
from training.losses.adversarial import DomainSegmenter, adversarial_loss, ganin_weight
from training.losses.supervised import supervised_loss
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.rules import Decision, Scores, decide_method, facts_of, noise_of
from training.statistics import Statistics, estimated, load_statistics
from training.train import Progress, original_state, quiet

__all__ = ["Adaptation", "adapt", "dann"]

ENOUGH = 16
"""Fewer held-out original pictures than this, and those it was trained on are compared with too."""


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What came of adapting."""

    chosen: Checkpoint
    """With the line ``new`` (or the name asked for) as the rules decided."""
    methods: Mapping[str, Checkpoint]
    """The same for every method, to be evaluated side by side."""
    decision: Decision


def adapt(
    checkpoint: Checkpoint,
    dataset: Dataset,
    lines: Lines,
    recipe: Recipe,
    *,
    name: str = "new",
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Adaptation:
    """Adapt to a new line without labels; what is taken is what the label-free rules choose.

    The unlabelled pictures are halved: the methods adapt to one half, the rules look at the other.
    The statistics of the method that is taken are then measured on all of them.

    Args:
        checkpoint: Of the original line.
        dataset: As read.
        lines: Its roles and parts; of the new line ``train`` alone is looked at.
        recipe: Iterations, rate and seed.
        name: Of the new line.
        resume: File that keeps the state of the adversarial training.
        progress: Told of every step.

    Raises:
        DatasetError: The new line has fewer than two pictures to adapt to.
    """
    spec, grid = checkpoint.preprocess, checkpoint.grid
    line = lines.line(name)
    if len(line.train) < 2:
        raise DatasetError(
            f"line {name} has {len(line.train)} unlabelled pictures in part train; give at least 2, better 30"
        )
    new = _unlabelled(line, "train", checkpoint, progress)
    first, held = _halves(new, seed=recipe.seed)
    original = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    reference = _unlabelled(lines.original, "validate", checkpoint, progress)
    if len(reference) < ENOUGH:
        reference = _joined(reference, original)
    base = checkpoint.network
    home = checkpoint.line("original")

    trained, home_of_dann = dann(
        checkpoint, lines.original, original, first, recipe, resume=resume, progress=progress
    )
    candidates: dict[str, tuple[CellNetwork, Statistics, LineState]] = {
        "source": (base, home.statistics, home),
        "adabn": (base, estimated(base, batches_of(first.images, spec, flips=True)), home),
        "dann": (trained, _fresh(trained, first, home_of_dann.statistics, checkpoint), home_of_dann),
    }
    facts = {}
    noise = 0.0
    for method, (network, statistics, at_home) in candidates.items():
        there = _scores(network, statistics, held, checkpoint)
        here = _scores(network, at_home.statistics, reference, checkpoint)
        facts[method] = facts_of(here, there)
        if method == "source":
            noise = noise_of(here, len(held), seed=recipe.seed)
    decision = decide_method(facts, noise=noise)
    methods = {}
    for method, (network, statistics, at_home) in candidates.items():
        if method == "adabn":
            statistics = estimated(network, batches_of(new.images, spec, flips=True))
        elif method == "dann":
            statistics = _fresh(network, new, at_home.statistics, checkpoint)
        band = uncalibrated(at_home.thresholds)
        state = line_state(network, statistics, new.images, spec, method=method, thresholds=band)
        whole = replace(checkpoint, network=network, recipe={**checkpoint.recipe, **recipe.model_dump(mode="json")})
        methods[method] = whole.with_line("original", at_home).with_line(name, state)
    return Adaptation(methods[decision.method], methods, decision)


def dann(
    checkpoint: Checkpoint,
    line: Line,
    original: Views,
    new: Views,
    recipe: Recipe,
    *,
    resume: Path | None = None,
    progress: Progress = quiet,
) -> tuple[CellNetwork, LineState]:
    """Domain-adversarial training with a domain segmenter, from the source weights at a quarter of the rate.

    Each line is a batch of its own, so each is normalised by its own statistics; a joint batch from
    which one normalisation takes its statistics collapsed.

    Args:
        checkpoint: Of the original line.
        line: The original one, whose thresholds are calibrated anew.
        original: Its labelled pictures.
        new: Unlabelled ones of the new line.
        recipe: Iterations, rate and seed.
        resume: File that keeps the state of a training under way.
        progress: Told of every step.

    Returns:
        The trained network, and what belongs to the original line with it.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.4.4.
    """
    torch.manual_seed(recipe.seed)
    network = copy.deepcopy(checkpoint.network)
    segmenter = DomainSegmenter(network.channels)
    chance = np.random.default_rng([recipe.seed, 1])
    spec = checkpoint.preprocess
    labelled = Stream(original, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance)
    unlabelled = Stream(new, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance, balanced=False)
    domain = torch.tensor([0] * recipe.batch + [1] * recipe.batch)

    def losses(done: float) -> Terms:
        here, there = labelled.next(), unlabelled.next()
        maps = network.features(here.frame)
        both = torch.cat([maps, network.features(there.frame)])
        return {
            "supervised": supervised_loss(
                network.head(maps), here.truth, here.known, here.maximum, shown=here.shown
            ),
            "domain": adversarial_loss(segmenter, both, domain, ganin_weight(done)),
        }

    load_statistics(network, checkpoint.line("original").statistics)
    fit(
        {"network": network, "segmenter": segmenter},
        losses,
        iterations=max(1, recipe.iterations // 2),
        rate=recipe.rate / 4,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"dann {recipe.model_dump_json()} {checkpoint.data.get('digest')}",
        progress=lambda step, steps, terms: progress("dann", step, steps, terms),
    )
    return network, original_state(network, line, original, spec, grid=checkpoint.grid, method="dann")


def _fresh(network: CellNetwork, views: Views, home: Statistics, checkpoint: Checkpoint) -> Mapping[str, Tensor]:
    """The new line's statistics; a frozen trunk keeps those it has."""
    if network.frozen:
        return home
    return estimated(network, batches_of(views.images, checkpoint.preprocess, flips=True))


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
        units = list(views.names)
        of = np.array(views.names)
    else:
        of = np.array(views.units)
    order = np.random.default_rng([seed, 2]).permutation(len(units))
    chosen = {units[n] for n in order[: (len(units) + 1) // 2]}
    mine = np.array([unit in chosen for unit in of])
    return _taken(views, mine), _taken(views, ~mine)


def _taken(views: Views, which: np.ndarray) -> Views:
    return Views(
        images=views.images[which],
        truth=views.truth[which],
        known=views.known[which],
        maximum=views.maximum[which],
        valid=views.valid[which],
        defective=views.defective[which],
        units=tuple(unit for unit, keep in zip(views.units, which, strict=True) if keep),
        names=tuple(name for name, keep in zip(views.names, which, strict=True) if keep),
    )


def _joined(one: Views, other: Views) -> Views:
    return Views(
        images=np.concatenate([one.images, other.images]),
        truth=np.concatenate([one.truth, other.truth]),
        known=np.concatenate([one.known, other.known]),
        maximum=np.concatenate([one.maximum, other.maximum]),
        valid=np.concatenate([one.valid, other.valid]),
        defective=np.concatenate([one.defective, other.defective]),
        units=one.units + other.units,
        names=one.names + other.names,
    )


def _scores(network: CellNetwork, statistics: Statistics, views: Views, checkpoint: Checkpoint) -> Scores:
    logits, features = predicted(network, statistics, views.images, checkpoint.preprocess)
    return Scores(logits, features, views.valid)
