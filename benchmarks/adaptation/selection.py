"""E6: which 100 of 2,000 frames an operator should see.

Synthetic mentoring lines.  The model of the original line watches the new one's stream, with as few defects as a line
has.  Each policy picks as many frames; a simulated operator answers them, one that the model passes as a whole, any
other at its questions; the model is retrained with the shipped strategy and judged on fresh frames of the same line.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adaptation.drawn import lines_by_folder, picture_of
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.arrays import Bools, Floats
from edge_sdk.clock import FakeClock
from edge_sdk.inspections import Verdict
from edge_sdk.outbox.budget import Budget
from edge_sdk.outbox.quotas import SHARES, QuotaBudgets, Values, values_of
from edge_sdk.outbox.selection import value_of
from edge_sdk.quality.datasets import Dataset, Line, Lines, load_dataset
from edge_sdk.quality.measures import average_precision, paired_t_interval

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint, LineState
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "POLICIES", "SEEDS", "SUITE", "TITLE", "Watched", "chosen", "drawn_lines", "run",
           "seed_of"]  # fmt: skip

TITLE = "Which frames to ask about: six scores, and the station's two ways"
SUITE = "adaptation"
MINUTES = 6.0
NEEDS = ("torch", "cv2")

SEEDS = tuple(range(5, 10))
TUNED_ON = (100, 101, 102)
FRAMES, BUDGET, HOURS, P_DEFECT = 2000, 100, 4, 0.05
CONTROL = 0.15
"""Of the frames that are asked about, those of the station's control sample."""
ORIGINAL, VALIDATE, UNLABELLED, TEST = 600, 100, 200, 3000
SIDE_PX = 64
"""As drawn: the first two stages have a stride of 8, so that the cells are those of the truth."""
POLICIES = ("random", "strongest", "margin", "entropy", "novelty", "k-centre", "station", "quotas")
WORDS = {"entropy": "mean entropy", "station": "the station's budget"}
STRATEGY = "masked+omnia"


