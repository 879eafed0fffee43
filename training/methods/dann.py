"""Domain-adversarial training with a domain segmenter."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.losses.adversarial import DomainSegmenter, adversarial_loss, ganin_weight
from training.methods.joint import Alignment, trained_jointly
from training.methods.task import Adapted, Task
from training.networks.cellnet import CellNetwork

__all__ = ["dann"]


def dann(task: Task) -> Adapted:
    """Features from which a segmenter cannot tell at any place which line they come from.

    ``L = L_S + L_D`` where ``L_D = - mean_i (d_i log q_i + (1 - d_i) log(1 - q_i))`` runs over all places
    of both batches, ``d_i`` is 0 on the original line and 1 on the new one and ``q_i`` is what the
    segmenter makes of the features behind a gradient reversal: it descends on ``L_D``, while the
    network ascends on it with the weight ``0.1 (2 / (1 + exp(-10 p)) - 1)`` at the share p of the training.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.4.4; Ganin et al., Domain-adversarial
        training of neural networks, JMLR 2016.
    """
    return trained_jointly(task, "dann", "domain", _segmenting)


def _segmenting(network: CellNetwork) -> tuple[Alignment, Mapping[str, nn.Module]]:
    segmenter = DomainSegmenter(network.channels)

    def align(here: Tensor, there: Tensor, done: float) -> Tensor:
        domain = torch.tensor([0] * len(here) + [1] * len(there), device=here.device)
        return adversarial_loss(segmenter, torch.cat([here, there]), domain, ganin_weight(done))

    return align, {"segmenter": segmenter}
