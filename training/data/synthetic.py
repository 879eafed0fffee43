"""Two drawn production lines with one catalogue of defects, for figures on fresh data at every seed.

Line 0 is brushed sheet: anisotropic streaks, bright, cool, a linear fall-off of the light.  Line 1 is a casting:
grain of several scales, darker, warm, a vignette, more noise of the sensor.  Both draw their defects with the
same code, so only the background and the taking of the picture differ: covariate shift.  Mentoring has a line of
its own, the brushed one with weaker defects and harmless soft stains.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from edge_sdk.arrays import Array, Bools, Floats

__all__ = ["BLOB", "CELL", "SCRATCH", "SIDE", "cell_set", "classification_set", "drift_stream", "mentoring_new",
           "mentoring_original", "render"]

SCRATCH, BLOB = 1, 2
SIDE, CELL = 64, 8
"""Pixels of a mentoring picture's side, and of a cell's."""
COVERED = 0.08
"""Share of a cell from which it counts as defective."""

Contrast = tuple[float, float]


def render(
    domain: int,
    kinds: Sequence[int],
    chance: np.random.Generator,
    *,
    size: int = SIDE,
    contrast: Contrast = (0.16, 0.32),
) -> tuple[Floats, Array]:
    """One picture.

    Args:
        domain: 0 brushed, 1 cast.
        kinds: ``SCRATCH`` or ``BLOB`` for each defect to draw.
        chance: Draws everything.
        size: Pixels of a side.
        contrast: Least and most of a defect, share of white.

    Returns:
        ``(size, size, 3)`` float32 in [0, 1] and the mask ``(size, size)`` uint8, the kind where a defect is.
    """
    base, tint, noise = _background(domain, chance, size)
    mask = np.zeros((size, size), np.uint8)
    for kind in kinds:
        layer, where = _defect(kind, chance, size)
        base = base + layer * chance.uniform(*contrast)
        mask[where] = kind
    return _taken(base, tint, noise, chance), mask


def classification_set(
    domain: int,
    healthy: int,
    defective: int,
    seed: int,
    *,
    size: int = SIDE,
    contrast: Contrast = (0.16, 0.32),
) -> tuple[Floats, Array]:
    """Pictures with one defect or none, the healthy ones first.

    Returns:
        ``(N, 3, size, size)`` float32 in [0, 1], channels as drawn, and ``(N,)`` int, 1 defective.
    """
    chance = np.random.default_rng(seed)
    images, truth = [], []
    for number in range(healthy + defective):
        kinds = [] if number < healthy else [int(chance.integers(1, 3))]
        images.append(render(domain, kinds, chance, size=size, contrast=contrast)[0])
        truth.append(int(number >= healthy))
    return np.stack(images).transpose(0, 3, 1, 2), np.array(truth)


def cell_set(
    domain: int,
    count: int,
    seed: int,
    *,
    size: int = 96,
    cell: int = CELL,
    p_defect: float = 0.6,
    most: int = 3,
    contrast: Contrast = (0.14, 0.30),
) -> tuple[Floats, Floats]:
    """Pictures with up to ``most`` defects and the truth of their cells.

    Returns:
        ``(N, 3, size, size)`` float32 in [0, 1] and ``(N, size / cell, size / cell)`` float32 in {0, 1}.
    """
    chance = np.random.default_rng(seed)
    images, truth = [], []
    for _ in range(count):
        defects = int(chance.integers(1, most + 1)) if chance.random() < p_defect else 0
        image, mask = render(domain, list(chance.integers(1, 3, defects)), chance, size=size, contrast=contrast)
        images.append(image)
        truth.append(_cells(mask, cell))
    return np.stack(images).transpose(0, 3, 1, 2), np.stack(truth)


def mentoring_original(count: int, seed: int) -> tuple[Floats, Floats]:
    """The original line of mentoring: brushed sheet, every cell's truth known; as ``cell_set`` gives it."""
    return cell_set(0, count, seed, size=SIDE, cell=CELL, most=2)


def mentoring_new(count: int, seed: int, p_defect: float, *, drift: float = 0.0) -> tuple[Floats, Floats]:
    """The new line of mentoring: dimmer, grainier, weaker defects, and stains that are no defects.

    Args:
        count: Pictures.
        seed: Of everything.
        p_defect: Share of pictures with a defect.
        drift: How far the line has drifted on: dimmer, grainier, more stains.
    """
    chance = np.random.default_rng(seed)
    images, truth = [], []
    for _ in range(count):
        base, tint, _ = _background(0, chance, SIDE)
        grain = _unit(cv2.GaussianBlur(_normal(chance, SIDE), (0, 0), 1.2))
        base = base * (0.93 - 0.06 * drift) + (0.018 + 0.012 * drift) * grain
        for _ in range(chance.integers(0, 3 + int(2 * drift))):
            layer = np.zeros((SIDE, SIDE), np.float32)
            centre, radius = chance.uniform(6, SIDE - 6, 2), chance.uniform(3, 6)
            cv2.circle(layer, (int(centre[0]), int(centre[1])), int(radius), 1.0, -1, cv2.LINE_AA)
            base = base - cv2.GaussianBlur(layer, (0, 0), 2.6) * chance.uniform(0.10, 0.24)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        if chance.random() < p_defect:
            for kind in chance.integers(1, 3, chance.integers(1, 3)):
                layer, where = _defect(kind, chance, SIDE)
                base = base + layer * chance.uniform(0.06, 0.22)
                mask[where] = 1
        images.append(_taken(base, tint, 0.018, chance))
        truth.append(_cells(mask, CELL))
    return np.stack(images).transpose(0, 3, 1, 2).copy(), np.stack(truth)


