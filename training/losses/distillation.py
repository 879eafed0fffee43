"""What the baseline says of the cells that nobody answered, as a soft truth."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

__all__ = ["distillation_loss"]


def distillation_loss(logits: Tensor, baseline: Tensor, mentored: Tensor, *, shown: Tensor | None = None) -> Tensor:
    """Binary cross-entropy to the baseline's confidence over the areas outside M.

    ``L_D = -1 / N_u * sum_i 1[i not in M] (q_i log p_i + (1 - q_i) log(1 - p_i))`` with ``N_u = sum_i 1[i not in M]``,
    where i runs over the areas of the whole batch, ``p_i`` is the sigmoid of the logit, ``q_i`` the baseline's
    confidence and M the answered areas: they have a truth and are left to ``masked_bce``.

    Args:
        logits: ``(N, K, h, w)``.
        baseline: Of the same shape, confidence in [0, 1]; no gradient flows into it.
        mentored: Of the same shape, in {0, 1}: the set M.
        shown: ``(N, h, w)`` bool, cells that show the picture and no padding; without it all do.

    Returns:
        A scalar; a batch in which everything is answered gives 0 with a graph.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 5: proposed there, not tried.
    """
    silent = 1 - mentored
    if shown is not None:
        silent = silent * shown[:, None].to(silent.dtype)
    loss = F.binary_cross_entropy_with_logits(logits, baseline.detach(), reduction="none")
    return (loss * silent).sum() / silent.sum().clamp(min=1)
