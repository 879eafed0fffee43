"""Two whole sets of drawn pictures, unlike any that the product was developed on.

They prove that any folder in either layout works: ``weave`` has MVTec's folders, masks and no
``dataset.yaml``; ``castings`` has a table, two domains, many sizes, 16-bit grey and no masks.

    python -m tests.quality.drawn_sets FOLDER
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import cv2
import numpy as np

__all__ = ["castings", "weave"]


def weave(root: Path, *, good: int = 40, bad: int = 14, side: int = 220) -> Path:
    """Cloth with pulled threads and with spots, in MVTec's folders one level down."""
    chance = np.random.default_rng(5)
    layout = root / "cloth"
    for number in range(good):
        part = "train" if number < good * 3 // 4 else "test"
        _write(layout / part / "good" / f"{number:03d}.png", _cloth(chance, side))
    for label in ("pulled", "spot"):
        for number in range(bad):
            image = _cloth(chance, side)
            mask = np.zeros((side, side), np.uint8)
            if label == "spot":
                centre = tuple(int(v) for v in chance.integers(30, side - 30, 2))
                cv2.ellipse(
                    mask,
                    centre,
                    (int(chance.integers(6, 14)), int(chance.integers(6, 14))),
                    30,
                    0,
                    360,
                    255,
                    -1,
                )
                image[mask > 0] = (0.4 * image[mask > 0] + 0.6 * np.array((30, 25, 45))).astype(np.uint8)
            else:
                row = int(chance.integers(20, side - 20))
                start = int(chance.integers(0, side // 2))
                cv2.line(mask, (start, row), (start + side // 3, row + int(chance.integers(-12, 12))), 255, 5)
                image[mask > 0] = np.clip(image[mask > 0].astype(int) + 70, 0, 255).astype(np.uint8)
            _write(layout / "test" / label / f"{number:03d}.png", image)
            _write(layout / "ground_truth" / label / f"{number:03d}.png", mask)
    return root


def castings(root: Path, *, each: int = 36) -> Path:
    """Grey castings under two X-ray tubes, of many sizes, 16 bits, labelled as whole pictures."""
    chance = np.random.default_rng(9)
    rows = []
    for tube in ("tube_a", "tube_b"):
        for number in range(each):
            height, width = (int(v) for v in chance.integers(150, 320, 2))
            porous = number % 3 == 0
            y, x = np.mgrid[0:height, 0:width] / max(height, width)
            picture = (
                0.45
                + 0.25 * np.sin(3 * x + chance.uniform(0, 3)) * np.cos(2 * y)
                + chance.normal(0, 0.015, (height, width))
            )
            if porous:
                for _ in range(int(chance.integers(3, 9))):
                    hole = np.zeros((height, width), np.float32)
                    place = (int(chance.integers(20, width - 20)), int(chance.integers(20, height - 20)))
                    cv2.circle(hole, place, int(chance.integers(3, 8)), 1.0, -1)
                    picture -= 0.3 * cv2.GaussianBlur(hole, (0, 0), 1.5)
            if tube == "tube_b":
                picture = 0.25 + 0.5 * picture + chance.normal(0, 0.03, picture.shape)
            name = f"xray/{tube}/part {number:02d}.png"
            _write(root / name, (np.clip(picture, 0, 1) * 65535).astype(np.uint16))
            rows.append([name, "porous" if porous else "ok", tube])
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["image", "label", "domain"], *rows])
    return root


def _cloth(chance: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[0:side, 0:side]
    pitch = chance.uniform(5.5, 6.5)
    threads = np.sin(2 * np.pi * x / pitch) * np.sin(2 * np.pi * y / pitch)
    tone = np.array((150, 130, 95)) + chance.normal(0, 4, 3)
    noise = chance.normal(0, 6, (side, side, 1))
    return np.clip(tone + 28 * threads[:, :, None] + noise, 0, 255).astype(np.uint8)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    print(weave(folder / "weave"), castings(folder / "castings"))
