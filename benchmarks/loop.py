"""L1: what adapting and mentoring gain on the shipped hazelnuts, seed by seed.

Each seed deals the parts anew, trains with and without photometric jitter, adapts without labels, has a simulated
operator answer what the adapted model is unsure of, and retrains, with the controls beside it.  The gap and its
strength, the recipe and the seeds were fixed beforehand; the recipe was tuned on other seeds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.results import Chart, Result, Steps
from edge_sdk.quality.datasets import Dataset, load_dataset
from edge_sdk.quality.measures import paired_t_interval

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "differences", "loop_of", "run"]

TITLE = "The loop on hazelnuts: drop, adaptation, mentoring"
SUITE = "loop"
MINUTES = 40.0
NEEDS = ("torch", "cv2")

DATA = Path(__file__).resolve().parents[1] / "examples" / "data" / "hazelnut"
GAP = "stains+lamp"
SEEDS = tuple(range(20, 30))
TUNED_ON = tuple(range(100, 108))
STRATEGIES = ("masked", "masked+omnia", "unmasked")
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

    from training.mentors import CONFIRM_FROM, CONTROL_SHARE
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
            f"{TUNED_ON[0]} to {TUNED_ON[-1]}, the strategy after a run over seeds 0 to 9 had been seen too; seeds "
            "10 to 19 were reported before the retrained weights went back for the original line's sake (chosen on "
            "drawn lines and hazelnuts, seeds from 100 up); the reported ones were run for the first time afterwards",
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
    from training.mentors import mentored
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
