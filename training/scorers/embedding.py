"""What a scorer looks at: a trunk's maps of several stages, brought to one grid.

The maps are joined by sums of 1x1 convolutions instead of a concatenation: each stage keeps the INT8 range that suits
it, and a coarse stage is convolved before it is enlarged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.errors import ConfigError, RangeError
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18
from training.networks.timm_trunk import TimmTrunk

__all__ = ["Joined", "Stages", "averaged", "channel_scale", "joined_maps"]

TAPS = {"resnet18": (0, 1, 2), "mobilenetv2": (1, 2, 4)}
"""Which stages are looked at by habit: strides 4, 8 and 16; of timm's those of these strides that there are."""
PROBE = 128
"""Pixels of the picture that strides are measured on."""


class Stages(nn.Module):
    """A trunk that gives the maps of several stages: ``(N, 3, H, W)`` to ``(N, C_l, H / s_l, W / s_l)`` each.

    Args:
        trunk: ``ResNet18``, ``MobileNetV2`` or one of timm.
        taps: Which stages, counted from 0, rising.

    Raises:
        ConfigError: The trunk has no such stage, or takes pictures of one size alone.
    """

    def __init__(self, trunk: ResNet18 | MobileNetV2 | TimmTrunk, taps: Sequence[int]) -> None:
        super().__init__()
        self.trunk = trunk
        self.taps = tuple(taps)
        count = len(trunk.blocks) if isinstance(trunk, MobileNetV2) else trunk.stages
        if not self.taps or list(self.taps) != sorted(set(self.taps)) or not 0 <= self.taps[0] <= self.taps[-1] < count:
            raise ConfigError(f"taps is {list(taps)}; give numbers of stages in rising order, from 0 to {count - 1}")
        with torch.no_grad():
            mode = trunk.training
            try:
                maps = self.eval()(torch.zeros(1, 3, PROBE, PROBE))
            except (AssertionError, RuntimeError) as error:
                raise ConfigError(f"the trunk takes no {PROBE} x {PROBE} picture ({error}); choose another") from error
            self.train(mode)
        self.channels = tuple(int(one.shape[1]) for one in maps)
        self.strides = tuple(PROBE // int(one.shape[2]) for one in maps)

    def forward(self, frame: Tensor) -> list[Tensor]:
        maps = self.trunk.maps(frame, last=self.taps[-1])
        return [maps[number] for number in self.taps]

    def first_parts(self) -> tuple[str, ...]:
        """Submodules of the trunk that lead to the first map looked at; of timm's trunks none is known by name."""
        stages = range(self.taps[0] + 1)
        if isinstance(self.trunk, TimmTrunk):
            return ()
        if isinstance(self.trunk, ResNet18):
            return ("conv1", *(f"layer{number + 1}" for number in stages))
        return ("conv_stem", *(f"blocks.{number}" for number in stages))


class Joined(nn.Module):
    """``sum_l up_l(W_l f_l) + b``, averaged over 3x3 cells: a linear map of all stages at each cell of one grid.

    With ``W = [W_1 ... W_L]`` it equals ``W f + b`` of the concatenated stages ``f`` (``joined_maps``), where nothing
    fades.

    Args:
        channels: Of each stage.
        strides: Of each stage.
        stride: Of the grid.
        width: Rows of ``W``.
        fade: Beside the picture lies 0, which the average counts: a place near the border is nearer to 0.
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, stride: int, width: int, fade: bool = False
    ) -> None:
        super().__init__()
        self.strides, self.stride, self.width, self.fade = tuple(strides), stride, width, fade
        self.by_stage = nn.ModuleList(
            nn.Conv2d(inputs, width, 1, bias=number == 0) for number, inputs in enumerate(channels)
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        convolved = [conv(one) for conv, one in zip(self.by_stage, maps, strict=True)]
        whole = [_on_grid(one, own, self.stride) for one, own in zip(convolved, self.strides, strict=True)]
        joined = whole[0]
        for one in whole[1:]:
            joined = joined + one
        return averaged(joined, fade=self.fade)

    def set_linear(self, weight: Tensor, bias: Tensor) -> None:
        """Make it ``weight f + bias``, ``(width, D)`` and ``(width,)`` over the concatenated channels."""
        pieces = torch.split(weight, [conv.in_channels for conv in self._convs()], dim=1)
        with torch.no_grad():
            for conv, piece in zip(self._convs(), pieces, strict=True):
                conv.weight.copy_(piece[:, :, None, None])
                if conv.bias is not None:
                    conv.bias.copy_(bias)

    def _convs(self) -> list[nn.Conv2d]:
        return [conv for conv in self.by_stage if isinstance(conv, nn.Conv2d)]


def joined_maps(maps: Sequence[Tensor], strides: Sequence[int], stride: int) -> Tensor:
    """The stages side by side on one grid, averaged over 3x3 cells: ``(N, D, h, w)``.

    Reference:
        Roth et al., Towards total recall in industrial anomaly detection, CVPR 2022, section 3.1 (locally aware
        patch features).
    """
    return averaged(torch.cat([_on_grid(one, own, stride) for one, own in zip(maps, strides, strict=True)], dim=1))


def channel_scale(maps: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
    """``(D,)`` mean of each channel, and one over its standard deviation; 0 of a channel that never varies.

    Batches are merged one by one, so that no more than one is held in double precision.

    Raises:
        RangeError: No channel varies.

    Reference:
        Chan, Golub and LeVeque, Algorithms for computing the sample variance, 1983, eq. 2.1.
    """
    count, mean, square = 0, torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    for one in maps:
        rows = one.double().transpose(0, 1).flatten(1)
        variance, middle = torch.var_mean(rows, dim=1, correction=0)
        more = rows.shape[1]
        off, whole = middle - mean, count + more
        square = square + more * variance + off**2 * (count * more / whole)
        mean = mean + off * (more / whole)
        count = whole
    sd = (square / max(count, 1)).sqrt()
    alive = sd > 1e-6 * (1 + mean.abs())
    if not bool(alive.any()):
        raise RangeError(
            "the trunk says the same of every place of every picture; are the pictures all blank, or its weights lost?"
        )
    return mean, torch.where(alive, 1 / sd.clamp(min=1e-12), torch.zeros_like(sd))


def _on_grid(x: Tensor, own: int, stride: int) -> Tensor:
    if own < stride:
        return F.avg_pool2d(x, stride // own)
    return F.interpolate(x, scale_factor=own // stride, mode="nearest") if own > stride else x


def averaged(x: Tensor, *, fade: bool = False) -> Tensor:
    """``(N, C, h, w)`` over 3 x 3 cells, at the border over those that there are; with ``fade`` over zeros too."""
    return F.avg_pool2d(x, 3, 1, 1, count_include_pad=fade)
