"""S3: five lines at once: one model for all of them, against an engine a line, against leaving the model as it is.

The colour-gap paper ends on a single set of weights for many lines.  Fewer files are fewer to validate, so what a
file less costs is stated beside how many there are: on drawn lines, new for every seed, and on hazelnuts under
four gaps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.protocol import SHARES, Paired, Runs, by_seed, cross_folds, over_seeds, paired
from benchmarks.adaptation.scored import MEASURES, Scored
from benchmarks.results import Chart, Result, Steps
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "WAYS", "Several", "drawn_step", "files_of", "nuts_step",
           "rows_of", "run", "several_of"]  # fmt: skip

TITLE = "Five lines at once: one model for all, or an engine a line"
SUITE = "adaptation"
MINUTES = 8.0
NEEDS = ("torch", "cv2")

SEEDS = tuple(range(5))
METHODS = ("adabn", "mmd", "adda")
WAYS = ("a line each", "one for the new lines", "one for all")
"""``one for the new lines`` leaves the original line its statistics; ``one for all`` is the single set of weights."""
DRAWN_LINES = (
    ("brushed", 0, None), ("cast", 1, None), ("brushed_lamp", 0, "lamp"), ("brushed_grey", 0, "grey"),
    ("cast_dark", 1, "gamma+tint"),
)  # fmt: skip
GAPS = ("lamp", "grey", "gamma+tint", "viewpoint")
"""Of the hazelnuts' new lines, named in this order."""
HAZELNUT = machine.ROOT / "examples" / "data" / "hazelnut"
DRAWN = machine.ROOT / "build" / "adaptation" / "several"


@dataclass(frozen=True)
class Work:
    """How much is done."""

    iterations: int
    adapting: int
    side_px: int
    batch: int
    pictures: int = 0
    """Drawn ones of a line."""
    tested: int = 0
    prior: float = 0.2
    """Of defects among a new line's drawn pictures; of the original's half are."""


SYNTHETIC = Work(iterations=160, adapting=100, side_px=64, batch=16, pictures=120, tested=100)
NUTS = Work(iterations=80, adapting=50, side_px=96, batch=8)


@dataclass(frozen=True, eq=False)
class Several:
    """One set of lines: every way on the same pictures."""

    name: str
    lines: tuple[str, ...]
    """The original one first."""
    scored: Mapping[str, Mapping[str, Runs]]
    """By row and line."""
    files: Mapping[str, tuple[int, int]]
    """By row: sets of weights, engines."""
    fresh: bool
    """Whether each seed draws pictures of its own, so that seeds are independent."""

    def over(self, row: str, lines: Sequence[str]) -> Runs:
        """The runs of some lines side by side: each counts as a fold."""
        by_line = [self.scored[row][line] for line in lines]
        return [[one for runs in by_line for one in runs[seed]] for seed in range(len(by_line[0]))]

    def mean(self, row: str, lines: Sequence[str], measure: str) -> float:
        """Over seeds, folds and lines."""
        return float(by_seed(self.over(row, lines), MEASURES[measure]).mean())

    def minus(self, row: str, other: str, lines: Sequence[str], measure: str) -> Paired:
        """A row against another, the mean over lines."""
        after, before = self.over(row, lines), self.over(other, lines)
        if self.fresh:
            return over_seeds(list(by_seed(after, MEASURES[measure])), list(by_seed(before, MEASURES[measure])))
        return paired(after, before, MEASURES[measure])

    def rows(self) -> list[dict[str, object]]:
        """What each way comes to, and what it takes to keep."""
        original, *new = self.lines
        found = []
        for row, (weights, engines) in self.files.items():
            worst = min(self.mean(row, [line], "auroc") for line in new)
            found.append(
                {
                    "name": f"{self.name}: {row}",
                    "weights": weights,
                    "engines": engines,
                    "original_auroc": _round(self.mean(row, [original], "auroc")),
                    "new_auroc": _round(self.mean(row, new, "auroc")),
                    "worst_new_auroc": _round(worst),
                    "original_balanced_accuracy": _round(self.mean(row, [original], "balanced_accuracy")),
                    "new_balanced_accuracy": _round(self.mean(row, new, "balanced_accuracy")),
                }
            )
        return found

    def by_line(self) -> list[dict[str, object]]:
        """AUROC and balanced accuracy of every line."""
        return [
            {
                "name": f"{self.name}: {row}",
                **{f"{line}_{short}": _round(self.mean(row, [line], measure)) for line in self.lines
                   for short, measure in (("auroc", "auroc"), ("bacc", "balanced_accuracy"))},
            }
            for row in self.files
        ]  # fmt: skip

    def differences(self) -> list[dict[str, object]]:
        """One model against a line each, and each against leaving the model as it is."""
        original, *new = self.lines
        found = []
        for method in METHODS:
            each, shared, whole = (f"{method}, {way}" for way in WAYS)
            pairs = [
                (each, "source", new, "new lines"),
                (shared, each, new, "new lines"),
                (whole, each, new, "new lines"),
                (whole, "source", [original], "original line"),
            ]
            for row, other, lines, where in pairs:
                for measure in ("auroc", "balanced_accuracy"):
                    words = measure.replace("_", " ").replace("auroc", "AUROC")
                    said = f"{self.name}: {row} - {other}, {where}, {words}"
                    named = self.minus(row, other, lines, measure).row(said)
                    found.append({key: named[key] for key in ("name", "difference", "low", "high", "each")})
        return found


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    drawn = replace(SYNTHETIC, iterations=4, adapting=2, pictures=20, tested=20) if quick else SYNTHETIC
    nuts = replace(NUTS, iterations=4, adapting=2, side_px=32) if quick else NUTS
    progress.expect(3 * len(seeds))
    first = [[progress.step(f"drawn, seed {seed}", partial(drawn_step, drawn, seed))] for seed in seeds]
    second = [
        [progress.step(f"hazelnut, seed {seed}, fold {fold}", partial(nuts_step, nuts, seed, fold)) for fold in (0, 1)]
        for seed in seeds
    ]
    sets = [
        several_of("drawn", [name for name, _, _ in DRAWN_LINES], first, fresh=True),
        several_of("hazelnut", ["plain", *GAPS], second, fresh=False),
    ]
    return result_of(sets, {"seeds": list(seeds), "threads": 1, "drawn": vars(drawn), "hazelnut": vars(nuts)})


