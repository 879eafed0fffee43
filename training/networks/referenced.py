"""Normal-referenced batch normalisation (NRBN): a line is whitened by its own normals, and a defect is what deviates.

Trained with it, a network takes a new line by its normals' statistics alone.  In inference it *is* an ordinary batch
normalisation, so it is folded into the convolution and exported as every other one.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from training.networks.cellnet import batch_norms

__all__ = ["NormalReferencedNorm", "normal_rows", "ordinary", "referenced"]

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)


class NormalReferencedNorm(nn.BatchNorm2d):
    """``y = gamma (x - mu_l) / sqrt(var_l + eps) + beta`` with ``mu_l``, ``var_l`` of the *normal rows* of line l.

    x is ``(N, C, h, w)`` of one line, mean and biased variance run over the places of its normal rows and are applied
    to all N; gradients flow through both.  gamma and beta are weights that all lines share, eps is 1e-5.  Without rows
    named, and in inference, it is the batch normalisation that it derives from.

    Reference:
        Ours; after batch normalisation (Ioffe and Szegedy, ICML 2015) with statistics of a domain's own (Li et al.,
        Revisiting batch normalization for practical domain adaptation, 2016), for the partial target data of
        Schlagenhauf and Scheurenbrand, Cross-domain transfer of defect features, 2023.
    """

    rows: Tensor | None = None
    """``(N,)`` bool, normal pictures of the batch to come."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rows is None or bool(self.rows.all()):
            return super().forward(x)
        variance, mean = torch.var_mean(x[self.rows], (0, 2, 3), unbiased=False)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return torch.addcmul(shift[:, None, None], x, scale[:, None, None])


def referenced(network: AnyNetwork) -> AnyNetwork:
    """A copy whose normalisations are normal-referenced; weights and their names are the same."""
    return _exchanged(network, NormalReferencedNorm)


def ordinary(network: AnyNetwork) -> AnyNetwork:
    """A copy with ordinary normalisations, which in inference does the same."""
    return _exchanged(network, nn.BatchNorm2d)


@contextmanager
def normal_rows(network: nn.Module, rows: Tensor) -> Iterator[None]:
    """For the batches of one line's that pass meanwhile: which rows are normal; at least one must be.

    Args:
        network: Of ``referenced``; of another one nothing changes.
        rows: ``(N,)`` bool.
    """
    norms = [module for module in network.modules() if isinstance(module, NormalReferencedNorm)]
    for norm in norms:
        norm.rows = rows
    try:
        yield
    finally:
        for norm in norms:
            norm.rows = None


def _exchanged(network: AnyNetwork, kind: type[nn.BatchNorm2d]) -> AnyNetwork:
    found = copy.deepcopy(network)
    for name, module in list(batch_norms(found)):
        fresh = kind(module.num_features, eps=module.eps, momentum=module.momentum)
        fresh.load_state_dict(module.state_dict())
        fresh.requires_grad_(module.weight.requires_grad)
        fresh.train(module.training)
        parent, _, own = name.rpartition(".")
        setattr(found.get_submodule(parent), own, fresh)
    return found
