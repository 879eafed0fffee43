"""Rounding to int8 that a gradient passes: what fine-tuning puts where the INT8 graph has its Q/DQ pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["LEAST", "LEAST_WEIGHT", "MOST", "rounded"]

LEAST, MOST = -128, 127
"""Of an activation."""
LEAST_WEIGHT = -127


def rounded(values: Tensor, step: Tensor, *, least: int = LEAST, most: int = MOST) -> Tensor:
    r"""Quantise and dequantise, with a gradient as if nothing had been rounded.

    Forward ``q(x) = s * clip(round(x / s), n, p)``, ties to even, as QuantizeLinear and DequantizeLinear with zero
    point 0 compute it.  Its derivative is 0 nearly everywhere, so backward takes the straight-through one:
    ``dq/dx = 1`` where ``n <= round(x / s) <= p``, else 0, so that what is clipped is not pushed further out.

    Args:
        values: x, of any shape.
        step: s above 0, a scalar or of a shape that broadcasts; no gradient reaches it.
        least: n.
        most: p.

    Reference:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
        Inference", section 3 and eq. 12; the derivative is the straight-through estimator of Bengio, Leonard and
        Courville 2013, section 4, with the saturated part cut.
    """
    return _Rounded.apply(values, step, least, most)  # type: ignore[no-any-return, no-untyped-call]


class _Rounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, least: int, most: int) -> Tensor:
        levels = torch.round(values / step)
        ctx.save_for_backward((levels >= least) & (levels <= most))
        return levels.clamp_(least, most) * step

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (within,) = ctx.saved_tensors
        return gradient * within, None, None, None
