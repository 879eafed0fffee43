"""How many defects a new line makes, estimated from what the model says of it: black-box shift estimation.

Symbols, for J kinds of pictures (healthy, defective):

- ``A[i, j] = p(said i | is j)`` on labelled, held-out pictures of the original line;
- ``p[j]`` the share of kind j among them, and ``C = A diag(p)``, ``C[i, j] = p(said i, is j)``;
- ``q[i] = p(said i)`` on the unlabelled new line;
- ``w = C^-1 q`` the weight of each kind, ``w[j] = p_new(j) / p[j]``; so ``p_new = diag(p) w = A^-1 q``.

The assumption is label shift: a defect looks on the new line as it does on the original one, there are but
more or fewer of them.  Behind a domain gap it is false, and an estimate outside [0, 1] is how it shows.

Reference:
    Lipton, Wang and Smola, Detecting and correcting for label shift with black box predictors, ICML 2018,
    section 4, equations 1 to 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools
from edge_sdk.errors import RangeError, ShapeError

__all__ = ["NEARLY_SINGULAR", "Prior", "bbse_weights", "defect_prior", "on_simplex"]

NEARLY_SINGULAR = 10.0
"""Condition number of ``A`` from which its inverse makes noise: a defect is hardly more likely to raise an alarm."""
REACH = 1.96
"""Standard errors to either side of a 95 % interval."""


@dataclass(frozen=True)
class Prior:
    """The new line's share of defective pictures."""

    share: float
    """In [0, 1], clipped to it."""
    low: float
    """Lower end of the 95 % interval, by the delta method; 0 to 1 where ``A`` is nearly singular."""
    high: float
    original: float
    """Share of defective pictures among the labelled ones of the original line."""
    condition: float
    """Of ``A``, at most 1e6; 1 where the model is never wrong."""
    unclipped: float
    """As solved; outside [0, 1] by more than its error, and the lines differ in more than their defects."""

    @property
    def singular(self) -> bool:
        """Whether healthy and defective are confused so much that the estimate says little."""
        return self.condition > NEARLY_SINGULAR


def bbse_weights(confusion: Array, predicted: Array) -> Array:
    """``w = C^-1 q``: how many times as frequent each kind is on the new line; not clipped.

    Args:
        confusion: ``C``, ``(J, J)``: share of the original line's pictures said to be i (row) that are j (column).
        predicted: ``q``, ``(J,)``: share of the new line's pictures said to be i.

    Returns:
        ``w``, ``(J,)``; the least-squares solution where ``C`` is singular.

    Raises:
        ShapeError: ``C`` is not ``(J, J)`` for a ``q`` of ``(J,)``.
        RangeError: The shares of ``C`` or of ``q`` do not sum to 1.
    """
    if predicted.ndim != 1 or confusion.shape != (len(predicted), len(predicted)):
        raise ShapeError(f"confusion is {confusion.shape} for {predicted.shape} shares; give (J, J) and (J,)")
    for name, shares in (("confusion", confusion), ("predicted", predicted)):
        if abs(float(shares.sum()) - 1) > 1e-6:
            raise RangeError(f"the shares of {name} sum to {float(shares.sum()):g}; give shares that sum to 1")
    return np.asarray(np.linalg.lstsq(confusion, predicted, rcond=None)[0])


def on_simplex(shares: Array) -> Array:
    """Shares without the negative ones, summing to 1 again."""
    kept = np.clip(shares, 0, None)
    return np.asarray(kept / kept.sum())


def defect_prior(said: Bools, defective: Bools, said_new: Bools) -> Prior | None:
    """Estimate a new line's share of defective pictures.

    Args:
        said: ``(n,)`` whether the model calls the original line's held-out pictures defective.
        defective: ``(n,)`` whether they are.
        said_new: ``(m,)`` whether it calls the new line's defective.

    Returns:
        ``None`` without a labelled picture of each kind, or without a picture of the new line.

    Raises:
        ShapeError: ``said`` and ``defective`` differ in length.
    """
    if said.shape != defective.shape:
        raise ShapeError(f"{said.size} predictions for {defective.size} labels; give one of each a picture")
    counts = np.array([[np.sum((said == i) & (defective == j)) for j in (False, True)] for i in (False, True)])
    if not counts.sum(axis=0).all() or not said_new.size:
        return None
    joint = counts / counts.sum()
    share = joint.sum(axis=0)
    given = joint / share
    predicted = np.array([1 - said_new.mean(), said_new.mean()])
    solved = share * bbse_weights(joint, predicted)
    prior = on_simplex(solved)
    condition = float(min(np.linalg.cond(given), 1e6))
    error = _standard_error(counts, said_new, prior) if condition <= NEARLY_SINGULAR else 1.0
    return Prior(
        share=float(prior[1]),
        low=float(max(0.0, prior[1] - REACH * error)),
        high=float(min(1.0, prior[1] + REACH * error)),
        original=float(share[1]),
        condition=condition,
        unclipped=float(solved[1]),
    )


def _standard_error(counts: Array, said_new: Bools, prior: Array) -> float:
    """Of the defective share: the noise of ``q`` and of each column of ``A``, through ``A^-1``.

    Half a picture is added to each count, or a model without a mistake among ten would have no error.
    """
    smooth = counts + 0.5
    given = smooth / smooth.sum(axis=0)
    rate = (said_new.sum() + 0.5) / (said_new.size + 1)
    spread = _multinomial(np.array([1 - rate, rate]), said_new.size)
    for j in range(len(prior)):
        spread = spread + prior[j] ** 2 * _multinomial(given[:, j], int(counts[:, j].sum()))
    inverse = np.linalg.pinv(given)
    return float(np.sqrt((inverse @ spread @ inverse.T)[1, 1]))


def _multinomial(shares: Array, count: int) -> Array:
    """Covariance of the shares of ``count`` draws."""
    return np.asarray((np.diag(shares) - np.outer(shares, shares)) / max(count, 1))
