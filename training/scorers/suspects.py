"""Good parts that are so unlike the others that they may be none."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.arrays import Array, Bools
from edge_sdk.quality.datasets import Sample

__all__ = ["named", "suspicious"]

FAR = 6.0
"""Robust standard deviations of the logarithm above the median: of a log-normal one part in a thousand million."""
LEAST = 0.05
"""Of that standard deviation, so that parts which are all but equal are not told apart by rounding."""
MOST = 0.2
"""Share of the parts that may be taken out: more are no outliers but another kind of part."""
SHOWN = 3


def suspicious(highest: Array) -> Bools:
    """Which parts lie far beyond the others.

    A part is suspicious where ``log s - median(log s) > 6 sigma`` with ``sigma`` the median absolute deviation of
    ``log s`` times 1.4826: the few defects among them move neither median.

    Args:
        highest: ``(n,)`` highest distance of each, above 0.

    Returns:
        ``(n,)``; none of them where more than a fifth would be.

    Reference:
        Rousseeuw and Croux, Alternatives to the median absolute deviation, 1993, section 1.
    """
    logs = np.log(np.maximum(np.asarray(highest, np.float64), 1e-12))
    off = logs - np.median(logs)
    sigma = max(1.4826 * float(np.median(np.abs(off))), LEAST)
    found: Bools = np.asarray(off > FAR * sigma)
    return found if found.mean() <= MOST else np.zeros_like(found)


def named(samples: Sequence[Sample], which: Bools) -> str:
    """The first few by name."""
    names = [one.image for one, strange in zip(samples, which, strict=True) if strange]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
