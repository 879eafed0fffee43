"""The scorers that are trained step by step: what they draw from, and who trains them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Floats
from edge_sdk.quality.datasets import Sample, picture_size, read_mask
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask
from training.data.views import CELL_COVERED, normalised
from training.scorers.distances import SIZE, batches
from training.scorers.embedding import channel_scale, joined_maps
from training.scorers.gaussian import GaussianHead
from training.scorers.network import ScorerNetwork
from training.scorers.stfpm import StudentHead, fit_student
from training.scorers.supersimple import SuperSimpleHead, Taught, fit_supersimple
from training.train import Progress

__all__ = ["gaussian_beside", "train_heads", "trained"]

POOL_BYTES = 256 * 2**20
"""Of pictures, or of their features, that a training draws from; of more a part is taken by lot."""


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
        pool = _pool(samples, 3 * spec.height * spec.width, chance)
        images = np.concatenate(list(batches(pool, spec)))
        fit_student(
            stages, student, head, images, spec,
            iterations=iterations, seed=seed, resume=resume, told=told, progress=progress,
        )  # fmt: skip
        return
    assert isinstance(head, SuperSimpleHead)
    grid = (spec.height // head.joined.stride, spec.width // head.joined.stride)
    bytes_each = 4 * sum(stages.channels) * grid[0] * grid[1]

    def features(of: Sequence[Sample]) -> Tensor:
        with torch.no_grad():
            found = [
                joined_maps(stages(normalised(images, spec)), stages.strides, head.joined.stride)
                for images in batches(of, spec)
            ]
        return torch.cat(found) if found else torch.zeros(0, sum(stages.channels), *grid)

    good = features(_pool(samples, bytes_each, chance))
    mean, scale = channel_scale(iter(torch.split(good, SIZE)))

    def standardised(maps: Tensor) -> Tensor:
        return (maps - mean[:, None, None].float()) * scale[:, None, None].float()

    bad = _pool(defects, bytes_each, chance)
    masks, known = _masks(bad, spec, grid)
    fit_supersimple(
        head, Taught(standardised(good), standardised(features(bad)), masks, known), mean, scale,
        iterations=iterations, seed=seed, resume=resume, told=told, progress=progress,
    )  # fmt: skip


def _pool(samples: Sequence[Sample], bytes_each: int, chance: np.random.Generator) -> list[Sample]:
    chosen = chance.permutation(len(samples))[: max(SIZE, POOL_BYTES // bytes_each)]
    return [samples[n] for n in sorted(chosen)]


def _masks(samples: Sequence[Sample], spec: PreprocessSpec, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """``(m, h, w)`` in {0, 1}, and ``(m,)`` whether somebody drew it and something of it is left on the grid."""
    found: list[Floats] = []
    for one in samples:
        mask = read_mask(one, picture_size(one.path))
        covered = np.zeros(grid) if mask is None else cells_of_mask(mask > 0, spec, grid)
        found.append(np.asarray(covered >= CELL_COVERED, np.float32))
    masks = torch.from_numpy(np.stack(found)) if found else torch.zeros(0, *grid)
    return masks, masks.amax((1, 2)) > 0
