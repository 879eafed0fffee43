"""Domain-adversarial training (DANN) with a domain classifier a cell."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DomainSegmenter", "adversarial_loss", "ganin_weight", "reverse_gradient"]


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: float) -> Tensor:
        ctx.weight = weight
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.weight * gradient, None


def reverse_gradient(features: Tensor, weight: float) -> Tensor:
    """Identity forwards; backwards the gradient is multiplied by ``-weight``.

    Args:
        features: Any shape.
        weight: At least 0.

    Reference:
        Ganin et al., Domain-Adversarial Training of Neural Networks, JMLR 2016, section 4.2.
    """
    reversed_: Tensor = _Reversal.apply(features, weight)  # type: ignore[no-untyped-call]
    return reversed_


class DomainSegmenter(nn.Sequential):
    """Which line does each cell come from?  ``(N, C, h, w)`` features to ``(N, 1, h, w)`` logits.

    1 x 1 convolution to 64, ReLU, batch normalisation, 1 x 1 convolution to 1; the sigmoid is in the
    loss.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.4.4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(
            nn.Conv2d(channels, 64, 1), nn.ReLU(), nn.BatchNorm2d(64), nn.Conv2d(64, 1, 1)
        )


def adversarial_loss(segmenter: nn.Module, features: Tensor, domain: Tensor, weight: float) -> Tensor:
    """Binary cross-entropy of the domain at every cell, with the gradient to the features reversed.

    The segmenter learns to tell the lines apart; the features below it learn that it cannot.

    Args:
        segmenter: ``(N, C, h, w)`` to ``(N, 1, h, w)`` logits.
        features: ``(N, C, h, w)``.
        domain: ``(N,)``, 0 original line, 1 new line.
        weight: Of the reversed gradient, at least 0; the segmenter's own gradient keeps its size.

    Returns:
        A scalar.
    """
    logits = segmenter(reverse_gradient(features, weight))
    wanted = domain.to(logits.dtype).reshape(-1, 1, 1, 1).expand_as(logits)
    return F.binary_cross_entropy_with_logits(logits, wanted)


def ganin_weight(progress: float, *, most: float = 0.1) -> float:
    """``most * (2 / (1 + exp(-10 p)) - 1)``: the adversary is let in slowly.

    Args:
        progress: Share of the training that is done, in [0, 1].
        most: What the weight rises to.

    Reference:
        Ganin et al., JMLR 2016, section 5.2.2.
    """
    return most * (2 / (1 + math.exp(-10 * progress)) - 1)
