"""Retraining from operators' answers: the mentoring paper's loop, with statistics a line."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_sdk.arrays import Bools
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, Lines, read_picture
from edge_sdk.records import MentoredRow
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, valid_cells
from training.answers import Mentored, read_mentored
from training.audit import audit_of, audited
from training.checkpoint import Checkpoint, LineState
from training.data.streams import Batch, Stream
from training.data.views import Views, batches_of, views_of
from training.fitting import Terms, fit
from training.lines import confidence, line_state, predicted, uncalibrated
from training.losses.adversarial import DomainSegmenter, adversarial_loss, ganin_weight
from training.losses.distillation import distillation_loss
from training.losses.masked import masked_bce
from training.losses.supervised import picture_loss, supervised_loss
from training.networks.cellnet import CellNetwork, cell_network
from training.recipe import Recipe
from training.statistics import estimated, load_statistics
from training.strategies import SHIPPED, Strategy, strategy_named
from training.train import Progress, original_state, quiet
from training.truth import standing_answers, truth_and_mentored

__all__ = ["Mentored", "read_mentored", "retrain"]

WEAK = 1.0
"""Lambda of eq. 3."""


def retrain(
    baseline: Checkpoint,
    lines: Lines,
    recipe: Recipe,
    *,
    mentored: Mentored | Views | None = None,
    strategy: str | Strategy = SHIPPED,
    name: str = "new",
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Train with the original labels and with what operators answered of the new line.

    ``L = L_S + lambda * L_W``: every step sees as many original as mentored pictures, each line a batch
    of its own, normalised by its own statistics.  Afterwards the statistics of both lines are measured
    anew; a frozen trunk keeps its own.  Where half of the answered control sample is enough for a guarantee, that half
    trains nothing and gives the line its thresholds.

    Args:
        baseline: The deployed model, which the operators were asked about.
        lines: Original pictures with labels; of the new line ``train`` without.
        recipe: Of the source training; the strategy scales its iterations and its rate.
        mentored: Pictures and answers, or what they teach; not used by strategies that take no answers.
        strategy: A name of ``training.strategies.STRATEGIES``, or a strategy of your own.
        name: The mentored line.
        resume: File that keeps the state of a training under way.
        progress: Told of every step.

    Raises:
        DatasetError: No answer says anything, or answers and model disagree.
        ConfigError: There is no strategy of that name.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 3 and 4, sections 3.3 and 3.4; statistics
        a line are ours.
    """
    called, way = strategy_named(strategy)
    spec, grid = baseline.preprocess, baseline.grid
    line = lines.line(name)
    original = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    audit = audit_of(mentored, baseline.classes).held_out() if isinstance(mentored, Mentored) and way.asks else None
    if audit is not None and isinstance(mentored, Mentored) and not audit.missing():
        mentored = mentored.without({row.item for row in audit.rows})
    taught = _new_data(baseline, line, mentored, called, way)
    torch.manual_seed(recipe.seed)
    network = copy.deepcopy(baseline.network) if way.init == "baseline" else _fresh(baseline)
    chance = np.random.default_rng([recipe.seed, 3])
    batches = _Batches(original, taught, spec, recipe, chance, balanced=way.balanced)
    home, away = baseline.line("original").statistics, baseline.lines.get(name, baseline.line("original")).statistics
    teacher = copy.deepcopy(baseline.network).eval() if way.distil else None
    if teacher is not None:
        load_statistics(teacher, away)
    temperature = torch.from_numpy(_state(baseline, name).temperature).reshape(-1, 1, 1)
    modules: dict[str, nn.Module] = {"network": network}
    if way.domain_weight:
        modules["segmenter"] = DomainSegmenter(network.channels)

    def losses(done: float) -> Terms:
        known, weak = batches.next()
        if network.frozen:
            load_statistics(network, home)
        here = network.features(known.frame)
        supervised = supervised_loss(network.head(here), known.truth, known.known, known.maximum, shown=known.shown)
        if weak is None:
            return {"supervised": supervised}
        if network.frozen:
            load_statistics(network, away)
        there = network.features(weak.frame)
        answered = network.head(there)
        loss_weak = masked_bce(answered, weak.truth, weak.known)
        if weak.maximum.any():
            loss_weak = loss_weak + picture_loss(answered, weak.truth, weak.known, weak.maximum, shown=weak.shown)
        # as many pictures of each line weigh 1 and lambda; else each line weighs as many as it has of them
        share = len(weak.frame) / (len(weak.frame) + len(known.frame))
        terms = {"supervised": 2 * (1 - share) * supervised, "weak": 2 * share * WEAK * loss_weak}
        if teacher is not None:
            with torch.no_grad():
                said = torch.sigmoid(teacher(weak.frame).cells / temperature)
            terms["distil"] = way.distil * distillation_loss(answered, said, weak.known, shown=weak.shown)
        if way.domain_weight:
            domain = torch.tensor([0] * len(known.frame) + [1] * len(weak.frame))
            weight = ganin_weight(done, most=way.domain_weight)
            terms["domain"] = adversarial_loss(modules["segmenter"], torch.cat([here, there]), domain, weight)
        return terms

    fit(
        modules,
        losses,
        iterations=max(1, int(recipe.iterations * way.length)),
        rate=recipe.rate * way.lr_scale,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"retrain {called} {way} {recipe.model_dump_json()} {baseline.data.get('digest')} {_digest(taught)}",
        progress=lambda step, steps, terms: progress(f"retrain {called}", step, steps, terms),
    )
    new = views_of(line, line.train, spec, grid=grid, labelled=False).images
    if taught is not None:
        new = np.concatenate([new, taught.images])
    if network.frozen:
        load_statistics(network, home)
        statistics = dict(away)
    else:
        statistics = estimated(network, batches_of(new, spec, flips=True))
    home_state = original_state(network, lines.original, original, spec, grid=grid, method="retrained")
    whole = replace(baseline, network=network).with_line("original", home_state)
    sure = uncalibrated(home_state) if audit is None else uncalibrated(home_state, why=audit.missing())
    if audit is not None and isinstance(mentored, Mentored) and not audit.missing():
        sure = audited(whole, statistics, mentored, audit)
    return whole.with_line(
        name, line_state(network, statistics, new, spec, method="retrained", certainty=sure)
    )


