"""Sets of drawn pictures, made on disk in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_sdk.quality.datasets import Dataset, Sample

__all__ = ["draw", "mvtec_set", "set_of", "table_set"]


def draw(path: Path, pixels: Any = None, *, size: tuple[int, int] = (24, 32)) -> Path:
    """Write a picture; without pixels a grey one of ``size`` (height, width)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((*size, 3), 90, np.uint8) if pixels is None else pixels)
    return path


def mask_of(size: tuple[int, int] = (24, 32), value: int = 255) -> Any:
    """A mask whose upper left corner is defective."""
    mask = np.zeros(size, np.uint8)
    mask[:8, :8] = value
    return mask


def table_set(root: Path, text: str, *, masks: bool = True) -> Path:
    """A folder with ``labels.csv``; each picture that a line names is drawn, each mask too."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "labels.csv").write_text(text, encoding="utf-8")
    header, *lines = [line.split(",") for line in text.strip().splitlines()]
    for line in lines:
        fields = dict(zip(header, line, strict=False))
        if fields.get("image"):
            draw(root / fields["image"])
        if masks and fields.get("mask"):
            draw(root / fields["mask"], mask_of())
    return root


def mvtec_set(
    root: Path, *, good: int = 12, defective: int = 8, suffix: str = "_mask", label: str = "crack"
) -> Path:
    """Folders as MVTec's sets have them."""
    for number in range(good):
        part = "train" if number % 3 else "test"
        draw(root / part / "good" / f"{number:03d}.png")
    for number in range(defective):
        draw(root / "test" / label / f"{number:03d}.png")
        draw(root / "ground_truth" / label / f"{number:03d}{suffix}.png", mask_of())
    return root


def set_of(samples: list[Sample]) -> Dataset:
    """A set in memory."""
    return Dataset(
        root=Path("drawn"),
        title="drawn",
        licence="ours",
        samples=tuple(samples),
        classes=tuple(sorted({s.label for s in samples if s.healthy is False})),
        healthy_labels=("good",),
    )
