"""The bundle's manifest (``bundle/1``): what a bundle holds and how it is to be used.

``export pack`` writes it, ``bundles.archive`` checks it, the station reads everything from it that
is not a weight: classes, thresholds, preprocessing.  A bundle's id is the sha256 of its canonical
manifest, and the manifest names every file with its digest, so the id stands for every byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field, field_serializer, field_validator, model_validator

from edge_sdk.arrays import Floats
from edge_sdk.documents import Tolerant, canonical_json, read_json, sha256_hex, utc_text
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.quality.drift_reference import Reference
from edge_sdk.quality.gates import Gates
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = [
    "BundleName",
    "BundleVersion",
    "ClassThresholds",
    "DriftReference",
    "FileEntry",
    "Manifest",
    "PostprocessSpec",
    "RenderingThresholds",
    "WatchReference",
    "labels_of",
    "manifest_bytes",
    "manifest_id",
    "read_manifest",
    "reference_of_watch",
    "thresholds_of",
    "watch_of_reference",
]


BundleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
BundleVersion = Annotated[str, Field(pattern=r"^[0-9A-Za-z][0-9A-Za-z.+-]*$", max_length=50)]


class FileEntry(Tolerant):
    """A file of the bundle."""

    path: str
    """POSIX path inside the bundle."""
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    role: str
    """``fp32``, ``int8-trt``, ``int8-cpu``, ``ranges``, ``report``, ``golden-frames``,
    ``golden-expected``, ``card``."""

    @field_validator("path")
    @classmethod
    def _inside(cls, path: str) -> str:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or "\\" in path or ".." in parts or str(PurePosixPath(path)) != path:
            raise ValueError("a file of a bundle has a plain path inside it")
        return path


class ClassThresholds(Tolerant):
    """Of one class, in the order of ``classes``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    class_name: str = Field(alias="class")
    boundary: float = Field(gt=0, le=1)
    pass_below: float = Field(gt=0, le=1)
    defective_from: float = Field(gt=0, le=1)
    temperature: float = Field(1.0, gt=0)


class RenderingThresholds(Tolerant):
    """Thresholds that were calibrated on one rendering's own outputs."""

    rendering: str
    """Role of the graph, e.g. ``int8-cpu``."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the graph."""
    thresholds: tuple[ClassThresholds, ...]
    how: str
    guarantee: str


class PostprocessSpec(Tolerant):
    """How the network's output becomes confidences."""

    kind: Literal["cells", "anchors", "novelty"] = "cells"
    """``cells``: the graph gives a confidence map.  ``anchors``: it gives boxes and their scores.  ``novelty``: it
    gives an anomaly map, which ``normals`` turn into confidence."""
    cell_px: int = Field(gt=0)
    """Side of a cell, or the anchors' step, in pixels of the network's input."""
    iou: float | None = Field(None, gt=0, lt=1)
    """Of a detector: two boxes of a class that overlap by more report one defect; without it by more than 0.5."""
    normals: tuple[float, ...] | None = Field(None, min_length=1)
    """Of an anomaly map: the highest distance of each normal (or group of them) that it was calibrated on, ascending;
    confidence is 1 minus the conformal p-value among them."""
    how: str = "given"
    """How the thresholds were chosen."""
    guarantee: str = "none"

    @model_validator(mode="after")
    def _has_normals(self) -> PostprocessSpec:
        if (self.kind == "novelty") != (self.normals is not None):
            raise ValueError("an anomaly map needs the distances of its normals, and nothing else has any")
        return self


class WatchReference(Tolerant):
    """What one rendering made of pictures of the line: what its station watches for drift against."""

    rendering: str
    """Role of the graph, e.g. ``int8-cpu``: another one rounds otherwise, which is no drift."""
    of: Literal["feature", "scores"]
    """What the vector is: the graph's pooled feature, or of a graph without one a summary of its confidence."""
    n: int = Field(ge=1)
    mean: tuple[float, ...]
    sd: tuple[float, ...]
    window: int = Field(ge=2)
    threshold: float = Field(gt=0)
    """Of the statistic of a window."""
    false_alarms: float = Field(gt=0, lt=1)
    """Share of windows of an unchanged line that lie above the threshold."""
    scores: tuple[float, ...]
    """Quantiles of the pictures' strongest confidence."""
    below: tuple[float, ...]
    """Share of pictures at or below each."""
    score_threshold: float = Field(gt=0)
    facts_mean: tuple[float, ...]
    """In the order of ``edge_sdk.quality.facts.FACTS``."""
    facts_sd: tuple[float, ...]
    detected: float | None = Field(None, ge=0, le=1)
    """Share of pictures with a detection, of pictures that came as the line makes them."""
    looked_at: int = Field(0, ge=0)
    """How many pictures this share is of."""


class DriftReference(Tolerant):
    """Statistics of the pooled feature on the line that the bundle is for."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    n: int = Field(ge=1)
    watch: tuple[WatchReference, ...] | None = None
    """A rendering each; without it the station's watch for drift is off."""


