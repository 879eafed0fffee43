"""A trunk, a projector to unit rows, and a head that compares them with class means: what contrastive training makes.

It has the outputs, the names and the parts of a cell network, so that what judges, exports and runs one takes the
other.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.networks.cellnet import CellNetwork, trunk_of

__all__ = ["FACTORY", "NORMALS", "ROW", "PrototypeNetwork", "Prototypes", "prototype_network"]

FACTORY = "training.networks.prototypes:prototype_network"
HIDDEN, ROW = 128, 64
"""Widths of the projector: d-128-64."""
NORMALS = 2
"""Means of healthy rows: of the original line and of the new one."""


class Prototypes(nn.Module):
    """``(N, 64, h, w)`` unit rows to ``(N, K, h, w)`` logits: ``(z.c_k - max(z.c_ns, z.c_nt)) / tau``.

    ``c_k`` is the mean row of defect k, ``c_ns`` and ``c_nt`` those of both lines' normals.  With the temperature tau
    of the loss, two means make a logit whose sigmoid is the softmax over both.

    Args:
        classes: K.
        temperature: tau.
    """

    def __init__(self, classes: int, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.out_channels = classes
        self.sharpness = 1 / temperature
        self.weight = nn.Parameter(torch.zeros(classes + NORMALS, ROW, 1, 1), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        alike = F.conv2d(rows, self.weight) * self.sharpness
        defect, normal = alike[:, : self.out_channels], alike[:, self.out_channels :]
        return defect - normal.amax(1, keepdim=True)


class PrototypeNetwork(CellNetwork):
    """As ``CellNetwork``, whose last map are unit rows, at every cell or of the whole picture.

    Args:
        trunk, channels, classes, frozen, pooled: As of ``CellNetwork``.
    """

    def __init__(
        self, trunk: nn.Module, *, channels: int, classes: int, frozen: bool = False, pooled: bool = False
    ) -> None:
        super().__init__(trunk, channels=channels, classes=classes, frozen=frozen, pooled=pooled)
        self.projector = nn.Sequential(nn.Conv2d(self.channels, HIDDEN, 1), nn.ReLU(), nn.Conv2d(HIDDEN, ROW, 1))
        self.channels = ROW
        self.head = Prototypes(classes)  # type: ignore[assignment]  # it is called as the other is

    def above(self, maps: Tensor) -> Tensor:
        """``(N, 64, h, w)`` of unit length."""
        return F.normalize(self.projector(super().above(maps)), dim=1)


def prototype_network(
    *,
    trunk: Literal["resnet18", "mobilenetv2"] = "resnet18",
    classes: int = 1,
    width: float = 0.25,
    stages: int | None = None,
    frozen: bool = False,
    pooled: bool = False,
) -> PrototypeNetwork:
    """The factory that checkpoints name; arguments as of ``cell_network``.

    Raises:
        ConfigError: There is no such trunk.
    """
    below = trunk_of(trunk, width=width, stages=stages)
    return PrototypeNetwork(below, channels=below.channels, classes=classes, frozen=frozen, pooled=pooled)
