"""Thresholds of an anomaly map from good parts alone, with a stated rate of false alarms.

Training chooses them for a line, and commissioning once more for each INT8 rendering, on the same normals.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import DatasetError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.thresholds import EDGE, STEP, enough_for
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.novelty import novelty_logits, step_of_normals

__all__ = ["ALPHA", "NOVELTY", "band_of_normals", "confidence_of_distances"]

NOVELTY = "novelty"
"""The one class of a model that has seen good parts alone."""
ALPHA = 0.05
"""Share of good parts that may be stopped."""
_BEYOND = 1.0
"""How far above its highest normal a line rejects, in steps from its middle normal to its highest: ours."""


def band_of_normals(
    distances: Array, reference: Sequence[float] | Array, *, alpha: float = ALPHA, strict: bool = False
) -> Thresholds:
    """Split-conformal thresholds from the highest distance of each good part.

    ``pass_below`` lies just above the ``ceil((n + 1)(1 - alpha))``-th smallest of the ``n`` distances: of good parts
    like these, at most ``alpha`` are asked about or rejected, whatever their distribution.  ``defective_from`` lies
    beyond all of them by the step from the middle one to the highest, for which there is no guarantee: no defect was
    ever seen.

    Args:
        distances: ``(n,)`` one a part, or one a group of pictures: the highest of its pictures, which makes the rate
            hold for groups and all the more for pictures.
        reference: The normals that confidence is counted among, see ``novelty_logits``; of an INT8 rendering those of
            FP32.
        alpha: In (0, 1).
        strict: Too few normals are an error.

    Returns:
        Of one class.  With fewer than ``1 / alpha - 1`` normals everything above the highest is asked about, and
        ``guarantee`` is ``none`` and why.

    Raises:
        DatasetError: ``strict``, and there are too few; or there is none.
        RangeError: ``alpha`` is no share.

    Reference:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005, section 2.2; split from the fitted
        parts as in Papadopoulos et al., Inductive confidence machines, 2002.
    """
    known = np.sort(np.asarray(distances, np.float64).ravel())
    n, wanted = known.size, enough_for(alpha)
    if not n or (strict and n < wanted):
        instead = f", or ask for a rate of {math.ceil(1000 / (n + 1)) / 1000:g}" if n else ""
        raise DatasetError(
            f"{n} normals are held out to set the threshold, but a false-positive rate of {alpha:g} needs {wanted}; "
            f"give more good parts{instead}"
        )
    place = min(n, math.ceil(round((n + 1) * (1 - alpha), 9)))
    ends = np.array([known[place - 1], known[-1] + _BEYOND * step_of_normals(known)])
    low, high = confidence_of_distances(ends, reference)
    low = float(np.clip(low + STEP, EDGE, 1 - EDGE))
    high = float(np.clip(high, low, 1.0))
    short = f"{n} held-out normals; a false-positive rate of {alpha:g} needs {wanted}"
    rank = f"the {place}. of {n}" if place < n else f"the highest of {n}"
    return Thresholds(
        boundary=np.array([low], np.float32),
        pass_below=np.array([low], np.float32),
        defective_from=np.array([high], np.float32),
        how=f"ask above {rank} distances of good parts, reject beyond the highest by its step from the middle one",
        guarantee=f"conformal alpha {alpha:g} n {n}" if n >= wanted else f"none: {short}",
    )


def confidence_of_distances(distances: Array, reference: Sequence[float] | Array) -> Array:
    """Confidence of distances among a line's normals, as the station computes it."""
    logits = novelty_logits(np.asarray(distances).reshape(-1, 1, 1), reference)
    return confidence_from_logits(logits)[:, 0, 0]

