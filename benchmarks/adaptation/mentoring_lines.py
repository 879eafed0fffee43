"""The lines that mentoring is measured on: drawn ones as data set folders, and the real sets by folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks import machine
from benchmarks.adaptation.drawn import lines_by_folder, picture_of
from edge_sdk.arrays import Floats
from edge_sdk.documents import write_atomic
from edge_sdk.quality.datasets import Dataset, Lines, load_dataset

__all__ = ["FULL", "QUICK", "ROUNDS", "ROUNDS_QUICK", "Drawn", "Sizes", "drawn"]

FOLDER = machine.ROOT / "build" / "synthetic"
P_DEFECT = 0.5
"""Share of the new line's pictures with a defect, as on the original line about."""


@dataclass(frozen=True)
class Sizes:
    """Pictures of each part."""

    train: int = 600
    validate: int = 100
    test: int = 300
    new_train: int = 200
    new_mentor: int = 1200
    new_test: int = 400


FULL = Sizes()
QUICK = Sizes(train=60, validate=20, test=40, new_train=20, new_mentor=80, new_test=60)
ROUNDS = Sizes(train=8, validate=8, test=8, new_train=100, new_mentor=400, new_test=300)
"""Of a drifted line, beside the original one that is there already."""
ROUNDS_QUICK = Sizes(train=8, validate=8, test=8, new_train=20, new_mentor=40, new_test=40)


@dataclass(frozen=True)
class Drawn:
    """One seed's original and new line."""

    dataset: Dataset
    lines: Lines
    """Without the truth of the test part."""
    judging: Lines


def drawn(seed: int, sizes: Sizes = FULL, *, drift: float = 0.0, folder: Path = FOLDER) -> Drawn:
    """Draw both lines, write them as a data set folder, and read that as the product does.

    Args:
        seed: Every seed draws other pictures; of one seed the original line is the same whatever the drift.
        sizes: Of the parts.
        drift: How far the new line has drifted on, from 0.
        folder: Where they are kept.
    """
    from training.data.synthetic import mentoring_new, mentoring_original

    place = folder / f"mentoring-{seed}-{drift:g}-{sizes.train}-{sizes.new_mentor}"
    if not (place / "labels.csv").is_file():
        rows: list[dict[str, str]] = []
        steps = round(10 * drift)
        for part, count in (("train", sizes.train), ("validate", sizes.validate), ("test", sizes.test)):
            pictures = mentoring_original(count, _seed(seed, "original", part, 0))
            rows += _written(place, "original", part, *pictures)
        for part, count in (("train", sizes.new_train), ("mentor", sizes.new_mentor), ("test", sizes.new_test)):
            pictures = mentoring_new(count, _seed(seed, "new", part, steps), P_DEFECT, drift=drift)
            rows += _written(place, "new", part, *pictures)
        lines = ["image,label,mask,domain", *(",".join(row.values()) for row in rows)]
        write_atomic(place / "labels.csv", ("\n".join(lines) + "\n").encode())
    return _read(place)


def _read(place: Path) -> Drawn:
    dataset = load_dataset(place)
    return Drawn(dataset, lines_by_folder(dataset), lines_by_folder(dataset, judging=True))


def _written(place: Path, domain: str, part: str, images: Floats, cells: Floats) -> list[dict[str, str]]:
    """PNG pictures and the masks of whole cells."""
    (place / domain / part).mkdir(parents=True, exist_ok=True)
    rows = []
    for n, (image, truth) in enumerate(zip(images, cells, strict=True)):
        name = f"{domain}/{part}/{n:04d}"
        pixels = picture_of(image)
        cv2.imwrite(str(place / f"{name}.png"), pixels)
        row = {"image": f"{name}.png", "label": "good", "mask": "", "domain": domain}
        if truth.any():
            row |= {"label": "defect", "mask": f"{name}.mask.png"}
            mask = np.kron(truth, np.full((pixels.shape[0] // len(truth),) * 2, 255)).astype(np.uint8)
            cv2.imwrite(str(place / row["mask"]), mask)
        rows.append(row)
    return rows


def _seed(seed: int, domain: str, part: str, steps: int) -> int:
    """Every part of every seed draws from numbers of its own."""
    place = ("train", "validate", "mentor", "test").index(part) + 4 * (domain == "new")
    return (seed * 100 + steps) * 10 + place