class _Batches:
    """What a step sees of each line: as many of both, or as the pictures come."""

    def __init__(
        self,
        original: Views,
        taught: Views | None,
        spec: PreprocessSpec,
        recipe: Recipe,
        chance: np.random.Generator,
        *,
        balanced: bool,
    ) -> None:
        def stream(views: Views, batch: int, *, halved: bool) -> Stream:
            return Stream(views, spec, batch=batch, jitter=recipe.jitter, chance=chance, balanced=halved)

        self._chance, self._both = chance, 2 * recipe.batch
        self._here = partial(stream, original, halved=True)
        self._there = None if taught is None else partial(stream, taught, halved=False)
        self._share = 0.5 if taught is None else len(taught) / (len(taught) + len(original))
        self._balanced = balanced

    def next(self) -> tuple[Batch, Batch | None]:
        """A batch of the original line, and one of the mentored line where there is one."""
        half = self._both // 2
        if self._there is None:
            return self._here(half).next(), None
        there = half
        if not self._balanced:
            there = int(np.clip(self._chance.binomial(self._both, self._share), 1, self._both - 1))
        return self._here(self._both - there).next(), self._there(there).next()


def _fresh(baseline: Checkpoint) -> CellNetwork:
    """A network of the same kind that has learned nothing; a frozen trunk is what it was."""
    network = cell_network(**baseline.arguments)
    if network.frozen:
        network.trunk.load_state_dict(baseline.network.trunk.state_dict())
    return network


def _state(baseline: Checkpoint, name: str) -> LineState:
    """Of the line, or of the original one, as a station would use before anybody adapts."""
    return baseline.lines.get(name, baseline.line("original"))


def _new_data(
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
    return views if way.known == "full" else _pseudo(baseline, views, line.name)


def _pseudo(baseline: Checkpoint, views: Views, name: str) -> Views:
    """Pseudo-labels: of the pictures where the baseline sees anything, all that it says is truth."""
    state = _state(baseline, name)
    logits, _ = predicted(baseline.network, state.statistics, views.images, baseline.preprocess)
    boundary = state.thresholds.boundary.reshape(-1, 1, 1)
    truth = ((confidence(logits, state) >= boundary) & views.valid[:, None]).astype(np.float32)
    defective: Bools = np.asarray(truth.any(axis=(1, 2, 3)))
    whole = replace(views, truth=truth, known=np.ones_like(truth), defective=defective)
    return whole.taken(defective) if defective.any() else whole


def _taught(baseline: Checkpoint, mentored: Mentored, strategy: Strategy) -> Views:
    """The pictures on which an answer says something, with what it says."""
    spec, grid, classes = baseline.preprocess, baseline.grid, baseline.classes
    images, truths, knowns, maxima, valids, names = [], [], [], [], [], []
    for row in mentored.rows:
        answers = mentored.answers.get(row.item, ())
        if not standing_answers(answers):
            continue
        said = _confidence(mentored.root, row) if strategy.omnia else None
        truth, known, maximum = truth_and_mentored(
            row.header, answers, classes=classes, grid=grid, strategy=strategy, baseline=said
        )
        picture = read_picture(mentored.root / row.picture)
        images.append(fitted(picture, spec))
        valids.append(valid_cells(spec, picture.shape[0], picture.shape[1], grid))
        truths.append(truth)
        knowns.append(known)
        maxima.append(maximum)
        names.append(row.item)
    if not images:
        raise DatasetError(
            f"no answer in {mentored.root} says anything (all unsure or withdrawn, or none given); "
            "answer some questions and export again"
        )
    return Views(
        images=np.stack(images),
        truth=np.stack(truths),
        known=np.stack(knowns),
        maximum=np.stack(maxima),
        valid=np.stack(valids),
        defective=np.array([bool(truth.any() or top.any()) for truth, top in zip(truths, maxima, strict=True)]),
        units=tuple(names),
        names=tuple(names),
    )


def _digest(views: Views | None) -> str:
    """Of everything that is taught: another answer is another training."""
    if views is None:
        return "nothing"
    pieces = (views.images, views.truth, views.known, views.maximum)
    return sha256_hex(b"".join(piece.tobytes() for piece in pieces))


def _confidence(root: Path, row: MentoredRow) -> np.ndarray | None:
    if row.confidence is None:
        return None
    try:
        return np.asarray(np.load(root / row.confidence, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{root / row.confidence} cannot be read ({error}); export the hub again") from error

