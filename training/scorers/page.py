"""The page of a scorer: the strangest of its good parts, with the map of their distances over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.novelty import confidence_of_distances
from edge_sdk.vision.preprocess import shown
from training.checkpoint import Checkpoint
from training.page import Page, Table, write_page
from training.scorers.distances import Distances
from training.shots import Shot, jpeg_of

__all__ = ["heated", "write_scorer_page"]

MOST = 8
"""Pictures shown."""
SHOWN_PX = 1024
"""Of a side, at most."""
SHOWN_CELLS = 128
"""Of a side; of larger maps each place shows the highest near by."""
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
    top = float(state.normals.max())
    middle = float(np.median(said.maps[said.maps > 0])) if (said.maps > 0).any() else 0.0
    shots = []
    for n in np.argsort(-said.highest)[:MOST]:
        sure = float(confidence_of_distances(said.highest[n : n + 1], state.normals)[0])
        picture = _heated_part(read_image(held[n]), said.maps[n], checkpoint, low=middle, high=top)
        shots.append(Shot(held[n].image, f"distance {said.highest[n]:.2f}", sure, jpeg_of(picture)))
    plain = {name: value for name, value in facts.items() if not isinstance(value, dict | list)}
    tables = []
    if "station" in facts:
        rows = tuple((role, *row.values()) for role, row in facts["station"].items())
        heads = ("graph", "good parts stopped", "at FP32's threshold", "ms a frame")
        note = f"What the station's own code makes of {facts['judged']} of the parts that set the threshold."
        tables.append(Table("On the station", heads, rows, note))
    notes = tuple(checkpoint.data["notes"])
    page = Page(title, command, plain, notes, {}, tuple(tables), {state.method: shots}, NOTE)
    write_page(page, out / "page.html")


def _heated_part(image: Image, distances: Array, checkpoint: Checkpoint, *, low: float, high: float) -> Image:
    """A part as the network sees it; one that is cut into tiles as a whole, no larger than a page can show."""
    spec = checkpoint.preprocess
    picture = shown(image, spec)
    if spec.tile_overlap_px is not None:
        rows, columns = (ceil(side / checkpoint.cell_px) for side in picture.shape[:2])
        distances = distances[:rows, :columns]
        smaller = min(1.0, SHOWN_PX / max(picture.shape[:2]))
        if smaller < 1:
            reduced = cv2.resize(picture, None, fx=smaller, fy=smaller, interpolation=cv2.INTER_AREA)
            picture = np.asarray(reduced, np.uint8)
            # a small defect is strange in one cell, which a mean over several would hide
            most = 1 + 2 * round((max(distances.shape) / SHOWN_CELLS - 1) / 2)
            distances = cv2.dilate(distances, np.ones((most, most), np.uint8)) if most > 1 else distances
    return heated(picture, distances, low=low, high=high)


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
