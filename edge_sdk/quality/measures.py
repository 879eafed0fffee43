"""Measures of a model and their intervals, in numpy alone.

Rank on logits where you have them: under a domain gap float32 confidences saturate to exactly 1.0,
and a ranking of ties says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError, ShapeError

__all__ = [
    "Interval",
    "agreement",
    "auroc",
    "average_precision",
    "bootstrap_over_groups",
    "paired_t_interval",
    "precision_recall_at",
    "sqnr_db",
]

Numbers = npt.ArrayLike


class Interval(NamedTuple):
    """A two-sided interval."""

    low: float
    high: float


def _ranked(scores: Numbers, truth: Numbers) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Both flat and checked; scores keep their precision."""
    ranked, true = np.asarray(scores).ravel(), np.asarray(truth).ravel()
    if ranked.shape != true.shape:
        raise ShapeError(f"{ranked.size} scores for {true.size} truths; give one of each for every area")
    if ranked.size and not np.isfinite(ranked).all():
        raise RangeError("a score is NaN or infinite; give finite scores")
    odd = true[(true != 0) & (true != 1)]
    if odd.size:
        raise RangeError(f"truth holds {odd[0]}; give 0 for healthy and 1 for defective")
    return ranked, true.astype(bool)


def average_precision(scores: Numbers, truth: Numbers) -> float:
    """Area under precision over recall as a sum of steps; equal scores count as one step.

    Args:
        scores: Any shape, finite; a higher one means more surely defective.
        truth: Same shape, 0 or 1.

    Returns:
        In [0, 1]; NaN where nothing is defective.

    Raises:
        ShapeError: The sizes differ.
        RangeError: A score is not finite, or a truth neither 0 nor 1.
    """
    ranked, true = _ranked(scores, truth)
    if not true.any():
        return float("nan")
    order = np.argsort(-ranked, kind="stable")
    ranked, true = ranked[order], true[order]
    last = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    hits = np.cumsum(true)[last]
    precision, recall = hits / (last + 1), hits / hits[-1]
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def auroc(scores: Numbers, truth: Numbers) -> float:
    """Probability that a defective area scores above a healthy one; equal scores count half.

    Args:
        scores: Any shape, finite.
        truth: Same shape, 0 or 1.

    Returns:
        In [0, 1]; NaN where only one of the two kinds is there.

    Raises:
        ShapeError: The sizes differ.
        RangeError: A score is not finite, or a truth neither 0 nor 1.
    """
    ranked, true = _ranked(scores, truth)
    defective = int(true.sum())
    healthy = true.size - defective
    if not defective or not healthy:
        return float("nan")
    _, place, count = np.unique(ranked, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(count) - (count - 1) / 2
    above = float(mean_rank[place.ravel()[true]].sum()) - defective * (defective + 1) / 2
    return float(above / (defective * healthy))


def precision_recall_at(scores: Numbers, truth: Numbers, boundary: float) -> tuple[float, float]:
    """Precision and recall when everything from ``boundary`` up counts as defective.

    Returns:
        Each in [0, 1]; a precision of nothing reported, and a recall of nothing defective, is 0.
    """
    ranked, true = _ranked(scores, truth)
    reported = ranked >= boundary
    hits = float((reported & true).sum())
    return hits / max(int(reported.sum()), 1), hits / max(int(true.sum()), 1)


def bootstrap_over_groups(
    measure: Callable[[npt.NDArray[np.intp]], float],
    groups: Sequence[Hashable] | Array,
    *,
    rounds: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile interval of a measure when whole groups are drawn with replacement.

    Cells of one picture, and pictures of one part, are not independent; drawing them one by one would
    make the interval far too narrow.

    Args:
        measure: Of row numbers, with repeats; rounds where it gives NaN are drawn for nothing.  A paired
            difference is a measure too.
        groups: One entry a row.
        rounds: How often to draw, 1 or more.
        level: Share inside, in (0, 1).
        seed: Of the draws.

    Returns:
        Both ends NaN where no round gave a number.

    Raises:
        RangeError: There is no row, no round, or ``level`` is out of range.
    """
    if not len(groups):
        raise RangeError("no row to draw from; give at least one group")
    if rounds < 1 or not 0 < level < 1:
        raise RangeError(
            f"{rounds} rounds at level {level:g}; give at least 1 round and a level between 0 and 1"
        )
    rows: dict[Any, list[int]] = {}
    for row, group in enumerate(groups):
        rows.setdefault(group, []).append(row)
    members = [np.asarray(one, np.intp) for one in rows.values()]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(rounds):
        chosen = generator.integers(0, len(members), len(members))
        drawn.append(measure(np.concatenate([members[one] for one in chosen])))
    values = np.asarray(drawn, np.float64)
    values = values[np.isfinite(values)]
    if not values.size:
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def paired_t_interval(differences: Numbers, *, level: float = 0.95) -> Interval:
    """Student's interval of a mean of paired differences, e.g. one a seed.

    Args:
        differences: Two or more, finite.
        level: Share inside, in (0, 1).

    Raises:
        RangeError: Fewer than two differences, one not finite, or ``level`` out of range.
    """
    values = np.asarray(differences, np.float64).ravel()
    if values.size < 2 or not np.isfinite(values).all():
        raise RangeError(
            f"{values.size} differences, of which {int(np.isfinite(values).sum())} finite; give at least two"
        )
    if not 0 < level < 1:
        raise RangeError(f"level is {level:g}; give one between 0 and 1")
    reach = _student_quantile((1 + level) / 2, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return Interval(float(values.mean() - reach), float(values.mean() + reach))


def _student_quantile(probability: float, freedom: int) -> float:
    """Inverse of Student's distribution above 1/2, by integrating its density over the angle.

    With x = sqrt(n) tan(a) the density becomes cos(a)^(n-1), smooth on a finite interval.
    """
    angles = np.linspace(0, np.pi / 2, 200_001)
    density = np.cos(angles) ** (freedom - 1)
    area = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    angle = np.interp(2 * probability - 1, area / area[-1], angles)
    return float(np.sqrt(freedom) * np.tan(angle))


def agreement(first: Numbers, second: Numbers) -> float:
    """Share of decisions that are the same, in [0, 1]; 1 where there is none to compare.

    Raises:
        ShapeError: The shapes differ.
    """
    one, other = np.asarray(first), np.asarray(second)
    if one.shape != other.shape:
        raise ShapeError(f"decisions of shapes {one.shape} and {other.shape}; give the same areas of both")
    return float((one == other).mean()) if one.size else 1.0


def sqnr_db(reference: Numbers, other: Numbers) -> float:
    """Signal to quantisation noise in decibels: power of the reference over power of the difference.

    Returns:
        Infinity where both are equal, minus infinity where the reference is all 0 and the other is not.

    Raises:
        ShapeError: The shapes differ.
    """
    one, two = np.asarray(reference, np.float64), np.asarray(other, np.float64)
    if one.shape != two.shape:
        raise ShapeError(f"outputs of shapes {one.shape} and {two.shape}; give the same outputs of both")
    signal, noise = float(np.sum(one**2)), float(np.sum((one - two) ** 2))
    if noise == 0:
        return float("inf")
    return 10 * float(np.log10(signal / noise)) if signal > 0 else float("-inf")
