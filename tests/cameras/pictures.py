"""Pictures, folders and videos that the camera tests play."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edge_sdk.arrays import Image
from edge_sdk.config import CameraConfig
from edge_sdk.testing import drawn_picture

__all__ = ["folder_of", "settings", "video_of"]


def settings(uri: str = "file:unused", **changed: object) -> CameraConfig:
    return CameraConfig.model_validate({"uri": uri, **changed})


def folder_of(path: Path, count: int = 3) -> list[Image]:
    """Write a folder of pictures that read back bit for bit."""
    path.mkdir(parents=True, exist_ok=True)
    pictures = [drawn_picture(48, 64, seed=seed) for seed in range(count)]
    for number, picture in enumerate(pictures):
        assert cv2.imwrite(str(path / f"{number}.png"), picture)
    return pictures


def video_of(path: Path, count: int = 8, *, rate_hz: float = 20) -> Path:
    """Write an MJPEG video; frame n is about ``20 * n`` grey."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), rate_hz, (64, 48))
    assert writer.isOpened()
    rng = np.random.default_rng(0)
    for number in range(count):
        writer.write((rng.integers(0, 10, (48, 64, 3)) + 20 * number).astype(np.uint8))
    writer.release()
    return path
