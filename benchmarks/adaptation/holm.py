"""Which of several pairs of rows differ once all of them are looked at."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.adaptation.protocol import Runs, paired
from benchmarks.adaptation.scored import MEASURES

__all__ = ["holm"]


def holm(pairs: Mapping[str, tuple[Runs, Runs]], *, alpha: float = 0.05, rounds: int = 4000) -> list[str]:
    """Which pairs differ once all are looked at: Holm's step-down, by intervals.

    Of m pairs left, the one whose interval at the level ``1 - alpha / m`` lies farthest from 0 is taken if it does not
    hold 0, then m - 1 are left.

    Args:
        pairs: By name, the row in question and the one that it is compared with.
        alpha: Probability of any false one, in (0, 1).
        rounds: Draws of each interval.

    Reference:
        Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 1979.
    """
    left, found = dict(pairs), []
    while left:
        level = 1 - alpha / len(left)
        at = {
            name: paired(after, before, MEASURES["auroc"], rounds=rounds, level=level)
            for name, (after, before) in left.items()
        }
        apart = {name: max(one.low, -one.high) for name, one in at.items()}
        name = max(apart, key=lambda one: apart[one])
        if not apart[name] > 0:
            break
        found.append(name)
        del left[name]
    return found
