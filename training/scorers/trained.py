"""The scorers that are trained step by step: what they draw from, and who trains them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Bools, Floats, Image
from edge_sdk.quality.datasets import Sample, picture_size, read_mask
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask
from training.data.tiles import grid_of
from training.data.views import CELL_COVERED, normalised
from training.scorers.embedding import channel_scale, joined_maps
from training.scorers.gaussian import GaussianHead
from training.scorers.network import ScorerNetwork
from training.scorers.pieces import SIZE, Batch, batches, tiles_each
from training.scorers.stfpm import StudentHead, fit_student
from training.scorers.supersimple import SuperSimpleHead, Taught, fit_supersimple
from training.train import Progress

__all__ = ["gaussian_beside", "mirrored", "teaching", "train_heads", "trained"]

POOL_BYTES = 256 * 2**20
"""Of pictures, or of their features, that a training draws from; of more a part is taken by lot."""
MIRRORS = ((1,), (2,), (1, 2))
"""Axes, of rows and of columns, that a known defect is mirrored along."""


def trained(network: ScorerNetwork) -> bool:
    """Whether it is trained step by step, not fitted in one pass."""
    return isinstance(network.head, StudentHead | SuperSimpleHead)


def gaussian_beside(network: ScorerNetwork, spec: PreprocessSpec, *, stride: int, rank: int) -> ScorerNetwork:
    """A Gaussian on the same trunk."""
    below = network.stages
    grid = (spec.height // stride, spec.width // stride)
    head = GaussianHead(below.channels, below.strides, stride=stride, grid=grid, rank=min(rank, sum(below.channels)))
    return ScorerNetwork(below, head)


def train_heads(
    network: ScorerNetwork,
    samples: Sequence[Sample],
    defects: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    iterations: int | None,
    seed: int,
    resume: Path | None,
    told: str,
    progress: Progress,
) -> None:
    """Train what stands on the trunk, or beside it.

    Args:
        network: ``trained``.
        samples: Good parts.
        defects: Of ``supersimple``, with masks or without; may be none.
        spec: Of the network's input.
        iterations: Steps; the method's own number if not given.
        seed: Of all that is drawn by lot.
        resume: File that keeps the state of a training under way.
        told: What is trained on what, see ``fit``.
        progress: Told of every step.
    """
    head, stages, student = network.head, network.stages, network.student
    chance = np.random.default_rng([seed, 19])
    if isinstance(head, StudentHead):
        assert student is not None  # what has this head has a student
        seen = _pool(samples, 3 * spec.height * spec.width, spec, network.stride, chance)
        images = np.concatenate([batch.images for batch in seen])
        fit_student(
            stages, student, head, images, spec,
            iterations=iterations, seed=seed, resume=resume, told=told, progress=progress,
        )  # fmt: skip
        return
    assert isinstance(head, SuperSimpleHead)
    grid = (spec.height // network.stride, spec.width // network.stride)
    bytes_each = 4 * sum(stages.channels) * grid[0] * grid[1]

    def features(of: Iterable[Image]) -> Tensor:
        with torch.no_grad():
            found = [
                joined_maps(stages(normalised(images, spec)), stages.strides, network.stride) for images in of
            ]
        return torch.cat(found) if found else torch.zeros(0, sum(stages.channels), *grid)

    good = features(batch.images for batch in _pool(samples, bytes_each, spec, network.stride, chance))
    mean, scale = channel_scale(iter(torch.split(good, SIZE)))

    def standardised(maps: Tensor) -> Tensor:
        return (maps - mean[:, None, None].float()) * scale[:, None, None].float()

    most = max(SIZE, POOL_BYTES // bytes_each)
    found = _defects(defects, most, spec, network.stride, chance)
    shown, masks, known, whole = mirrored(*found, most=most)
    fit_supersimple(
        head, Taught(standardised(good), standardised(features(shown)), masks, known, whole), mean, scale,
        iterations=iterations, seed=seed, resume=resume, told=told, progress=progress,
    )  # fmt: skip


def teaching(defects: Sequence[Sample], spec: PreprocessSpec) -> tuple[Sample, ...]:
    """Those that a scorer can learn from: where pictures are cut into tiles, those with a mask, since nothing else
    says which tile shows the defect."""
    return tuple(one for one in defects if spec.tile_overlap_px is None or one.mask is not None)


def _pool(
    samples: Sequence[Sample], bytes_each: int, spec: PreprocessSpec, stride: int, chance: np.random.Generator
) -> Iterator[Batch]:
    most = max(SIZE, POOL_BYTES // bytes_each)
    chosen = sorted(chance.permutation(len(samples))[:most])
    each = tiles_each(spec, len(chosen))
    if each is not None:
        each = min(each, max(1, most // max(len(chosen), 1)))
    return batches([samples[n] for n in chosen], spec, stride=stride, each=each)


def _defects(
    samples: Sequence[Sample], most: int, spec: PreprocessSpec, stride: int, chance: np.random.Generator
) -> tuple[list[Image], Tensor, Tensor]:
    """Batches of inputs, at most so many; ``(m, h, w)`` in {0, 1} where the defect is; and ``(m,)`` whether somebody
    drew it and something of it is left on the grid.  Of tiles those in which some of it lies."""
    grid = (spec.height // stride, spec.width // stride)
    of = [samples[n] for n in sorted(chance.permutation(len(samples))[:most])]
    wholes = [_covered(one, spec, grid) for one in of]
    shown: list[Image] = []
    masks: list[Floats] = []
    for batch in batches(of, spec, stride=stride) if of else ():
        pairs = zip(batch.pictures, batch.corners, strict=True)
        covered = np.stack([wholes[n][row : row + grid[0], column :][:, : grid[1]] for n, (row, column) in pairs])
        covered = np.where(batch.speaks, covered, 0)
        taken: Bools = np.ones(len(covered), np.bool_)
        if spec.tile_overlap_px is not None:
            taken &= covered.any(axis=(1, 2))
        taken[max(0, most - len(masks)) :] = False
        if taken.any():
            shown.append(batch.images[taken])
            masks += [np.asarray(one >= CELL_COVERED, np.float32) for one in covered[taken]]
    found = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, *grid)
    return shown, found, found.amax((1, 2)) > 0


def mirrored(
    shown: Sequence[Image], masks: Tensor, drawn: Tensor, *, most: int
) -> tuple[list[Image], Tensor, Tensor, Tensor]:
    """Defects as they are, then those that somebody drew mirrored, as many as there is room for.

    Args:
        shown: Batches of m inputs.
        masks: ``(m, h, w)`` in {0, 1}.
        drawn: ``(m,)`` whether the mask was drawn.
        most: Inputs, mirrored ones among them; those as they are all stay.

    Returns:
        Batches of inputs, and of ``Taught`` ``masks``, ``known`` and ``whole``.
    """
    known = drawn[:, None, None].expand_as(masks).to(masks.dtype)
    some = drawn & (drawn.cumsum(0) <= (most - len(masks)) // len(MIRRORS))
    ends = np.cumsum([len(images) for images in shown])
    picked = [images[some[end - len(images) : end].numpy()] for images, end in zip(shown, ends, strict=True)]
    flips = [masks[some].flip(axes) for axes in MIRRORS]
    turned = [np.ascontiguousarray(np.flip(images, axes)) for axes in MIRRORS for images in picked if len(images)]
    masks = torch.cat([masks, *flips])
    return [*shown, *turned], masks, torch.cat([known, *flips]), torch.arange(len(masks)) < len(known)


def _covered(sample: Sample, spec: PreprocessSpec, grid: tuple[int, int]) -> Floats:
    """Of a whole picture's cells the share that its mask covers; 0 without one."""
    height, width = picture_size(sample.path)
    whole, mask = grid_of(spec, height, width, grid), read_mask(sample, (height, width))
    return np.zeros(whole, np.float32) if mask is None else cells_of_mask(mask > 0, spec, whole)
