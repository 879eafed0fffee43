"""From a histogram to a range: four rules, each for a symmetric and for an asymmetric number.

TensorRT's int8 is symmetric: one number, ``amax``, and steps of ``amax / 127``.  ONNX Runtime's uint8
has a zero point: a range ``lo … hi`` around zero, and steps of ``(hi - lo) / 255``.

``minmax``       all that was seen.  Gets worse with more pictures: outliers.
``percentile``   all but one value in 100,000.
``mse``          the range whose rounding and clipping lose the least energy (the default).  What is clipped counts
                 nine times: roundings are independent and their powers add, but neighbours are clipped together and the
                 same way, so behind a 3 x 3 kernel nine such errors add up in amplitude.
``kl``           the range that loses the least information; TensorRT's old entropy rule.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import numpy as np

from calibration.observers import MOST_BINS, Histogram
from edge_sdk.arrays import Array

__all__ = ["RULES", "Rule", "activation_step", "amax", "rounding_db", "span", "weight_steps"]

Rule = Literal["mse", "minmax", "percentile", "kl"]
RULES: tuple[Rule, ...] = ("mse", "minmax", "percentile", "kl")

_PERCENTILE = 0.99999
_CANDIDATES = 96
_CLIPPED = 9.0
"""What a clipped value's squared error counts over that of a rounded one."""
_LEAST_SHARE = 0.02
"""No rule cuts below this share of what was seen."""


def amax(histogram: Histogram, rule: Rule) -> float:
    """The greatest magnitude that int8 keeps, for ``scale = amax / 127`` and zero point 0.

    Returns:
        At most the greatest magnitude seen; 0 only where nothing but zero was seen.
    """
    greatest = max(abs(histogram.lo), abs(histogram.hi))
    if greatest == 0 or rule == "minmax":
        return greatest
    if rule == "percentile":
        return min(greatest, max(_quantile_of_magnitude(histogram), greatest * _LEAST_SHARE))
    if rule == "kl":
        return _kl(histogram, greatest)
    centres, counts = _filled(histogram)

    def loss(most: float) -> float:
        return _lost(centres, counts, step=most / 127, least=-128, most=127)

    return _least(loss, greatest)


def activation_step(most: float) -> np.float32:
    """Step of a tensor that symmetric int8 keeps up to ``most``; one that never left zero is zero in any step."""
    step: np.float32 = np.float32((most or 127.0) / 127)
    return step


def weight_steps(values: Array, axis: int) -> Array:
    """Step of each channel of a weight, ``max |w| / 127``.

    Args:
        values: The weight.
        axis: Along which its output channels lie.

    Returns:
        ``(channels,)`` float32 above 0.
    """
    others = tuple(other for other in range(values.ndim) if other != axis)
    steps = np.abs(values).max(axis=others).astype(np.float32) / np.float32(127)
    # a channel without weights still has a bias, which is counted in its steps
    steps[steps == 0] = steps[steps > 0].min(initial=np.float32(1))
    return np.asarray(steps)


def span(histogram: Histogram, rule: Rule) -> tuple[float, float]:
    """The ends that 8 bits with a zero point keep; zero lies between them or is one.

    Returns:
        ``(lo, hi)`` with ``lo <= 0 <= hi``, within what was seen and zero.
    """
    lo, hi = min(0.0, histogram.lo), max(0.0, histogram.hi)
    if lo == hi or rule == "minmax":
        return lo, hi
    if rule == "percentile":
        total = np.cumsum(histogram.counts)
        tail = (1 - _PERCENTILE) * total[-1] / (2 if lo < 0 < hi else 1)
        low = (histogram.first + int(np.searchsorted(total, tail, side="right"))) * histogram.width
        high = (histogram.first + int(np.searchsorted(total, total[-1] - tail)) + 1) * histogram.width
        return max(lo, min(0.0, low)), min(hi, max(0.0, high))
    if rule == "kl":
        most = _kl(histogram, max(-lo, hi))
        return max(lo, -most), min(hi, most)
    centres, counts = _filled(histogram)

    def loss(low: float, high: float) -> float:
        step = (high - low) / 255
        zero = float(np.rint(-low / step))
        return _lost(centres, counts, step=step, least=-zero, most=255 - zero)

    low, high = lo, hi
    # one end at a time; both share the step, so go round until neither moves much
    for _ in range(3 if lo < 0 < hi else 1):
        if hi > 0:
            high = _least(partial(loss, low), hi)
        if lo < 0:
            low = -_least(partial(lambda end, value: loss(-value, end), high), -lo)
    return low, high