def drift_stream(
    count: int,
    seed: int,
    *,
    gain: float = 1.0,
    offset: float = 0.0,
    noise: float = 0.0,
    blur: float = 0.0,
    p_defect: float = 0.05,
) -> tuple[Floats, Array]:
    """Pictures of the original line in random order, all changed the same way.

    Args:
        count: Pictures.
        seed: Of everything.
        gain: Times each value.
        offset: Added to each value.
        noise: Standard deviation added.
        blur: Sigma of a Gaussian, pixels; 0: none.
        p_defect: Share of pictures with a defect.

    Returns:
        ``(N, 3, 64, 64)`` float32 in [0, 1] and ``(N,)`` int, 1 defective.
    """
    chance = np.random.default_rng(seed)
    healthy = int(count * (1 - p_defect))
    images, truth = classification_set(0, healthy, count - healthy, seed)
    noisy = images * gain + offset + noise * chance.standard_normal(images.shape).astype(np.float32)
    changed = np.clip(noisy, 0, 1).astype(np.float32)
    if blur:
        changed = np.stack(
            [cv2.GaussianBlur(one.transpose(1, 2, 0), (0, 0), blur).transpose(2, 0, 1) for one in changed]
        )
    order = chance.permutation(count)
    return changed[order], truth[order]


def _unit(x: Array) -> Array:
    return np.asarray((x - x.mean()) / (x.std() + 1e-6))


def _normal(chance: np.random.Generator, size: int) -> Floats:
    return chance.standard_normal((size, size)).astype(np.float32)


def _background(domain: int, chance: np.random.Generator, size: int) -> tuple[Array, Array, float]:
    """Texture under light, the tint of the channels, and the sensor's noise."""
    first = _normal(chance, size)
    grid = np.mgrid[0:size, 0:size].astype(np.float32) / size - 0.5
    down, across = grid[0], grid[1]
    if domain == 0:
        texture = 0.05 * _unit(cv2.GaussianBlur(first, (0, 0), sigmaX=9, sigmaY=0.6))
        angle = chance.uniform(0, 2 * np.pi)
        light = 0.58 + 0.10 * (np.cos(angle) * across + np.sin(angle) * down)
        return light + texture, np.array([1.08, 1.0, 0.92], np.float32), 0.015
    second = _normal(chance, size)
    coarse, fine = cv2.GaussianBlur(first, (0, 0), 3.0), cv2.GaussianBlur(second, (0, 0), 1.0)
    light = 0.40 - 0.25 * (across**2 + down**2)
    return light + (0.055 * _unit(coarse) + 0.03 * _unit(fine)), np.array([0.88, 1.0, 1.14], np.float32), 0.025


def _defect(kind: int, chance: np.random.Generator, size: int) -> tuple[Array, Bools]:
    """A signed layer in [-1, 1] and where it counts."""
    layer = np.zeros((size, size), np.float32)
    if kind == SCRATCH:
        length, angle = chance.uniform(16, 34), chance.uniform(0, np.pi)
        point = chance.uniform(0.2, 0.8, 2) * size
        path = [point]
        for _ in range(4):
            angle += chance.normal(0, 0.15)
            point = point + length / 4 * np.array([np.cos(angle), np.sin(angle)])
            path.append(point)
        corners = np.round(np.array(path) * 8).astype(np.int32).reshape(-1, 1, 2)
        cv2.polylines(layer, [corners], False, 1.0, int(chance.integers(1, 3)), cv2.LINE_AA, shift=3)
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), 0.6), np.float32)
    else:
        centre = chance.uniform(0.2, 0.8, 2) * size
        axes = chance.uniform(2.5, 5.5, 2)
        cv2.ellipse(
            layer,
            (int(centre[0] * 8), int(centre[1] * 8)),
            (int(axes[0] * 8), int(axes[1] * 8)),
            chance.uniform(0, 180),
            0,
            360,
            1.0,
            -1,
            cv2.LINE_AA,
            3,
        )
        layer = np.asarray(cv2.GaussianBlur(layer, (0, 0), 1.0), np.float32)
    return layer * (1 if chance.random() < 0.5 else -1), layer > 0.3


def _taken(base: Array, tint: Array, noise: float, chance: np.random.Generator) -> Floats:
    """The scene through the camera."""
    size = len(base)
    image = base[..., None] * tint + chance.normal(0, noise, (size, size, 3)).astype(np.float32)
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _cells(mask: Array, cell: int) -> Floats:
    rows = len(mask) // cell
    share = (mask > 0).reshape(rows, cell, rows, cell).mean((1, 3))
    return np.asarray(share >= COVERED, np.float32)
