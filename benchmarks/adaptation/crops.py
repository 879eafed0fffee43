"""The same crops for three tasks: a mask to segment, its boxes to detect, one label to classify.

Only so is the task the one difference between encoders: pictures, truth and number are the same for all of them.
"""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Sample, picture_size, read_image, read_mask

__all__ = ["write_crops"]

LEAST_SIDE = 16
"""Of a crop, pixels of the picture."""
SHARE = 0.5
"""Side of a crop over the picture's short side."""
TRIES = 30
"""For a place without a defect."""
LEAST_PX = 12
"""Defective pixels of a crop that is called defective."""


def write_crops(samples: Sequence[Sample], folder: Path, *, count: int, side_px: int, seed: int) -> Path:
    """A data set of crops with a defect and crops without, about as many of each.

    Args:
        samples: Defective pictures with masks.
        folder: To write; what was there is replaced.
        count: Of pictures that are cropped, at most.
        side_px: Of a crop, pixels.
        seed: Of pictures and places.

    Raises:
        DatasetError: A picture is smaller than the least crop; nothing was written.
    """
    for sample in samples:
        height, width = picture_size(sample.path)
        if min(height, width) < LEAST_SIDE:
            raise DatasetError(
                f"{sample.path} is {width} x {height} px, and a crop has {LEAST_SIDE} px a side or more; leave it out"
            )
    chance = np.random.default_rng([seed, 51])
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    chosen = chance.permutation(len(samples))[:count]
    rows, boxes = [], []
    for number in chosen:
        mask = read_mask(samples[number], picture_size(samples[number].path))
        if mask is None or not mask.any():
            continue
        image, truth = read_image(samples[number]), np.asarray(mask, bool)
        for kind in ("defect", "healthy"):
            place = _place(truth, kind, chance)
            if place is None:
                continue
            name = f"{number:04d}_{kind}.png"
            picture, covered = (_cut(whole, place, side_px) for whole in (image, truth.astype(np.uint8) * 255))
            cv2.imwrite(str(folder / "images" / name), picture)
            if kind == "defect":
                cv2.imwrite(str(folder / "masks" / name), covered)
                boxes += [(f"images/{name}", kind, *box) for box in _boxes(covered)]
            rows.append((f"images/{name}", f"masks/{name}" if kind == "defect" else "", kind))
    (folder / "dataset.yaml").write_text(
        "schema: dataset/1\ntitle: crops\nlicence: as the pictures\nhealthy: [healthy]\nempty_mask: healthy\n"
    )
    _write(folder / "labels.csv", ("image", "mask", "label"), rows)
    _write(folder / "boxes.csv", ("image", "class", "xmin", "ymin", "xmax", "ymax"), boxes)
    return folder


def _place(truth: Array, kind: str, chance: np.random.Generator) -> tuple[int, int, int] | None:
    """Top, left and side of a square, or nothing where no such place was found."""
    height, width = truth.shape
    side = max(LEAST_SIDE, round(min(height, width) * SHARE))
    bad = np.argwhere(truth)
    for _ in range(TRIES):
        if kind == "defect":
            y, x = bad[chance.integers(len(bad))] - chance.integers(side // 4, side - side // 4, 2)
        else:
            y, x = chance.integers(0, height - side + 1), chance.integers(0, width - side + 1)
        top, left = int(np.clip(y, 0, height - side)), int(np.clip(x, 0, width - side))
        seen = int(truth[top : top + side, left : left + side].sum())
        if (kind == "healthy" and not seen) or (kind == "defect" and seen >= LEAST_PX):
            return top, left, side
    return None


def _cut(whole: Image, place: tuple[int, int, int], side_px: int) -> Image:
    top, left, side = place
    inner = np.ascontiguousarray(whole[top : top + side, left : left + side])
    rule = cv2.INTER_AREA if side > side_px else cv2.INTER_LINEAR
    found = np.asarray(cv2.resize(inner, (side_px, side_px), interpolation=rule), np.uint8)
    return found if found.ndim == 3 else np.asarray((found >= 64) * 255, np.uint8)


def _boxes(mask: Image) -> list[tuple[int, int, int, int]]:
    _, _, facts, _ = cv2.connectedComponentsWithStats(cv2.dilate(mask, np.ones((3, 3), np.uint8)), connectivity=8)
    return [(int(x), int(y), int(x + w), int(y + h)) for x, y, w, h, _ in facts[1:]]


def _write(path: Path, heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([heads, *rows])
