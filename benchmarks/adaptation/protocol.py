"""How every figure of the suite ``adaptation`` is arrived at, so that all tables can be read alike.

Groups are left out in folds, each seed deals them anew, a rank metric is computed inside a fold and averaged, a row is
compared with another on the same folds and seeds, and the interval comes from drawing groups.  Which row is "best" is
said by the other seeds, and a row that saw target labels is never it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.adaptation.scored import Measure, Scored
from edge_sdk.arrays import Array
from edge_sdk.errors import DatasetError, RangeError, ShapeError
from edge_sdk.quality.datasets import Dataset, Line, Lines, lines_of
from edge_sdk.quality.measures import paired_t_interval

__all__ = ["FEW_GROUPS", "SHARES", "Fold", "Paired", "Runs", "averaged", "best_of_others", "by_seed",
           "cross_folds", "over_seeds", "paired"]  # fmt: skip

SHARES = (0.7, 0.1, 0.0, 0.2)
"""Of train, validate, mentor and test before a fold takes the place of test.  Nobody is asked where nothing is
mentored, so that part stays empty; an experiment that asks gives shares of its own."""
FEW_GROUPS = 8
"""With so many groups or fewer an interval says little, so the differences are listed group by group."""
ROUNDS = 1000
PIECE = 100
"""Draws at a time, so that the cells of a whole set fit into memory."""

Runs = Sequence[Sequence[Scored]]
"""By seed, by fold."""


@dataclass(frozen=True)
class Fold:
    """One fold of one seed: what to train with, and what to judge with."""

    number: int
    lines: Lines
    """Without the truth of the test part."""
    judging: Lines


@dataclass(frozen=True)
class Paired:
    """How much better one row is than another, on the same seeds, folds and areas."""

    mean: float
    """Over seeds, of the mean over folds."""
    low: float
    high: float
    """95 %."""
    each: tuple[float, ...]
    """The difference of every seed."""
    kind: str
    """``groups``: percentile bootstrap over groups; ``seeds``: paired t-interval over seeds."""
    groups: Mapping[str, float | None] | None = None
    """With few groups: the difference among each one's areas alone, ``None`` where these are of one kind."""
    without: Mapping[str, float] | None = None
    """With few groups: the difference when this one is left out."""

    def row(self, name: str) -> dict[str, object]:
        """As it stands in a result."""
        found: dict[str, object] = {"name": name, "difference": _round(self.mean), "low": _round(self.low),
                                    "high": _round(self.high), "each": [_round(one) for one in self.each]}  # fmt: skip
        if self.groups is not None and self.without is not None:
            found["groups"] = {g: None if v is None else _round(v) for g, v in self.groups.items()}
            found["without_group"] = {g: _round(v) for g, v in self.without.items()}
        return found


def cross_folds(
    dataset: Dataset,
    *,
    seed: int,
    count: int = 2,
    original: str | Sequence[str] | None = None,
    new: Sequence[str] | None = None,
    gap: str | None = None,
    gap_on: str = "new",
    shares: Sequence[float] = SHARES,
) -> tuple[Fold, ...]:
    """Deal whole groups into folds; each is once the part test of both lines.

    Args:
        dataset: As read.
        seed: Of the dealing.
        count: Of folds, 2 or more.
        original: As ``lines_of`` takes it, and ``new``, ``gap`` and ``gap_on`` too.
        shares: Of train, validate, mentor and test; the first three are what a fold's other groups are dealt into.

    Raises:
        DatasetError: A fold's test part of a line has one kind of picture only, where the set has both.
    """
    found = []
    for number in range(count):
        training, judging = (
            lines_of(dataset, original=original, new=new, gap=gap, gap_on=gap_on, seed=seed, shares=shares,
                     fold=(number, count), evaluating=evaluating)
            for evaluating in (False, True)
        )  # fmt: skip
        for line in (judging.original, *judging.new):
            _check_both(dataset, line, f"fold {number} of {count}, seed {seed}")
        found.append(Fold(number, training, judging))
    return tuple(found)


def averaged(runs: Runs, measure: Measure) -> float:
    """Mean over seeds of the mean over folds."""
    return float(by_seed(runs, measure).mean())


def by_seed(runs: Runs, measure: Measure) -> Array:
    """``(S,)``: of each seed the mean over its folds.

    Raises:
        RangeError: A fold lacks one kind of area, so the measure says nothing of it.
    """
    found = np.array([[float(measure(one, _once(one))[0]) for one in folds] for folds in runs])
    if not np.isfinite(found).all():
        raise RangeError("a fold has healthy or defective areas alone; deal with another seed or fewer folds")
    return np.asarray(found.mean(axis=1))


def over_seeds(after: Sequence[float], before: Sequence[float]) -> Paired:
    """Of lines that are drawn anew for every seed: the paired t-interval over seeds."""
    each = np.asarray(after, np.float64) - np.asarray(before, np.float64)
    interval = paired_t_interval(each)
    return Paired(float(each.mean()), interval.low, interval.high, tuple(map(float, each)), "seeds")


