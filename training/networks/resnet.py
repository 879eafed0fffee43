"""ResNet-18's convolutional part, with torchvision's parameter names, so that its weight files load.

``width`` thins every stage for a CPU, ``stages`` leaves the last ones out: a defect is found by its
looks, not by what it is a picture of.

Reference:
    He et al., Deep residual learning for image recognition, CVPR 2016.
"""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["ResNet18"]


class _Block(nn.Module):
    """Two 3x3 convolutions and a way round them."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        else:
            self.downsample = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        whole: Tensor = self.relu(y + self.downsample(x))
        return whole


class ResNet18(nn.Module):
    """``(N, 3, H, W)`` to the map of the last stage, ``(N, channels, H / stride, W / stride)``.

    Args:
        width: Times the channels of the paper, above 0.
        stages: How many of the four stages, 1 to 4; the stride is 4, 8, 16 or 32.
    """

    def __init__(self, *, width: float = 1.0, stages: int = 4) -> None:
        super().__init__()
        planes = [max(8, round(64 * width)) * 2**stage for stage in range(stages)]
        self.conv1 = nn.Conv2d(3, planes[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes[0])
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = planes[0]
        for stage, outputs in enumerate(planes):
            blocks = (_Block(inputs, outputs, stride=1 if stage == 0 else 2), _Block(outputs, outputs, stride=1))
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            inputs = outputs
        self.stages, self.channels, self.stride = stages, inputs, 4 * 2 ** (stages - 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor, *, last: int | None = None) -> list[Tensor]:
        """The map of every stage, in order; of those behind ``last``, counted from 0, none is computed."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        found = []
        for stage in range(self.stages if last is None else last + 1):
            x = self.get_submodule(f"layer{stage + 1}")(x)
            found.append(x)
        return found
