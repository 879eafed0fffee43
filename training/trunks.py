"""What a network starts from.

Nothing on the original line tells which trunk travels better, so ``auto`` compares none: see
``docs/explanation/decisions/0016-the-pretrained-trunk-where-it-is.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from edge_sdk.errors import ConfigError
from training.networks.anchornet import AnchorNetwork
from training.networks.cellnet import CellNetwork, cell_network
from training.recipe import Recipe, pretrained_weights
from training.trunk_file import arguments_of, put_weights, tensors_of

__all__ = ["Start", "load_trunk", "start_of"]


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
    if recipe.start is not None:
        if recipe.trunk == "mobilenetv2":
            raise ConfigError(f"start is {recipe.start}, a slim trunk, but trunk is mobilenetv2; give one of the two")
        path = Path(recipe.start)
        return Start({**arguments_of(path), "classes": classes, "pooled": pooled}, path)
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


def load_trunk(network: CellNetwork | AnchorNetwork, path: Path) -> None:
    """Put pretrained weights into a network's trunk.

    Raises:
        ConfigError: There is no such file.
        FormatError: It is damaged, or of another trunk.
    """
    put_weights(network.trunk, tensors_of(path), source=str(path))
