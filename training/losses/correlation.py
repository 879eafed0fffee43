"""Correlation alignment (deep CORAL): the second moments of two sets of features."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["coral"]


def coral(here: Tensor, there: Tensor) -> Tensor:
    """``L = |C_s - C_t|_F^2 / (4 d^2)``, the squared Frobenius distance of the covariances.

    ``C = (X' X - (1' X)' (1' X) / n) / (n - 1)`` of n rows X of d features.

    Args:
        here: ``(N, F)`` features of the original line, N above 1.
        there: ``(M, F)`` of the new line, M above 1.

    Returns:
        A scalar, at least 0.

    Reference:
        Sun and Saenko, Deep CORAL: correlation alignment for deep domain adaptation, ECCV 2016, eq. 1 to 3.
    """
    width = here.shape[1]
    return (_covariance(here) - _covariance(there)).square().sum() / (4 * width * width)


def _covariance(rows: Tensor) -> Tensor:
    centred = rows - rows.mean(dim=0, keepdim=True)
    return torch.matmul(centred.T, centred) / max(len(rows) - 1, 1)
