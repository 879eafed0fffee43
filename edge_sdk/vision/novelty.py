"""From an anomaly map to confidence: how far an area's distance lies among those of the line's own normals.

A network that has seen good parts alone gives a distance without a bound.  What makes it a confidence is the list of
the highest distances of good parts that it was not fitted on, which travels in the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import RangeError

__all__ = ["novelty_logits", "step_of_normals"]


def novelty_logits(novelty: Array, normals: Sequence[float] | Array) -> Floats:
    """The logit of an area's confidence, 1 minus the conformal p-value of its distance.

    Of ``n`` normals with highest distances ``s_i``, a part whose highest distance is ``s`` has
    ``p = (1 + #{i: s_i >= s}) / (n + 1)``.  Between two of them the logit is interpolated, so that it rises with the
    distance and confidence never exceeds ``1 - p`` there.  Beyond the highest normal it goes on as the logarithm of the
    distance (ours): that ranks defects among each other and guarantees nothing.

    Args:
        novelty: Any shape, unbounded, higher is stranger.
        normals: ``(n,)`` finite, in any order.

    Returns:
        Of the same shape, float32.

    Raises:
        RangeError: There is no normal, or one is not finite.

    Reference:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 2.2.
    """
    known = np.sort(np.asarray(normals, np.float64).ravel())
    if not known.size or not np.isfinite(known).all():
        raise RangeError(f"{known.size} normals, all of which must be finite; give the highest distance of one or more")
    n = known.size
    knots, below = np.unique(known, return_index=True)
    share = np.maximum(below, 0.5) / (n + 1)  # of the lowest normal 0, whose logit there is none of
    heights = np.log(share / (1 - share))
    step = step_of_normals(known)
    asked = np.asarray(novelty, np.float64)
    found = np.interp(asked, knots, heights)
    found += np.log1p(np.maximum(asked - knots[-1], 0) / step)
    found -= np.log1p(np.maximum(knots[0] - asked, 0) / step)
    logits: Floats = found.astype(np.float32)
    return logits


def step_of_normals(normals: Sequence[float] | Array) -> float:
    """A step of distance that means something on this line: from its middle normal to its highest, above 0."""
    known = np.asarray(normals, np.float64)
    step = float(known.max() - np.median(known))
    return step if step > 0 else max(0.1 * abs(float(known.max())), 1e-6)
