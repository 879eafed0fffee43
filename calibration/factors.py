"""Which factors channels get before they are rounded for TensorRT: those that leave the least noise.

A depthwise convolution has a weight step for each channel, so before one every channel may fill all levels; elsewhere
small factors widen weights that share a step, and what is best lies between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from calibration.equalising import Site, over_inputs
from calibration.graphs import Graph, attribute, channel_axis
from edge_sdk.arrays import Array

__all__ = ["Channels", "factors_of"]

_EXPONENTS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
_LEAST = 1 / 64
"""A channel counts as no smaller than this share of the largest; what was hardly seen may come yet."""


@dataclass
class Channels:
    """What the channels of a tensor were seen to hold; a frame at a time."""

    frames: int = 0
    greatest: Array | float = 0.0
    square: Array | float = 0.0

    def see(self, values: Array) -> None:
        """Add ``(1, C, H, W)``."""
        others = tuple(axis for axis in range(values.ndim) if axis != 1)
        self.frames += 1
        self.greatest = self.greatest + np.abs(values).max(axis=others).astype(np.float64)
        self.square = self.square + np.square(values, dtype=np.float64).mean(axis=others)

    @property
    def size(self) -> Array:
        """``(C,)`` mean over frames of the greatest magnitude; one frame's outlier does not set a channel's size."""
        size = np.asarray(self.greatest) / max(1, self.frames)
        # a channel that was silent is as large as any, for all that is known
        size[size == 0] = size.max(initial=0.0) or 1.0
        return np.asarray(np.maximum(size, _LEAST * size.max()))

    @property
    def power(self) -> Array:
        """``(C,)`` mean square, above 0."""
        power = np.asarray(self.square) / max(1, self.frames)
        return np.asarray(np.maximum(power, 1e-12 * (power.max(initial=0.0) or 1.0)))


def factors_of(graph: Graph, sites: Sequence[Site], seen: Mapping[str, Channels]) -> dict[str, tuple[float, ...]]:
    """The factors that leave least noise at the convolutions that read each tensor; of those that gain nothing none.

    With ``m`` the size of a channel and ``v`` the greatest magnitude of the weights that multiply it, the candidates
    are ``1 / r = m**a / v**(1 - a)``.  Roundings are taken as independent and uniform, so that the noise is

        (step of the tensor)**2 / 12 * sum of (W / r)**2  +  sum of (step of the weights)**2 / 12 * E[(r x)**2]

    and ``a`` is the one for which it is the smallest share of the signal.

    Args:
        graph: FP32.
        sites: Of ``sites_of``.
        seen: By tensor.

    Returns:
        By tensor ``(C,)`` above 0, numbers that FP16 holds as they are, about one in the geometric mean.

    Reference:
        The power of two sizes: Xiao et al., SmoothQuant, ICML 2023, section 4, equation 4.  That weights take the scale
        of channels: Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, ICCV 2019,
        section 4.1.  Choosing the power by the noise of the tensor's own readers, and where the factors stand: ours.
    """
    found: dict[str, tuple[float, ...]] = {}
    for site in sites:
        size, power = seen[site.tensor].size, seen[site.tensor].power
        largest = np.max([_largest_weights(graph, graph.nodes[place], site.channels) for place in site.readers], axis=0)
        candidates = [np.ones(site.channels), *(_candidate(size, largest, a) for a in _EXPONENTS)]
        noise = [
            sum(_noise(graph, graph.nodes[place], size, power, factors) for place in site.readers)
            for factors in candidates
        ]
        best = int(np.argmin(noise))
        if best:
            found[site.tensor] = tuple(float(one) for one in candidates[best])
    return found


def _largest_weights(graph: Graph, node: NodeProto, channels: int) -> Array:
    """``(C,)`` the greatest magnitude that multiplies a channel; 1 of a depthwise convolution, which does not mind."""
    if attribute(node, "group", 1) > 1:
        return np.ones(channels)
    weight = graph.weight(node.input[1]).astype(np.float64)
    axis = 0 if node.op_type == "ConvTranspose" else 1
    largest = np.abs(weight).max(axis=tuple(other for other in range(weight.ndim) if other != axis))
    return np.asarray(np.maximum(largest, _LEAST * (largest.max() or 1.0)))


def _candidate(size: Array, largest: Array, exponent: float) -> Array:
    logs = (1 - exponent) * np.log(largest) - exponent * np.log(size)
    return np.asarray(np.exp(logs - logs.mean()).astype(np.float16), np.float64)


def _noise(graph: Graph, node: NodeProto, size: Array, power: Array, factors: Array) -> float:
    """Expected noise of a convolution's output over its power."""
    weight = graph.weight(node.input[1]).astype(np.float64)
    axis = channel_axis(node)
    others = tuple(other for other in range(weight.ndim) if other != axis)
    scaled = weight / over_inputs(graph, node, factors)
    step = (size * factors).max() / 127
    of_tensor = step**2 / 12 * (scaled**2).sum()
    # what multiplies each weight, summed over the weights that share its step
    powers = np.broadcast_to(over_inputs(graph, node, power * factors**2), weight.shape).sum(axis=others)
    of_weights = ((np.abs(scaled).max(axis=others) / 127) ** 2 / 12 * powers).sum()
    signal = (weight**2 * over_inputs(graph, node, power)).sum()
    return float((of_tensor + of_weights) / signal) if signal > 0 else 0.0
