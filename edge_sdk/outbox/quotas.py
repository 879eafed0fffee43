"""A budget of questions for each of several scores, so that no one score decides what operators see.

No single score finds everything: the strongest detections bring the true defects, uncertainty brings the false
alarms, novelty what the line has not shown before.  Only a uniform draw says how much is missed: that is the control
sample's part, which is drawn beside the budget.  The station chooses so where ``choose_by`` says ``quotas``; result E6
measures this class.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats
from edge_sdk.clock import Clock
from edge_sdk.errors import RangeError
from edge_sdk.outbox.budget import Budget

__all__ = ["SHARES", "QuotaBudgets", "Values", "places_of", "values_of"]

SHARES: Mapping[str, float] = MappingProxyType({"strongest": 0.4, "entropy": 0.4, "novelty": 0.2})
"""Of a shift's questions; no better than other mixtures that were tried (result E6)."""


@dataclass(frozen=True)
class Values:
    """What each score makes of a frame; larger comes first."""

    strongest: float
    """Confidence of the surest cell, in [0, 1]."""
    margin: float
    """Entropy of the most doubtful cell, bits in [0, 1]."""
    entropy: float
    """Mean entropy of the cells, bits in [0, 1]."""
    novelty: float
    """Mean squared deviation of the pooled feature from the line's, in its standard deviations; 0 without one."""


def values_of(
    confidence: Floats,
    *,
    feature: Floats | None = None,
    reference: tuple[Array, Array] | None = None,
    valid: Bools | None = None,
) -> Values:
    """The scores of a frame.

    Args:
        confidence: ``(K, h, w)`` in [0, 1].
        feature: ``(F,)`` pooled.
        reference: ``(F,)`` mean and standard deviation of the line's features: the bundle's drift reference.
        valid: ``(h, w)`` cells that show the picture and no padding.
    """
    sure = confidence.reshape(len(confidence), -1) if valid is None else confidence[:, valid]
    p = np.clip(sure.astype(np.float64), 1e-9, 1 - 1e-9)
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    far = 0.0
    if feature is not None and reference is not None:
        mean, sd = reference
        far = float((((feature - mean) / np.maximum(sd, 1e-6)) ** 2).mean())
    if not bits.size:
        return Values(0.0, 0.0, 0.0, far)
    return Values(float(sure.max()), float(bits.max()), float(bits.mean()), far)


def places_of(size: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Whole places by share, the largest remainders rounded up.

    Raises:
        RangeError: A name is no score, or the shares are not above 0 and together 1.
    """
    known = tuple(Values.__dataclass_fields__)
    for name, share in shares.items():
        if name not in known:
            raise RangeError(f"there is no score {name}; give {', '.join(known)}")
        if not share > 0:
            raise RangeError(f"the share of {name} is {share:g}; give one above 0, or leave it out")
    if not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        raise RangeError(f"the shares are together {sum(shares.values()):g}; give shares that make 1")
    found = {name: int(size * share + 1e-9) for name, share in shares.items()}
    rests = sorted(shares, key=lambda name: found[name] - size * shares[name])
    for name in rests[: size - sum(found.values())]:
        found[name] += 1
    return found


class QuotaBudgets:
    """Decides at every frame: it is taken by the first stratum that affords it, and by none twice.

    Args:
        questions: A shift, over all strata.
        shift_h: Hours of a shift.
        clock: As of ``Budget``.
        shares: Of the questions by name of a score of ``Values``; above 0, together 1.

    Raises:
        RangeError: There is no such score, or the shares are not a whole.
    """

    def __init__(
        self, questions: int, *, shift_h: float, clock: Clock, shares: Mapping[str, float] = SHARES
    ) -> None:
        places = places_of(questions, shares)
        self._budgets = {name: Budget(count, shift_h=shift_h, clock=clock) for name, count in places.items()}

    @property
    def left(self) -> float:
        """Questions that this shift has left; may be read by another thread."""
        return sum(budget.left for budget in self._budgets.values())

    def affords(self, questions: int, values: Values) -> str | None:
        """The stratum that may queue a frame now, if any; every stratum ranks it among those it saw."""
        able = [
            name
            for name, budget in self._budgets.items()
            if budget.affords(questions, _spread(name, getattr(values, name)))
        ]
        return able[0] if able else None

    def spend(self, stratum: str, questions: int) -> None:
        """Take from a stratum's budget, once the frame is queued."""
        self._budgets[stratum].spend(questions)


def _spread(name: str, value: float) -> float:
    """A score over [0, 1], in the same order: mean entropies crowd near 0 and novelty has no end."""
    if name == "entropy":
        return math.sqrt(math.sqrt(value))
    return value / (1 + value) if name == "novelty" else value
