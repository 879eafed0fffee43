"""Signal and error of a rendering, picture by picture, and what two renderings' SQNR differ by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from edge_sdk.arrays import Array

__all__ = ["Heard", "Lead", "decibels", "lead", "rounded"]

ROUNDS = 2000


@dataclass(frozen=True, eq=False)
class Heard:
    """What one rendering made of the held-out pictures of one seed."""

    groups: tuple[str, ...]
    """``(N,)`` of each picture."""
    signal: Array
    """``(N,)`` sum of FP32's squared outputs."""
    error: Array
    """``(N,)`` sum of the squared differences from it."""
    agreed: Array
    """``(N,)`` in [0, 1]: whether the verdict is FP32's, of a map the share of pixels."""

    @classmethod
    def of(cls, kept: Mapping[str, Any], groups: Sequence[str]) -> Heard:
        """From what a step kept."""
        rows = (np.asarray(kept[name], np.float64) for name in ("signal", "error", "agreed"))
        return cls(tuple(groups), *rows)

    @property
    def db(self) -> float:
        """Over all pictures."""
        return decibels(self.signal.sum(), self.error.sum())


class Lead(NamedTuple):
    """How many dB more one rendering has than another, in the mean over seeds."""

    db: float
    low: float
    high: float
    """95 %, percentile bootstrap over groups, the same draw in every seed."""
    each: tuple[float, ...]


def lead(mine: Sequence[Heard], other: Sequence[Heard], *, rounds: int = ROUNDS, seed: int = 0) -> Lead:
    """The seed-averaged paired difference; ``mine[s]`` and ``other[s]`` are of the same pictures.

    A draw takes as many groups as there are over all seeds, with replacement; a seed that a draw leaves without a
    picture is left out of that draw.
    """
    names = sorted({group for one in mine for group in one.groups})
    place = {name: n for n, name in enumerate(names)}
    each = tuple(a.db - b.db for a, b in zip(mine, other, strict=True))
    counts = np.random.default_rng(seed).multinomial(
        len(names), np.full(len(names), 1 / len(names)), size=rounds
    )
    found = []
    for a, b in zip(mine, other, strict=True):
        weights = counts[:, [place[group] for group in a.groups]].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(10 * np.log10((weights @ b.error) / (weights @ a.error)))
    drawn = np.nanmean(np.where(np.isfinite(found), found, np.nan), axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Lead(float(np.mean(each)), float(low), float(high), each)


def decibels(signal: float, error: float) -> float:
    """SQNR; 200 stands for an error of nothing."""
    return float(min(200.0, 10 * np.log10(signal / error))) if error > 0 else 200.0


def rounded(value: float) -> float:
    """As it stands in a result."""
    return round(float(value), 3)
