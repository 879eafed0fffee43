"""What one model said of one fold's test areas, and how good that was, with groups counted more than once.

A bootstrap over groups asks the same measure a thousand times with other counts of the groups, so the areas are
sorted once and every draw is a row of weights.  A weight of 2 is the same as the area standing there twice.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError, RangeError, ShapeError

__all__ = ["MEASURES", "Measure", "Scored", "auroc", "average_precision", "balanced_accuracy"]


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores of n areas of one fold: pictures, or the cells of pictures."""

    scores: Array
    """``(n,)`` logits, higher means more surely defective."""
    truth: Array
    """``(n,)`` 0 healthy, 1 defective."""
    groups: tuple[str, ...]
    """``(n,)``: what is drawn as a whole, the group of the area's picture."""
    boundary: float = 0.0
    """Logit from which an area counts as defective."""

    def __post_init__(self) -> None:
        n = len(self.scores)
        if self.scores.ndim != 1 or self.truth.shape != (n,) or len(self.groups) != n:
            raise ShapeError(
                f"{self.scores.shape} scores, {self.truth.shape} truths and {len(self.groups)} groups; "
                "give one of each for every area"
            )
        if not np.isfinite(self.scores).all():
            raise RangeError("a score is NaN or infinite; give finite logits")

    @property
    def both(self) -> bool:
        """Whether healthy and defective areas are there."""
        return bool((self.truth > 0).any() and (self.truth == 0).any())

    @cached_property
    def ranked(self) -> tuple[Array, Array]:
        """Order of the areas, surest first, and the places in it where a run of equal scores ends."""
        order = np.argsort(-self.scores, kind="stable")
        inorder = self.scores[order]
        return order, np.flatnonzero(np.r_[inorder[1:] != inorder[:-1], True])

    def weights(self, counts: Array, names: Sequence[str]) -> Array:
        """How often each area counts.

        Args:
            counts: ``(R, G)``: of every draw, how often each group came.
            names: Of the ``G`` groups, every one of this fold's among them.

        Returns:
            ``(R, n)``.
        """
        place = {name: k for k, name in enumerate(names)}
        return np.asarray(counts[:, [place[group] for group in self.groups]], np.float64)

    def document(self) -> dict[str, object]:
        """Ready for JSON, the scores to the last bit."""
        names = sorted(set(self.groups))
        place = {name: k for k, name in enumerate(names)}
        return {
            "scores": _packed(self.scores.astype("<f4")),
            "truth": _packed((self.truth > 0).astype("<u1")),
            "groups": names,
            "of": _packed(np.array([place[group] for group in self.groups], "<u2")),
            "boundary": self.boundary,
        }

    @classmethod
    def read(cls, document: Mapping[str, object]) -> Scored:
        """Of ``document``.

        Raises:
            FormatError: It is none.
        """
        try:
            names = [str(name) for name in document["groups"]]  # type: ignore[attr-defined]
            of = _unpacked(document["of"], "<u2")
            scores, truth = _unpacked(document["scores"], "<f4"), _unpacked(document["truth"], "<u1")
            return cls(scores, truth, tuple(names[int(k)] for k in of), float(document["boundary"]))  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise FormatError(f"a kept step holds no scores ({error}); delete it and run again") from error


Measure = Callable[[Scored, Array], Array]
"""Of areas and ``(R, n)`` weights, one value a draw: ``(R,)``, NaN where a draw lacks a kind."""


def auroc(scored: Scored, weights: Array) -> Array:
    """Probability that a defective area scores above a healthy one; equal scores count half."""
    order, ends = scored.ranked
    true = scored.truth[order] > 0
    drawn = weights[:, order]
    hits, others = np.cumsum(drawn * true, axis=1)[:, ends], np.cumsum(drawn * ~true, axis=1)[:, ends]
    steps = np.diff(others, axis=1, prepend=0.0)
    middles = hits - np.diff(hits, axis=1, prepend=0.0) / 2
    return _over((steps * middles).sum(axis=1), hits[:, -1] * others[:, -1])


def average_precision(scored: Scored, weights: Array) -> Array:
    """Area under precision over recall as a sum of steps; equal scores count as one step."""
    order, ends = scored.ranked
    true = scored.truth[order] > 0
    drawn = weights[:, order]
    hits, taken = np.cumsum(drawn * true, axis=1)[:, ends], np.cumsum(drawn, axis=1)[:, ends]
    precision = hits / np.maximum(taken, 1e-12)
    return _over((np.diff(hits, axis=1, prepend=0.0) * precision).sum(axis=1), hits[:, -1])


def balanced_accuracy(scored: Scored, weights: Array) -> Array:
    """Mean of the shares of defective and of healthy areas that are called so at the boundary."""
    called, true = scored.scores >= scored.boundary, scored.truth > 0
    found = _over(weights @ (called & true), weights @ true.astype(float))
    passed = _over(weights @ (~called & ~true), weights @ (~true).astype(float))
    return (found + passed) / 2


MEASURES: dict[str, Measure] = {
    "auroc": auroc,
    "ap": average_precision,
    "balanced_accuracy": balanced_accuracy,
}


def _over(above: Array, below: Array) -> Array:
    return np.where(below > 0, above / np.where(below > 0, below, 1), np.nan)


def _packed(values: Array) -> str:
    return base64.b64encode(zlib.compress(values.tobytes())).decode()


def _unpacked(text: object, kind: str) -> Array:
    return np.frombuffer(zlib.decompress(base64.b64decode(str(text))), kind)
