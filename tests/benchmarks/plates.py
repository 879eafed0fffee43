"""A drawn set of good and dented plates, that benchmarks of models of good parts run on."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from tests.training.scorers.normal_parts import plate

__all__ = ["write_set"]


def write_set(folder: Path, *, good: int = 20, bad: int = 4) -> Path:
    """Plates, the last of them dented, with their masks."""
    (folder / "masks").mkdir(parents=True)
    rows = [["image", "mask", "label"]]
    for n in range(good + bad):
        name, dented = f"{n:02}.png", n >= good
        image, clean = plate(200 + n, dent=dented), plate(200 + n)
        cv2.imwrite(str(folder / name), image)
        if dented:
            mask = cv2.dilate(255 * (image != clean).any(axis=2).astype(np.uint8), np.ones((3, 3), np.uint8))
            cv2.imwrite(str(folder / "masks" / name), mask)
        rows.append([name, f"masks/{name}" if dented else "", "dent" if dented else "good"])
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return folder
