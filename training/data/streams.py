"""Endless streams of training batches, drawn and varied as a practitioner would."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array, Image
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.views import Views, normalised

__all__ = ["Batch", "Stream", "jittered"]


@dataclass(frozen=True, eq=False)
class Batch:
    """What one line gives to one step."""

    frame: Tensor
    """``(N, 3, H, W)``."""
    truth: Tensor
    """``(N, K, h, w)``."""
    known: Tensor
    """``(N, K, h, w)``: of a mentored line the set M."""
    maximum: Tensor
    """``(N, K)``."""
    shown: Tensor
    """``(N, h, w)`` bool: cells that show the picture and no padding."""


class Stream:
    """Draws batches for ever: half defective, half healthy where there are both, with replacement.

    Args:
        views: At least one picture; a set smaller than a batch is drawn from again and again.
        spec: Of the network's input.
        batch: Pictures a batch.
        jitter: Whether brightness, contrast, saturation and hue vary.
        chance: All randomness; its state is all the state that a stream has.
        balanced: Whether defective and healthy pictures come in equal parts.
    """

    def __init__(
        self,
        views: Views,
        spec: PreprocessSpec,
        *,
        batch: int,
        jitter: bool,
        chance: np.random.Generator,
        balanced: bool = True,
    ) -> None:
        self._views = views
        self._spec = spec
        self._jitter = jitter
        self._chance = chance
        everything = np.arange(len(views))
        kinds = [everything[views.defective], everything[~views.defective]]
        self._pools = [pool for pool in kinds if len(pool)] if balanced else [everything]
        self._shares = [len(part) for part in np.array_split(np.arange(batch), len(self._pools))]
        self._square = spec.height == spec.width and views.truth.shape[2] == views.truth.shape[3]

    def next(self) -> Batch:
        """The next batch."""
        shares = zip(self._pools, self._shares, strict=True)
        chosen = np.concatenate([pool[self._chance.integers(0, len(pool), count)] for pool, count in shares])
        views = self._views
        images, truths, knowns, shown = [], [], [], []
        for n in chosen:
            image, truth, known, valid = self._turned(
                views.images[n], views.truth[n], views.known[n], views.valid[n]
            )
            images.append(jittered(image, self._chance) if self._jitter else image)
            truths.append(truth)
            knowns.append(known)
            shown.append(valid)
        return Batch(
            normalised(np.stack(images), self._spec),
            torch.from_numpy(np.stack(truths)),
            torch.from_numpy(np.stack(knowns)),
            torch.from_numpy(views.maximum[chosen]),
            torch.from_numpy(np.stack(shown)),
        )

    def _turned(
        self, image: Image, truth: Array, known: Array, valid: Array
    ) -> tuple[Array, Array, Array, Array]:
        """The same flip and quarter turn for picture and cells."""
        across, down = self._chance.random(2) < 0.5
        quarter = int(self._chance.integers(2)) if self._square else 0

        def turn(array: Array, rows: int) -> Array:
            if across:
                array = np.flip(array, rows + 1)
            if down:
                array = np.flip(array, rows)
            return np.rot90(array, quarter, (rows, rows + 1))

        return turn(image, 0), turn(truth, 1), turn(known, 1), turn(valid, 0)


def jittered(
    image: Array,
    chance: np.random.Generator,
    *,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
) -> Image:
    """Ordinary photometric jitter.

    Args:
        image: ``(H, W, 3)`` uint8 blue green red.
        chance: Draws the factors.
        brightness: Factor within 1 ± this.
        contrast: About the mean grey, within 1 ± this.
        saturation: About each pixel's grey, within 1 ± this.
        hue: Turn of the colour circle, within ± this share of it.

    Returns:
        ``(H, W, 3)`` uint8.
    """
    light, hard, full = 1 + chance.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    turn = chance.uniform(-hue, hue)
    x = np.clip(image.astype(np.float32) * np.float32(light / 255), 0, 1)
    grey = cv2.cvtColor(x, cv2.COLOR_BGR2GRAY)[:, :, None]
    x = (x - grey) * np.float32(full) + grey
    mean = np.float32(grey.mean())
    x = np.clip((x - mean) * np.float32(hard) + mean, 0, 1)
    if turn and full:
        hsv = cv2.cvtColor(x, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0] + np.float32(360 * turn)) % 360
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return np.asarray(np.rint(x * 255), np.uint8)
