"""Alignment by the maximum mean discrepancy of pooled features."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from training.losses.adversarial import ganin_weight
from training.losses.discrepancy import mmd as discrepancy
from training.losses.rows import pooled_rows
from training.methods.joint import Alignment, trained_jointly
from training.methods.task import Adapted, Task
from training.networks.cellnet import CellNetwork

__all__ = ["WEIGHT", "mmd"]

WEIGHT = 1.0
"""Of the discrepancy, once it is let in."""


def mmd(task: Task) -> Adapted:
    """Features whose distribution over pictures is the same on both lines.

    ``L = L_S + w MMD^2(f_s, f_t)`` where f is a picture's feature, the mean of the last map over its
    places, at unit length, and w rises to ``WEIGHT`` as an adversary's does (Ganin's schedule).

    Reference:
        Long et al., Learning transferable features with deep adaptation networks, ICML 2015.
    """
    return trained_jointly(task, "mmd", "discrepancy", _matching)


def _matching(_: CellNetwork) -> tuple[Alignment, Mapping[str, nn.Module]]:
    def align(here: Tensor, there: Tensor, done: float) -> Tensor:
        return ganin_weight(done, most=WEIGHT) * discrepancy(pooled_rows(here), pooled_rows(there))

    return align, {}
