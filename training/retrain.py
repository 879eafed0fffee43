"""Retraining from operators' answers: the mentoring paper's loop, with statistics a line."""

from __future__ import annotations

import copy
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from edge_sdk.documents import parse_json, sha256_hex
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Lines, read_picture
from edge_sdk.records import Answer, MentoredExport, MentoredRow
from edge_sdk.vision.preprocess import fitted, valid_cells
from training.checkpoint import Checkpoint
from training.data.streams import Stream
from training.data.views import Views, batches_of, views_of
from training.fitting import Terms, fit
from training.lines import line_state, uncalibrated
from training.losses.masked import masked_bce
from training.losses.supervised import picture_loss, supervised_loss
from training.recipe import Recipe
from training.statistics import estimated, load_statistics
from training.train import Progress, original_state, quiet
from training.truth import STRATEGIES, Strategy, standing_answers, truth_and_mentored

__all__ = ["Mentored", "RetrainStrategy", "read_mentored", "retrain"]

RetrainStrategy = Literal["masked", "masked+omnia", "unmasked", "full-labels"]
WEAK = 1.0
"""Lambda of eq. 3."""


@dataclass(frozen=True, eq=False)
class Mentored:
    """A hub's export (``mentored/1``), read."""

    root: Path
    rows: tuple[MentoredRow, ...]
    answers: dict[str, tuple[Answer, ...]]
    """By item."""

    def counts(self) -> dict[str, int]:
        """Standing answers by kind, and the records that have any."""
        standing = [answer for given in self.answers.values() for answer in standing_answers(given)]
        return {
            "records": len(self.rows),
            "confirm": sum(answer.answer == "confirm" for answer in standing),
            "infirm": sum(answer.answer == "infirm" for answer in standing),
        }


def read_mentored(folder: Path) -> Mentored:
    """Read what a hub exported.

    Raises:
        DatasetError: A file is missing, or an answer is on a picture that is gone.
        FormatError: A line is damaged.
    """
    for name in ("export.json", "records.jsonl", "answers.jsonl"):
        if not (folder / name).is_file():
            raise DatasetError(f"{folder} holds no {name}; give a folder that `python -m mentoring export` wrote")
    parse_json((folder / "export.json").read_bytes(), MentoredExport, name=str(folder / "export.json"))

    def lines(name: str) -> list[bytes]:
        return [line for line in (folder / name).read_bytes().splitlines() if line.strip()]

    rows = tuple(
        parse_json(line, MentoredRow, name=f"{folder / 'records.jsonl'}:{n}")
        for n, line in enumerate(lines("records.jsonl"), 1)
    )
    known = {row.item for row in rows}
    by_item: dict[str, list[Answer]] = defaultdict(list)
    for n, line in enumerate(lines("answers.jsonl"), 1):
        answer = parse_json(line, Answer, name=f"{folder / 'answers.jsonl'}:{n}")
        if answer.item not in known:
            raise DatasetError(
                f"{folder / 'answers.jsonl'}:{n} answers item {answer.item[:12]}, whose record is gone; export again"
            )
        by_item[answer.item].append(answer)
    for row in rows:
        if not (folder / row.picture).is_file():
            raise DatasetError(f"{folder / row.picture} is gone; export the hub again")
    return Mentored(folder, rows, {item: tuple(given) for item, given in by_item.items()})


