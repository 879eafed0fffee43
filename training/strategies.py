"""What a retraining knows and where it starts: every strategy is data, one row of a table.

``retrain`` and ``truth_and_mentored`` take a strategy by its name here, or one of your own.  The first rows
are those of the mentoring paper's Table 1, the last ones the controls that it lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from edge_sdk.errors import ConfigError, RangeError

__all__ = ["EPSILON", "SHIPPED", "SHIPPED_WITH_FLAGS", "STRATEGIES", "Known", "Strategy", "strategy_named"]

Known = Literal["mentored", "+omnia", "+healthy", "+omnia+healthy", "unmasked", "pseudo", "full"]
"""What is known of the new pictures: the answered areas M alone; with the areas that the baseline is sure are
healthy; with all areas of pictures flagged healthy; with both; everything, the unanswered being healthy; what
the baseline says, nobody asked; the labels."""

EPSILON = 0.01
"""Confidence below which the baseline's word is taken that a cell is healthy (mentoring paper, section 3.4.2)."""
TRANSFER = 0.25
"""Of the rate, when training goes on from the baseline: ours, the paper does not say."""
MAY_LOSE = 0.02
"""Cell AP of the original line's held-out pictures: ours.  At half of it the luck of a hundred held-out pictures took
a model back to 0.4 of its way, which cost the new line 0.024 (one seed from 100 up)."""
ADVERSARY = 0.1
"""What the weight of the reversed gradient rises to: ours, the paper does not say."""


@dataclass(frozen=True)
class Strategy:
    """How a model is made of the original pictures and of what operators answered."""

    new_data: bool = True
    """Whether mentored pictures are trained on at all."""
    init: Literal["scratch", "baseline"] = "scratch"
    """Fresh weights, or those of the deployed model (transfer learning, section 3.4.1)."""
    known: Known = "mentored"
    epsilon: float = EPSILON
    """In (0, 1), on the baseline's tempered confidence."""
    domain_weight: float = 0.0
    """Most weight of the domain segmenter's reversed gradient (section 3.4.4), at least 0; 0: no segmenter."""
    lr_scale: float = 1.0
    """Times the recipe's rate, above 0."""
    balanced: bool = True
    """Whether batches hold as many mentored as original pictures (section 3.3), or as they come."""
    distil: float = 0.0
    """Weight of the baseline's own word on cells outside M (section 5), at least 0; 0: they stay silent."""
    length: float = 1.0
    """Times the recipe's iterations, above 0."""
    may_lose: float | None = None
    """Cell AP that the original line may lose on held-out pictures, at least 0: the trained weights go back towards
    the deployed ones as far as that needs (``training.interpolation``); ``None``: they stay as trained."""

    shared: bool = False
    """One set of statistics for both lines, in training and after, as the paper's models have: a control."""

    def __post_init__(self) -> None:
        if not 0 < self.epsilon < 1:
            raise RangeError(f"epsilon is {self.epsilon:g}; give a confidence above 0 and below 1")
        for name in ("domain_weight", "distil"):
            if not getattr(self, name) >= 0:
                raise RangeError(f"{name} is {getattr(self, name):g}; give a weight of 0 or more")
        for name in ("lr_scale", "length"):
            if not getattr(self, name) > 0:
                raise RangeError(f"{name} is {getattr(self, name):g}; give a factor above 0")
        if self.may_lose is not None and not self.may_lose >= 0:
            raise RangeError(f"may_lose is {self.may_lose:g}; give an average precision of 0 or more, or none")
        if self.may_lose is not None and self.init != "baseline":
            raise ConfigError("fresh weights have no way back to the deployed ones; leave out may_lose, or begin there")
        if not self.new_data and (self.known != "mentored" or self.domain_weight or self.distil):
            raise ConfigError("a strategy without new data can neither know, align nor distil anything; set new_data")
        if self.shared and (self.may_lose is not None or self.distil or not self.new_data):
            raise ConfigError("shared statistics are a control: with new data, without distil and without may_lose")

    @property
    def omnia(self) -> bool:
        """Whether the baseline's surest healthy cells join M."""
        return "+omnia" in self.known

    @property
    def healthy(self) -> bool:
        """Whether all cells of pictures flagged healthy join M."""
        return "+healthy" in self.known

    @property
    def asks(self) -> bool:
        """Whether it needs answers."""
        return self.new_data and self.known not in ("pseudo", "full")


def _transfer(known: Known = "mentored", **changed: Any) -> Strategy:
    """From the baseline at a quarter of the rate, then back towards it as far as the original line needs it."""
    return replace(Strategy(init="baseline", known=known, lr_scale=TRANSFER, may_lose=MAY_LOSE), **changed)


STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        # from fresh weights, as the paper's "w/ new data"
        "scratch": Strategy(),
        "scratch+omnia": Strategy(known="+omnia"),
        "scratch+healthy": Strategy(known="+healthy"),
        "scratch+dann": Strategy(domain_weight=ADVERSARY),
        # from the deployed weights: the paper's "+ transfer learning", and what it leaves for later
        "masked": _transfer(),
        "masked+omnia": _transfer("+omnia"),
        "masked+healthy": _transfer("+healthy"),
        "masked+omnia+healthy": _transfer("+omnia+healthy"),
        "masked+dann": _transfer(domain_weight=ADVERSARY),
        "masked+distil": _transfer(distil=0.5),
        # controls
        "longer": _transfer(new_data=False, may_lose=None),
        "masked-free": _transfer(may_lose=None),
        "masked+omnia+healthy-free": _transfer("+omnia+healthy", may_lose=None),
        "masked+omnia+healthy-shared": _transfer("+omnia+healthy", may_lose=None, shared=True),
        "masked-same-rate": _transfer(lr_scale=1.0),
        "scratch-unbalanced": Strategy(balanced=False),
        "scratch-unmasked": Strategy(known="unmasked"),
        "unmasked": _transfer("unmasked"),
        "pseudo-labels": _transfer("pseudo"),
        "full-labels": _transfer("full"),
    }
)
"""By name; those that begin with ``masked`` start from the deployed model."""

SHIPPED = "masked+omnia"
"""What ``retrain`` does where nobody names a strategy."""
SHIPPED_WITH_FLAGS = "masked+omnia+healthy"
"""And where the line flagged pictures healthy."""


def strategy_named(given: str | Strategy) -> tuple[str, Strategy]:
    """A strategy and its name; one that has none is called by its fields.

    Raises:
        ConfigError: There is no strategy of that name.
    """
    if isinstance(given, Strategy):
        names = [name for name, one in STRATEGIES.items() if one == given]
        return (names[0] if names else str(given)), given
    if given not in STRATEGIES:
        raise ConfigError(f"there is no strategy {given!r}; give one of {', '.join(STRATEGIES)}")
    return given, STRATEGIES[given]
