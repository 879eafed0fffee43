"""Adversarial discriminative domain adaptation: an encoder of its own for the new line."""

from __future__ import annotations

import copy

import numpy as np
import torch

from training.data.frozen import Feed
from training.data.views import batches_of
from training.fitting import Terms, fit
from training.losses.adversarial import Discriminator, discriminator_loss, mapping_loss
from training.methods.rebalancing import rebalanced
from training.methods.task import Adapted, Task
from training.networks.cellnet import CellNetwork
from training.statistics import Statistics, estimated, load_statistics
from training.team import team

__all__ = ["adda"]

DISCRIMINATOR_RATE = 1e-3
ENCODER_RATE = 1e-4


def adda(task: Task) -> Adapted:
    """Two stages: the source training that was, then an encoder for the new line that fools a discriminator.

    ``M_s`` and ``C`` are the source encoder and head, frozen.  ``M_t`` starts as ``M_s`` with its
    normalisations in training mode, D tells ``M_s(x_s)`` from ``M_t(x_t)`` at every place, and each step
    descends on ``L_D`` with D at 1e-3 and on ``L_M`` with ``M_t`` at 1e-4 (Adam without decay):

    ``L_D = -E log D(M_s(x_s)) - E log(1 - D(M_t(x_t)))``, ``L_M = -E log D(M_t(x_t))``.

    The new line is judged by ``C(M_t(x))``, the original one still by ``C(M_s(x))``: one engine a line, as
    ``M_t`` is of no use on the original line.  With a frozen trunk the neck above it is the encoder.

    Reference:
        Tzeng et al., Adversarial discriminative domain adaptation, CVPR 2017; the colour-gap paper (Wu, Cheng,
        Chen, Study on anomaly classifier with domain adaptation), section 3.2.
    """
    recipe, spec = task.recipe, task.checkpoint.preprocess
    home = task.checkpoint.line("original")
    torch.manual_seed(recipe.seed)
    chance = np.random.default_rng([recipe.seed, 4])
    source = copy.deepcopy(task.checkpoint.network)
    load_statistics(source, home.statistics)
    source.requires_grad_(False).eval().to(team().device, team().dtype)
    encoder = copy.deepcopy(task.checkpoint.network)
    load_statistics(encoder, home.statistics)
    encoder.head.requires_grad_(False)
    discriminator = Discriminator(encoder.channels)
    labelled = Feed(source, task.original, spec, recipe, chance)
    new = rebalanced(task) if recipe.rebalance else task.new
    unlabelled = Feed(encoder, new, spec, recipe, chance, balanced=recipe.rebalance)

    def losses(_: float) -> Terms:
        with torch.no_grad():
            here = labelled.next()[1]
        there = unlabelled.next()[1]
        return {
            "discriminator": discriminator_loss(discriminator, here, there),
            "mapping": mapping_loss(discriminator, there),
        }

    history = fit(
        {"network": encoder, "discriminator": discriminator},
        losses,
        iterations=max(1, recipe.iterations // 2),
        rate=DISCRIMINATOR_RATE,
        rates={"network": ENCODER_RATE},
        weight_decay=0.0,
        averaging=recipe.averaging,
        chance=chance,
        resume=task.resume,
        told=task.told("adda"),
        progress=lambda step, steps, terms: task.progress("adda", step, steps, terms),
    )
    own = _encoder_of(encoder)
    if not encoder.frozen:
        own = {**own, **estimated(encoder, batches_of(task.new.images, spec, flips=True))}
    return Adapted(task.checkpoint.network, home, own, history, measured=not encoder.frozen)


def _encoder_of(network: CellNetwork) -> Statistics:
    """All that is below the head, by name; counters are none of it."""
    return {
        name: tensor.detach().clone()
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.") and tensor.is_floating_point()
    }
