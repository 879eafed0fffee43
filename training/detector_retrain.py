"""A detector retrained from operators' answers to its boxes: the mentoring paper's loop, its areas being anchors."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Line, Lines, read_picture
from edge_sdk.vision.preprocess import fitted, geometry
from training.checkpoint import Checkpoint
from training.data.boxes import BoxStream, BoxViews, MapCache, with_maps
from training.data.views import batches_of
from training.detector import (
    box_state,
    detector_of,
    fresh_detector,
    original_box_state,
    outputs_of,
    read_boxes,
    supervised_terms,
)
from training.fitting import Terms, fit
from training.lines import uncalibrated
from training.losses.anchors import weak_anchor_loss
from training.losses.supervised import picture_loss
from training.networks.anchornet import AnchorNetwork
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.retrain import WEAK, Mentored
from training.statistics import estimated
from training.strategies import Strategy, strategy_named
from training.train import Progress, quiet
from training.truth import standing_answers, truth_and_mentored

__all__ = ["SHIPPED_FOR_BOXES", "as_areas", "retrain_detector"]

SHIPPED_FOR_BOXES = "masked"
"""What a detector is retrained by where nobody names a strategy: E9 says why it is another than for cells."""


def retrain_detector(
    baseline: Checkpoint,
    lines: Lines,
    recipe: Recipe,
    *,
    mentored: Mentored | BoxViews | None = None,
    strategy: str | Strategy = SHIPPED_FOR_BOXES,
    name: str = "new",
    resume: Path | None = None,
    cache: MapCache | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Train with the original boxes and with what operators said of the new line's.

    ``L = L_S + lambda * L_W``: as many original as mentored pictures a step.  ``L_S`` classifies and regresses; ``L_W``
    is eq. 4 over the anchors that were asked about, without regression.  The control ``full-labels`` regresses too.

    Args:
        baseline: The deployed detector, which the operators were asked about.
        lines: Original pictures with boxes; of the new line ``train`` without.
        recipe: Of the source training; the strategy scales its iterations and its rate.
        mentored: Pictures and answers, or what they teach; not used by strategies that take no answers.
        strategy: A name of ``training.strategies.STRATEGIES``, or a strategy of your own; of those that align,
            distil, take the baseline's word for truth or leave batches unbalanced there are none for detectors.
        name: The mentored line.
        resume: File that keeps the state of a training under way.
        cache: See ``training.data.boxes.with_maps``; only of a frozen trunk.
        progress: Told of every step.

    Raises:
        ConfigError: The baseline is no detector, or there is no such strategy for one.
        DatasetError: No answer says anything, or answers and model disagree.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 2 to 4 and section 3.3.
    """
    called, way = strategy_named(strategy)
    if way.domain_weight or way.distil or way.known == "pseudo" or not way.balanced:
        raise ConfigError(
            f"strategy {called} aligns, distils, pseudo-labels or does not balance, which a detector is not trained "
            f"by; give one like {SHIPPED_FOR_BOXES}"
        )
    asking = detector_of(baseline)
    network = copy.deepcopy(asking) if way.init == "baseline" else fresh_detector(baseline.arguments, recipe)
    spec, line = baseline.preprocess, lines.line(name)
    original = read_boxes(
        network, lines.original, lines.original.train, spec, recipe, labelled=True, cache=cache, progress=progress
    )
    taught = _taught_by(network, baseline, line, recipe, mentored, called, way, cache)
    torch.manual_seed(recipe.seed)
    chance = np.random.default_rng([recipe.seed, 3])
    here = BoxStream(original, network, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance)
    there = None
    if taught is not None:
        there = BoxStream(
            taught, network, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance, balanced=False
        )

    def losses(_: float) -> Terms:
        terms = dict(supervised_terms(network, here.next()))
        if there is None:
            return terms
        weak = there.next()
        if way.known == "full":
            found = supervised_terms(network, weak)
            return {**terms, **{f"{term}, new line": WEAK * loss for term, loss in found.items()}}
        scores = outputs_of(network, weak).scores
        loss = weak_anchor_loss(scores, weak.truth, weak.known)
        if weak.maximum.any():
            answered, truth, known = (as_areas(one) for one in (scores, weak.truth, weak.known))
            loss = loss + picture_loss(answered, truth, known, weak.maximum)
        return {**terms, "weak": WEAK * loss}

    fit(
        {"network": network},
        losses,
        iterations=max(1, round(recipe.iterations * way.length)),
        rate=recipe.rate * way.lr_scale,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"retrain detector {called} {way} {recipe.model_dump_json()} {original.digest} "
        f"{None if taught is None else taught.digest}",
        progress=lambda step, steps, terms: progress(f"retrain {called}", step, steps, terms),
    )
    new = read_boxes(network, line, line.train, spec, recipe, labelled=False, cache=cache, flips=False)
    before = baseline.lines.get(name, baseline.line("original")).statistics
    if network.frozen:
        statistics = dict(before)
    else:
        images = new.images if taught is None else np.concatenate([new.images, taught.images])
        statistics = estimated(network, batches_of(images, spec, flips=True))
    home = original_box_state(network, lines.original, original, spec, recipe, method="retrained", cache=cache)
    state = box_state(
        network, statistics, new, spec, method="retrained", thresholds=uncalibrated(home).thresholds
    )
    whole = replace(baseline, network=cast(CellNetwork, network))
    return whole.with_line("original", home).with_line(name, state)