def _lost(centres: Array, counts: Array, *, step: float, least: float, most: float) -> float:
    """Energy that integers from ``least`` to ``most`` lose, a clipped value's counted ``_CLIPPED`` times."""
    integers = np.rint(centres / step)
    kept = np.clip(integers, least, most)
    weighed = counts * np.where(kept == integers, 1.0, _CLIPPED)
    return float((weighed * (kept * step - centres) ** 2).sum())


def _filled(histogram: Histogram) -> tuple[Array, Array]:
    """Centres and counts of the bins that hold anything."""
    keep = histogram.counts > 0
    return histogram.centres[keep], histogram.counts[keep].astype(np.float64)


def _least(loss: Callable[[float], float], greatest: float) -> float:
    """The argument of least loss in ``(0, greatest]``: a coarse search, then a fine one around it."""
    shares = np.geomspace(_LEAST_SHARE, 1, _CANDIDATES)
    for _ in range(2):
        losses = [loss(float(share) * greatest) for share in shares]
        # of equals the widest: clipping must earn its place
        best = len(losses) - 1 - int(np.argmin(losses[::-1]))
        if best == len(shares) - 1:
            around = shares[max(0, best - 1)], shares[best]
        else:
            around = shares[max(0, best - 1)], shares[best + 1]
        found = float(shares[best])
        shares = np.append(np.linspace(*around, 12), found)
        shares.sort()
    return found * greatest


def _magnitudes(histogram: Histogram) -> tuple[Array, float]:
    """Counts of ``|x|`` in at most 2,048 bins, bin 0 beginning at zero, and the bins' width."""
    numbers = histogram.first + np.arange(len(histogram.counts))
    folded = np.where(numbers >= 0, numbers, -numbers - 1)
    # values far from zero and close together have narrow bins with high numbers
    coarser = max(0, int(folded.max()).bit_length() - (MOST_BINS - 1).bit_length())
    counts = np.bincount(folded >> coarser, weights=histogram.counts)
    return counts, histogram.width * 2**coarser


def _quantile_of_magnitude(histogram: Histogram) -> float:
    counts, width = _magnitudes(histogram)
    total = np.cumsum(counts)
    return (int(np.searchsorted(total, _PERCENTILE * total[-1])) + 1) * width


def _kl(histogram: Histogram, greatest: float) -> float:
    """Least Kullback-Leibler divergence between the values and the values in 128 levels.

    The zeros that a ReLU makes all lie in bin 0.  Left there they outweigh everything and the rule cuts
    the range to nothing, so bin 0 counts no more than its neighbour.
    """
    counts, width = _magnitudes(histogram)
    if len(counts) > 1:
        counts[0] = min(counts[0], counts[1])
    total, n = counts.sum(), len(counts)
    if n <= 128 or total == 0:
        return greatest
    best, found = np.inf, n
    behind = np.append(np.cumsum(counts[::-1])[::-1], 0.0)
    for ends in np.unique(np.append(np.arange(128, n, 8), n)):
        wanted = counts[:ends].copy()
        occupied = wanted > 0
        wanted[-1] += behind[ends]
        level = np.arange(ends) * 128 // ends
        held = np.bincount(level, weights=counts[:ends], minlength=128)
        places = np.bincount(level, weights=occupied, minlength=128)
        kept = np.where(occupied, (held / np.maximum(places, 1))[level], 0.0)
        p, q = wanted / total, kept / max(kept.sum(), 1e-300)
        # where clipping puts weight on a bin that the levels leave empty, a little is put there
        q = np.where((p > 0) & (q == 0), 1e-4, q)
        both = p > 0
        divergence = float((p[both] * np.log(p[both] / q[both])).sum())
        if divergence <= best:
            best, found = divergence, int(ends)
    return min(greatest, (found + 0.5) * width)


def rounding_db(histogram: Histogram, most: float) -> float:
    """What rounding to int8 with this ``amax`` leaves of a tensor: its power over the power of the error.

    Returns:
        Decibels; infinity where the tensor is zero throughout.
    """
    centres, counts = _filled(histogram)
    step = most / 127
    if step <= 0:
        return float("inf")
    error = np.clip(np.rint(centres / step), -128, 127) * step - centres
    signal, noise = float((counts * centres**2).sum()), float((counts * error**2).sum())
    return 10 * float(np.log10(signal / noise)) if noise > 0 else float("inf")
