"""The supervised loss ``L_S`` of a fully or partly annotated picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["picture_loss", "supervised_loss"]


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
    return cells + picture_loss(logits, truth, known, maximum, shown=shown)


def picture_loss(
    logits: Tensor, truth: Tensor, known: Tensor, maximum: Tensor, *, shown: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of pictures' strongest cells, where a batch holds defects without a place.

    Beside those the wholly healthy pictures count too, with a strongest cell that must be healthy: among
    a hundred cells it would weigh a hundredth of a defective picture's, and everything would drift up.

    Args:
        logits: ``(N, K, h, w)``, unbounded.
        truth: ``(N, K, h, w)`` in {0, 1}; read where ``known`` is 1.
        known: ``(N, K, h, w)`` in {0, 1}.
        maximum: ``(N, K)`` in {0, 1}.
        shown: ``(N, h, w)`` bool, or all.

    Returns:
        A scalar: the mean over those pictures and classes; 0, with a graph, without a defect that has no place.
    """
    hidden = torch.zeros_like(known, dtype=torch.bool) if shown is None else ~shown[:, None].expand_as(known)
    strongest = logits.masked_fill(hidden, torch.finfo(logits.dtype).min).amax(dim=(2, 3))
    healthy = (((known > 0) & (truth == 0)) | hidden).all(dim=3).all(dim=2).to(logits.dtype)
    judged = maximum + healthy * (1 - maximum) * maximum.amax()
    by_picture = F.binary_cross_entropy_with_logits(strongest, maximum, reduction="none")
    return (by_picture * judged).sum() / judged.sum().clamp(min=1)
