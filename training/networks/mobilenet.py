"""MobileNetV2's first stages with ImageNet weights, as a frozen trunk where there is too little to train one.

Parameter names are timm's (``mobilenetv2_100``), so its weight files load; the padding is TensorFlow's
SAME, written out as one row and column after the picture before each convolution of stride 2, which is
what it comes to for even sides and what exports with static shapes.

Reference:
    Sandler et al., MobileNetV2: inverted residuals and linear bottlenecks, CVPR 2018.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MobileNetV2"]

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, blocks and stride of each stage: table 2 of the paper."""


def _padded(x: Tensor, stride: int) -> Tensor:
    return F.pad(x, (0, 1, 0, 1)) if stride == 2 else x


class _Separable(nn.Module):
    """Depthwise, then linear pointwise: the first stage's block, which does not expand."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv_pw = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.bn2(self.conv_pw(F.relu6(self.bn1(self.conv_dw(x)))))
        return found


class _Inverted(nn.Module):
    """Expand, depthwise, linear pointwise; a way round where nothing changes shape."""

    def __init__(self, inputs: int, outputs: int, *, expansion: int, stride: int) -> None:
        super().__init__()
        middle = inputs * expansion
        self.conv_pw = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv_dw = nn.Conv2d(middle, middle, 3, stride, 0 if stride == 2 else 1, groups=middle, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv_pwl = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.round = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.bn1(self.conv_pw(x)))
        y = F.relu6(self.bn2(self.conv_dw(_padded(y, self.stride))))
        y = self.bn3(self.conv_pwl(y))
        found: Tensor = x + y if self.round else y
        return found


class MobileNetV2(nn.Module):
    """``(N, 3, H, W)`` with even sides to ``(N, channels, H / stride, W / stride)``.

    Args:
        stages: How many of the seven stages, 1 to 7; five give 96 channels at stride 16.
    """

    def __init__(self, *, stages: int = 5) -> None:
        super().__init__()
        self.conv_stem = nn.Conv2d(3, 32, 3, 2, 0, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        made: list[nn.Module] = []
        inputs, self.stride = 32, 2
        for expansion, outputs, blocks, stride in STAGES[:stages]:
            self.stride *= stride
            layers: list[nn.Module] = []
            for number in range(blocks):
                if expansion == 1:
                    layers.append(_Separable(inputs, outputs))
                else:
                    step = stride if number == 0 else 1
                    layers.append(_Inverted(inputs, outputs, expansion=expansion, stride=step))
                inputs = outputs
            made.append(nn.Sequential(*layers))
        self.blocks = nn.Sequential(*made)
        self.channels = inputs

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor, *, last: int | None = None) -> list[Tensor]:
        """The map of every stage, in order; of those behind ``last``, counted from 0, none is computed."""
        x = F.relu6(self.bn1(self.conv_stem(_padded(x, 2))))
        found = []
        for stage in list(self.blocks)[: None if last is None else last + 1]:
            x = stage(x)
            found.append(x)
        return found
