"""A tiny set of drawn pictures, so that a training takes a second."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from training.recipe import Recipe

__all__ = ["SMALL", "write_set"]

SMALL = Recipe(trunk="slim", width=0.125, side_px=64, iterations=30, batch=4, seed=1)


def write_set(folder: Path, *, pictures: int = 24, masks: bool = True, labels: tuple[str, ...] = ("dent",)) -> Path:
    """Grey plates, every second one with a dark square, as a ``dataset/1`` folder."""
    chance = np.random.default_rng(3)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    rows = []
    for number in range(pictures):
        image = chance.normal(150, 8, (60, 64, 3)).clip(0, 255).astype(np.uint8)
        row = {"image": f"images/{number:02d}.png", "label": "good", "mask": ""}
        if number % 2:
            x, y = (int(one) for one in chance.integers(4, 40, 2))
            image[y : y + 16, x : x + 16] = 30
            row["label"] = labels[number // 2 % len(labels)]
            if masks:
                mask = np.zeros(image.shape[:2], np.uint8)
                mask[y : y + 16, x : x + 16] = 255
                row["mask"] = f"masks/{number:02d}.png"
                cv2.imwrite(str(folder / row["mask"]), mask)
        cv2.imwrite(str(folder / row["image"]), image)
        rows.append(row)
    with (folder / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "label", "mask"])
        writer.writeheader()
        writer.writerows(rows)
    return folder
