"""What a network starts from, and which trunk does best on the original line's own labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from edge_sdk.arrays import Bools
from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.quality.measures import auroc, average_precision
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.views import Views, batches_of
from training.lines import predicted
from training.networks.anchornet import AnchorNetwork
from training.networks.cellnet import CellNetwork, cell_network
from training.recipe import Recipe, pretrained_weights
from training.statistics import estimated, statistics_of

__all__ = ["Start", "best_trunk", "held_out_score", "load_trunk", "start_of"]

FOLDS = 2


@dataclass(frozen=True)
class Start:
    """Arguments of the factory, and the weights of the trunk, if it has any."""

    arguments: Mapping[str, Any]
    weights: Path | None

    def network(self, seed: int) -> CellNetwork:
        """A fresh network; one seed, one network."""
        torch.manual_seed(seed)
        network = cell_network(**self.arguments)
        if self.weights is not None:
            load_trunk(network, self.weights)
        return network


def start_of(recipe: Recipe, *, classes: int, pooled: bool) -> Start:
    """What the recipe's trunk starts from; ``auto`` is the pretrained one where its weights are there.

    Raises:
        ConfigError: The trunk's weights are asked for and not there.
    """
    found = None if recipe.trunk == "slim" else pretrained_weights()
    if recipe.trunk == "mobilenetv2" and found is None:
        raise ConfigError(
            "trunk is mobilenetv2, but its ImageNet weights are not here; name the file in EDGE_SDK_MOBILENETV2, "
            "or give trunk slim"
        )
    if found is not None:
        return Start({"trunk": "mobilenetv2", "classes": classes, "frozen": True, "pooled": pooled}, found)
    slim = {"trunk": "resnet18", "classes": classes, "width": recipe.width, "stages": recipe.stages, "pooled": pooled}
    return Start(slim, None)


def best_trunk(
    views: Mapping[str, Views],
    starts: Mapping[str, Start],
    specs: Mapping[str, PreprocessSpec],
    fitted: Callable[[CellNetwork, Views, PreprocessSpec, str], object],
    *,
    seed: int,
) -> dict[str, float]:
    """How well each trunk does on groups of the original line that it was not trained on.

    Groups are dealt into two folds so that each holds both kinds; each trunk learns from one and is judged on
    the other, and the mean counts.  No other line and no test picture is looked at.

    Args:
        views: By trunk, the labelled training pictures as it sees them, in one order.
        starts: By trunk.
        specs: By trunk.
        fitted: Trains a network in place on some views, told what for.
        seed: Of the folds and of the networks.

    Returns:
        By trunk the mean of ``held_out_score``; nothing where the groups cannot be dealt so.
    """
    any_views = next(iter(views.values()))
    folds = _folds(any_views, seed)
    if not folds:
        return {}
    found: dict[str, float] = {}
    for name, start in starts.items():
        scores = []
        for number, held in enumerate(folds):
            network = start.network(seed)
            fitted(network, views[name].taken(~held), specs[name], f"choose trunk: {name} {number + 1} of {FOLDS}")
            scores.append(held_out_score(network, views[name].taken(~held), views[name].taken(held), specs[name]))
        found[name] = float(np.mean(scores))
    return found


def held_out_score(network: CellNetwork, seen: Views, held: Views, spec: PreprocessSpec) -> float:
    """AP of cells where a map is known, else AUROC of pictures, with the statistics of the pictures seen."""
    own = statistics_of(network) if network.frozen else estimated(network, batches_of(seen.images, spec, flips=True))
    logits = predicted(network, own, held.images, spec)[0].max(axis=1)
    truth, known = held.truth.max(axis=1), (held.known.max(axis=1) > 0) & held.valid
    if truth[0].size > 1 and (truth * known).any():
        return average_precision(logits[known], truth[known])
    strongest = np.where(held.valid, logits, -np.inf).max(axis=(1, 2))
    return auroc(strongest, held.defective)


def _folds(views: Views, seed: int) -> list[Bools]:
    """Of each fold the pictures that are held out; whole groups, both kinds on both sides, or nothing."""
    units = np.array(views.units)
    names = sorted(set(views.units))
    order = [names[n] for n in np.random.default_rng([seed, 5]).permutation(len(names))]
    # by number of defects, most first, each group to the fold that has fewer of what it holds
    order.sort(key=lambda unit: -int(views.defective[units == unit].sum()))
    have = np.zeros((FOLDS, 2))
    place = {}
    for unit in order:
        mine = views.defective[units == unit]
        kinds = np.array([(~mine).sum(), mine.sum()])
        place[unit] = int(np.argmin((have * (kinds > 0)).sum(axis=1)))
        have[place[unit]] += kinds
    of = np.array([place[unit] for unit in views.units])
    return [of == number for number in range(FOLDS)] if (have > 0).all() else []


def load_trunk(network: CellNetwork | AnchorNetwork, path: Path) -> None:
    """Put ImageNet weights into a network's trunk.

    Raises:
        FormatError: The file lacks some.
    """
    tensors = load_file(path)
    wanted = network.trunk.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise FormatError(f"{path} lacks {missing[0]}; give the weights of MobileNetV2 1.0 with timm's names")
    network.trunk.load_state_dict({name: tensors[name] for name in wanted})
