"""Temperature scaling: one number a class, so that a confidence of 0.8 is right eight times in ten.

Dividing logits by a temperature changes no order, so neither a ranking nor a conformal guarantee depends on it; what
it changes is what a fixed band of confidences means, and from where a healthy cell is taken as known.  ``train``,
``adapt`` and ``retrain`` fit it on the original line's part validate.  A line without labels takes over the original's
with its weights, and a shift may have undone it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.vision.decode import confidence_from_logits
from training.data.views import Views

__all__ = ["FEWEST", "RANGE", "Tempering", "expected_calibration_error", "fitted", "tempered", "units_of"]

FEWEST = 5
"""Pictures that show a class below which nothing is fitted: cells of one picture err alike."""
RANGE = (0.25, 10.0)
"""Least and greatest temperature: held-out pictures that are told apart without an error would ask for 0."""
BINS = 15
NEAR = 0.2
"""Confidences that close to 0.5 are near the decision boundary."""


@dataclass(frozen=True, eq=False)
class Tempering:
    """Temperatures, and what they changed."""

    temperature: Array
    """``(K,)`` above 0."""
    document: tuple[Mapping[str, Any], ...]
    """A class: ``temperature``, ``how``, ``unit``, ``n``, ``defective``; ``before`` and ``after`` hold ``nll``, ``ece``
    and ``near_boundary`` (``n``, mean ``confidence``, ``defective`` share), on the pictures that it was fitted on."""


def tempered(logits: Array, views: Views) -> Tempering:
    """Fit each class on held-out pictures.

    Args:
        logits: ``(N, K, h, w)`` of ``views``.
        views: Labelled, not trained on; N may be 0.
    """
    found, said = [], []
    for k in range(logits.shape[1]):
        scores, truth, unit, shows = units_of(logits, views, k)
        healthy = int((truth == 0).sum())
        warmth = 1.0
        if min(shows, healthy) >= FEWEST:
            warmth, how = fitted(scores, truth)
        else:
            how = (
                f"1: {shows} held-out pictures show the class and {healthy} {unit} do not, "
                f"fitting needs {FEWEST} of each"
            )
        row: dict[str, Any] = {"temperature": round(warmth, 6), "how": how, "unit": unit}
        row |= {"n": len(scores), "defective": int(truth.sum())}
        if len(scores):
            row |= {"before": _figures(scores, truth), "after": _figures(scores / warmth, truth)}
        found.append(warmth)
        said.append(row)
    return Tempering(np.array(found, np.float32), tuple(said))


def units_of(logits: Array, views: Views, k: int) -> tuple[Array, Array, str, int]:
    """What a class's temperature is fitted on: cells where any picture says where its defect is, else pictures.

    Returns:
        Scores and truth, ``(n,)`` each, ``cells`` or ``pictures``, and how many pictures show the class.
    """
    where = (views.known[:, k] > 0) & views.valid
    shows = views.of_pictures(views.truth[:, k].any(axis=(1, 2)) | (views.maximum[:, k] > 0), np.logical_or)
    if (views.truth[:, k] * where).any() or not shows.any():
        scores, truth = logits[:, k][where], views.truth[:, k][where]
        return scores.astype(np.float64), truth.astype(np.float64), "cells", int(shows.sum())
    top = views.of_pictures(np.where(views.valid, logits[:, k], -np.inf).max(axis=(1, 2), initial=-np.inf))
    sure = np.isfinite(top)
    return top[sure].astype(np.float64), shows[sure].astype(np.float64), "pictures", int(shows.sum())


def fitted(scores: Array, truth: Array) -> tuple[float, str]:
    """The temperature with the least negative log-likelihood, by golden section over its logarithm.

    ``NLL(T) = mean_i [softplus(s_i / T) - y_i s_i / T]`` is convex in 1 / T, so there is one minimum.

    Args:
        scores: ``(n,)`` logits ``s``.
        truth: ``(n,)`` ``y`` in {0, 1}, both kinds.

    Returns:
        The temperature within ``RANGE``, and how it came about.  Where 0 tells both kinds apart without an
        error, the temperature is 1: nothing then says how sure is too sure.

    Reference:
        Guo, Pleiss, Sun and Weinberger, On calibration of modern neural networks, 2017, section 4.2.
    """
    if ((scores > 0) == (truth > 0)).all():
        return 1.0, "1: the held-out pictures are told apart without an error, so nothing says how sure is too sure"
    low, high = (math.log(end) for end in RANGE)
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = (negative_log_likelihood(scores / math.exp(x), truth) for x in (left, right))
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = negative_log_likelihood(scores / math.exp(left), truth)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = negative_log_likelihood(scores / math.exp(right), truth)
    found = math.exp((low + high) / 2)
    for end in RANGE:
        if abs(math.log(found / end)) < 1e-3:
            return end, f"{end:g}: the least that is allowed" if end < 1 else f"{end:g}: the most that is allowed"
    return found, "least negative log-likelihood on held-out pictures"


def negative_log_likelihood(scores: Array, truth: Array) -> float:
    """Mean binary cross-entropy of logits, nats."""
    return float((np.logaddexp(0, scores) - truth * scores).mean())


def expected_calibration_error(confidence: Array, truth: Array, *, bins: int = BINS) -> float:
    """Mean over equally wide bins, by their share, of ``|mean confidence - share defective|``.

    Reference:
        Guo et al. 2017, eq. 3, with the confidence of the class itself instead of the predicted one's.
    """
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = 0.0
    for b in range(bins):
        inside = place == b
        if inside.any():
            total += inside.sum() * abs(float(confidence[inside].mean()) - float(truth[inside].mean()))
    return total / len(confidence)


def _figures(scores: Array, truth: Array) -> dict[str, Any]:
    sure = confidence_from_logits(scores[:, None, None])[:, 0, 0].astype(np.float64)
    near = np.abs(sure - 0.5) <= NEAR
    return {
        "nll": round(negative_log_likelihood(scores, truth), 6),
        "ece": round(expected_calibration_error(sure, truth), 6),
        "near_boundary": {
            "n": int(near.sum()),
            "confidence": round(float(sure[near].mean()), 4) if near.any() else None,
            "defective": round(float(truth[near].mean()), 4) if near.any() else None,
        },
    }
