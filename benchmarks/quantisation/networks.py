"""The networks that INT8 is judged on: a residual one, a depthwise one with h-swish and squeeze-and-excite, a U-Net.

Each takes ``(N, 3, H, W)`` and gives ``cells``: of a classifier ``(N, K, 1, 1)`` logits, of the U-Net ``(N, 1, H, W)``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.networks.cellnet import CellNetwork, cell_network

__all__ = ["DepthwiseNet", "UNet", "depthwise", "resnet18", "unet"]

BLOCKS = ((16, 24, 2), (24, 24, 1), (24, 40, 2), (40, 40, 1), (40, 64, 2), (64, 64, 1))
"""Channels in, channels out and stride of each block behind the stem."""
EXPANSION = 4
SQUEEZED = 4
"""Channels of a block over those that its gate is computed from."""


def resnet18(*, classes: int, width: float = 0.25) -> CellNetwork:
    """All four stages and a linear head on mean and maximum over places; a quarter of the paper's channels."""
    return cell_network(classes=classes, width=width, stages=4, pooled=True)


class _Gate(nn.Module):
    """Squeeze and excite with a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.narrow = nn.Conv2d(channels, channels // SQUEEZED, 1)
        self.excite = nn.Conv2d(channels // SQUEEZED, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.relu(self.narrow(x.mean((2, 3), keepdim=True)))
        found: Tensor = x * nn.functional.hardsigmoid(self.excite(gate))
        return found


class _Block(nn.Module):
    """Expand, depthwise, gate, linear pointwise; a way round where nothing changes shape."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        middle = EXPANSION * inputs
        self.expand = _rounded_off(inputs, middle, kernel=1)
        self.deep = _rounded_off(middle, middle, kernel=5, stride=stride, groups=middle)
        self.gate = _Gate(middle)
        self.flat = nn.Sequential(nn.Conv2d(middle, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.round = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.flat(self.gate(self.deep(self.expand(x))))
        return x + y if self.round else y


def _rounded_off(inputs: int, outputs: int, *, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.Hardswish())


class DepthwiseNet(nn.Module):
    """MobileNetV3's parts throughout: depthwise convolutions, h-swish, a gate in every block, h-swish in the head.

    Args:
        classes: K.
        blocks: Channels in, channels out and stride of each.

    Reference:
        Howard et al., Searching for MobileNetV3, ICCV 2019, sections 5.2 and 5.3, table 2 in small.
    """

    def __init__(self, *, classes: int, blocks: Sequence[tuple[int, int, int]] = BLOCKS) -> None:
        super().__init__()
        last = blocks[-1][1]
        self.stem = _rounded_off(3, blocks[0][0], kernel=3, stride=2)
        self.blocks = nn.Sequential(*(_Block(inputs, outputs, stride=stride) for inputs, outputs, stride in blocks))
        self.last = _rounded_off(last, EXPANSION * last, kernel=1)
        self.wide = nn.Sequential(nn.Conv2d(EXPANSION * last, EXPANSION * last, 1), nn.Hardswish())
        self.head = nn.Conv2d(EXPANSION * last, classes, 1)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        pooled = self.last(self.blocks(self.stem(frame))).mean((2, 3), keepdim=True)
        return {"cells": self.head(self.wide(pooled))}


def depthwise(*, classes: int) -> DepthwiseNet:
    """As ``DepthwiseNet`` is by itself."""
    return DepthwiseNet(classes=classes)


class UNet(nn.Module):
    """Levels down and up, skips joined by concatenation, transposed convolutions on the way up.

    Args:
        width: Channels of the first level; each further one has twice as many.
        levels: How many.

    Reference:
        Ronneberger, Fischer and Brox, U-Net, MICCAI 2015, figure 1.
    """

    def __init__(self, width: int = 16, levels: int = 4) -> None:
        super().__init__()
        sizes = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_twice(a, b) for a, b in zip([3, *sizes], sizes, strict=False))
        pairs = list(zip(reversed(sizes[:-1]), reversed(sizes[1:]), strict=True))
        self.wider = nn.ModuleList(nn.ConvTranspose2d(high, low, 2, 2) for low, high in pairs)
        self.up = nn.ModuleList(_twice(2 * low, low) for low, _ in pairs)
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        skips, x = [], frame
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for wider, block, skip in zip(self.wider, self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([wider(x), skip], 1))
        return {"cells": self.head(x)}


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (inputs, outputs):
        layers += [nn.Conv2d(source, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


def unet() -> UNet:
    """Of half the width."""
    return UNet(width=8)