@dataclass(frozen=True, eq=False)
class Watched:
    """What the device knows of the frames that go by."""

    values: Sequence[Values]
    features: Floats
    """``(N, F)``, in standard deviations from the line's mean."""
    detected: Bools
    """``(N,)`` whether any cell reaches its class's ``pass_below``."""
    worth: Floats
    """``(N,)`` by which the station ranks the detected ones."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import Recipe

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    recipe = Recipe(trunk="slim", stages=2, side_px=SIDE_PX, iterations=400, batch=12, rate=2e-3)
    recipe = recipe.quick() if quick else recipe
    scale = 4 if quick else 1
    progress.expect(len(seeds))
    found = [
        progress.step(f"seed {seed}", partial(seed_of, recipe.model_copy(update={"seed": seed}), scale=scale))
        for seed in seeds
    ]
    gains = _gains(found)
    ours = next(row for row in gains if row["name"] == "quotas - random")
    must = Value(*(float(ours[name]) for name in ("difference_ap", "low", "high")))  # type: ignore[arg-type]
    return Result(
        rows=[*_means(found), *gains],
        musts={"E6.quotas_minus_random": must},
        notes=[
            "the frames that are judged are drawn as the stream is, with the same share of defects; each seed draws "
            "its own lines, so the intervals are paired t-intervals over seeds",
            f"shares of the quotas and the recipe were looked at on seeds {TUNED_ON[0]} to {TUNED_ON[-1]}, with a test "
            "part that was weighted to the stream's share of defects",
            "a budget counts frames: a frame that the model passes takes one answer, another one to three, so policies "
            "that seek doubt are given more answers (columns confirm, infirm, unsure)",
            "the station's budget (choose_by: band) and quotas (choose_by: quotas) are the station's own code with its "
            "own shares: they decide at every frame, among those that were not passed, beside a control sample; the "
            "other policies rank the whole stream, which no station can: their rows are what hindsight would give",
            "seeds 0 to 4 had been seen when quotas still decided at the end of each hour, so 5 to 9 are reported",
        ],
        settings={
            "seeds": list(seeds),
            "frames": FRAMES // scale,
            "defective": P_DEFECT,
            "budget_frames": BUDGET // scale,
            "hours": HOURS,
            "control_share_of_budget": CONTROL,
            "shares": dict(SHARES),
            "test_frames": TEST // scale,
            "strategy": STRATEGY,
            "threads": 1,
            "recipe": recipe.model_dump(mode="json"),
        },
        packages=("torch", "safetensors"),
        chart=Chart("new_ap", "cell AP on the new line"),
    )


def seed_of(
    recipe: Recipe,
    *,
    scale: int = 1,
    policies: Mapping[str, Mapping[str, float] | None] | None = None,
) -> dict[str, Any]:
    """All policies on one seed's lines.

    Args:
        recipe: With the seed, which draws the lines too.
        scale: Everything is so many times smaller.
        policies: By name of the row: shares of quotas, or ``None`` where the name is a policy; all without it.

    Returns:
        ``deployed`` and each policy: ``new_ap``, ``original_ap``; of what was picked ``defective`` frames, ``misses``
        (defective, and nothing detected) and ``answers`` by kind.
    """
    from training.train import train

    rows: dict[str, Any] = {}
    tried = policies or {name: SHARES if name == "quotas" else None for name in POLICIES}
    with tempfile.TemporaryDirectory() as folder:
        dataset = drawn_lines(Path(folder), recipe.seed, scale=scale)
        lines, judging = lines_by_folder(dataset), lines_by_folder(dataset, judging=True)
        deployed = _deployed(train(dataset, lines, recipe), lines)
        watched, defective = _watched(deployed, lines.new[0])
        rows["deployed"] = {**_judged(deployed, judging), "fires": round(float(watched.detected.mean()), 4)}
        for name, shares in tried.items():
            policy = name if shares is None else "quotas"
            chance = np.random.default_rng([recipe.seed, 7])
            which = chosen(policy, watched, BUDGET // scale, chance=chance, shares=shares or SHARES)
            model, answers = _mentored(deployed, lines, recipe, which)
            picked = {
                "defective": int(defective[which].sum()),
                "misses": int((defective & ~watched.detected)[which].sum()),
                "answers": answers,
            }
            rows[name] = {**_judged(model, judging), **picked}
    return rows


def chosen(
    policy: str,
    watched: Watched,
    budget: int,
    *,
    chance: np.random.Generator,
    shares: Mapping[str, float] = SHARES,
) -> list[int]:
    """The places of the frames that a policy picks, in order.

    Args:
        policy: One of ``POLICIES``.
        watched: N frames in order.
        budget: How many to pick.
        chance: Of what is drawn.
        shares: Of ``quotas``, which decides at every frame as ``station`` does; the others see the whole stream.
    """
    count = len(watched.values)
    if policy == "random":
        return sorted(int(n) for n in chance.permutation(count)[:budget])
    if policy == "k-centre":
        return _k_centre(watched, budget)
    if policy in ("station", "quotas"):
        return _by_station(watched, budget, chance, shares=shares if policy == "quotas" else None)
    score = np.array([getattr(one, policy) for one in watched.values])
    return sorted(int(n) for n in np.argsort(-score, kind="stable")[:budget])


def _k_centre(watched: Watched, budget: int) -> list[int]:
    """Greedily the detected frame farthest from those picked, beginning with the strongest.

    Reference:
        Sener and Savarese, Active learning for convolutional neural networks: a core-set approach, 2018.
    """
    pool = np.flatnonzero(watched.detected)
    if len(pool) < budget:
        pool = np.concatenate([pool, np.flatnonzero(~watched.detected)[: budget - len(pool)]])
    place = int(np.argmax([watched.values[int(n)].strongest for n in pool]))
    near = np.full(len(pool), np.inf)
    picked = []
    for _ in range(min(budget, len(pool))):
        picked.append(int(pool[place]))
        off = watched.features[pool] - watched.features[pool[place]]
        near = np.minimum(near, (off**2).sum(axis=1))
        place = int(np.argmax(near))
    return sorted(picked)


def _by_station(
    watched: Watched, budget: int, chance: np.random.Generator, *, shares: Mapping[str, float] | None
) -> list[int]:
    """As the station does it, frame by frame: its control sample, and its budget for the others that are detected.

    A frame costs 1, so that all policies pick as many; what the budget leaves unspent at the end is drawn at random.

    Args:
        shares: Of ``choose_by: quotas``; without them by ``band``.
    """
    clock, count = FakeClock(), len(watched.values)
    control = round(CONTROL * budget)
    picked = [int(n) for n in chance.permutation(count)[:control]]
    drawn, asked = set(picked), budget - control
    band = Budget(asked, shift_h=HOURS, clock=clock)
    quotas = None if shares is None else QuotaBudgets(asked, shift_h=HOURS, clock=clock, shares=shares)
    for n in range(count):
        clock.advance(HOURS * 3600 / count)
        if n in drawn or not watched.detected[n]:
            continue
        if quotas is None and band.affords(1, float(watched.worth[n])):
            band.spend(1)
            picked.append(n)
        elif quotas is not None and (stratum := quotas.affords(1, watched.values[n])) is not None:
            quotas.spend(stratum, 1)
            picked.append(n)
    rest = np.setdiff1d(np.arange(count), picked)
    return sorted(picked + [int(n) for n in chance.permutation(rest)[: budget - len(picked)]])


def drawn_lines(folder: Path, seed: int, *, scale: int = 1) -> Dataset:
    """Both lines of a seed as a folder: each picture's mask is its cells."""
    import cv2

    from training.data.synthetic import CELL, mentoring_new, mentoring_original

    def of(number: int) -> int:
        return 10_000 * seed + number

    parts = {
        "original/train": mentoring_original(ORIGINAL // scale, of(1)),
        "original/validate": mentoring_original(VALIDATE // scale, of(2)),
        "original/test": mentoring_original(TEST // 6 // scale, of(3)),
        "new/train": mentoring_new(UNLABELLED // scale, of(4), P_DEFECT),
        "new/mentor": mentoring_new(FRAMES // scale, of(5), P_DEFECT),
        "new/test": mentoring_new(TEST // scale, of(6), P_DEFECT),
    }
    rows = []
    for part, (images, truths) in parts.items():
        (folder / part).mkdir(parents=True)
        (folder / "masks" / part).mkdir(parents=True)
        for n, (image, truth) in enumerate(zip(images, truths, strict=True)):
            name = f"{part}/{n:04d}.png"
            mask = f"masks/{name}" if truth.any() else ""
            cv2.imwrite(str(folder / name), picture_of(image))
            if mask:
                cv2.imwrite(str(folder / mask), np.kron(truth, np.full((CELL, CELL), 255)).astype(np.uint8))
            rows.append([name, "defect" if mask else "good", mask, part.partition("/")[0]])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "mask", "domain"], *rows])
    return load_dataset(folder)


def _deployed(source: Checkpoint, lines: Lines) -> Checkpoint:
    """The source model as a station has it before anybody adapts; novelty is measured from the new line's features."""
    from training.data.views import views_of
    from training.lines import line_state, uncalibrated

    line, spec = lines.new[0], source.preprocess
    views = views_of(line, line.train, spec, grid=source.grid, labelled=False)
    home = source.line("original")
    sure = uncalibrated(home)
    state = line_state(source.network, home.statistics, views.images, spec, method="source", certainty=sure)
    return source.with_line("new", state)


def _watched(deployed: Checkpoint, line: Line) -> tuple[Watched, Bools]:
    """The stream as the device sees it, and which frames are defective, for counting alone."""
    from training.data.views import views_of
    from training.lines import confidence, predicted

    state, spec = deployed.line("new"), deployed.preprocess
    views = views_of(line, line.mentor, spec, grid=deployed.grid, labelled=True)
    logits, features = predicted(deployed.network, state.statistics, views.images, spec)
    maps = confidence(logits, state)
    reference = state.feature_mean, state.feature_sd
    values = [
        values_of(one, feature=feature, reference=reference) for one, feature in zip(maps, features, strict=True)
    ]
    off: Floats = ((features - state.feature_mean) / np.maximum(state.feature_sd, 1e-6)).astype(np.float32)
    detected = (maps.max(axis=(2, 3)) >= state.thresholds.pass_below).any(axis=1)
    return Watched(values, off, detected, _worth(maps, state)), views.defective


def _worth(maps: Floats, state: LineState) -> Floats:
    """What the station makes of each frame's surest cell."""
    low, high = state.thresholds.pass_below, state.thresholds.defective_from
    tops = maps.max(axis=(2, 3))
    found = []
    for top, k in zip(tops.max(axis=1), tops.argmax(axis=1), strict=True):
        verdict = Verdict.DEFECTIVE if top >= high[k] else Verdict.UNCERTAIN
        found.append(value_of(verdict, float(top), (float(low[k]), float(high[k]))))
    return np.array(found, np.float32)


def _mentored(
    deployed: Checkpoint, lines: Lines, recipe: Recipe, which: Sequence[int]
) -> tuple[Checkpoint, dict[str, int]]:
    from training.mentors import Mentor, mentored
    from training.retrain import retrain

    new = lines.new[0]
    asked = replace(new, mentor=tuple(new.mentor[n] for n in which))
    views, answers = mentored(deployed, asked, STRATEGY, Mentor(control_share=1.0), seed=recipe.seed)
    return retrain(deployed, lines, recipe, mentored=views, strategy=STRATEGY), answers


def _judged(model: Checkpoint, judging: Lines) -> dict[str, float]:
    """Cell AP of each line's test part, on logits."""
    from training.data.views import views_of
    from training.lines import predicted

    found = {}
    for line in (judging.original, *judging.new):
        views = views_of(line, line.test, model.preprocess, grid=model.grid, labelled=True)
        logits, _ = predicted(model.network, model.line(line.name).statistics, views.images, model.preprocess)
        found[f"{line.name}_ap"] = round(float(average_precision(logits.ravel(), views.truth.ravel())), 4)
    return found


def _means(found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in found[0]:
        here = [one[name] for one in found]
        row: dict[str, object] = {"name": WORDS.get(name, name)}
        for figure in ("new_ap", "original_ap", "fires", "defective", "misses"):
            if figure in here[0]:
                row[figure] = round(float(np.mean([one[figure] for one in here])), 4)
        if "answers" in here[0]:
            for kind in here[0]["answers"]:
                row[kind] = round(float(np.mean([one["answers"][kind] for one in here])), 1)
        row["each_new_ap"] = [one["new_ap"] for one in here]
        rows.append(row)
    return rows


def _gains(found: Sequence[Mapping[str, Any]]) -> list[dict[str, object]]:
    """Paired over seeds, new line."""
    pairs = [(name, "random") for name in POLICIES if name != "random"]
    pairs += [("random", "deployed"), ("quotas", "station")]
    rows = []
    for one, other in pairs:
        each = np.array([seed[one]["new_ap"] - seed[other]["new_ap"] for seed in found])
        interval = paired_t_interval(each)
        rows.append(
            {
                "name": f"{WORDS.get(one, one)} - {WORDS.get(other, other)}",
                "difference_ap": round(float(each.mean()), 4),
                "low": round(interval.low, 4),
                "high": round(interval.high, 4),
                "each": [round(float(value), 4) for value in each],
            }
        )
    return rows

