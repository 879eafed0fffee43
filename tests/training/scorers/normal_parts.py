"""Drawn plates without a defect, and a checkpoint whose trunk a scorer may take."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from edge_sdk.arrays import Image
from edge_sdk.vision.preprocess import PreprocessSpec
from training.checkpoint import Checkpoint, save_checkpoint
from training.lines import line_state
from training.networks.cellnet import cell_network
from training.statistics import statistics_of

__all__ = ["plate", "write_normals", "write_trunk"]


def plate(seed: int, *, dent: bool = False, height: int = 96, width: int = 128) -> Image:
    """A brushed plate with a hole, and with a scratched patch if asked for."""
    chance = np.random.default_rng(seed)
    rows = cv2.GaussianBlur(chance.normal(150, 10, (height, 1)).astype(np.float32), (1, 5), 0)
    grey = np.repeat(rows, width, axis=1).reshape(height, width) + chance.normal(0, 5, (height, width))
    cv2.circle(grey, (width // 4, height // 3), 9, 60.0, -1)
    if dent:
        y, x = (int(one) for one in chance.integers((height // 2, width // 2), (height - 24, width - 24)))
        grey[y : y + 16, x : x + 16] = np.where(np.indices((16, 16)).sum(axis=0) % 6 < 3, 20, 240)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def write_normals(folder: Path, *, pictures: int = 24, seed: int = 120) -> Path:
    """A plain folder of good parts."""
    folder.mkdir(parents=True)
    for number in range(pictures):
        cv2.imwrite(str(folder / f"{number:03d}.png"), plate(seed + number))
    return folder


def write_trunk(folder: Path) -> Path:
    """A checkpoint that was never trained: random features tell a dent from a plate too."""
    torch.manual_seed(121)
    arguments = {"trunk": "resnet18", "classes": 1, "width": 0.125, "stages": 3}
    network = cell_network(**arguments)
    spec = PreprocessSpec(width=64, height=64)
    images = np.stack([cv2.resize(plate(seed), (64, 64)) for seed in range(4)])
    state = line_state(network, statistics_of(network), images, spec, method="source")
    checkpoint = Checkpoint(
        network=network,
        arguments=arguments,
        preprocess=spec,
        cell_px=16,
        classes=("dent",),
        lines={"original": state},
        recipe={},
        data={},
    )
    save_checkpoint(checkpoint, folder)
    return folder
