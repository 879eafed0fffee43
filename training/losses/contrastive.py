"""Contrastive losses of rows of two lines: what is alike in kind is drawn together, whatever line it is of.

Rows are unit vectors ``z_i``; each has a class (healthy or defective) and a line.  The new line has healthy rows alone,
so its defects are placed by what the original line's have in common against both lines' normals.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["MARGIN", "TEMPERATURE", "contrastive_loss", "triplet_loss"]

TEMPERATURE = 0.1
MARGIN = 0.2
"""Of the triplets, in distances of unit vectors, which lie in [0, 2]."""


def contrastive_loss(
    rows: Tensor, defective: Tensor, line: Tensor, *, temperature: float = TEMPERATURE, cross_only: bool = False
) -> Tensor:
    """Cross-domain contrastive loss, the supervised ``L_out`` with classes regardless of line.

    ``L = - mean_i 1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p / tau) / sum_{a in A(i)} exp(z_i.z_a / tau) )``

    ``P(i)`` are the rows of i's class other than i, ``A(i)`` all rows other than i: normals of both lines attract each
    other, defects each other, and every defect repels the normals of both lines.  With ``cross_only`` ``P(i)`` are the
    rows of i's class on the *other* line where there are any, and then the rows of its own class and line are in
    neither set.  Anchors without a positive contribute nothing; a batch of such anchors gives 0, with a graph.

    Args:
        rows: ``(B, d)`` of unit length.
        defective: ``(B,)`` bool.
        line: ``(B,)`` int, 0 original, 1 new.
        temperature: tau, above 0.
        cross_only: See above; an ablation.

    Reference:
        Khosla et al., Supervised contrastive learning, NeurIPS 2020, eq. 2; for lines with normals alone: Adapted
        contrastive learning (slides, Bosch CR/APT4, 2023), and as the published form of it, which we take it to be,
        Schlagenhauf and Scheurenbrand, Cross-domain transfer of defect features in technical domains based on
        partial target data, Int. J. PHM 2023.
    """
    positive, others = _pairs(defective, line, cross_only=cross_only)
    alike = rows @ rows.T / temperature
    # of what is left out the exponential is 0, and no row is without any other unless there is no other
    below = torch.logsumexp(alike.masked_fill(~others, torch.finfo(alike.dtype).min), dim=1, keepdim=True)
    count = positive.sum(1)
    each = -((alike - below) * positive).sum(1) / count.clamp(min=1)
    return each.sum() / (count > 0).sum().clamp(min=1)


def triplet_loss(rows: Tensor, defective: Tensor, *, margin: float = MARGIN) -> Tensor:
    """The triplet variant, batch-hard.

    ``L = mean_i max(0, m + max_{p in P(i)} |z_i - z_p| - min_{n in N(i)} |z_i - z_n|)``

    ``P(i)`` are the rows of i's class other than i, ``N(i)`` those of the other class, whatever line they are of.
    Anchors without a positive or a negative contribute nothing.

    Args:
        rows: ``(B, d)`` of unit length.
        defective: ``(B,)`` bool.
        margin: m, at least 0.

    Reference:
        Hermans, Beyer, Leibe, In defense of the triplet loss for person re-identification, 2017, eq. 5, with the
        classes of ``contrastive_loss``.
    """
    same = defective[:, None] == defective[None]
    itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    # |z_i - z_j|^2 = 2 - 2 z_i.z_j; the root has no slope at 0
    apart = (2 - 2 * rows @ rows.T).clamp(min=1e-8).sqrt()
    far = apart.masked_fill(~same | itself, -torch.inf).amax(1)
    near = apart.masked_fill(same, torch.inf).amin(1)
    judged = torch.isfinite(far) & torch.isfinite(near)
    if not judged.any():
        return rows.sum() * 0
    return (margin + far[judged] - near[judged]).clamp(min=0).mean()


def _pairs(defective: Tensor, line: Tensor, *, cross_only: bool) -> tuple[Tensor, Tensor]:
    """``(B, B)`` bool each: who is positive to an anchor, and who stands under the fraction."""
    itself = torch.eye(len(defective), dtype=torch.bool, device=defective.device)
    same = defective[:, None] == defective[None]
    if not cross_only:
        return same & ~itself, ~itself
    across = same & (line[:, None] != line[None])
    has = across.any(1, keepdim=True)
    own = same & ~across
    return torch.where(has, across, same & ~itself), ~itself & ~(own & has)
