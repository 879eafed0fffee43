"""Drawn surfaces to fine-tune on."""

from __future__ import annotations

from pathlib import Path

import cv2
import torch

from edge_sdk.testing import drawn_picture
from export.tuning import Plan
from tests.calibration.networks import SIDE

__all__ = ["CPU", "PLAN", "drawn"]

CPU = torch.device("cpu")
PLAN = Plan(epochs=5, rate=1e-3)


def drawn(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for n in range(count):
        spot = (5 + n % 20, 12, 5) if n % 2 else None
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=seed + n, spot=spot))
    return folder
