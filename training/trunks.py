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

__all__ = ["Start", "begin_as", "load_trunk", "start_of", "start_of_pretraining"]

SAID = {"resnet18": "slim"}
"""What a recipe calls a trunk whose factory has another name for it."""
MOBILENET: Mapping[str, Any] = {"trunk": "mobilenetv2", "width": 1.0, "stages": 5}


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
        ConfigError: The trunk's weights are asked for and not there, are of another trunk, or a trunk that has learnt
            nothing is to be kept.
    """
    common: dict[str, Any] = {"classes": classes, "pooled": pooled}
    if recipe.start is not None:
        path = Path(recipe.start)
        own = arguments_of(path)
        said = SAID.get(own["trunk"], own["trunk"])
        if recipe.trunk not in ("auto", said):
            raise ConfigError(f"start is {path}, of trunk {said}, but trunk is {recipe.trunk}; give one of the two")
        return Start({**own, **common, **({"frozen": True} if recipe.frozen else {})}, path)
    found = None if recipe.trunk == "slim" else pretrained_weights()
    if recipe.trunk == "mobilenetv2" and found is None:
        raise ConfigError(
            "trunk is mobilenetv2, but its ImageNet weights are not here; name the file in EDGE_SDK_MOBILENETV2, "
            "or give trunk slim"
        )
    if found is not None:
        return Start({"trunk": "mobilenetv2", **common, "frozen": recipe.frozen is not False}, found)
    if recipe.frozen:
        raise ConfigError(
            "frozen keeps a trunk that has learnt nothing; give start a file of `python -m training pretrain`, or "
            "leave frozen out"
        )
    return Start({"trunk": "resnet18", **common, "width": recipe.width, "stages": recipe.stages}, None)


def start_of_pretraining(recipe: Recipe, *, scratch: bool = False) -> Start:
    """What a pretraining begins with, all of it to be trained: the slim trunk where the recipe names none.

    Args:
        recipe: ``trunk`` and ``start``.
        scratch: MobileNetV2 without its ImageNet weights; the slim trunk has none.

    Raises:
        ConfigError: As of ``start_of``; or a start is named and scratch is asked for.
    """
    if scratch and recipe.start is not None:
        raise ConfigError(f"start is {recipe.start}, but nothing is to be started from; give one of the two")
    if scratch and recipe.trunk == "mobilenetv2":
        return Start({**MOBILENET, "classes": 1, "pooled": True}, None)
    trunk = "slim" if recipe.trunk == "auto" and recipe.start is None else recipe.trunk
    found = start_of(recipe.model_copy(update={"trunk": trunk, "frozen": False}), classes=1, pooled=True)
    return Start({**(MOBILENET if trunk == "mobilenetv2" else {}), **found.arguments}, found.weights)


def begin_as(network: CellNetwork, arguments: Mapping[str, Any], *, start: str | None) -> None:
    """Give a fresh network whose trunk is trained what the first of its kind began with.

    A MobileNetV2 begins with the file that is named, else with ImageNet weights; another trunk begins with nothing.

    Args:
        network: Of ``arguments``, not frozen.
        arguments: Of the checkpoint that came before.
        start: Of that checkpoint's recipe.

    Raises:
        ConfigError: These weights are not there any more.
    """
    if arguments.get("trunk") != "mobilenetv2":
        return
    found = start_of(Recipe(trunk="mobilenetv2", start=start, frozen=False), classes=1, pooled=False)
    assert found.weights is not None  # it raises where they are missing
    load_trunk(network, found.weights)


def load_trunk(network: CellNetwork | AnchorNetwork, path: Path) -> None:
    """Put pretrained weights into a network's trunk.

    Raises:
        ConfigError: There is no such file.
        FormatError: It is damaged, or of another trunk.
    """
    put_weights(network.trunk, tensors_of(path), source=str(path))
