"""A tiny drawn set with boxes: plates with dark squares and light bars, two classes, some plates good."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from training.recipe import Recipe

__all__ = ["SMALL_BOXES", "write_boxed_set"]

SMALL_BOXES = Recipe(trunk="slim", width=0.25, side_px=64, iterations=160, rate=5e-3, batch=8, seed=1, head="anchors")


def write_boxed_set(folder: Path, *, pictures: int = 48) -> Path:
    """Every third plate good, the others with one or two defects, each with its box and no mask."""
    chance = np.random.default_rng(4)
    (folder / "images").mkdir(parents=True)
    table, boxes = ["image,label"], ["image,class,xmin,ymin,xmax,ymax"]
    for n in range(pictures):
        image = chance.normal(140, 6, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        name, kind = f"images/{n:02d}.png", ("good", "dent", "scratch")[n % 3]
        for k in range(0 if kind == "good" else 1 + n % 2):
            width, height, tone = (16, 16, 30) if kind == "dent" else (32, 8, 245)
            left = 8 * int(chance.integers(0, (64 - width) // 8))
            top = 32 * k + 8 * int(chance.integers(0, 2))
            image[top : top + height, left : left + width] = tone
            boxes.append(f"{name},{kind},{left},{top},{left + width},{top + height}")
        cv2.imwrite(str(folder / name), image)
        table.append(f"{name},{kind}")
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    (folder / "boxes.csv").write_text("\n".join(boxes) + "\n")
    return folder
