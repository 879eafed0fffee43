"""Streaming histograms: what a tensor's values are, in bounded memory, however many pictures.

A histogram has at most 2,048 bins whose edges are whole multiples of the bin's width, and the width
is a power of two.  So zero is always an edge, and when values come that do not fit, the width
doubles and neighbouring bins merge without any count moving to the wrong place.  The width is the
smallest that holds all values seen; it follows from their extremes alone.  Hence the histogram is
the same whatever the order and the batches in which the values came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError

__all__ = ["MOST_BINS", "Histogram", "Observer"]

MOST_BINS = 2048
_SMALLEST_EXPONENT = -100
"""No bin is narrower than 2**-100: nothing that a network makes is told apart below that."""
_CHUNK = 1 << 18
"""Values binned at a time: the temporaries stay in the processor's cache."""


@dataclass(frozen=True)
class Histogram:
    """The values of a tensor: ``counts[i]`` lie in ``[(first + i) * width, (first + i + 1) * width)``."""

    lo: float
    """The least value seen, exactly."""
    hi: float
    """The greatest value seen, exactly."""
    width: float
    """Of a bin; a power of two."""
    first: int
    """The number of the first bin; bin 0 begins at zero."""
    counts: Array
    """``(n,)`` int64, n at most 2,048; the first and last are not empty."""

    @property
    def centres(self) -> Array:
        """``(n,)`` float64, the middle of each bin."""
        return (self.first + np.arange(len(self.counts)) + 0.5) * self.width


class Observer:
    """Fills a histogram from any number of arrays."""

    def __init__(self, name: str = "tensor") -> None:
        self.name = name
        self._lo = math.inf
        self._hi = -math.inf
        self._exponent = _SMALLEST_EXPONENT
        self._first = 0
        self._counts = np.zeros(0, np.int64)

    @classmethod
    def of(cls, histogram: Histogram, name: str = "tensor") -> Observer:
        """An observer that has seen what a histogram holds."""
        made = cls(name)
        made._lo, made._hi = histogram.lo, histogram.hi
        made._exponent = math.frexp(histogram.width)[1] - 1
        made._first, made._counts = histogram.first, histogram.counts.astype(np.int64)
        return made

    def see(self, values: Array) -> None:
        """Count the values of an array of any shape.

        Raises:
            RangeError: A value is NaN or infinite.
        """
        flat = np.asarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        lo, hi = float(flat.min()), float(flat.max())
        if not (math.isfinite(lo) and math.isfinite(hi)):
            kind = "NaN" if math.isnan(lo) or math.isnan(hi) else "infinite"
            raise RangeError(f"tensor {self.name} has a value that is {kind}; a range needs finite values")
        self._lo, self._hi = min(self._lo, lo), max(self._hi, hi)
        self._make_room()
        # multiplying by a power of two is exact, so the bin is too; a scale below 1 could take a float32
        # next to zero to zero itself, across the edge of a bin
        exact = np.float32 if self._exponent <= 0 else np.float64
        scale = exact(2.0**-self._exponent)
        size = len(self._counts)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK].astype(exact, copy=False)
            numbers = np.floor(part * scale).astype(np.int32)
            numbers -= np.int32(self._first)
            self._counts += np.bincount(numbers, minlength=size)

    def _make_room(self) -> None:
        exponent = _exponent_for(self._lo, self._hi, at_least=self._exponent)
        first, last = _bin(self._lo, exponent), _bin(self._hi, exponent)
        counts = np.zeros(last - first + 1, np.int64)
        if self._counts.size:
            numbers = (np.arange(self._counts.size) + self._first) >> (exponent - self._exponent)
            np.add.at(counts, numbers - first, self._counts)
        self._exponent, self._first, self._counts = exponent, first, counts

    @property
    def seen(self) -> int:
        """How many values were counted."""
        return int(self._counts.sum())

    def histogram(self) -> Histogram:
        """What was seen so far.

        Raises:
            RangeError: Nothing was.
        """
        if not self._counts.size:
            raise RangeError(f"tensor {self.name} was never seen; run the graph on at least one picture")
        return Histogram(self._lo, self._hi, 2.0**self._exponent, self._first, self._counts.copy())


def _bin(value: float, exponent: int) -> int:
    return math.floor(math.ldexp(value, -exponent))


def _exponent_for(lo: float, hi: float, *, at_least: int) -> int:
    """The least exponent with at most 2,048 bins from ``lo`` to ``hi``, all of them numbered below 2**23.

    A wider range never needs a smaller one, so it may start at the last one found.
    """
    greatest = max(abs(lo), abs(hi))
    exponent = at_least
    if greatest > 0:
        exponent = max(exponent, math.frexp(greatest)[1] - 22)
    while _bin(hi, exponent) - _bin(lo, exponent) + 1 > MOST_BINS:
        exponent += 1
    return exponent
