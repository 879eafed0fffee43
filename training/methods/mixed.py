"""Mixed cross-entropy: the new line's normals as more healthy pictures, plainly or each line by its own normals."""

from __future__ import annotations

import copy

import numpy as np
import torch

from training.fitting import Terms
from training.losses.supervised import supervised_loss
from training.methods.normals import (
    Losses,
    Pair,
    Transferred,
    by_normals,
    check_trainable,
    fitted_to_both,
    home_state,
    mixture,
)
from training.methods.task import Task
from training.networks.cellnet import CellNetwork
from training.networks.referenced import ordinary, referenced
from training.statistics import load_statistics

__all__ = ["mixed", "nrbn"]


def mixed(task: Task) -> Transferred:
    """``L = L_S`` on the original line's pictures and the new line's normals in one batch: the baseline.

    One normalisation sees both lines, and all defects are of the original one: "the new line's background is healthy"
    is a shortcut, with which defects of the new line pass.

    Reference:
        Adapted contrastive learning (slides, Bosch CR/APT4, 2023), baseline "mixed datasets", which confuse the model.
    """
    check_trainable(task)
    network = _started(task)
    history = fitted_to_both(task, "mixed", network, _losses(network), joint=True, rate=task.recipe.rate)
    both = mixture(network, task)
    home = home_state(task, network, both, method="mixed")
    return Transferred(network, home, both, history)


def nrbn(task: Task) -> Transferred:
    """``L = L_S`` as of ``mixed``, with each line whitened by its own normals while it is trained and afterwards.

    ``y = gamma (x - mu_l) / sqrt(var_l + eps) + beta``: see ``training.networks.referenced``.  The background of a line
    is taken off before anything is compared, so the shortcut of ``mixed`` is not there, and a further line needs its
    normals' statistics alone.  It fails where a line's normals vary in themselves as its defects do (grain of
    poly-crystalline cells): their variance divides the defect away.  A frozen trunk is not normalised anew.
    """
    check_trainable(task, normals=True)
    network = referenced(_started(task))
    history = fitted_to_both(task, "nrbn", network, _losses(network), joint=False, rate=task.recipe.rate)
    network = ordinary(network)
    here, there = by_normals(network, task)
    home = home_state(task, network, here, method="nrbn")
    return Transferred(network, home, there, history)


def _started(task: Task) -> CellNetwork:
    torch.manual_seed(task.recipe.seed)
    network = copy.deepcopy(task.checkpoint.network)
    load_statistics(network, task.checkpoint.line("original").statistics)
    return network


def _losses(network: CellNetwork) -> Losses:
    def losses(pair: Pair, chance: np.random.Generator) -> Terms:
        one, other = pair.here, pair.there
        cells = network.head(torch.cat([pair.here_maps, pair.there_maps]))
        truth, known, maximum, shown = (
            torch.cat([getattr(one, name), getattr(other, name)]) for name in ("truth", "known", "maximum", "shown")
        )
        return {"supervised": supervised_loss(cells, truth, known, maximum, shown=shown)}

    return losses
