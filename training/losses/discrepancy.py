"""Maximum mean discrepancy (MMD): how far two sets of features lie apart, without a discriminator."""

from __future__ import annotations

import torch
from torch import Tensor

from training.losses.rows import unit_rows

__all__ = ["FACTORS", "mmd"]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Of the bandwidth: one kernel each."""


def mmd(here: Tensor, there: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two sets of rows, with five Gaussian kernels.

    ``MMD^2 = mean_ij k(s_i, s_j) + mean_ij k(t_i, t_j) - 2 mean_ij k(s_i, t_j)`` over all pairs (the
    estimate that is never negative), ``k(x, y) = mean_m exp(-|x - y|^2 / (f_m b))`` with the factors
    ``f_m`` of ``FACTORS`` and the bandwidth b, the mean squared distance of the pooled rows.  b is a number
    and no function: no gradient runs through it.

    Args:
        here: ``(N, F)`` features of the original line.
        there: ``(M, F)`` of the new line.  Both are scaled to unit length first.

    Returns:
        A scalar, at least 0 but for rounding; 0 where both sets are the same.

    Reference:
        Gretton et al., A kernel two-sample test, JMLR 2012, eq. 5; Long et al., Learning transferable features with
        deep adaptation networks, ICML 2015, for several kernels on deep features.
    """
    rows = torch.cat([unit_rows(here), unit_rows(there)])
    square = (rows[:, None] - rows[None]).square().sum(dim=2)
    count = len(rows)
    bandwidth = (square.detach().sum() / max(count * count - count, 1)).clamp(min=1e-6)
    kernel = torch.stack([torch.exp(-square / (factor * bandwidth)) for factor in FACTORS]).mean(dim=0)
    n = len(here)
    return kernel[:n, :n].mean() + kernel[n:, n:].mean() - 2 * kernel[:n, n:].mean()
