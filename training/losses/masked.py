"""The weakly supervised loss ``L_W`` of mentored pictures."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["masked_bce"]


def masked_bce(logits: Tensor, truth: Tensor, mentored: Tensor) -> Tensor:
    """Binary cross-entropy over the mentored areas alone.

    ``L_W = -1 / N_annotated * sum_i 1[i in M] (y_i log p_i + (1 - y_i) log(1 - p_i))`` with
    ``N_annotated = sum_i 1[i in M]``, where i runs over the areas of the whole batch, ``p_i`` is the
    sigmoid of the logit and M holds the areas an operator answered.  An area nobody judged has no
    truth: it adds neither loss nor gradient.

    Args:
        logits: ``(N, K, h, w)`` for cells, ``(N, A, K)`` for anchors.
        truth: Of the same shape, in {0, 1}; read where ``mentored`` is 1.
        mentored: Of the same shape, in {0, 1}: the set M.

    Returns:
        A scalar; a batch without one mentored area gives 0 with a graph, not NaN.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 4.
    """
    loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    return (loss * mentored).sum() / mentored.sum().clamp(min=1)
