"""A trunk and an anchor head: the detector that training makes and export traces.

``anchor_network`` is the factory that a detector's checkpoint names.  The anchors stand in its arguments, so the graph
turns offsets into boxes in pixels of its input by itself, and whoever reads it needs no table beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError
from training.networks.cellnet import trunk_of

__all__ = ["AnchorNetwork", "BoxOutputs", "anchor_network", "boxes_of_offsets", "offsets_of_boxes"]

PRIOR = 0.01
"""Confidence that every anchor starts from: nearly all of them are background for ever."""
NECK = 64
"""Channels between trunk and head."""
SCALES = (0.1, 0.1, 0.2, 0.2)
"""What one of the network's offsets stands for: they are small numbers, and regression would starve beside L_cls."""
MOST_GROWTH = math.log(8)
"""Of a side over its anchor's, as a logarithm: an untrained head must not make infinite boxes."""


class BoxOutputs(NamedTuple):
    """What the network gives, in the order and by the names of the exported graph."""

    boxes: Tensor
    """``(N, A, 4)`` left, top, right, bottom in pixels of the network's input."""
    scores: Tensor
    """``(N, A, K)`` logits."""
    feature: Tensor
    """``(N, F)``, the mean of the last map over its positions."""


class AnchorNetwork(nn.Module):
    """``(N, 3, H, W)`` float32 to ``BoxOutputs``; no branch depends on the data.

    Of every cell of the trunk's map, ``B`` anchors are classified and regressed: ``A = h * w * B``, counted row by
    row, column by column, then by shape.

    Args:
        trunk: ``(N, 3, H, W)`` to ``(N, C, h, w)``.
        channels: C.
        classes: K.
        shapes: ``B`` pairs of width and height in pixels of the network's input.
        grid: ``(h, w)``.
        stride: Pixels a cell.
        frozen: The trunk is not trained and keeps its statistics.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 2: ``(H, W, B * 5 + C)``.  Here every anchor has
        its own class scores, ``(h, w, B * (4 + K))``, as in the single-shot detectors that it cites: a score of
        the cell's alone could not be answered anchor by anchor.
    """

    anchors: Tensor
    """``(A, 4)`` centre x, centre y, width, height in pixels of the network's input."""

    def __init__(
        self,
        trunk: nn.Module,
        *,
        channels: int,
        classes: int,
        shapes: Sequence[Sequence[float]],
        grid: tuple[int, int],
        stride: int,
        frozen: bool = False,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.frozen = frozen
        self.grid = grid
        self.classes = classes
        self.per_cell = len(shapes)
        # places do not move under a 3x3 kernel that sees the neighbours, a box's edges do
        self.neck = nn.Sequential(
            nn.Conv2d(channels, NECK, 3, 1, 1), nn.ReLU(), nn.Conv2d(NECK, NECK, 3, 1, 1), nn.ReLU()
        )
        self.score = nn.Conv2d(NECK, self.per_cell * classes, 1)
        self.offset = nn.Conv2d(NECK, self.per_cell * 4, 1)
        for head in (self.score, self.offset):
            nn.init.normal_(head.weight, std=0.01)
            assert head.bias is not None
            nn.init.zeros_(head.bias)
        assert self.score.bias is not None
        nn.init.constant_(self.score.bias, -math.log((1 - PRIOR) / PRIOR))
        if frozen:
            self.trunk.requires_grad_(False)
        # made of the arguments, so it is no weight
        self.register_buffer("anchors", _anchors(shapes, grid, stride), persistent=False)

    def judged(self, last: Tensor) -> BoxOutputs:
        """From the trunk's map, ``(N, C, h, w)``: what there is to compute when that is known already."""
        seen = self.neck(last)
        count = self.grid[0] * self.grid[1] * self.per_cell
        scores = self.score(seen).permute(0, 2, 3, 1).reshape(-1, count, self.classes)
        offsets = self.offset(seen).permute(0, 2, 3, 1).reshape(-1, count, 4)
        return BoxOutputs(boxes_of_offsets(offsets, self.anchors), scores, seen.mean((2, 3)))

    def forward(self, frame: Tensor) -> BoxOutputs:
        return self.judged(self.trunk(frame))

    def train(self, mode: bool = True) -> AnchorNetwork:
        super().train(mode)
        if self.frozen:
            self.trunk.eval()
        return self


def boxes_of_offsets(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Where the boxes are that the network means.

    With an anchor's centre ``(x_a, y_a)`` and sides ``(w_a, h_a)`` and offsets ``t``, each times its scale:
    ``x = x_a + t_x w_a``, ``y = y_a + t_y h_a``, ``w = w_a exp(t_w)``, ``h = h_a exp(t_h)``.

    Args:
        offsets: ``(..., A, 4)``.
        anchors: ``(A, 4)`` centre x, centre y, width, height.

    Returns:
        ``(..., A, 4)`` left, top, right, bottom.

    Reference:
        Ren et al., Faster R-CNN, 2015, eq. 2.
    """
    scaled = offsets * torch.tensor(SCALES)
    sides = anchors[:, 2:]
    centres = anchors[:, :2] + scaled[..., :2] * sides
    half = sides * torch.exp(scaled[..., 2:].clamp(max=MOST_GROWTH)) / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def offsets_of_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The offsets that ``boxes_of_offsets`` turns into these boxes.

    Args:
        boxes: ``(n, 4)`` left, top, right, bottom with an area.
        anchors: ``(n, 4)``, one a box.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    shift = (centres - anchors[:, :2]) / anchors[:, 2:]
    return torch.cat([shift, torch.log(sides / anchors[:, 2:])], dim=1) / torch.tensor(SCALES)


def anchor_network(
    *,
    shapes: Sequence[Sequence[float]],
    height: int,
    width_px: int,
    trunk: Literal["resnet18", "mobilenetv2"] = "resnet18",
    classes: int = 1,
    width: float = 0.25,
    stages: int | None = None,
    frozen: bool = False,
) -> AnchorNetwork:
    """The factory that a detector's checkpoint names.

    Args:
        shapes: ``B`` pairs of width and height of the anchors, pixels of the network's input.
        height: Of the network's input, pixels, a multiple of the trunk's stride.
        width_px: Of the network's input.
        trunk: ``resnet18`` or ``mobilenetv2``.
        classes: K, at least 1.
        width: Of a ResNet-18, times the paper's channels.
        stages: How many of the trunk's stages; those up to stride 16 without it.
        frozen: The trunk is not trained.

    Raises:
        ConfigError: There is no such trunk, no anchor, or the input is no multiple of the stride.
    """
    if not shapes or any(len(shape) != 2 or min(shape) <= 0 for shape in shapes):
        raise ConfigError(f"shapes is {[list(shape) for shape in shapes]}; give a width and a height above 0 an anchor")
    below = trunk_of(trunk, width=width, stages=stages)
    stride = below.stride
    if height % stride or width_px % stride:
        raise ConfigError(f"the network's input is {width_px} x {height}; give multiples of the trunk's {stride} px")
    return AnchorNetwork(
        below,
        channels=below.channels,
        classes=classes,
        shapes=shapes,
        grid=(height // stride, width_px // stride),
        stride=stride,
        frozen=frozen,
    )


def _anchors(shapes: Sequence[Sequence[float]], grid: tuple[int, int], stride: int) -> Tensor:
    rows, columns = grid
    y = (torch.arange(rows, dtype=torch.float32) + 0.5) * stride
    x = (torch.arange(columns, dtype=torch.float32) + 0.5) * stride
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij"), dim=-1).flip(-1)
    sides = torch.tensor([list(shape) for shape in shapes], dtype=torch.float32)
    whole = torch.cat(
        [
            centres[:, :, None].expand(rows, columns, len(sides), 2),
            sides[None, None].expand(rows, columns, len(sides), 2),
        ],
        dim=-1,
    )
    return whole.reshape(-1, 4)
