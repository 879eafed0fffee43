"""Small networks that export meets: a residual one as training makes them, and ones that fail."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Outputs(NamedTuple):
    cells: Tensor
    feature: Tensor


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = stride == 1 and inputs == outputs
        self.way_round = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + self.way_round(x))


class Residual(nn.Module):
    """``(N, 3, H, W)`` to cells of 8 pixels; dark spots are defects."""

    def __init__(self, *, width: int = 8, classes: int = 1) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(Block(width, width, stride=1), Block(width, 2 * width, stride=2))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(2 * width, classes, 1)

    def forward(self, frame: Tensor) -> Outputs:
        last = self.pool(self.blocks(torch.relu(self.bn(self.stem(frame)))))
        return Outputs(self.head(last), last.mean((2, 3)))


def residual(*, width: int = 8, classes: int = 1) -> Residual:
    """The factory that the tests' checkpoints name."""
    return Residual(width=width, classes=classes)


def no_module() -> int:
    return 3


class Branching(nn.Module):
    """Looks at the data before it decides what to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 1, 8, 8)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        cells = self.head(frame)
        return {"cells": cells * 2 if bool((frame.sum() > 1e9).item()) else cells}


def branching() -> Branching:
    return Branching()


class Unnamed(nn.Module):
    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        return {"logits": frame.mean(1, keepdim=True)}


def unnamed() -> Unnamed:
    return Unnamed()


class UNet(nn.Module):
    """Three levels down and up with skips, batch norm throughout, one class of cells of a pixel."""

    def __init__(self, *, width: int = 16) -> None:
        super().__init__()

        def twice(inputs: int, outputs: int) -> nn.Sequential:
            layers: list[nn.Module] = []
            for source in (inputs, outputs):
                layers += [
                    nn.Conv2d(source, outputs, 3, 1, 1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(),
                ]
            return nn.Sequential(*layers)

        self.down = nn.ModuleList([twice(3, width), twice(width, 2 * width), twice(2 * width, 4 * width)])
        self.up = nn.ModuleList([twice(6 * width, 2 * width), twice(3 * width, width)])
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        first = self.down[0](frame)
        second = self.down[1](nn.functional.max_pool2d(first, 2))
        last = self.down[2](nn.functional.max_pool2d(second, 2))
        joined = torch.cat([nn.functional.interpolate(last, scale_factor=2.0, mode="nearest"), second], 1)
        joined = torch.cat(
            [nn.functional.interpolate(self.up[0](joined), scale_factor=2.0, mode="nearest"), first], 1
        )
        return {"cells": self.head(self.up[1](joined))}
