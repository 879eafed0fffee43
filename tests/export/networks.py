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


class Recurring(nn.Module):
    """Has a layer that ``torch.export`` does not write and tracing does (a leaky ReLU, random in training alone)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 8, 8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.leaky = nn.RReLU()
        self.head = nn.Conv2d(8, 1, 1)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        inner = self.leaky(self.bn(self.stem(frame)))
        return {"cells": self.head(inner), "feature": inner.mean((2, 3))}


def recurring(*, seed: int = 0) -> Recurring:
    """With weights and statistics that are neither 0 nor 1."""
    torch.manual_seed(seed)
    network = Recurring()
    nn.init.uniform_(network.bn.running_mean, -0.1, 0.1)  # type: ignore[arg-type]
    nn.init.uniform_(network.bn.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return network.eval()


class Eigen(nn.Module):
    """Has an operation that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 1, 8, 8)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        cells = self.head(frame)
        return {"cells": cells + torch.linalg.eigvals(cells @ cells.transpose(-1, -2)).real[:, :, None, :]}


class Excited(nn.Module):
    """Depthwise, h-swish, squeeze and excite, its channels of sizes as folding leaves them: INT8 costs it much.

    ``(N, 3, H, W)`` to cells of 8 pixels.
    """

    def __init__(self, *, width: int = 16, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, 2, 1)
        self.deep = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1, groups=width) for _ in range(blocks))
        self.narrow = nn.ModuleList(nn.Conv2d(width, 4, 1) for _ in range(blocks))
        self.excite = nn.ModuleList(nn.Conv2d(4, width, 1) for _ in range(blocks))
        self.flat = nn.ModuleList(nn.Conv2d(width, width, 1) for _ in range(blocks))
        self.pool = nn.MaxPool2d(4)
        self.head = nn.Conv2d(width, 1, 1)
        for name, value in self.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(value, 0, 0.2)
            else:
                nn.init.kaiming_normal_(value)
            if name.startswith("deep") and name.endswith("weight"):
                value.data *= torch.exp(torch.randn(width, 1, 1, 1))

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        x = nn.functional.hardswish(self.stem(frame))
        for deep, narrow, excite, flat in zip(self.deep, self.narrow, self.excite, self.flat, strict=True):
            y = nn.functional.hardswish(deep(x))
            gate = excite(torch.relu(narrow(y.mean((2, 3), keepdim=True))))
            x = x + flat(y * nn.functional.hardsigmoid(gate))
        return {"cells": self.head(self.pool(x))}


def excited(*, seed: int = 100) -> Excited:
    """With random weights; a head alone is enough to find dark spots by them."""
    torch.manual_seed(seed)
    return Excited().eval()


class Grouped(nn.Module):
    """Normalises by groups of channels, which export writes as another operation."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(4, 8), nn.SiLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.GroupNorm(4, 16)
        )
        self.head = nn.Conv2d(16, 1, 1)

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        return {"cells": self.head(nn.functional.mish(self.body(frame)))}


def grouped() -> Grouped:
    """With random weights, the same ones every time."""
    torch.manual_seed(0)
    return Grouped().eval()
