"""The drift reference of a bundle: what each rendering makes of the line's pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import RangeError
from edge_sdk.labels import Thresholds
from edge_sdk.manifest import DriftReference, RenderingThresholds, WatchReference, watch_of_reference
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.drift_reference import reference_of, summary_of
from edge_sdk.vision.decode import area_logits, confidence_from_logits
from export.golden import GoldenSet

__all__ = ["with_watch"]


def with_watch(
    drift: DriftReference | None,
    golden: GoldenSet,
    samples: Sequence[Sample],
    roles: Sequence[str],
    bands: Thresholds,
    temperature: Floats,
    calibrated: Sequence[RenderingThresholds] | None,
    *,
    normals: Sequence[float] | None = None,
) -> tuple[DriftReference | None, dict[str, str]]:
    """The checkpoint's drift reference with what the watch needs, a rendering each.

    Pictures that are labelled defective are left out.  Where none is labelled, they are taken for pictures as they
    come, which also tell the usual share of detections.

    Args:
        drift: As training wrote it, if it did.
        golden: With the outputs of all pictures that were looked at.
        samples: Those pictures, in the same order.
        roles: Graphs that are packed.
        bands: Thresholds of the line, on FP32 outputs.
        temperature: ``(K,)``.
        calibrated: Of renderings that have thresholds of their own.
        normals: Of an anomaly map, see ``area_logits``.

    Returns:
        The reference, and by role why there is none.
    """
    kept = [n for n, sample in enumerate(samples) if sample.healthy is not False]
    kept.sort(key=lambda n: (samples[n].unit, samples[n].image))  # in the order they were taken, as far as names tell
    as_they_come = all(sample.healthy is None for sample in samples)
    watch: list[WatchReference] = []
    unwatched: dict[str, str] = {}
    for role in roles:
        own = next((one.thresholds for one in calibrated or () if one.rendering == role), None)
        below = bands.pass_below if own is None else np.array([band.pass_below for band in own], np.float32)
        outputs = {name: values[kept] for name, values in golden.outputs[role].items()}
        logits = area_logits(outputs, normals=normals)
        if logits is None:
            unwatched[role] = "it gives neither cells nor scores"
            continue
        vectors, scores, detected, of = _seen(outputs, logits, below, temperature)
        try:
            found = reference_of(vectors, scores, golden.facts[kept], detected, as_they_come=as_they_come)
        except RangeError as error:
            unwatched[role] = str(error)
        else:
            watch.append(watch_of_reference(found, rendering=role, of=of))
    if not watch:
        return drift, unwatched
    if drift is None:
        mean, sd = (watch[0].mean, watch[0].sd) if watch[0].of == "feature" else ((), ())
        drift = DriftReference(mean=mean, sd=sd, n=watch[0].n)
    return drift.model_copy(update={"watch": tuple(watch)}), unwatched


def _seen(
    outputs: Mapping[str, Array], logits: Array, pass_below: Floats, temperature: Floats
) -> tuple[Floats, Floats, Array, Literal["feature", "scores"]]:
    """``(n, d)`` vectors, ``(n,)`` scores, ``(n,)`` whether there is a detection, and what the vectors are."""
    confidence = confidence_from_logits(logits, temperature)
    surest = confidence.reshape(len(confidence), confidence.shape[1], -1).max(axis=2)
    detected = (surest >= pass_below).any(axis=1)
    if "feature" in outputs:
        return outputs["feature"].astype(np.float32), surest.max(axis=1), detected, "feature"
    return np.stack([summary_of(one) for one in confidence]), surest.max(axis=1), detected, "scores"