class Manifest(Tolerant):
    """``manifest.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["bundle/1"] = Field("bundle/1", alias="schema")
    name: BundleName
    version: BundleVersion
    created_at: datetime
    line: str
    """The line that the bundle is for."""
    classes: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[ClassThresholds, ...]
    calibrated: tuple[RenderingThresholds, ...] | None = None
    """Of renderings that have thresholds of their own; the others use ``thresholds``, made on FP32 outputs."""
    preprocess: PreprocessSpec
    postprocess: PostprocessSpec
    mm_per_px: float | None = Field(None, gt=0)
    drift: DriftReference | None = None
    files: tuple[FileEntry, ...]
    golden: Gates
    """What a station's runner must reach on the golden frames."""

    @model_validator(mode="after")
    def _agrees(self) -> Manifest:
        for bands in (self.thresholds, *(one.thresholds for one in self.calibrated or ())):
            named = tuple(band.class_name for band in bands)
            if named != self.classes:
                raise ValueError(f"thresholds are for {', '.join(named)} but the classes are {', '.join(self.classes)}")
        paths = [entry.path for entry in self.files]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"file {path} is listed twice")
        return self

    @field_serializer("created_at")
    def _created_at_text(self, moment: datetime) -> str:
        return utc_text(moment)


def manifest_bytes(manifest: Manifest) -> bytes:
    """The canonical bytes that are signed and stored."""
    return canonical_json(manifest.model_dump(mode="json", by_alias=True, exclude_none=True))


def manifest_id(manifest: Manifest) -> str:
    """The bundle's id, hexadecimal."""
    return sha256_hex(manifest_bytes(manifest))


def read_manifest(path: Path) -> Manifest:
    """Read ``manifest.json``.

    Raises:
        FormatError: The file is missing, no JSON, or not of ``bundle/1``.
    """
    return read_json(path, Manifest)


def labels_of(manifest: Manifest) -> Labels:
    """The classes of a bundle."""
    return Labels(manifest.classes)


def thresholds_of(manifest: Manifest, rendering: str = "fp32") -> Thresholds:
    """The thresholds of a bundle, as arrays over its classes: those of the rendering where it has its own.

    Args:
        manifest: Of the bundle.
        rendering: Role of the graph that judges, e.g. ``int8-cpu``.
    """
    bands, how, guarantee = manifest.thresholds, manifest.postprocess.how, manifest.postprocess.guarantee
    for one in manifest.calibrated or ():
        if one.rendering == rendering:
            bands, how, guarantee = one.thresholds, one.how, one.guarantee
            break
    else:
        if rendering != "fp32" and guarantee.startswith("conformal"):
            guarantee = f"none: {guarantee} was calibrated on FP32 outputs, not on those of {rendering}"
    return Thresholds(
        boundary=np.array([band.boundary for band in bands], np.float32),
        pass_below=np.array([band.pass_below for band in bands], np.float32),
        defective_from=np.array([band.defective_from for band in bands], np.float32),
        how=how,
        guarantee=guarantee,
    )


def watch_of_reference(reference: Reference, *, rendering: str, of: Literal["feature", "scores"]) -> WatchReference:
    """A line's drift reference as a manifest holds it."""
    return WatchReference(
        rendering=rendering,
        of=of,
        n=reference.n,
        mean=_six_digits(reference.mean),
        sd=_six_digits(reference.sd),
        window=reference.window,
        threshold=_six_digits([reference.threshold])[0],
        false_alarms=reference.false_alarms,
        scores=tuple(float(one) for one in reference.scores),
        below=_six_digits(reference.below),
        score_threshold=_six_digits([reference.score_threshold])[0],
        facts_mean=_six_digits(reference.facts_mean),
        facts_sd=_six_digits(reference.facts_sd),
        detected=reference.detected,
        looked_at=reference.looked_at,
    )


def reference_of_watch(manifest: Manifest, rendering: str) -> tuple[WatchReference, Reference] | None:
    """What the station watches a rendering against; ``None`` where the bundle has no such reference.

    Raises:
        ShapeError: The reference is of another version of the watch.
    """
    for one in (manifest.drift.watch or ()) if manifest.drift is not None else ():
        if one.rendering == rendering:
            return one, Reference(
                mean=np.array(one.mean, np.float32),
                sd=np.array(one.sd, np.float32),
                n=one.n,
                threshold=one.threshold,
                scores=np.array(one.scores, np.float32),
                below=np.array(one.below, np.float32),
                score_threshold=one.score_threshold,
                facts_mean=np.array(one.facts_mean, np.float32),
                facts_sd=np.array(one.facts_sd, np.float32),
                detected=one.detected,
                looked_at=one.looked_at,
                window=one.window,
                false_alarms=one.false_alarms,
            )
    return None


def _six_digits(values: Sequence[float] | Floats) -> tuple[float, ...]:
    return tuple(float(f"{float(value):.6g}") for value in values)
