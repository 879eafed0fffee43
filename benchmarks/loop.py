"""L1: what adapting and mentoring gain on the shipped hazelnuts, seed by seed.

Each seed deals the parts anew, trains with and without photometric jitter, adapts without labels, has a simulated
operator answer what the adapted model is unsure of, and retrains, with the controls beside it.  The gap and its
strength, the recipe and the seeds were fixed beforehand; the recipe was tuned on other seeds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import numpy as np

from benchmarks import machine
from benchmarks.results import Chart, Result, Steps
from edge_sdk.arrays import Array
from edge_sdk.documents import sha256_hex
from edge_sdk.quality.datasets import Dataset, load_dataset
from edge_sdk.quality.measures import paired_t_interval
from edge_sdk.records import Answer, ItemHeader
from edge_sdk.vision.decode import questions
from edge_sdk.vision.preprocess import geometry

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.data.views import Views
    from training.recipe import Recipe
    from training.truth import Strategy

__all__ = ["CONFIRM_FROM", "MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "differences", "loop_of", "mentored", "run"]

TITLE = "The loop on hazelnuts: drop, adaptation, mentoring"
SUITE = "loop"
MINUTES = 40.0
NEEDS = ("torch", "cv2")

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "hazelnut"
GAP = "stains+lamp"
SEEDS = tuple(range(10, 20))
TUNED_ON = tuple(range(100, 108))
SEEN = tuple(range(10))
"""Run once before the shipped strategy was settled, so not reported."""
CONFIRM_FROM = 0.25
"""Share of a question's cells that are defective from which the operator confirms; none: infirms; else unsure."""
CONTROL_SHARE = 0.1
"""Of the pictures that the model passes; the operator answers for the whole picture."""
STRATEGIES: tuple[Strategy, ...] = ("masked", "masked+omnia", "unmasked")
ROWS = {
    "source_only": "source only",
    "source_only_plain": "source only, no jitter",
    "adabn": "AdaBN",
    "dann": "DANN",
    "adapted": "adapted, as the rules chose",
    "masked": "retrained, masked",
    "masked+omnia": "retrained, masked + OMNIA",
    "unmasked": "retrained, unmasked (control)",
    "full-labels": "full labels (ceiling)",
}


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import Recipe

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    recipe = Recipe(trunk="slim")
    recipe = recipe.quick() if quick else recipe
    dataset = load_dataset(DATA)
    progress.expect(len(seeds))
    found = [
        progress.step(f"seed {seed}", partial(loop_of, dataset, recipe.model_copy(update={"seed": seed}), gap=GAP))
        for seed in seeds
    ]
    return Result(
        rows=[*_means(found), *differences(found), *_each(seeds, found)],
        notes=[
            "each seed deals the parts anew, so it changes data and initial weights; the pictures stay the same 51, "
            "so the seeds are not independent and the t-intervals over seeds are too narrow for other pictures",
            f"the recipe, the strength of the gap and the shipped strategy (masked + OMNIA) were chosen on seeds "
            f"{TUNED_ON[0]} to {TUNED_ON[-1]}, the strategy after a run over seeds {SEEN[0]} to {SEEN[-1]} had been "
            "seen too; the reported seeds were run for the first time afterwards, with nothing changed",
            "every new-line row has the statistics of its own line; the original's are its own as well",
            f"simulated operator: confirms from {CONFIRM_FROM:.0%} defective cells of a question, infirms at none, "
            f"else is unsure; of what passed, {CONTROL_SHARE:.0%} is drawn and answered as a whole",
        ],
        settings={"seeds": list(seeds), "gap": GAP, "threads": 1, "recipe": recipe.model_dump(mode="json")},
        data={"hazelnut": machine.data_digest(DATA)},
        packages=("torch", "safetensors"),
        chart=Chart("new_ap", "cell AP"),
    )


