"""Thresholds of a rendering, from its own outputs on labelled pictures.

INT8 moves confidences a little, and a guarantee that was made on FP32 outputs says nothing of them.  So the graph that
a station runs is calibrated once more on labelled pictures that trained nothing, and the bundle says which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from calibration.exported import Exported
from calibration.sessions import Session, open_session
from edge_sdk.documents import canonical_json, read_json, sha256_file, write_atomic
from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.labels import Thresholds
from edge_sdk.manifest import ClassThresholds, RenderingThresholds
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.novelty import band_of_normals
from edge_sdk.quality.pictures import picture_size
from edge_sdk.quality.thresholds import ALPHA, calibrated_band, missing
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec, valid_cells
from edge_sdk.vision.tiles import outputs_of_frame

__all__ = ["file_of", "read_thresholds", "rendering_thresholds", "write_thresholds"]


def rendering_thresholds(
    path: Path,
    role: str,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    exported: Exported,
    *,
    alpha: float = ALPHA,
    left_out: int = 0,
    progress: Callable[[], None] = lambda: None,
) -> RenderingThresholds:
    """Run a graph on labelled pictures and calibrate its thresholds.

    An anomaly map's are of good parts alone: pictures labelled healthy, or those of a folder that says nothing.

    Args:
        path: The graph that a station would run.
        role: ``fp32``, ``int8-cpu`` or ``int8-trt``.
        samples: Labelled, held out from training; those whose label is no truth are passed over.
        spec: What the network was trained with.
        exported: Classes and temperature of the line.
        alpha: In (0, 1).
        left_out: Pictures of the same folder that made the graph what it is; where there are any, too few others are
            an error.
        progress: Called after each picture.

    Returns:
        With ``guarantee`` ``conformal alpha n``, or ``none`` and what is missing.

    Raises:
        DatasetError: No picture has a label that says healthy or names a class of the model; too few are left; of an
            anomaly map, too few are of good parts.
        FormatError: The graph has no output named cells.
    """
    session = open_session(path, reference=role == "int8-trt")
    if "novelty" in session.outputs and exported.normals:
        return _of_normals(session, path, role, samples, spec, exported, alpha, progress)
    if "cells" not in session.outputs:
        raise FormatError(f"{path} has no output named cells; thresholds are of cells, so export a graph that has it")
    classes = exported.classes
    # a model of one class means any defect by it
    judged = [
        one
        for one in samples
        if one.healthy or (one.healthy is False and (len(classes) == 1 or one.label in classes))
    ]
    if not judged:
        raise DatasetError(
            f"none of the {len(samples)} pictures is labelled healthy or as one of {', '.join(classes)}; "
            "give a data set with labels"
        )
    healthy = np.array([bool(one.healthy) for one in judged])
    shows = np.array(
        [[one.healthy is False and (len(classes) == 1 or one.label == name) for name in classes] for one in judged]
    )
    source = f"the labelled set for {role}"
    lacking = missing(int(healthy.sum()), int(shows.sum(axis=0).min()), len(classes), alpha=alpha, source=source)
    if left_out and lacking:
        raise DatasetError(
            f"without the {left_out} pictures that made {path.name} what it is, {lacking}; give more pictures that "
            "were held out for this"
        )
    maxima = np.zeros((len(judged), len(classes)), np.float32)
    for n, sample in enumerate(judged):
        outputs = outputs_of_frame(read_image(sample), spec, session.run)
        confidence = confidence_from_logits(outputs["cells"][0], exported.temperature())
        height, width = picture_size(sample.path)
        shown = valid_cells(spec, height, width, (confidence.shape[1], confidence.shape[2]))
        maxima[n] = confidence[:, shown].max(axis=1)
        progress()
    found = calibrated_band(maxima, healthy, shows, alpha=alpha, source=source)
    return _said(found, path, role, exported)


def _of_normals(
    session: Session,
    path: Path,
    role: str,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    exported: Exported,
    alpha: float,
    progress: Callable[[], None],
) -> RenderingThresholds:
    """Of an anomaly map, whose distances stay counted among FP32's normals."""
    assert exported.normals is not None  # the caller has looked
    highest: dict[str, float] = {}
    for sample in (one for one in samples if one.healthy or not one.label):
        novelty = outputs_of_frame(read_image(sample), spec, session.run)["novelty"][0]
        height, width = picture_size(sample.path)
        found = float(novelty[:, valid_cells(spec, height, width, (novelty.shape[1], novelty.shape[2]))].max())
        highest[sample.unit] = max(found, highest.get(sample.unit, found))
        progress()
    band = band_of_normals(np.array(list(highest.values())), exported.normals, alpha=alpha, strict=True)
    return _said(band, path, role, exported)


def _said(found: Thresholds, path: Path, role: str, exported: Exported) -> RenderingThresholds:
    bands = tuple(
        ClassThresholds(
            class_name=name,
            boundary=_short(found.boundary[k]),
            pass_below=_short(found.pass_below[k]),
            defective_from=_short(found.defective_from[k]),
            temperature=_short(exported.temperature()[k]),
        )
        for k, name in enumerate(exported.classes)
    )
    return RenderingThresholds(
        rendering=role, sha256=sha256_file(path), thresholds=bands, how=found.how, guarantee=found.guarantee
    )


def file_of(role: str, folder: Path) -> Path:
    """Where a rendering's thresholds lie beside its graph."""
    return folder / f"thresholds.{role}.json"


def write_thresholds(folder: Path, found: RenderingThresholds) -> Path:
    """Write them where ``export pack`` looks for them."""
    folder.mkdir(parents=True, exist_ok=True)
    path = file_of(found.rendering, folder)
    write_atomic(path, canonical_json(found) + b"\n")
    return path


def read_thresholds(folder: Path, role: str, graph: Path) -> RenderingThresholds | None:
    """A rendering's thresholds, or ``None`` where it has none of its own.

    Raises:
        FormatError: They are damaged, or of another graph.
    """
    path = file_of(role, folder)
    if not path.exists():
        return None
    found = read_json(path, RenderingThresholds)
    if found.rendering != role or found.sha256 != sha256_file(graph):
        raise FormatError(
            f"{path} is of another graph than {graph.name}; make it again: python -m calibration thresholds"
        )
    return found


def _short(value: object) -> float:
    return round(float(value), 6)  # type: ignore[arg-type]