def drawn_step(work: Work, seed: int) -> dict[str, Any]:
    """All ways on the lines that one seed draws."""
    from benchmarks.adaptation.drawn import DrawnPart, drawn_set

    parts = []
    for number, (name, domain, gap) in enumerate(DRAWN_LINES):
        faulty = round((0.5 if number == 0 else work.prior) * work.pictures)
        tried = work.tested // 2
        parts += [
            DrawnPart(name, domain, "train", work.pictures - faulty, faulty, gap),
            DrawnPart(name, domain, "test", work.tested - tried, tried, gap),
        ]
    dataset = drawn_set(DRAWN / str(seed), parts, seed=seed)
    new = [name for name, _, _ in DRAWN_LINES[1:]]
    lines, judging = (
        lines_of(dataset, original=DRAWN_LINES[0][0], new=new, seed=seed, shares=SHARES, evaluating=judge)
        for judge in (False, True)
    )
    return rows_of(dataset, lines, judging, work, seed)


def nuts_step(work: Work, seed: int, fold: int) -> dict[str, Any]:
    """All ways on one fold of the hazelnuts; the new lines show the same parts, the original one others."""
    dealt = cross_folds(load_dataset(HAZELNUT), seed=seed, gap=GAPS[0])[fold]

    def behind(lines: Lines) -> Lines:
        one = lines.new[0]
        others = [replace(one, name=f"new{n}", gap=gap) for n, gap in enumerate(GAPS[1:], 2)]
        return replace(lines, new=(one, *others))

    return rows_of(load_dataset(HAZELNUT), behind(dealt.lines), behind(dealt.judging), work, seed)


def rows_of(dataset: Dataset, lines: Lines, judging: Lines, work: Work, seed: int) -> dict[str, Any]:
    """Train once, adapt in every way, judge every line by the engine that way gives it.

    Returns:
        ``rows``: by row a ``Scored`` document a line, the original first; ``files``: by row sets of weights and
        engines.
    """
    from benchmarks.adaptation.rows import boundary_of, pictures_of
    from training.data.views import views_of
    from training.evaluate import judge
    from training.jointly import adapt_jointly
    from training.recipe import Recipe
    from training.train import train

    recipe = Recipe(trunk="slim", head="classifier", iterations=work.iterations, side_px=work.side_px,
                    batch=work.batch, seed=seed)  # fmt: skip
    source = train(dataset, lines, recipe)
    adapting = recipe.model_copy(update={"iterations": work.adapting})
    engines = {"source": [(source, "original")] * (1 + len(lines.new))}
    for method in METHODS:
        engines |= _engines(adapt_jointly, source, lines, adapting, method)
    shown = [
        views_of(line, line.test, source.preprocess, grid=source.grid, labelled=True)
        for line in (judging.original, *judging.new)
    ]
    found = {
        row: [
            pictures_of(judge(one, name, views), boundary=boundary_of(one, name)).document()
            for (one, name), views in zip(pairs, shown, strict=True)
        ]
        for row, pairs in engines.items()
    }
    return {"rows": found, "files": {row: files_of(pairs) for row, pairs in engines.items()}}


