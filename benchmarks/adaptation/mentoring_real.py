"""Mentoring on real pictures: groups left out in folds, the deployed model against every strategy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.protocol import Fold, Runs, best_of_others, by_seed, cross_folds
from benchmarks.adaptation.scored import Scored, average_precision
from benchmarks.results import Steps
from edge_sdk.quality.datasets import Dataset, load_dataset

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.data.views import Views
    from training.evaluate import Judged
    from training.mentors import Asked

__all__ = ["CANDIDATES", "CONTROLS", "COUNT", "FLAGGED", "SETS", "RealSet", "measured", "shipped_of"]

COUNT = 2
"""Folds."""
SHARES = (0.4, 0.1, 0.3, 0.2)
"""Of train, validate, mentor and test, before a fold takes the place of test: more to mentor than usual."""
CANDIDATES = ("masked", "masked+omnia", "masked+healthy", "masked+omnia+healthy", "masked+distil")
"""Strategies that may be shipped: those that start from the deployed weights."""
CONTROLS = ("unmasked",)
FLAGGED = 0.5
"""Share of the healthy pictures that a line flags so: assumed, the paper says "some"."""
LINES = ("original", "new")


@dataclass(frozen=True)
class RealSet:
    """A set and what makes its new line."""

    name: str
    folder: Path
    gap: str | None
    """``None``: the roles of its ``dataset.yaml``."""
    trunk: Literal["auto", "slim"]
    """``auto``: frozen MobileNetV2 with ImageNet weights where these are there; a slim one learns no tile."""


SETS = (
    RealSet("magnetic_tile", machine.ROOT.parent / "shared" / "data" / "magnetic_tile", None, "auto"),
    RealSet("hazelnut", machine.ROOT / "examples" / "data" / "hazelnut", "stains+lamp", "auto"),
)


def measured(one: RealSet, *, seeds: Sequence[int], quick: bool, progress: Steps) -> dict[str, dict[str, Runs]]:
    """By row and line the scores of every seed and fold."""
    rows = ("deployed", *CANDIDATES, *CONTROLS)
    found: dict[str, dict[str, list[list[Scored]]]] = {row: {line: [] for line in LINES} for row in rows}
    for seed in seeds:
        folds = [_Fold(one, seed, number, quick=quick) for number in range(COUNT)]
        for row in rows:
            kept = [
                progress.step(f"{one.name} seed {seed} fold {number} {row}", partial(fold.scored, row))
                for number, fold in enumerate(folds)
            ]
            for line in LINES:
                found[row][line].append([Scored.read(fold[line]) for fold in kept])  # type: ignore[arg-type]
    return {row: dict(lines) for row, lines in found.items()}


class _Fold:
    """One fold of one seed: trained, adapted and asked when first needed."""

    def __init__(self, one: RealSet, seed: int, number: int, *, quick: bool) -> None:
        from training.recipe import Recipe

        recipe = Recipe(trunk=one.trunk, side_px=128, seed=seed)
        self._recipe = recipe.quick() if quick else recipe
        self._set, self._number = one, number

    def scored(self, row: str) -> dict[str, object]:
        """Both lines' test cells as this row's model scores them, ready for JSON."""
        from training.evaluate import judge
        from training.retrain import retrain

        checkpoint = self._deployed
        if row != "deployed":
            checkpoint = retrain(
                checkpoint, self._fold.lines, self._recipe, mentored=self._asked.taught(row), strategy=row
            )
        found = {line: _scored(judge(checkpoint, line, views)) for line, views in self._tests.items()}
        return {line: one.document() for line, one in found.items()} | {"answers": self._asked.counts}

    @cached_property
    def _dataset(self) -> Dataset:
        return load_dataset(self._set.folder)

    @cached_property
    def _fold(self) -> Fold:
        folds = cross_folds(self._dataset, seed=self._recipe.seed, count=COUNT, gap=self._set.gap, shares=SHARES)
        return folds[self._number]

    @cached_property
    def _deployed(self) -> Checkpoint:
        from training.adapt import adapt
        from training.train import train

        source = train(self._dataset, self._fold.lines, self._recipe)
        return adapt(source, self._dataset, self._fold.lines, self._recipe).chosen

    @cached_property
    def _asked(self) -> Asked:
        from training.mentors import Mentor, ask

        return ask(self._deployed, self._fold.lines.new[0], Mentor(flagged=FLAGGED), seed=self._recipe.seed)

    @cached_property
    def _tests(self) -> dict[str, Views]:
        from training.data.views import views_of

        judging, found = self._fold.judging, self._deployed
        return {
            line.name: views_of(line, line.test, found.preprocess, grid=found.grid, labelled=True)
            for line in (judging.original, judging.new[0])
        }


def _scored(judged: Judged) -> Scored:
    """The cells whose truth is known; of several classes the largest counts."""
    views = judged.views
    where = views.valid & (views.known.max(axis=1) > 0)
    pictures = np.repeat(np.arange(len(views)), where.sum(axis=(1, 2)))
    return Scored(
        judged.logits.max(axis=1)[where].astype(np.float32),
        views.truth.max(axis=1)[where],
        tuple(views.units[n] for n in pictures),
    )


def shipped_of(runs: Mapping[str, Mapping[str, Mapping[str, Runs]]]) -> tuple[str, list[str], dict[str, float]]:
    """The strategy that is best on the mean of the sets; and for every seed, the one that the other seeds say."""
    means = {
        row: np.mean([by_seed(lines[row]["new"], average_precision) for lines in runs.values()], axis=0)
        for row in CANDIDATES
    }
    whole = {row: float(values.mean()) for row, values in means.items()}
    others = [name for name, _ in best_of_others(means)]
    return max(whole, key=lambda row: whole[row]), others, whole
