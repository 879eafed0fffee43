"""From maps to the rows that alignment compares."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["pooled_rows", "unit_rows"]


def pooled_rows(maps: Tensor) -> Tensor:
    """``(N, F, h, w)`` to ``(N, F)``: the mean over places, one row a picture."""
    return maps.mean(dim=(2, 3))


def unit_rows(rows: Tensor) -> Tensor:
    """Each row divided by its length; a row of zeros stays one."""
    return F.normalize(rows, dim=1)
