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
from training.team import team

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
        """The next batch, on the team's device; every process draws the same, and varies its own pictures."""
        chosen = self._chosen()
        views, together = self._views, team()
        drawn = [self._drawn() for _ in chosen]

        def picture(n: int) -> Image:
            image = drawn[n].turned(views.images[chosen[n]], 0)
            light = drawn[n].light
            return np.asarray(image, np.uint8) if light is None else _lit(image, light)

        def cells(whole: Array, rows: int) -> Tensor:
            turned = [one.turned(whole[n], rows) for one, n in zip(drawn, chosen, strict=True)]
            return together.placed(torch.from_numpy(np.stack(turned)))

        images = together.pictures((len(chosen), *views.images.shape[1:]), picture)
        return Batch(
            together.placed(normalised(images, self._spec)),
            cells(views.truth, 1),
            cells(views.known, 1),
            together.placed(torch.from_numpy(views.maximum[chosen])),
            cells(views.valid, 0),
        )

    def _chosen(self) -> Array:
        """Which pictures the next batch shows."""
        shares = zip(self._pools, self._shares, strict=True)
        return np.concatenate([pool[self._chance.integers(0, len(pool), count)] for pool, count in shares])

    def _drawn(self) -> _Variation:
        across, down = (bool(one) for one in self._chance.random(2) < 0.5)
        quarter = int(self._chance.integers(2)) if self._square else 0
        return _Variation(across, down, quarter, _light(self._chance) if self._jitter else None)


@dataclass(frozen=True)
class _Light:
    """Factors on brightness, contrast and saturation, and a turn of the colour circle as a share of it."""

    light: float
    hard: float
    full: float
    turn: float


@dataclass(frozen=True)
class _Variation:
    """What is drawn for one picture."""

    across: bool
    down: bool
    quarter: int
    light: _Light | None

    def turned(self, array: Array, rows: int) -> Array:
        """The same flip and quarter turn for picture and cells, whose rows are the axis ``rows``."""
        if self.across:
            array = np.flip(array, rows + 1)
        if self.down:
            array = np.flip(array, rows)
        return np.rot90(array, self.quarter, (rows, rows + 1))


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
    return _lit(image, _light(chance, brightness, contrast, saturation, hue))


def _light(
    chance: np.random.Generator,
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
    hue: float = 0.02,
) -> _Light:
    light, hard, full = 1 + chance.uniform(-1, 1, 3) * (brightness, contrast, saturation)
    return _Light(light, hard, full, chance.uniform(-hue, hue))


def _lit(image: Array, drawn: _Light) -> Image:
    x = np.clip(image.astype(np.float32) * np.float32(drawn.light / 255), 0, 1)
    grey = cv2.cvtColor(x, cv2.COLOR_BGR2GRAY)[:, :, None]
    x = (x - grey) * np.float32(drawn.full) + grey
    mean = np.float32(grey.mean())
    x = np.clip((x - mean) * np.float32(drawn.hard) + mean, 0, 1)
    if drawn.turn and drawn.full:
        hsv = cv2.cvtColor(x, cv2.COLOR_BGR2HSV)
        hsv[:, :, 0] = (hsv[:, :, 0] + np.float32(360 * drawn.turn)) % 360
        x = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return np.asarray(np.rint(x * 255), np.uint8)
