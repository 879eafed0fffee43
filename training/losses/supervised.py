"""The supervised loss ``L_S`` of a fully or partly annotated picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["supervised_loss"]


def supervised_loss(
    logits: Tensor, truth: Tensor, known: Tensor, maximum: Tensor, *, shown: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy over the cells whose truth is known, and over pictures' strongest cells.

    A picture with a mask, or a healthy one, is known cell by cell.  Of a defective picture without a
    mask it is known only that its strongest cell must be a defect: that cell alone is trained, so no
    gradient says where the others belong.  A masked picture weighs its cells, a maskless one counts
    as one cell a class.

    Args:
        logits: ``(N, K, h, w)``, unbounded.
        truth: ``(N, K, h, w)`` in {0, 1}; read where ``known`` is 1.
        known: ``(N, K, h, w)`` in {0, 1}.
        maximum: ``(N, K)``: 1 where the picture shows a defect of that class somewhere, 0 elsewhere.
        shown: ``(N, h, w)`` bool, cells that show the picture and no padding: a defect is nowhere else, and
            padding is alike in all pictures, so that it would be learned as one.  Without it all do.

    Returns:
        A scalar: the mean over known cells plus the mean over picture maxima; 0, with a graph, where
        a batch knows nothing.

    Reference:
        ``L_S`` of eq. 3 of the mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), cross-entropy; the
        picture's maximum is ours, multiple-instance learning with one positive instance.
    """
    by_cell = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    cells = (by_cell * known).sum() / known.sum().clamp(min=1)
    inside = logits if shown is None else logits.masked_fill(~shown[:, None], torch.finfo(logits.dtype).min)
    strongest = inside.amax(dim=(2, 3))
    by_picture = F.binary_cross_entropy_with_logits(strongest, torch.ones_like(strongest), reduction="none")
    pictures = (by_picture * maximum).sum() / maximum.sum().clamp(min=1)
    return cells + pictures
