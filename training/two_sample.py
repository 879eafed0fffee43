"""Do two sets of pictures come from one line?  A test on scores, and one on features.

``ks``: ``D = sup_s |F(s) - G(s)|`` of two empirical distribution functions (Smirnov), in which the pictures of a unit
share its weight.  ``mmd``: the squared maximum
mean discrepancy of ``training.losses.discrepancy`` on features in units of the reference's standard deviations,

    ``MMD^2 = w^T K w``,   ``w_i = 1/n`` on the n rows of the one set and ``-1/m`` on the m of the other,

whose p-value is the share of random dealings of the same rows into two sets that come to at least as much.  Whole units
are dealt: pictures of one part are one observation, and taken for several they would make any difference sure.
Smirnov's p is therefore that of as many observations as there are units, which is cautious: a unit's share below a
score varies no more than one picture would.

Reference:
    Gretton et al., A kernel two-sample test, JMLR 2012, eq. 5; Rabanser, Günnemann, Lipton, Failing loudly, NeurIPS
    2019, section 3.2, for testing on what a trained network computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError, ShapeError
from training.losses.discrepancy import FACTORS

__all__ = ["Test", "ks_test", "mmd_test"]

LEAST = 8
"""Units of each set below which nothing is said."""


@dataclass(frozen=True)
class Test:
    """What a test came to."""

    __test__ = False  # no test of pytest's

    statistic: float
    p: float
    """Chance of at least this much where nothing differs, in (0, 1]."""


def ks_test(here: Array, there: Array, *, units: tuple[Sequence[str], Sequence[str]] | None = None) -> Test:
    """Kolmogorov and Smirnov's test of two samples.

    Args:
        here: ``(n,)``, n at least 1.
        there: ``(m,)``.
        units: ``(n,)`` and ``(m,)`` what may not be torn apart; each score for itself without.

    Raises:
        RangeError: A sample is empty.
        ShapeError: Units and scores disagree on their number.
    """
    from scipy.stats import ks_2samp, kstwo

    if not len(here) or not len(there):
        raise RangeError(f"{len(here)} and {len(there)} scores are compared; give at least one of each")
    one, other = units if units is not None else (range(len(here)), range(len(there)))
    if (len(one), len(other)) != (len(here), len(there)):
        raise ShapeError(f"{len(one)} and {len(other)} units for {len(here)} and {len(there)} scores; give one a score")
    n, m = len(set(one)), len(set(other))
    if (n, m) == (len(here), len(there)):
        found = ks_2samp(here, there)
        return Test(float(found.statistic), max(float(found.pvalue), 1e-300))
    grid = np.sort(np.concatenate([here, there]))
    furthest = float(np.abs(_shares_below(here, one, grid) - _shares_below(there, other, grid)).max())
    return Test(furthest, max(float(kstwo.sf(furthest, round(n * m / (n + m)) or 1)), 1e-300))


def _shares_below(scores: Array, units: Sequence[object], grid: Array) -> Array:
    """Of each place of an ascending grid the share at or below it, every unit weighing the same."""
    names = [str(unit) for unit in units]
    _, which, counts = np.unique(names, return_inverse=True, return_counts=True)
    weights = 1 / counts[which] / len(counts)
    order = np.argsort(scores, kind="stable")
    sums = np.r_[0.0, np.cumsum(weights[order])]
    return np.asarray(sums[np.searchsorted(scores[order], grid, side="right")])


def mmd_test(
    here: Array,
    there: Array,
    *,
    units: tuple[Sequence[str], Sequence[str]] | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Test | None:
    """Test two sets of features by their maximum mean discrepancy.

    Args:
        here: ``(n, F)`` of the reference, whose standard deviations are the units.
        there: ``(m, F)``.
        units: ``(n,)`` and ``(m,)`` what may not be torn apart; each picture for itself without.
        rounds: Random dealings; the least p is ``1 / (rounds + 1)``.
        seed: Of the dealings.

    Returns:
        ``None`` where a set has fewer than ``LEAST`` units.

    Raises:
        ShapeError: The features disagree on F, or units and pictures on their number.
    """
    if here.ndim != 2 or there.ndim != 2 or here.shape[1] != there.shape[1]:
        raise ShapeError(f"features are {here.shape} and {there.shape}; give (n, F) and (m, F)")
    n, m = len(here), len(there)
    one, other = units if units is not None else (range(n), range(m))
    if (len(one), len(other)) != (n, m):
        raise ShapeError(f"{len(one)} and {len(other)} units for {n} and {m} pictures; give one a picture")
    named = [*(f"here {unit}" for unit in one), *(f"there {unit}" for unit in other)]
    groups = np.unique(named, return_inverse=True)[1]
    is_new = np.r_[np.zeros(n, bool), np.ones(m, bool)]
    unit_is_new = np.zeros(groups.max(initial=-1) + 1, bool)
    unit_is_new[groups] = is_new
    if min((~unit_is_new).sum(), unit_is_new.sum()) < LEAST:
        return None
    kernel = _kernel(np.concatenate([here, there]), np.maximum(here.std(axis=0), 1e-6))
    chance = np.random.default_rng(seed)
    sides = np.stack([unit_is_new, *(chance.permutation(unit_is_new) for _ in range(rounds))])[:, groups]
    weights = np.where(sides, -1 / sides.sum(axis=1, keepdims=True), 1 / (~sides).sum(axis=1, keepdims=True))
    found = np.einsum("ri,ri->r", weights @ kernel, weights)
    return Test(float(found[0]), float(np.mean(found >= found[0] - 1e-12)))


def _kernel(rows: Array, sd: Array) -> Array:
    """``(N, N)`` mean of five Gaussians of the squared distances."""
    scaled = rows.astype(np.float64) / sd
    norms = (scaled**2).sum(axis=1)
    square = np.maximum(norms[:, None] + norms[None] - 2 * scaled @ scaled.T, 0)
    bandwidth = max(float(square.sum()) / max(len(rows) * (len(rows) - 1), 1), 1e-12)
    return np.asarray(np.mean([np.exp(-square / (factor * bandwidth)) for factor in FACTORS], axis=0))
