"""The adversaries: DANN's domain segmenter behind a reversed gradient, ADDA's discriminator with inverted labels."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Discriminator",
    "DomainSegmenter",
    "adversarial_loss",
    "discriminator_loss",
    "ganin_weight",
    "mapping_loss",
    "reverse_gradient",
]


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


class Discriminator(nn.Sequential):
    """Is it of the original line?  ``(N, C, h, w)`` features to ``(N, 1, h, w)`` logits, C - 128 - 128 - 1.

    Leaky ReLU (0.2) between 1 x 1 convolutions, so a pooled vector ``(N, C, 1, 1)`` is one place.  There is
    no batch normalisation: it would tell a batch of one line from the batch of the other by itself.
    """

    def __init__(self, channels: int, *, hidden: int = 128) -> None:
        super().__init__(
            nn.Conv2d(channels, hidden, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, hidden, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(hidden, 1, 1),
        )


def discriminator_loss(discriminator: nn.Module, here: Tensor, there: Tensor) -> Tensor:
    """``L_D = -E_s log D(M_s(x_s)) - E_t log(1 - D(M_t(x_t)))``: the original line is 1, the new one 0.

    Args:
        discriminator: ``(N, C, h, w)`` to ``(N, 1, h, w)`` logits; it alone learns from this.
        here: ``M_s(x_s)``, features of the original line.
        there: ``M_t(x_t)``, of the new line; no gradient goes back into either.

    Returns:
        A scalar.

    Reference:
        Tzeng et al., Adversarial discriminative domain adaptation, CVPR 2017, eq. 7.
    """
    original, new = discriminator(here.detach()), discriminator(there.detach())
    of_original = F.binary_cross_entropy_with_logits(original, torch.ones_like(original))
    of_new = F.binary_cross_entropy_with_logits(new, torch.zeros_like(new))
    return of_original + of_new


def mapping_loss(discriminator: nn.Module, there: Tensor) -> Tensor:
    """``L_M = -E_t log D(M_t(x_t))``: inverted labels, not the minimax loss, whose gradient dies.

    Args:
        discriminator: As above; it does not learn from this.
        there: ``M_t(x_t)``, the new line's features, into whose encoder the gradient goes.

    Returns:
        A scalar.

    Reference:
        Tzeng et al., CVPR 2017, eq. 8.
    """
    still = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
    logits: Tensor = torch.func.functional_call(discriminator, still, (there,))
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))