def files_of(engines: Sequence[tuple[Checkpoint, str]]) -> tuple[int, int]:
    """How many different sets of weights and how many different engines some lines need together.

    Args:
        engines: Of each line the checkpoint and its line's name.

    Returns:
        Sets that differ in a weight, statistics aside; and sets that differ in any tensor, each an engine to build
        and validate.
    """
    from training.statistics import own_weights

    weights, whole = set(), set()
    for checkpoint, name in engines:
        tensors = {
            **checkpoint.network.state_dict(),
            **checkpoint.lines.get(name, checkpoint.line("original")).statistics,
        }
        floats = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
        whole.add(_digest(floats))
        weights.add(_digest(own_weights(checkpoint.network, floats)))
    return len(weights), len(whole)


def several_of(
    name: str, lines: Sequence[str], found: Sequence[Sequence[Mapping[str, Any]]], *, fresh: bool
) -> Several:
    """From what ``rows_of`` gave, by seed and fold."""
    rows = list(found[0][0]["rows"])
    scored = {
        row: {
            line: [[Scored.read(one["rows"][row][n]) for one in folds] for folds in found]
            for n, line in enumerate(lines)
        }
        for row in rows
    }
    most = {
        row: tuple(max(int(one["files"][row][k]) for folds in found for one in folds) for k in (0, 1)) for row in rows
    }
    return Several(name, tuple(lines), scored, {row: (most[row][0], most[row][1]) for row in rows}, fresh)


def result_of(sets: Sequence[Several], settings: Mapping[str, object]) -> Result:
    """Rows and notes."""
    rows = [row for one in sets for row in one.rows()]
    for one in sets:
        rows += one.by_line()
    rows += [row for one in sets for row in one.differences()]
    return Result(
        rows=rows,
        notes=[
            "a line each: every new line is adapted to by itself and the original keeps its engine; one for the new "
            "lines: one set of tensors for their union, the original keeps its statistics; one for all: the original "
            "is in the union too and is judged by the same tensors, the paper's single set of weights",
            "weights are sets of tensors that differ beyond normalisation statistics, engines are sets that differ at "
            "all: what has to be built and validated",
            "the same training for every way; only the unlabelled pictures differ: a line's own, or those of all",
            "new_auroc is the mean over the four new lines, each ranked for itself; the boundary is the original's",
            "drawn lines are new for every seed, intervals over seeds; hazelnuts are the same in every seed and all "
            "new lines show the same parts, so intervals are over parts",
            "a fifth of the drawn lines' unlabelled pictures are defective, of the hazelnuts a third",
        ],
        settings=dict(settings),
        data={"hazelnut": machine.data_digest(HAZELNUT)},
        packages=("torch",),
        chart=Chart("new_auroc", "AUROC"),
    )


def _engines(
    adapt_jointly: Any, source: Checkpoint, lines: Lines, recipe: Recipe, method: str
) -> dict[str, list[tuple[Checkpoint, str]]]:
    """Of each way the engines, the original line's first."""
    names = [line.name for line in lines.new]
    alone = [adapt_jointly(source, replace(lines, new=(line,)), recipe, method=method) for line in lines.new]
    shared = adapt_jointly(source, lines, recipe, method=method)
    whole = adapt_jointly(source, lines, recipe, method=method, with_original=True)
    each = [(source, "original"), *zip(alone, names, strict=True)]
    return {
        f"{method}, {WAYS[0]}": each,
        f"{method}, {WAYS[1]}": [(shared, name) for name in ("original", *names)],
        f"{method}, {WAYS[2]}": [(whole, name) for name in ("original", *names)],
    }


def _digest(tensors: Mapping[str, Any]) -> str:
    told = hashlib.sha256()
    for name in sorted(tensors):
        told.update(name.encode())
        told.update(np.ascontiguousarray(tensors[name].detach().cpu().numpy()).tobytes())
    return told.hexdigest()


def _round(value: float) -> float:
    return round(float(value), 3)
