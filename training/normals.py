"""A new line from its normals: by their statistics alone, or trained beside the original line's defects.

What is tried is judged by an audit, a few labelled pictures of the new line, where there is one (``normals_choice``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.datasets import Line
from edge_sdk.quality.thresholds import ALPHA, enough_for, fixed_band, healthy_band
from edge_sdk.vision.decode import confidence_from_logits
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views
from training.detector import FACTORY as DETECTOR
from training.lines import Certainty, line_state, predicted, uncalibrated
from training.methods.contrastive import contrastive, contrastive_cross, contrastive_joint, triplet
from training.methods.left import direct, statistics
from training.methods.mixed import mixed, nrbn
from training.methods.normals import Transferred
from training.methods.task import Task
from training.moments import Moments, statistics_from
from training.normals_choice import Choice, chosen_by_audit, shared_pictures
from training.recipe import Recipe
from training.scorers.network import FACTORY as SCORER
from training.train import Progress, quiet

__all__ = ["DEFAULT", "FROZEN", "LEAST", "TRAINED", "TRANSFERS", "UNTRAINED", "Transfer", "candidates_of",
           "check_cells", "default_of", "transfer", "transfer_moments"]  # fmt: skip

TRANSFERS = {
    "source": direct,
    "statistics": statistics,
    "nrbn": nrbn,
    "contrastive": contrastive,
    "contrastive-cross": contrastive_cross,
    "contrastive-joint": contrastive_joint,
    "triplet": triplet,
    "mixed": mixed,
}
"""By the name that the command and results give it; the last is a baseline."""
UNTRAINED = ("source", "statistics")
"""Which need the new line's normals and nothing of the original line."""
DEFAULT = "statistics"
TRAINED = ("nrbn", "statistics", "contrastive", "mixed")
"""Of an encoder that learns, the best first."""
FROZEN = ("mixed", "contrastive")
"""Of a frozen trunk, where nrbn is mixed."""
LEAST = 2
"""Normals of a new line."""
KEPT_BACK = 3
"""One in so many normals sets the threshold and is not measured or trained on, if that makes enough of them."""
ODD = 6.0
"""A normal whose score lies so many times the usual deviation above the middle one is shown as odd."""


@dataclass(frozen=True, eq=False)
class Transfer:
    """What came of it."""

    chosen: Checkpoint
    """With the new line."""
    methods: Mapping[str, Checkpoint]
    """The same for every method tried."""
    method: str
    choice: Choice | None
    """What the audit said, if there was one."""
    odd: tuple[str, ...]
    """Normals that the chosen model thinks defective, far above the others: is there a defect on them?"""
    notes: tuple[str, ...]
    histories: Mapping[str, Sequence[Mapping[str, float]]]


def default_of(checkpoint: Checkpoint) -> str:
    """The method where none is named: of the line's statistics, unless the trunk is frozen.

    Normalisations of a pretrained trunk are part of what it knows; measured anew they rank worse than left alone
    (docs/explanation/lines-without-defects.md), so of such a line the threshold alone is taken.
    """
    return "source" if checkpoint.network.frozen else DEFAULT


