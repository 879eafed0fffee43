"""Retraining from operators' answers: the mentoring paper's loop, with statistics a line."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edge_sdk.arrays import Image
from edge_sdk.quality.datasets import Lines
from edge_sdk.vision.preprocess import PreprocessSpec
from training.answers import Mentored, read_mentored
from training.audit import audit_of, audited, controls
from training.checkpoint import Checkpoint
from training.data.frozen import Feed
from training.data.views import Views, batches_of, views_of
from training.fitting import Terms, fit
from training.interpolation import BORNE, borne
from training.lines import line_state, uncalibrated
from training.losses.adversarial import DomainSegmenter, adversarial_loss, ganin_weight
from training.losses.distillation import distillation_loss
from training.losses.masked import masked_bce
from training.losses.supervised import picture_loss, supervised_loss
from training.networks.cellnet import CellNetwork, cell_network
from training.recipe import Recipe
from training.statistics import estimated, load_statistics, own_weights, some_of
from training.strategies import SHIPPED, Strategy, strategy_named
from training.taught import new_data, state_of
from training.team import team
from training.train import Progress, original_state, quiet
from training.trunks import begin_as

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
    of its own, normalised by its own statistics.  Then the weights go back towards the deployed ones as far as the
    original line's held-out pictures need it, where the strategy says so and the line has no encoder of its own.
    Last the statistics of both lines are measured anew; a frozen trunk keeps its own.  Where half of the answered
    control sample is enough for a guarantee, that half trains nothing and gives the line its thresholds.

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
    # what the baseline learned from in an earlier round cannot judge what is made of it
    seen = set(state_of(baseline, name).trained_on) if way.init == "baseline" else set()
    audit = None
    if isinstance(mentored, Mentored) and way.asks:
        audit = audit_of(mentored, baseline.classes).held_out().without(seen)
    if audit is not None and isinstance(mentored, Mentored) and not audit.missing():
        mentored = mentored.without({row.item for row in audit.rows})
    taught = new_data(baseline, line, mentored, called, way)
    if taught is not None and isinstance(mentored, Mentored):
        seen |= controls(mentored) & set(taught.names)
    torch.manual_seed(recipe.seed)
    network = copy.deepcopy(baseline.network) if way.init == "baseline" else _fresh(baseline)
    chance = np.random.default_rng([recipe.seed, 3])
    temperature = team().placed(torch.from_numpy(state_of(baseline, name).temperature)).reshape(-1, 1, 1)
    batches = _Batches(network, original, taught, spec, recipe, chance, balanced=way.balanced)
    home, away = baseline.line("original").statistics, dict(state_of(baseline, name).statistics)
    own = own_weights(network, away)
    if way.init == "baseline":  # what was deployed on a line with an encoder of its own is that encoder
        load_statistics(network, own)
    away = {tensor: value for tensor, value in away.items() if tensor not in own}
    # with two deployed encoders there is no one way back
    may_lose = None if own else way.may_lose
    teacher = _teacher(baseline, name) if way.distil else None
    modules: dict[str, nn.Module] = {"network": network}
    if way.domain_weight:
        modules["segmenter"] = DomainSegmenter(network.channels)

    def losses(done: float) -> Terms:
        counts = batches.counts()
        if network.frozen:
            load_statistics(network, home)
        if way.shared:
            known, here, weak, there = batches.original(counts).beside(batches.mentored(counts))
        else:
            known, here = batches.original(counts).next()
        supervised = supervised_loss(network.head(here), known.truth, known.known, known.maximum, shown=known.shown)
        if not way.new_data:
            return {"supervised": supervised}
        feed = batches.mentored(counts)
        if not way.shared:
            if network.frozen:
                load_statistics(network, away)
            weak, there = feed.next()
        answered = network.head(there)
        loss_weak = masked_bce(answered, weak.truth, weak.known)
        if weak.maximum.any():
            loss_weak = loss_weak + picture_loss(answered, weak.truth, weak.known, weak.maximum, shown=weak.shown)
        # as many pictures of each line weigh 1 and lambda; else each line weighs as many as it has of them
        share = counts[1] / sum(counts)
        terms = {"supervised": 2 * (1 - share) * supervised, "weak": 2 * share * WEAK * loss_weak}
        if teacher is not None:
            with torch.no_grad():
                said = torch.sigmoid(teacher.head(feed.last_map(teacher, weak)) / temperature.to(answered.device))
            terms["distil"] = way.distil * distillation_loss(answered, said, weak.known, shown=weak.shown)
        if way.domain_weight:
            domain = torch.tensor([0] * counts[0] + [1] * counts[1], device=answered.device)
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
        told=f"retrain {called} {way} {recipe.model_dump_json()} {original.digest} "
        f"{None if taught is None else taught.digest}",
        progress=lambda step, steps, terms: progress(f"retrain {called}", step, steps, terms),
        last=may_lose is None,
    )
    figures = {name: value for name, value in baseline.figures.items() if name not in BORNE}
    if network.frozen:
        load_statistics(network, home)
    if may_lose is not None:
        held_out = views_of(lines.original, lines.original.validate, spec, grid=grid, labelled=True)
        held = borne(network, baseline.network, home, original, held_out, spec, may_lose=may_lose)
        figures |= held.document()
    new = views_of(line, line.train, spec, grid=grid, labelled=False).images
    if taught is not None and not (taught.tiled and len(new)):  # the tiles that were answered are no fair sample
        new = np.concatenate([new, taught.images])
    new = some_of(new)
    if network.frozen:
        statistics = dict(home if way.shared else away)
    else:
        images = _alternating(original.images, new) if way.shared else new
        statistics = estimated(network, batches_of(images, spec, flips=True))
    home_state = original_state(
        network, lines.original, original, spec, grid=grid, method="retrained",
        statistics=statistics if way.shared else None,
    )  # fmt: skip
    whole = replace(baseline, network=network, figures=figures).with_line("original", home_state)
    sure = uncalibrated(home_state) if audit is None else uncalibrated(home_state, why=audit.missing())
    if audit is not None and isinstance(mentored, Mentored) and not audit.missing():
        sure = audited(whole, statistics, mentored, audit)
    state = line_state(network, statistics, new, spec, method="retrained", certainty=sure)
    state = replace(state, trained_on=tuple(sorted(seen)))
    if resume is not None and team().first:
        resume.unlink(missing_ok=True)
    return whole.with_line(name, state)


class _Batches:
    """What a step sees of each line: as many of both, or as the pictures come."""

    def __init__(
        self,
        network: CellNetwork,
        original: Views,
        taught: Views | None,
        spec: PreprocessSpec,
        recipe: Recipe,
        chance: np.random.Generator,
        *,
        balanced: bool,
    ) -> None:
        self._network, self._spec, self._recipe, self._chance = network, spec, recipe, chance
        self._views = (original, taught)
        self._balanced = balanced
        self._feeds: dict[tuple[int, int], Feed] = {}

    def counts(self) -> tuple[int, int]:
        """Original and mentored pictures of the next step, at least one of each."""
        both, (original, taught) = 2 * self._recipe.batch, self._views
        if self._balanced or taught is None:
            return both // 2, both // 2
        there = int(self._chance.binomial(both, len(taught) / (len(taught) + len(original))))
        there = min(max(there, 1), both - 1)
        return both - there, there

    def original(self, counts: tuple[int, int]) -> Feed:
        """Half defective, half healthy, all of it known."""
        return self._feed(0, counts[0])

    def mentored(self, counts: tuple[int, int]) -> Feed:
        """As the answers came."""
        return self._feed(1, counts[1])

    def _feed(self, line: int, count: int) -> Feed:
        views = self._views[line]
        assert views is not None
        if (line, count) not in self._feeds:
            recipe = self._recipe.model_copy(update={"batch": count})
            self._feeds[line, count] = Feed(
                self._network, views, self._spec, recipe, self._chance, balanced=line == 0
            )
        return self._feeds[line, count]


def _teacher(baseline: Checkpoint, name: str) -> CellNetwork:
    """The baseline as it judges the mentored line, to be asked and never trained."""
    network = copy.deepcopy(baseline.network).eval().requires_grad_(False)
    load_statistics(network, state_of(baseline, name).statistics)
    return network.to(team().device, team().dtype)


def _fresh(baseline: Checkpoint) -> CellNetwork:
    """A network of the same kind that has learned nothing of these lines; a frozen trunk is what it was."""
    network = cell_network(**baseline.arguments)
    if network.frozen:
        network.trunk.load_state_dict(baseline.network.trunk.state_dict())
    else:
        begin_as(network, baseline.arguments, start=baseline.recipe.get("start"))
    return network


def _alternating(images: Image, others: Image) -> Image:
    """As many of both, by turns, so that every batch holds both."""
    each = min(len(images), len(others))
    first, second = (some[np.linspace(0, len(some) - 1, each).round().astype(int)] for some in (images, others))
    return np.stack([first, second], axis=1).reshape(2 * each, *images.shape[1:])
