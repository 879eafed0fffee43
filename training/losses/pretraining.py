"""What a trunk learns from pictures without labels: to know a picture again, and to restore it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from training.losses.rows import unit_rows

__all__ = ["TEMPERATURE", "contrast_of_views", "masked_restoration", "restoration", "similarity_of_views"]

TEMPERATURE = 0.2


def contrast_of_views(one: Tensor, other: Tensor, *, temperature: float = TEMPERATURE) -> Tensor:
    """``L_con = -1/(2B) sum_i log( exp(z_i.z_i+ / tau) / sum_{j != i} exp(z_i.z_j / tau) )`` over both views' 2B rows.

    ``z`` is a row of unit length, ``z_i+`` the other view of the same picture.

    Args:
        one: ``(B, d)`` of the first views, B at least 2; scaled to unit length here.
        other: ``(B, d)`` of the second ones, in the same order.
        temperature: tau, above 0.

    Reference:
        Chen et al., A simple framework for contrastive learning of visual representations, ICML 2020, eq. 1; as CoRe
        (Wu et al., IEEE TIM 2023) names its contrastive half without printing it.
    """
    rows = unit_rows(torch.cat([one, other]))
    count = len(one)
    alike = rows @ rows.T / temperature
    alike = alike.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=rows.device), torch.finfo(rows.dtype).min)
    again = torch.arange(2 * count, device=rows.device).roll(count)
    return F.cross_entropy(alike, again)


def similarity_of_views(one: Tensor, other: Tensor, guessed: Tensor, guessed_other: Tensor) -> Tensor:
    """SimSiam: ``L = -1/2 mean_i ( p_i.sg(z_i+) + p_i+.sg(z_i) )`` of unit rows; no gradient runs through ``sg``.

    Args:
        one: ``(B, d)`` projected rows z of the first views.
        other: Of the second views.
        guessed: ``(B, d)`` p, what the predictor makes of ``one``.
        guessed_other: Of ``other``.

    Returns:
        In [-1, 1].

    Reference:
        Chen and He, Exploring simple siamese representation learning, CVPR 2021, eq. 2.
    """
    here = F.cosine_similarity(guessed, other.detach(), dim=1).mean()
    there = F.cosine_similarity(guessed_other, one.detach(), dim=1).mean()
    return -(here + there) / 2


def restoration(made: Tensor, picture: Tensor) -> Tensor:
    """``L_res = mean |r(f(t(x))) - x|`` against the undistorted picture.

    Args:
        made: ``(B, 3, H, W)``, what the decoder r makes of the trunk's map of the distorted picture ``t(x)``.
        picture: ``(B, 3, H, W)`` x.

    Reference:
        After Haghighi et al., DiRA, CVPR 2022; of CoRe (Wu et al., IEEE TIM 2023) we read the abstract alone.
    """
    return (made - picture).abs().mean()


def masked_restoration(made: Tensor, picture: Tensor, hidden: Tensor) -> Tensor:
    """The same over the hidden places alone; 0, with a graph, where none is.

    Args:
        made: ``(B, 3, H, W)``.
        picture: ``(B, 3, H, W)``.
        hidden: ``(B, 1, H, W)`` in {0, 1}.

    Reference:
        He et al., Masked autoencoders are scalable vision learners, CVPR 2022, section 3, with a convolutional trunk.
    """
    return ((made - picture).abs() * hidden).sum() / (3 * hidden.sum()).clamp(min=1)
