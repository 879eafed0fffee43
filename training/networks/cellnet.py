"""A trunk and a head over cells, or over the whole picture: the network that training makes and export traces.

A classifier is a cell network whose map is one cell: what calibrates, exports, decodes and runs cells does so
with it unchanged.

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
from training.networks.timm_trunk import PREFIX, TimmTrunk

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


class MeanMax(nn.Module):
    """``(N, C, h, w)`` to ``(N, 2 C, 1, 1)``: the mean over places beside the maximum, which keeps small defects."""

    def forward(self, maps: Tensor) -> Tensor:
        return torch.cat([maps.mean((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)], dim=1)


class CellNetwork(nn.Module):
    """``(N, 3, H, W)`` float32 to ``Outputs``; no branch depends on the data.

    Args:
        trunk: ``(N, 3, H, W)`` to ``(N, C, h, w)``.
        channels: C.
        classes: K.
        frozen: The trunk is not trained and keeps its statistics; a neck above it is trained instead.
        pooled: A classifier: the last map is pooled to one place, and the head sees the whole picture at once.
    """

    def __init__(
        self, trunk: nn.Module, *, channels: int, classes: int, frozen: bool = False, pooled: bool = False
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.frozen = frozen
        width = NECK if frozen else channels
        self.channels = 2 * width if pooled else width
        self.neck = nn.Sequential(nn.Conv2d(channels, NECK, 1), nn.ReLU()) if frozen else nn.Sequential()
        self.pool = MeanMax() if pooled else nn.Sequential()
        self.head = nn.Conv2d(self.channels, classes, 1)
        nn.init.normal_(self.head.weight, std=0.01)
        assert self.head.bias is not None
        # of cells few are defective, of the pictures drawn every second one
        nn.init.constant_(self.head.bias, 0.0 if pooled else -math.log((1 - PRIOR) / PRIOR))
        if frozen:
            self.trunk.requires_grad_(False)

    def features(self, frame: Tensor) -> Tensor:
        """The last map, ``(N, F, h, w)``, of a classifier ``(N, F, 1, 1)``: what alignment looks at."""
        return self.above(self.trunk(frame))

    def above(self, maps: Tensor) -> Tensor:
        """The last map from the trunk's, ``(N, C, h, w)``: what there is to compute when that is known already."""
        found: Tensor = self.pool(self.neck(maps))
        return found

    def judged(self, last: Tensor) -> Outputs:
        """The outputs from the last map."""
        return Outputs(self.head(last), last.mean((2, 3)))

    def forward(self, frame: Tensor) -> Outputs:
        return self.judged(self.features(frame))

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
    pooled: bool = False,
) -> CellNetwork:
    """The factory that checkpoints name.

    Args:
        trunk: ``resnet18`` or ``mobilenetv2``.
        classes: K, at least 1.
        width: Of a ResNet-18, times the paper's channels.
        stages: How many of the trunk's stages; those up to stride 16 without it.
        frozen: Train a neck above the trunk, not the trunk.
        pooled: A classifier of whole pictures: mean and maximum over places, then a linear head.

    Raises:
        ConfigError: There is no such trunk.
    """
    below = trunk_of(trunk, width=width, stages=stages)
    return CellNetwork(below, channels=below.channels, classes=classes, frozen=frozen, pooled=pooled)


def trunk_of(name: str, *, width: float, stages: int | None) -> ResNet18 | MobileNetV2 | TimmTrunk:
    """A trunk by its name, ``timm:`` before one of timm; without ``stages`` those up to stride 16.

    Raises:
        ConfigError: There is no such trunk.
    """
    if name == "resnet18":
        return ResNet18(width=width, stages=stages or 3)
    if name == "mobilenetv2":
        return MobileNetV2(stages=stages or 5)
    if name.startswith(PREFIX):
        return TimmTrunk(name.removeprefix(PREFIX))
    raise ConfigError(f"there is no trunk named {name!r}; give resnet18, mobilenetv2, or timm: and a name of timm's")


def batch_norms(network: nn.Module) -> Iterator[tuple[str, nn.BatchNorm2d]]:
    """Every batch normalisation of a network, by its name: what belongs to a line."""
    for name, module in network.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            yield name, module


def stride_of(network: CellNetwork, side: int = 64) -> int:
    """Pixels of the input a cell, as the network really makes them; not of a classifier, whose cell is the input."""
    with torch.no_grad():
        mode = network.training
        rows = network.eval()(torch.zeros(1, 3, side, side)).cells.shape[2]
        network.train(mode)
    return side // int(rows)
