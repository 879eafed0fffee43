"""Alignment by the covariances of pooled features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from training.losses.adversarial import ganin_weight
from training.losses.correlation import coral as correlation
from training.losses.rows import pooled_rows
from training.methods.joint import Alignment, trained_jointly
from training.methods.task import Adapted, Task
from training.networks.cellnet import CellNetwork

__all__ = ["WEIGHT", "coral"]

WEIGHT = 10.0
"""Of the distance of the covariances, once it is let in."""


def coral(task: Task) -> Adapted:
    """Features whose covariance over pictures is the same on both lines.

    ``L = L_S + w |C_s - C_t|_F^2 / (4 d^2)`` over pooled features, where w rises to ``WEIGHT``.

    Reference:
        Sun and Saenko, Deep CORAL, ECCV 2016.
    """
    return trained_jointly(task, "coral", "correlation", _matching)


def _matching(_: CellNetwork) -> tuple[Alignment, Mapping[str, nn.Module]]:
    def align(here: Tensor, there: Tensor, done: float) -> Tensor:
        return ganin_weight(done, most=WEIGHT) * correlation(pooled_rows(here), pooled_rows(there))

    return align, {}