def as_areas(values: Tensor) -> Tensor:
    """``(N, A, K)`` as ``(N, K, A, 1)``, the form that cells and anchors share."""
    return values.transpose(1, 2)[..., None]


def _taught_by(
    network: AnchorNetwork,
    baseline: Checkpoint,
    line: Line,
    recipe: Recipe,
    mentored: Mentored | BoxViews | None,
    called: str,
    way: Strategy,
    cache: MapCache | None,
) -> BoxViews | None:
    if not way.new_data:
        return None
    spec = baseline.preprocess
    if way.known == "full":
        views = read_boxes(network, line, line.mentor, spec, recipe, labelled=True, cache=cache)
        if not len(views):
            raise DatasetError(f"line {line.name} has no boxes in part mentor; {called} has nothing to train on")
        return views
    if mentored is None:
        raise DatasetError(f"strategy {called} needs answers; give the folder of a hub's export")
    views = mentored if isinstance(mentored, BoxViews) else _taught(network, baseline, mentored, way)
    if network.frozen and views.maps is None:
        # what a hub sends is named by its digest, so a cache cannot mistake it for a picture of the set
        return with_maps(views, network, spec, line=line, jitter=recipe.jitter, cache=cache)
    return views


def _taught(network: AnchorNetwork, baseline: Checkpoint, mentored: Mentored, way: Strategy) -> BoxViews:
    """The pictures on which an answer says something, with what it says of their anchors."""
    spec, count = baseline.preprocess, len(network.anchors)
    pictures, truths, knowns, maxima, names = [], [], [], [], []
    for row in mentored.rows:
        answers = mentored.answers.get(row.item, ())
        if not standing_answers(answers):
            continue
        confidence = None
        if way.omnia and row.confidence is not None:
            confidence = _confidence(mentored.root / row.confidence, (count, network.classes))
        truth, known, maximum = truth_and_mentored(
            row.header, answers, classes=baseline.classes, grid=(count, 1), strategy=way, baseline=confidence
        )
        pictures.append(read_picture(mentored.root / row.picture))
        truths.append(truth[..., 0].T)
        knowns.append(known[..., 0].T)
        maxima.append(maximum)
        names.append(row.item)
    if not pictures:
        raise DatasetError(
            f"no answer in {mentored.root} says anything (all unsure or withdrawn, or none given); "
            "answer some questions and export again"
        )
    return BoxViews(
        images=np.stack([fitted(picture, spec) for picture in pictures]),
        truth=np.stack(truths),
        known=np.stack(knowns),
        wanted=np.zeros((len(pictures), count, 4), np.float32),
        maximum=np.stack(maxima),
        places=tuple(geometry(spec, *picture.shape[:2]) for picture in pictures),
        drawn=(None,) * len(pictures),
        units=tuple(names),
        names=tuple(names),
    )


def _confidence(path: Path, shape: tuple[int, int]) -> Array:
    """The baseline's ``(A, K)`` as the ``(K, A, 1)`` that all areas share."""
    try:
        found = np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}); export the hub again") from error
    if found.shape != shape:
        raise DatasetError(
            f"{path} holds {found.shape}, but the detector has {shape[0]} anchors and {shape[1]} classes; "
            "retrain from the model that asked"
        )
    return np.asarray(found.T[..., None])