def loop_of(dataset: Dataset, recipe: Recipe, *, gap: str | None) -> dict[str, Any]:
    """The whole loop of one seed.

    Args:
        dataset: As read.
        recipe: With the seed, which deals the parts too.
        gap: Makes the new line; ``None`` takes the set's own domains.

    Returns:
        ``figures`` by row and line, ``answers``, ``decision`` and the CPU ``seconds`` of each stage.
    """
    from edge_sdk.quality.datasets import lines_of
    from training.adapt import adapt
    from training.evaluate import evaluate
    from training.retrain import retrain
    from training.train import train

    lines = lines_of(dataset, gap=gap, seed=recipe.seed)
    judging = lines_of(dataset, gap=gap, seed=recipe.seed, evaluating=True)
    figures: dict[str, Any] = {}
    seconds: dict[str, float] = {}

    def judged(name: str, checkpoint: Checkpoint) -> None:
        figures[name] = {line: dict(one) for line, one in evaluate(checkpoint, judging).figures.items()}

    began = time.process_time()

    def lap(name: str) -> None:
        nonlocal began
        now = time.process_time()
        seconds[name], began = round(now - began, 1), now

    source = train(dataset, lines, recipe)
    lap("train")
    plain = train(dataset, lines, recipe.model_copy(update={"jitter": False}))
    lap("train, no jitter")
    adaptation = adapt(source, dataset, lines, recipe)
    lap("adapt")
    baseline = adaptation.chosen
    taught = {strategy: mentored(baseline, lines.new[0], strategy, seed=recipe.seed) for strategy in STRATEGIES}
    retrained = {
        strategy: retrain(baseline, lines, recipe, mentored=views, strategy=strategy) if len(views) else baseline
        for strategy, (views, _) in taught.items()
    }
    full = retrain(baseline, lines, recipe, strategy="full-labels")
    lap("retrain, four times")
    rows = {"source_only": source, "source_only_plain": plain, **adaptation.methods, "adapted": baseline}
    for name, checkpoint in (rows | retrained | {"full-labels": full}).items():
        if name in ROWS:
            judged(name, checkpoint)
    lap("evaluate")
    return {
        "figures": figures,
        "answers": taught["masked"][1],
        "decision": adaptation.decision.document(),
        "seconds": seconds,
    }


def mentored(
    checkpoint: Checkpoint, line: Any, strategy: Strategy, *, seed: int, name: str = "new"
) -> tuple[Views, dict[str, int]]:
    """Ask a simulated operator about a line's mentor pictures, and read the answers as retraining does.

    Args:
        checkpoint: The model that asks, with the line ``name``.
        line: Whose part ``mentor`` is streamed; its truth is the operator's eye.
        strategy: What is known besides the answers.
        seed: Of the control sample.
        name: Of the line.

    Returns:
        The pictures that an answer says something about, and how many answers of each kind were given.
    """
    from dataclasses import replace

    from training.data.views import views_of
    from training.lines import confidence, predicted
    from training.truth import truth_and_mentored

    spec, grid, state = checkpoint.preprocess, checkpoint.grid, checkpoint.line(name)
    views = views_of(line, line.mentor, spec, grid=grid, labelled=True)
    logits, _ = predicted(checkpoint.network, state.statistics, views.images, spec)
    maps = confidence(logits, state)
    place = geometry(spec, spec.height, spec.width)
    chance = np.random.default_rng([seed, 4])
    counts: Counter[str] = Counter({"confirm": 0, "infirm": 0, "unsure": 0})
    truth, known, maximum = np.zeros_like(views.truth), np.zeros_like(views.known), np.zeros_like(views.maximum)
    kept = []
    for n in range(len(views)):
        drawn = chance.random() < CONTROL_SHARE
        below = state.thresholds.pass_below
        asked = questions(maps[n], below, place=place, cell_px=checkpoint.cell_px, valid=views.valid[n])
        answers: list[tuple[int | None, str]] = [
            (k, _said(views.truth[n, one.class_id], one.cells)) for k, one in enumerate(asked)
        ]
        if not views.known[n].any():
            # without a mask only the whole picture can be told
            answers = [(None, "confirm")] if asked or drawn else []
        elif not asked and drawn:
            answers = [(None, "confirm" if views.defective[n] else "infirm")]
        counts.update(word for _, word in answers)
        told = [_answer(n, number, word) for number, word in answers]
        if any(word != "unsure" for _, word in answers):
            header = _header(n, [(checkpoint.classes[one.class_id], one.confidence, one.cells) for one in asked])
            truth[n], known[n], maximum[n] = truth_and_mentored(
                header, told, classes=checkpoint.classes, grid=grid, strategy=strategy, baseline=maps[n]
            )
            kept.append(n)
    chosen = np.array(kept, int)
    taught = replace(
        views,
        images=views.images[chosen],
        truth=truth[chosen],
        known=known[chosen],
        maximum=maximum[chosen],
        valid=views.valid[chosen],
        defective=truth[chosen].any(axis=(1, 2, 3)) | maximum[chosen].any(axis=1),
        units=tuple(views.units[n] for n in kept),
        names=tuple(views.names[n] for n in kept),
    )
    return taught, dict(counts)


