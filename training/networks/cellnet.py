"""A trunk and a cell head: the one network that training makes and export traces.

``cell_network`` is the factory that a checkpoint names by its dotted path; anybody's factory that
returns a module with the same outputs trains, adapts and exports the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18

__all__ = ["CellNetwork", "Outputs", "batch_norms", "cell_network", "trunk_of"]

PRIOR = 0.03
"""Share of defective cells that the head starts from, so that the first steps do not chase the healthy many."""
NECK = 64
"""Channels between a frozen trunk and the head: what there is to learn on its features."""


class Outputs(NamedTuple):
    """What the network gives, in the order and by the names of the exported graph."""

    cells: Tensor
    """``(N, K, h, w)`` logits."""
    feature: Tensor
    """``(N, F)``, the mean of the last map over its positions."""


class CellNetwork(nn.Module):
    """``(N, 3, H, W)`` float32 to ``Outputs``; no branch depends on the data.

    Args:
        trunk: ``(N, 3, H, W)`` to ``(N, C, h, w)``.
        channels: C.
        classes: K.
        frozen: The trunk is not trained and keeps its statistics; a neck above it is trained instead.
    """

    def __init__(self, trunk: nn.Module, *, channels: int, classes: int, frozen: bool = False) -> None:
        super().__init__()
        self.trunk = trunk
        self.frozen = frozen
        self.channels = NECK if frozen else channels
        self.neck = nn.Sequential(nn.Conv2d(channels, NECK, 1), nn.ReLU()) if frozen else nn.Sequential()
        self.head = nn.Conv2d(self.channels, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        nn.init.constant_(self.head.bias, -math.log((1 - PRIOR) / PRIOR))
        if frozen:
            self.trunk.requires_grad_(False)

    def features(self, frame: Tensor) -> Tensor:
        """The last map, ``(N, F, h, w)``: what the domain segmenter looks at."""
        found: Tensor = self.neck(self.trunk(frame))
        return found

    def forward(self, frame: Tensor) -> Outputs:
        last = self.features(frame)
        return Outputs(self.head(last), last.mean((2, 3)))

    def train(self, mode: bool = True) -> CellNetwork:
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self


def cell_network(
    *,
    trunk: Literal["resnet18", "mobilenetv2"] = "resnet18",
    classes: int = 1,
    width: float = 0.25,
    stages: int | None = None,
    frozen: bool = False,
) -> CellNetwork:
    """The factory that checkpoints name.

    Args:
        trunk: ``resnet18`` or ``mobilenetv2``.
        classes: K, at least 1.
        width: Of a ResNet-18, times the paper's channels.
        stages: How many of the trunk's stages; those up to stride 16 without it.
        frozen: Train a neck above the trunk, not the trunk.

    Raises:
        ConfigError: There is no such trunk.
    """
    below = trunk_of(trunk, width=width, stages=stages)
    return CellNetwork(below, channels=below.channels, classes=classes, frozen=frozen)


def trunk_of(name: str, *, width: float, stages: int | None) -> ResNet18 | MobileNetV2:
    """A trunk by its name; without ``stages`` those up to stride 16.

    Raises:
        ConfigError: There is no such trunk.
    """
    if name == "resnet18":
        return ResNet18(width=width, stages=stages or 3)
    if name == "mobilenetv2":
        return MobileNetV2(stages=stages or 5)
    raise ConfigError(f"there is no trunk named {name!r}; give resnet18 or mobilenetv2")


def batch_norms(network: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Every batch normalisation of a network, by its name: what belongs to a line."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield name, module


def stride_of(network: CellNetwork, side: int = 64) -> int:
    """Pixels of the input a cell, as the network really makes them."""
    with torch.no_grad():
        mode = network.training
        rows = network.eval()(torch.zeros(1, 3, side, side)).cells.shape[2]
        network.train(mode)
    return side // int(rows)