def retrain(
    baseline: Checkpoint,
    lines: Lines,
    recipe: Recipe,
    *,
    mentored: Mentored | Views | None = None,
    strategy: RetrainStrategy = "masked+omnia",
    name: str = "new",
    resume: Path | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Train on, from the deployed weights at a quarter of the rate, with what operators answered.

    ``L = L_S + lambda * L_W``: every step sees as many original as mentored pictures, each line a batch
    of its own, normalised by its own statistics.  Afterwards the statistics of both lines are measured
    anew; a frozen trunk keeps its own.

    Args:
        baseline: The deployed model, which the operators were asked about.
        lines: Original pictures with labels; of the new line ``train`` without.
        recipe: Of the source training; half its iterations and a quarter of its rate are used.
        mentored: Pictures and answers, or what they teach; not used by ``full-labels``.
        strategy: ``masked`` is eq. 4 alone; ``masked+omnia`` adds what the baseline is sure is healthy;
            ``unmasked`` (unanswered is healthy) and ``full-labels`` (the truth of part mentor) are controls.
        name: The mentored line.
        resume: File that keeps the state of a training under way.
        progress: Told of every step.

    Raises:
        DatasetError: No answer says anything, or answers and model disagree.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 3 and 4, sections 3.3 and 3.4.1; statistics
        a line are ours.
    """
    spec, grid = baseline.preprocess, baseline.grid
    line = lines.line(name)
    original = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    if strategy == "full-labels":
        if not line.mentor:
            raise DatasetError(f"line {name} has no pictures in part mentor; full-labels has nothing to train on")
        taught = views_of(line, line.mentor, spec, grid=grid, labelled=True)
    else:
        if mentored is None:
            raise DatasetError(f"strategy {strategy} needs answers; give the folder of a hub's export")
        taught = mentored if isinstance(mentored, Views) else _taught(baseline, mentored, strategy)
    torch.manual_seed(recipe.seed)
    network = copy.deepcopy(baseline.network)
    chance = np.random.default_rng([recipe.seed, 3])
    here = Stream(original, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance)
    there = Stream(taught, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance, balanced=False)
    home, away = baseline.line("original").statistics, baseline.line(name).statistics

    def losses(_: float) -> Terms:
        known, weak = here.next(), there.next()
        if network.frozen:
            load_statistics(network, home)
        cells = network(known.frame).cells
        if network.frozen:
            load_statistics(network, away)
        answered = network(weak.frame).cells
        loss_weak = masked_bce(answered, weak.truth, weak.known)
        if weak.maximum.any():
            loss_weak = loss_weak + picture_loss(
                answered, weak.truth, weak.known, weak.maximum, shown=weak.shown
            )
        supervised = supervised_loss(cells, known.truth, known.known, known.maximum, shown=known.shown)
        return {"supervised": supervised, "weak": WEAK * loss_weak}

    fit(
        {"network": network},
        losses,
        iterations=max(1, recipe.iterations // 2),
        rate=recipe.rate / 4,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"retrain {strategy} {recipe.model_dump_json()} {baseline.data.get('digest')} {_digest(taught)}",
        progress=lambda step, steps, terms: progress(f"retrain {strategy}", step, steps, terms),
    )
    new = np.concatenate([views_of(line, line.train, spec, grid=grid, labelled=False).images, taught.images])
    if network.frozen:
        load_statistics(network, home)
        statistics = dict(away)
    else:
        statistics = estimated(network, batches_of(new, spec, flips=True))
    home_state = original_state(network, lines.original, original, spec, grid=grid, method="retrained")
    thresholds = uncalibrated(home_state.thresholds)
    state = line_state(network, statistics, new, spec, method="retrained", thresholds=thresholds)
    whole = replace(baseline, network=network)
    return whole.with_line("original", home_state).with_line(name, state)


def _taught(baseline: Checkpoint, mentored: Mentored, strategy: Strategy) -> Views:
    """The pictures on which an answer says something, with what it says."""
    if strategy not in STRATEGIES:
        raise DatasetError(f"there is no strategy {strategy}; give one of {', '.join(STRATEGIES)}")
    spec, grid, classes = baseline.preprocess, baseline.grid, baseline.classes
    images, truths, knowns, maxima, valids, names = [], [], [], [], [], []
    for row in mentored.rows:
        answers = mentored.answers.get(row.item, ())
        if not standing_answers(answers):
            continue
        confidence = _confidence(mentored.root, row) if strategy == "masked+omnia" else None
        truth, known, maximum = truth_and_mentored(
            row.header, answers, classes=classes, grid=grid, strategy=strategy, baseline=confidence
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


def _digest(views: Views) -> str:
    """Of everything that is taught: another answer is another training."""
    pieces = (views.images, views.truth, views.known, views.maximum)
    return sha256_hex(b"".join(piece.tobytes() for piece in pieces))


def _confidence(root: Path, row: MentoredRow) -> np.ndarray | None:
    if row.confidence is None:
        return None
    try:
        return np.asarray(np.load(root / row.confidence, allow_pickle=False))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{root / row.confidence} cannot be read ({error}); export the hub again") from error

