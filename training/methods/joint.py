"""The training that DANN, MMD and CORAL share: the labelled original line beside the unlabelled new one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from training.data.frozen import Feed
from training.data.views import batches_of
from training.fitting import Terms, fit
from training.losses.supervised import supervised_loss
from training.methods.rebalancing import rebalanced
from training.methods.task import Adapted, Task
from training.networks.cellnet import CellNetwork
from training.statistics import estimated, load_statistics
from training.train import original_state

__all__ = ["Alignment", "trained_jointly"]

Alignment = Callable[[Tensor, Tensor, float], Tensor]
"""From the last maps of both lines, ``(N, F, h, w)`` each, and the share done to one scalar."""


def trained_jointly(
    task: Task,
    name: str,
    term: str,
    alignment: Callable[[CellNetwork], tuple[Alignment, Mapping[str, nn.Module]]],
) -> Adapted:
    """``L = L_S(original) + L_A(original, new)``, from the source weights at a quarter of the rate.

    Each line is a batch of its own, so each is normalised by its own statistics; a joint batch from
    which one normalisation takes its statistics collapsed.

    Args:
        task: Its network is copied.
        name: Of the method.
        term: Name of ``L_A``.
        alignment: Makes ``L_A`` for a network, with the modules it trains beside the network.
    """
    recipe, spec = task.recipe, task.checkpoint.preprocess
    torch.manual_seed(recipe.seed)
    network = copy.deepcopy(task.checkpoint.network)
    align, helpers = alignment(network)
    chance = np.random.default_rng([recipe.seed, 1])
    labelled = Feed(network, task.original, spec, recipe, chance)
    new = rebalanced(task) if recipe.rebalance else task.new
    unlabelled = Feed(network, new, spec, recipe, chance, balanced=recipe.rebalance)

    def losses(done: float) -> Terms:
        here, maps = labelled.next()
        _, others = unlabelled.next()
        supervised = supervised_loss(network.head(maps), here.truth, here.known, here.maximum, shown=here.shown)
        return {"supervised": supervised, term: align(maps, others, done)}

    load_statistics(network, task.checkpoint.line("original").statistics)
    history = fit(
        {"network": network, **helpers},
        losses,
        iterations=max(1, recipe.iterations // 2),
        rate=recipe.rate / 4,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=task.resume,
        told=task.told(name),
        progress=lambda step, steps, terms: task.progress(name, step, steps, terms),
    )
    grid = task.checkpoint.grid
    home = original_state(network, task.line, task.original, spec, grid=grid, method=name)
    if network.frozen:
        return Adapted(network, home, home.statistics, history, measured=False)
    return Adapted(network, home, estimated(network, batches_of(task.new.images, spec, flips=True)), history)
