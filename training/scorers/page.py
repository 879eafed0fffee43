"""The page of a scorer: the strangest of its good parts, with the map of their distances over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.novelty import confidence_of_distances
from edge_sdk.vision.preprocess import fitted
from training.checkpoint import Checkpoint
from training.page import Page, Table, write_page
from training.scorers.distances import Distances
from training.shots import Shot, jpeg_of

__all__ = ["heated", "write_scorer_page"]

MOST = 8
"""Pictures shown."""
NOTE = (
    "The good parts that lie farthest from the others, among those that set the threshold. Red: where. A defect among "
    "them is the reason for a threshold that is too high: take it out, and commission again."
)


def write_scorer_page(
    checkpoint: Checkpoint,
    said: Distances,
    held: Sequence[Sample],
    out: Path,
    *,
    command: str,
    facts: Mapping[str, Any],
    title: str,
) -> None:
    """Write ``page.html``.

    Args:
        checkpoint: Of the scorer.
        said: Of the pictures that set the threshold.
        held: These pictures.
        out: Folder.
        command: That was run.
        facts: What it found.
        title: A sentence.
    """
    state = checkpoint.line("original")
    assert state.normals is not None  # a scorer's line has them
    spec, top = checkpoint.preprocess, float(state.normals.max())
    middle = float(np.median(said.maps))
    shots = []
    for n in np.argsort(-said.highest)[:MOST]:
        sure = float(confidence_of_distances(said.highest[n : n + 1], state.normals)[0])
        picture = heated(fitted(read_image(held[n]), spec), said.maps[n], low=middle, high=top)
        shots.append(Shot(held[n].image, f"distance {said.highest[n]:.2f}", sure, jpeg_of(picture)))
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict | list)}
    tables = []
    if "station" in facts:
        rows = tuple((role, *row.values()) for role, row in facts["station"].items())
        heads = ("graph", "good parts stopped", "at FP32's threshold", "ms a frame")
        note = "What the station's own code makes of the parts that set the threshold."
        tables.append(Table("On the station", heads, rows, note))
    notes = tuple(checkpoint.data["notes"])
    page = Page(title, command, plain, notes, {}, tuple(tables), {state.method: shots}, NOTE)
    write_page(page, out / "page.html")


def heated(image: Image, distances: Array, *, low: float, high: float) -> Image:
    """A picture with its distances over it: nothing at ``low``, red from ``high`` on.

    Args:
        image: ``(H, W, 3)`` uint8 blue green red.
        distances: ``(h, w)``.
        low: Distance of an ordinary place.
        high: Distance of the strangest normal.
    """
    size = (image.shape[1], image.shape[0])
    large = cv2.resize(np.asarray(distances, np.float32), size, interpolation=cv2.INTER_LINEAR)
    share = np.clip((large - low) / max(high - low, 1e-6), 0, 1)[..., None]
    red = np.array([30, 30, 230], np.float32)
    return np.asarray(np.rint(image * (1 - 0.6 * share) + red * 0.6 * share), np.uint8)