def differences(found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Paired over seeds: the drop, each step's gain on the new line, and what the original line lost."""
    pairs = [
        ("drop: source only, new - original", ("source_only", "new"), ("source_only", "original")),
        ("gain of adapting, new line", ("adapted", "new"), ("source_only", "new")),
        ("gain of mentoring, new line", ("masked+omnia", "new"), ("adapted", "new")),
        ("gain of mentoring by eq. 4 alone, new line", ("masked", "new"), ("adapted", "new")),
        ("mentoring - unmasked, new line", ("masked+omnia", "new"), ("unmasked", "new")),
        ("full labels - mentoring, new line", ("full-labels", "new"), ("masked+omnia", "new")),
        ("mentoring, original line", ("masked+omnia", "original"), ("source_only", "original")),
    ]
    rows: list[dict[str, object]] = []
    for name, after, before in pairs:
        each = np.array([_ap(one, *after) - _ap(one, *before) for one in found])
        row: dict[str, object] = {"name": name, "difference_ap": round(float(each.mean()), 4)}
        if len(each) > 1:
            interval = paired_t_interval(each)
            row |= {"low": round(interval.low, 4), "high": round(interval.high, 4)}
        rows.append(row | {"each": [round(float(value), 4) for value in each]})
    return rows


def _means(found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    def mean(name: str, line: str, figure: str) -> float:
        return round(float(np.mean([one["figures"][name][line][figure] for one in found])), 4)

    return [
        {
            "name": words,
            "original_ap": mean(name, "original", "ap"),
            "new_ap": mean(name, "new", "ap"),
            "new_precision": mean(name, "new", "precision"),
            "new_recall": mean(name, "new", "recall"),
        }
        for name, words in ROWS.items()
    ]


def _each(seeds: Sequence[int], found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed, one in zip(seeds, found, strict=True):
        figures = {f"{name}_{line}_ap": _ap(one, name, line) for name in ROWS for line in ("original", "new")}
        facts = {"decision": one["decision"]["method"], "answers": one["answers"]}
        rows.append({"name": f"seed {seed}", **facts, **figures, "cpu_s": round(sum(one["seconds"].values()), 1)})
    return rows


def _ap(one: Mapping[str, Any], name: str, line: str) -> float:
    return float(one["figures"][name][line]["ap"])


def _said(truth: Array, cells: Sequence[tuple[int, int]]) -> str:
    share = float(np.mean([truth[row, column] for row, column in cells]))
    return "confirm" if share >= CONFIRM_FROM else "infirm" if share == 0 else "unsure"


MOMENT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def _answer(item: int, question: int | None, word: str) -> Answer:
    name = f"{item}/{question}"
    return Answer.model_validate(
        {
            "id": UUID(sha256_hex(name.encode())[:32]),
            "item": sha256_hex(str(item).encode()),
            "question": question,
            "answer": word,
            "operator": "simulated",
            "answered_at": MOMENT,
            "after_ms": 0,
        }
    )


def _header(item: int, asked: Sequence[tuple[str, float, Sequence[tuple[int, int]]]]) -> ItemHeader:
    entries = [
        {"class": name, "confidence": sure, "box": [0, 0, 1, 1], "cells": [list(cell) for cell in cells]}
        for name, sure, cells in asked
    ]
    return ItemHeader.model_validate(
        {
            "station": "simulated",
            "camera": "simulated",
            "boot_id": "simulated",
            "seq": item,
            "captured_at": MOMENT,
            "model": "0" * 64,
            "reason": "uncertain" if asked else "control",
            "stratum": "questions" if asked else "control",
            "value": 0.5,
            "inclusion_probability": 1.0 if asked else CONTROL_SHARE,
            "verdict": "uncertain" if asked else "passed",
            "thresholds": {},
            "questions": entries,
            "parts": [],
        }
    )
