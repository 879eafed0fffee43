"""Transfer of defect features by contrast: an encoder stage of its own, then class means as the head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Image
from edge_sdk.errors import ConfigError
from training.checkpoint import FACTORY as CELLS
from training.data.frozen import trunk_maps
from training.data.streams import Batch
from training.data.views import Views, batches_of
from training.fitting import Terms
from training.losses.contrastive import contrastive_loss, triplet_loss
from training.methods.normals import (
    Pair,
    Transferred,
    by_normals,
    check_trainable,
    fitted_to_both,
    home_state,
    mixture,
)
from training.methods.task import Task
from training.networks.prototypes import FACTORY, PrototypeNetwork, prototype_network
from training.networks.referenced import ordinary, referenced
from training.statistics import Statistics, with_statistics
from training.trunk_file import arguments_of
from training.trunks import begin_as, load_trunk

__all__ = ["contrastive", "contrastive_cross", "contrastive_joint", "triplet"]

ROWS = 48
"""Of a kind and step, at most: of cells there are many more."""

Contrast = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From unit rows, whether each is defective, and its line, to a loss."""


def contrastive(task: Task) -> Transferred:
    """Normals of both lines attract each other, defects each other, and every defect repels all normals.

    The encoder f and the projector g (d-128-64) learn by the cross-domain contrastive loss of
    ``z = g(f(x)) / |g(f(x))|`` alone, a third of the rows each being the original line's normals and defects and the
    new line's normals: no cross-entropy runs through the encoder, since that offers "the new background is healthy" as
    a shortcut, and none has: f starts anew, or from a pretrained trunk, and not from the source, whose cross-entropy it
    did not get over in twice the steps (drawn lines, seed 101: AUROC 0.81 from the source, 0.87 anew).  Then the head:
    ``s_k(x) = z.c_k - max(z.c_ns, z.c_nt)`` with the class means c of all training rows.

    With a map of cells a row is a cell; of each kind at most ``ROWS`` are drawn.  Each line is whitened by its own
    normals (``training.networks.referenced``): with one normalisation for both, ``contrastive_joint``, the encoder
    stayed as confused by the new background as ``mixed`` (drawn lines, seed 101: AUROC 0.68 joint, 0.87 so).

    Reference:
        See ``training.losses.contrastive``.
    """
    return _contrasted(task, "contrastive", _by_class)


def contrastive_joint(task: Task) -> Transferred:
    """As ``contrastive``, with both lines in one batch and one normalisation for both; an ablation."""
    return _contrasted(task, "contrastive-joint", _by_class, joint=True)


def contrastive_cross(task: Task) -> Transferred:
    """As ``contrastive``, with positives from the other line alone where there are any; an ablation."""
    loss = partial(contrastive_loss, cross_only=True)
    return _contrasted(task, "contrastive-cross", lambda rows, wrong, line: loss(rows, wrong, line))


def triplet(task: Task) -> Transferred:
    """As ``contrastive``, by the batch-hard triplet loss."""
    return _contrasted(task, "triplet", lambda rows, wrong, line: triplet_loss(rows, wrong))


def _by_class(rows: Tensor, defective: Tensor, line: Tensor) -> Tensor:
    return contrastive_loss(rows, defective, line)


def _contrasted(task: Task, name: str, contrast: Contrast, *, joint: bool = False) -> Transferred:
    check_trainable(task, normals=not joint)
    task = _with_enough_steps(task)
    network = _encoder(task) if joint else referenced(_encoder(task))

    def losses(pair: Pair, chance: np.random.Generator) -> Terms:
        rows, kinds = _rows(pair, chance)
        return {name: contrast(rows, kinds == 1, (kinds == 2).long())}

    history = fitted_to_both(task, name, network, losses, joint=joint, rate=task.recipe.rate)
    network = ordinary(network)
    if joint:
        here = there = mixture(network, task)
    else:
        here, there = by_normals(network, task)
    with torch.no_grad():
        network.head.weight.copy_(_means(network, here, there, task)[:, :, None, None])
    home = home_state(task, network, here, method=name)
    return Transferred(network, home, there, history, FACTORY)