def paired(
    after: Runs, before: Runs, measure: Measure, *, rounds: int = ROUNDS, level: float = 0.95, seed: int = 0
) -> Paired:
    """The seed-averaged paired difference, and its percentile interval over groups.

    A draw takes as many groups as there are, with replacement; the same draw counts in every fold and seed, where
    the measure is computed inside the fold.  A fold that a draw leaves with one kind of area is left out of that
    draw for both rows.

    Args:
        after: The row in question.
        before: The row it is compared with, of the same areas.
        measure: Of ``scored``.
        rounds: Draws.
        level: Share inside the interval.
        seed: Of the draws.

    Raises:
        ShapeError: The rows do not stand on the same areas.
        RangeError: A fold lacks one kind of area.
    """
    _check_same(after, before)
    each = by_seed(after, measure) - by_seed(before, measure)
    names = sorted({group for folds in after for one in folds for group in one.groups})
    chance = np.random.default_rng(seed)
    counts = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=rounds)
    drawn = _differences(after, before, measure, counts, names)
    drawn = drawn[np.isfinite(drawn)]
    ends = ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(drawn, ends) if drawn.size else (np.nan, np.nan)
    groups = without = None
    if len(names) <= FEW_GROUPS:
        only = _differences(after, before, measure, np.eye(len(names)), names)
        groups = {g: float(v) if np.isfinite(v) else None for g, v in zip(names, only, strict=True)}
        left = _differences(after, before, measure, 1 - np.eye(len(names)), names)
        without = {g: float(v) for g, v in zip(names, left, strict=True) if np.isfinite(v)}
    return Paired(float(each.mean()), float(low), float(high), tuple(map(float, each)), "groups", groups, without)


def best_of_others(
    rows: Mapping[str, Sequence[float] | Array], *, excluded: Collection[str] = ()
) -> list[tuple[str, float]]:
    """Of every seed: the row that is best on the mean of the *other* seeds, and its figure on this one.

    Choosing on the seed that is reported would make the best row better than it is.

    Args:
        rows: Figures by seed, of every row the same seeds.
        excluded: Rows that saw target labels.

    Raises:
        RangeError: No row is left, or there are fewer than two seeds.
    """
    left = {name: np.asarray(values, np.float64) for name, values in rows.items() if name not in set(excluded)}
    if not left:
        raise RangeError("every row saw target labels; give one that did not")
    seeds = len(next(iter(left.values())))
    if seeds < 2 or any(len(values) != seeds for values in left.values()):
        raise RangeError(f"rows of {sorted({len(v) for v in left.values()})} seeds; give the same two or more of each")
    found = []
    for seed in range(seeds):
        others = {name: float(np.delete(values, seed).mean()) for name, values in left.items()}
        best = max(others, key=lambda name: others[name])  # of equals the first
        found.append((best, float(left[best][seed])))
    return found


def _check_both(dataset: Dataset, line: Line, where: str) -> None:
    of_line = [sample.healthy for sample in dataset.samples if sample.domain in line.domains]
    wanted = {True, False} & set(of_line)
    lacking = wanted - {sample.healthy for sample in line.test}
    if lacking:
        what = "healthy" if True in lacking else "defective"
        raise DatasetError(f"{where}: part test of line {line.name} has no {what} picture; give fewer folds")


def _check_same(after: Runs, before: Runs) -> None:
    flat = [[one for folds in runs for one in folds] for runs in (after, before)]
    same = [len(folds) for folds in after] == [len(folds) for folds in before] and all(
        one.groups == other.groups and np.array_equal(one.truth, other.truth) for one, other in zip(*flat, strict=True)
    )
    if not same:
        raise ShapeError("the rows stand on different areas; give the same seeds, folds and pictures of both")


def _differences(after: Runs, before: Runs, measure: Measure, counts: Array, names: Sequence[str]) -> Array:
    """``(R,)`` of every draw; NaN where it leaves no fold with both kinds."""
    pieces = []
    for some in np.array_split(counts, -(-len(counts) // PIECE)):
        seeds = []
        for mine, other in zip(after, before, strict=True):
            weights = [one.weights(some, names) for one in mine]
            found = [measure(a, w) - measure(b, w) for a, b, w in zip(mine, other, weights, strict=True)]
            seeds.append(_mean(np.array(found)))
        pieces.append(_mean(np.array(seeds)))
    return np.concatenate(pieces)


def _mean(values: Array) -> Array:
    """Over the first axis, of what is a number."""
    there = np.isfinite(values)
    count = there.sum(axis=0)
    return np.where(count > 0, np.where(there, values, 0).sum(axis=0) / np.maximum(count, 1), np.nan)


def _once(scored: Scored) -> Array:
    return np.ones((1, len(scored.scores)))


def _round(value: float) -> float:
    return round(float(value), 4)