def candidates_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Among which an audit chooses where no method is named, and the first of which it leaves for a good reason alone.

    The order is what the figures speak for (docs/explanation/lines-without-defects.md).
    """
    return FROZEN if checkpoint.network.frozen else TRAINED


def transfer(
    checkpoint: Checkpoint,
    normals: Views,
    recipe: Recipe,
    *,
    methods: Sequence[str] = (DEFAULT,),
    original: tuple[Line, Views] | None = None,
    audit: Views | None = None,
    name: str = "new",
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Transfer:
    """Take a new line from its normals.

    A third of their groups sets the threshold, where that is enough for one, and is neither measured nor trained on: at
    most ``ALPHA`` of good parts like these will be asked about.

    Args:
        checkpoint: Of the original line.
        normals: Healthy pictures of the new line.
        recipe: Of what is trained.
        methods: Names of ``TRANSFERS``, the preferred first; of several the audit chooses.
        original: The original line with its labelled training pictures, where anything is trained.
        audit: Labelled pictures of the new line, at most ``normals_choice.MOST``, none of which is in ``normals``.
        name: Of the new line.
        resume: As in ``training.adapt``.
        progress: Told of every step.

    Raises:
        ConfigError: There is no such method, or nothing to choose by or to train with.
        DatasetError: There are fewer than two normals, or the audit is too large or shows a normal twice.
    """
    tried = _checked(checkpoint, normals, methods, original, audit, name)
    measured, held = _parted(normals, classes=len(checkpoint.classes), seed=recipe.seed)
    found: dict[str, Transferred] = {}
    for method in tried:
        kept = None if resume is None else resume.with_name(f"{resume.stem}.{method}{resume.suffix}")
        line, views = original or (_nothing(checkpoint), measured.taken(np.zeros(0, int)))
        task = Task(checkpoint, line, views, measured, recipe, kept, progress)
        found[method] = TRANSFERS[method](task)
    made = {
        method: _checkpoint(one, method, checkpoint, measured, held, recipe, name) for method, one in found.items()
    }
    choice = None if audit is None else chosen_by_audit(made, audit, name=name)
    method = tried[0] if choice is None else choice.method
    chosen = made[method]
    return Transfer(
        chosen=chosen,
        methods=made,
        method=method,
        choice=choice,
        odd=_odd(chosen, normals, name),
        notes=found[method].notes,
        histories={method: one.history for method, one in found.items()},
    )


def transfer_moments(checkpoint: Checkpoint, moments: Moments, *, name: str = "new") -> Checkpoint:
    """A new line of pooled statistics, without one picture; its thresholds are the fixed band.

    Raises:
        FormatError: The statistics are of another network.
    """
    check_cells(checkpoint, name)
    own = statistics_from(moments, checkpoint.network)
    feature = moments.of["feature"]
    home = checkpoint.line("original")
    sure = uncalibrated(home, why="the line is known by its statistics alone")
    state = LineState(
        statistics=own,
        thresholds=sure.thresholds,
        temperature=sure.temperature,
        method="statistics",
        feature_mean=feature.mean.float().numpy(),
        feature_sd=feature.variance.sqrt().float().numpy(),
        pictures=moments.pictures,
    )
    return checkpoint.with_line(name, state)


def _checked(
    checkpoint: Checkpoint,
    normals: Views,
    methods: Sequence[str],
    original: tuple[Line, Views] | None,
    audit: Views | None,
    name: str,
) -> list[str]:
    check_cells(checkpoint, name)
    for method in methods:
        if method not in TRANSFERS:
            raise ConfigError(f"there is no method named {method!r}; give one of {', '.join(TRANSFERS)}")
        if method not in UNTRAINED and original is None:
            raise ConfigError(f"method {method} trains beside the original line's pictures; give them: --data FOLDER")
    tried = list(dict.fromkeys(methods))
    if not tried:
        raise ConfigError(f"no method is named; give one or more of {', '.join(TRANSFERS)}")
    if len(tried) > 1 and audit is None:
        raise ConfigError(
            f"{len(tried)} methods are named ({', '.join(tried)}) and nothing chooses between them; give an audit, or "
            "one method"
        )
    if normals.count < LEAST:
        how_many = "no normal picture" if not normals.count else "one normal picture alone"
        raise DatasetError(f"line {name} has {how_many}; give at least {LEAST} pictures of good parts, better 30")
    if audit is not None:
        for normal, audited in shared_pictures(normals, audit).items():
            called = "" if audited == normal else f" (as {audited})"
            raise DatasetError(
                f"{normal} is both a normal and in the audit{called}, which would judge what was trained on it; take "
                "it out of one of the two"
            )
    return tried


def check_cells(checkpoint: Checkpoint, name: str) -> None:
    """Whether a line of this name can be made of the checkpoint.

    Raises:
        ConfigError: It is a detector or a scorer, or the name is the original line's.
    """
    if checkpoint.factory == DETECTOR:
        raise ConfigError(
            "the checkpoint is a detector, which is not transferred by normals; train cells or a classifier"
        )
    if checkpoint.factory == SCORER:
        raise ConfigError(
            "the checkpoint is a scorer of good parts, which is not transferred; fit one on the new line's good parts: "
            "python -m training commission"
        )
    if name == "original":
        raise ConfigError("original is the line that the checkpoint was trained for; give the new one another name")


def _parted(normals: Views, *, classes: int, seed: int) -> tuple[Views, Views]:
    """What is measured, and what sets the threshold: whole groups by lot; nothing where those would be too few."""
    units = sorted(set(normals.units))
    order = np.random.default_rng([seed, 13]).permutation(len(units))
    back = {units[n] for n in order[: len(units) // KEPT_BACK]}
    held = np.array([unit in back for unit in normals.units])
    if len(back) < enough_for(ALPHA / classes) or normals.count - normals.taken(held).count < LEAST:
        held[:] = False
    return normals.taken(~held), normals.taken(held)


def _checkpoint(
    found: Transferred, method: str, base: Checkpoint, measured: Views, held: Views, recipe: Recipe, name: str
) -> Checkpoint:
    spec, classes = base.preprocess, len(base.classes)
    temperature = found.original.temperature
    if len(held):
        logits, _ = predicted(found.network, found.statistics, held.images, spec)
        shown = held.of_pictures(np.where(held.valid[:, None], logits, -np.inf).max(axis=(2, 3)))
        maxima = confidence_from_logits(shown[:, :, None, None], temperature)[:, :, 0, 0]
        band = _band_of_units(maxima, held.picture_units)
    else:
        groups = len(set(measured.units))
        few = f"{measured.count} normals" + (f" of {groups} groups" if groups < measured.count else "")
        band = fixed_band(classes, why=f"{few} are too few to keep some back for a threshold")
    state = line_state(
        found.network, found.statistics, measured.images, spec, method=method, certainty=Certainty(temperature, band)
    )
    if method in UNTRAINED:
        return base.with_line(name, state)
    told = {**base.recipe, **recipe.model_dump(mode="json")}
    whole = replace(base, network=found.network, factory=found.factory, recipe=told, lines={})
    return whole.with_line("original", found.original).with_line(name, state)


def _band_of_units(maxima: Array, units: Sequence[str]) -> Thresholds:
    """Of each group its highest picture: those of one part are not independent, groups are.

    Args:
        maxima: ``(N, K)`` confidence of each held-back normal's strongest cell.
        units: ``(N,)`` its group.
    """
    names, which = np.unique(np.asarray(units), return_inverse=True)
    highest = np.zeros((len(names), maxima.shape[1]), maxima.dtype)
    np.maximum.at(highest, which, maxima)
    of = "healthy pictures" if len(names) == len(units) else "groups of healthy pictures"
    return healthy_band(highest, of=of)


def _odd(checkpoint: Checkpoint, normals: Views, name: str) -> tuple[str, ...]:
    """Names of normals that score far above the others and as a defect would, the worst first."""
    state = checkpoint.line(name)
    logits, _ = predicted(checkpoint.network, state.statistics, normals.images, checkpoint.preprocess)
    shown = normals.of_pictures(np.where(normals.valid[:, None], logits, -np.inf).max(axis=(1, 2, 3)))
    middle = float(np.median(shown))
    usual = 1.4826 * float(np.median(np.abs(shown - middle)))
    far = np.flatnonzero((shown > middle + ODD * max(usual, 1e-6)) & (shown > 0))
    names = list(dict.fromkeys(normals.names))
    return tuple(names[n] for n in far[np.argsort(-shown[far])])


def _nothing(checkpoint: Checkpoint) -> Line:
    return Line("original", None, (), (), (), (), classes=checkpoint.classes)