def _encoder(task: Task) -> PrototypeNetwork:
    """A fresh one, or with the trunk that was pretrained; nothing of it has learnt by the source's cross-entropy."""
    checkpoint = task.checkpoint
    if checkpoint.factory not in (CELLS, FACTORY):
        raise ConfigError(
            f"the checkpoint is of {checkpoint.factory}, whose maps nobody here knows; take the method statistics"
        )
    torch.manual_seed(task.recipe.seed)
    network = prototype_network(**checkpoint.arguments)
    if network.frozen:
        network.trunk.load_state_dict(checkpoint.network.trunk.state_dict())
    elif task.recipe.start is not None:
        arguments_of(Path(task.recipe.start))  # says so where it is gone
        load_trunk(network, Path(task.recipe.start))
    else:
        begin_as(network, checkpoint.arguments, start=checkpoint.recipe.get("start"))
    return network


def _with_enough_steps(task: Task) -> Task:
    """An encoder that starts anew takes as many steps as the source's training and this one together."""
    if task.checkpoint.network.frozen:
        return task
    steps = task.recipe.iterations + int(task.checkpoint.recipe.get("iterations", 0))
    return replace(task, recipe=task.recipe.model_copy(update={"iterations": steps}))


def _kinds(batch: Batch | Views, *, line: int) -> Tensor:
    """``(N, h, w)``: 0 normal, 1 defective, 2 normal of the new line, -1 not known or padding."""
    truth, known = (torch.as_tensor(one) for one in (batch.truth, batch.known))
    shown = torch.as_tensor(batch.shown if isinstance(batch, Batch) else batch.valid)
    defective = truth.amax(1) > 0
    told = shown & ((known.amin(1) > 0) | defective)
    return torch.where(told, torch.where(defective, 1, 2 if line else 0), -1)


def _rows(pair: Pair, chance: np.random.Generator) -> tuple[Tensor, Tensor]:
    """``(B, 64)`` rows and their kinds, of each kind at most ``ROWS``."""
    maps = torch.cat([one.movedim(1, -1).flatten(0, 2) for one in (pair.here_maps, pair.there_maps)])
    kinds = torch.cat([_kinds(pair.here, line=0).flatten(), _kinds(pair.there, line=1).flatten()]).to(maps.device)
    chosen = []
    for kind in range(3):
        of = torch.nonzero(kinds == kind)[:, 0]
        if len(of) > ROWS:
            of = of[torch.from_numpy(chance.permutation(len(of))[:ROWS]).to(of.device)]
        chosen.append(of)
    which = torch.cat(chosen)
    return maps[which], kinds[which]


def _means(network: PrototypeNetwork, mine: Statistics, theirs: Statistics, task: Task) -> Tensor:
    """``(K + 2, 64)``: mean row of each defect, of the original line's normals and of the new one's.

    A defect without one known place has the mean of all defects; a line without a known normal that of the other.
    """
    spec = task.checkpoint.preprocess
    here = _bank(network, mine, task.original.images, spec)
    there = _bank(network, theirs, task.new.images, spec)
    kinds = _kinds(task.original, line=0)
    if not (kinds == 1).any() or not ((kinds == 0).any() or len(there)):
        raise ConfigError("no place of a defect or of a normal is known, so there is nothing to contrast; add masks")
    rows = here.movedim(1, -1)
    every = rows[kinds == 1].mean(0)
    found = []
    for k in range(task.original.truth.shape[1]):
        own = torch.from_numpy(task.original.truth[:, k] > 0) & (kinds == 1)
        found.append(rows[own].mean(0) if own.any() else every)
    new = there.movedim(1, -1)[_kinds(task.new, line=1) == 2].mean(0)
    old = rows[kinds == 0].mean(0) if (kinds == 0).any() else new
    return torch.stack([*found, old, new])


def _bank(network: PrototypeNetwork, statistics: Statistics, images: Image, spec: object) -> Tensor:
    """``(N, 64, h, w)`` rows of pictures."""
    network.eval()
    with with_statistics(network, statistics), torch.no_grad():
        if network.frozen:
            return network.above(trunk_maps(network.trunk, images, spec))  # type: ignore[arg-type]
        found = []
        for batch in batches_of(images, spec):  # type: ignore[arg-type]
            found.append(network.features(batch))
        whole = torch.cat(found)
        return whole[: len(images)]
