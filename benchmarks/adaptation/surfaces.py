"""Surfaces to pretrain on and to be judged on, each as small square pictures with what they show.

A set with masks is cut into squares, of which those without a defect are healthy; one with neither masks of all its
defects nor healthy pictures is read as each defect against the others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import machine
from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Sample, load_dataset, read_image, read_mask
from edge_sdk.vision.preprocess import PreprocessSpec, fitted

__all__ = ["SURFACES", "Dealt", "Squares", "Surface", "dealt", "squares_of"]

SHARED = machine.ROOT.parent / "shared" / "data"
SHOWN = 0.1
"""A square shows a defect from so many of its pixels on, times its side; with fewer, and any, it is left out."""


@dataclass(frozen=True)
class Surface:
    """One set, and how it is read."""

    name: str
    folder: Path
    cut_px: int = 0
    """Side of the squares that pictures are cut into; 0: whole pictures."""


SURFACES = (
    Surface("magnetic tiles", SHARED / "magnetic_tile", cut_px=128),
    Surface("cracks in asphalt", SHARED / "crack_asphalt_cfd", cut_px=160),
    Surface("solar cells", SHARED / "elpv_solar"),
    Surface("hot-rolled steel", SHARED / "neu_steel"),
    Surface("cracks in ceramic tiles", SHARED / "crack_ceramic_tile", cut_px=128),
)


@dataclass(frozen=True, eq=False)
class Squares:
    """N pictures of one surface."""

    images: Image
    """``(N, H, W, 3)`` uint8."""
    truth: Floats
    """``(N, K)`` in {0, 1}: which defects it shows."""
    units: tuple[str, ...]
    """What may not be torn apart."""

    def taken(self, which: Array) -> Squares:
        """Some of them, by number."""
        return Squares(self.images[which], self.truth[which], tuple(self.units[int(n)] for n in which))


@dataclass(frozen=True, eq=False)
class Dealt:
    """Numbers of a surface's pictures by their use."""

    train: Array
    test: Array


def squares_of(surface: Surface, spec: PreprocessSpec, *, most: int, seed: int) -> Squares:
    """Read a surface, at most so many of its groups' pictures, whole groups by lot.

    Args:
        surface: Of ``SURFACES``.
        spec: Of the network's input.
        most: Pictures, about.
        seed: Of the lot.

    Raises:
        DatasetError: The set is not there or cannot be used.
    """
    dataset = load_dataset(surface.folder)
    samples = [one for one in dataset.samples if one.healthy is not None]
    units = sorted({one.unit for one in samples})
    order = np.random.default_rng([seed, 21]).permutation(len(units))
    per = len(samples) * _pieces(dataset, surface) / len(units)
    kept = {units[n] for n in order[: max(4, round(most / per))]}
    images, truth, names = [], [], []
    for sample in samples:
        if sample.unit not in kept:
            continue
        if surface.cut_px:
            found = [(piece, np.array([wrong], np.float32)) for piece, wrong in _cut(sample, surface.cut_px)]
        else:
            shown = np.array([sample.label == one for one in dataset.classes], np.float32)
            found = [(read_image(sample), shown)]
        for piece, shown in found:
            images.append(fitted(piece, spec))
            truth.append(shown)
            names.append(sample.unit)
    whole = np.stack(truth)
    if (whole.sum(axis=1) == 0).any():
        whole = whole.max(axis=1, keepdims=True)  # healthy ones are there: defective or not
    return Squares(np.stack(images), whole, tuple(names))


def dealt(squares: Squares, *, seed: int, tested: float = 0.5) -> Dealt:
    """Whole groups by lot into what is trained on and what is tested on, each with and without every defect.

    Raises:
        DatasetError: No lot of a hundred leaves both kinds on both sides.
    """
    units = sorted(set(squares.units))
    chance = np.random.default_rng([seed, 22])
    for _ in range(100):
        order = chance.permutation(len(units))
        away = {units[n] for n in order[: round(tested * len(units))]}
        test = np.array([unit in away for unit in squares.units])
        sides = [squares.truth[side] for side in (test, ~test)]
        if all(len(one) and (one.max(axis=0) > 0).all() and (one.min(axis=0) == 0).all() for one in sides):
            return Dealt(np.flatnonzero(~test), np.flatnonzero(test))
    raise DatasetError(f"{len(units)} groups cannot be dealt so that every defect is on both sides; give more")


def _pieces(dataset: Dataset, surface: Surface) -> int:
    """About how many squares a picture gives."""
    if not surface.cut_px:
        return 1
    height, width = (int(side) for side in read_image(dataset.samples[0]).shape[:2])
    return max(1, (height // surface.cut_px) * (width // surface.cut_px))


def _cut(sample: Sample, side: int) -> Iterator[tuple[Image, bool]]:
    """Squares side by side that show either no defect or clearly one, and whether they do; none where nobody knows."""
    image = read_image(sample)
    height, width = image.shape[:2]
    mask = read_mask(sample, (height, width))
    if mask is None:
        if not sample.healthy:
            return
        mask = np.zeros((height, width), np.uint8)
    for top in range(0, height - side + 1, side):
        for left in range(0, width - side + 1, side):
            pixels = int((mask[top : top + side, left : left + side] > 0).sum())
            if pixels == 0 or pixels >= SHOWN * side:
                yield image[top : top + side, left : left + side], pixels > 0
