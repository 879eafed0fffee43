"""What a scorer says of pictures, read one bounded batch at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, fitted
from training.checkpoint import Checkpoint
from training.data.views import normalised
from training.scorers.network import ScorerNetwork
from training.train import Progress, quiet

__all__ = ["SIZE", "Distances", "batches", "distances_of", "scorer_of"]

SIZE = 8
"""Pictures a batch, at most: memory does not grow with their number, nor, …"""
BATCH_PIXELS = 2**20
"""… beyond one picture, with their size: pixels of the network's input a batch."""


@dataclass(frozen=True, eq=False)
class Distances:
    """What a scorer says of pictures."""

    maps: Floats
    """``(N, h, w)``."""
    features: Floats
    """``(N, F)`` pooled."""

    @property
    def highest(self) -> Array:
        """``(N,)``: a picture's score."""
        return np.asarray(self.maps.max(axis=(1, 2)))


def scorer_of(checkpoint: Checkpoint) -> ScorerNetwork:
    """The network of a scorer's checkpoint.

    Raises:
        ConfigError: It is another network.
    """
    network: Any = checkpoint.network
    if not isinstance(network, ScorerNetwork):
        raise ConfigError(
            f"the checkpoint is of {checkpoint.factory}, which is no scorer; fit one: python -m training train --method"
        )
    return network


def distances_of(
    network: ScorerNetwork,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    what: str = "measure distances",
    progress: Progress = quiet,
) -> Distances:
    """What a scorer says of pictures, read one batch at a time."""
    maps: list[Floats] = []
    features: list[Floats] = []
    done = 0
    with torch.inference_mode():
        for images in batches(samples, spec):
            found = network(normalised(images, spec))
            maps.append(found.novelty[:, 0].numpy())
            features.append(found.feature.numpy())
            done += len(images)
            progress(what, done, len(samples), {})
    return Distances(np.concatenate(maps), np.concatenate(features))


def batches(samples: Sequence[Sample], spec: PreprocessSpec) -> Iterator[Image]:
    """The network's input, ``(N, H, W, 3)`` uint8, in the order of ``samples``; one batch in memory."""
    size = min(SIZE, max(1, BATCH_PIXELS // (spec.height * spec.width)))
    for start in range(0, len(samples), size):
        yield np.stack([fitted(read_image(one), spec) for one in samples[start : start + size]])
