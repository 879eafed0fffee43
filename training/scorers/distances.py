"""What a scorer says of pictures, read one bounded batch at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from edge_sdk.arrays import Array, Bools, Floats, Ints
from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec
from training.checkpoint import Checkpoint
from training.data.views import normalised
from training.scorers.network import ScorerNetwork
from training.scorers.patchcore import PatchCoreHead
from training.scorers.pieces import Wholes, batches
from training.train import Progress, quiet

__all__ = ["Distances", "PieceDistances", "distances_as_new", "distances_of", "distances_of_pieces", "scorer_of"]


@dataclass(frozen=True, eq=False)
class Distances:
    """What a scorer says of pictures, of one that is cut into tiles of all its tiles together, as the station does."""

    maps: Floats
    """``(N, h, w)``, 0 behind a picture's border."""
    features: Floats
    """``(N, F)`` pooled, over tiles their mean."""

    @property
    def highest(self) -> Array:
        """``(N,)``: a picture's score."""
        return np.asarray(self.maps.max(axis=(1, 2)))


@dataclass(frozen=True, eq=False)
class PieceDistances:
    """What a scorer says of T inputs of the network, tiles or pictures."""

    maps: Floats
    """``(T, h, w)``."""
    speaks: Bools
    """``(T, h, w)`` the cells that count."""
    pictures: Ints
    """``(T,)`` the picture that each is of, counted from 0, ascending."""

    def highest(self, share: Array) -> Array:
        """``(N,)`` a picture's highest distance once each cell is multiplied with its ``share`` ``(h, w)``."""
        tiles = np.where(self.speaks, self.maps * share, -np.inf).max(axis=(1, 2))
        found = np.full(int(self.pictures.max()) + 1, -np.inf, tiles.dtype)
        np.maximum.at(found, self.pictures, tiles)
        return found


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
    wholes = Wholes()
    features: list[Floats] = []
    pictures: list[Ints] = []
    with torch.inference_mode():
        for batch in batches(samples, spec, stride=network.stride):
            found = network(normalised(batch.images, spec))
            wholes.put(batch, found.novelty[:, 0].numpy())
            features.append(found.feature.numpy())
            pictures.append(batch.pictures)
            progress(what, int(batch.pictures[-1]) + 1, len(samples), {})
    of, rows = np.concatenate(pictures), np.concatenate(features)
    if spec.tile_overlap_px is not None:
        rows = np.stack([rows[of == number].mean(axis=0) for number in range(len(samples))])
    return Distances(wholes.stacked(), rows)


def distances_of_pieces(
    network: ScorerNetwork,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    each: int | None = None,
    what: str = "measure distances",
    progress: Progress = quiet,
) -> PieceDistances:
    """What a scorer says of the network's inputs by themselves; ``each``: see ``batches``."""
    maps: list[Floats] = []
    speaks: list[Bools] = []
    pictures: list[Ints] = []
    with torch.inference_mode():
        for batch in batches(samples, spec, stride=network.stride, each=each):
            maps.append(network(normalised(batch.images, spec)).novelty[:, 0].numpy())
            speaks.append(batch.speaks)
            pictures.append(batch.pictures)
            progress(what, int(batch.pictures[-1]) + 1, len(samples), {})
    return PieceDistances(np.concatenate(maps), np.concatenate(speaks), np.concatenate(pictures))


def distances_as_new(
    network: ScorerNetwork,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    remembered: Array,
    each: int | None = None,
    what: str = "measure distances",
    progress: Progress = quiet,
) -> PieceDistances:
    """About what a bank would say of the good parts that fitted it if it did not know them.

    It knows its own parts by heart, and best where good parts differ most, which it remembers before all else.  So of
    each picture the features of its own part are left out, unless the bank has no others.

    Args:
        network: Of ``patchcore``.
        samples: That fitted it.
        spec: Of the network's input.
        remembered: ``(B,)`` the unit that each feature of the bank is of.
        each: See ``batches``.
        what: Of the progress.
        progress: Told of every picture.
    """
    head = network.head
    assert isinstance(head, PatchCoreHead)
    found: list[PieceDistances] = []
    for number, one in enumerate(samples):
        own = torch.from_numpy(remembered == one.unit)
        with head.without(own & ~own.all()):
            seen = distances_of_pieces(network, [one], spec, each=each)
        found.append(replace(seen, pictures=seen.pictures + number))
        progress(what, number + 1, len(samples), {})
    maps, speaks, pictures = zip(*((one.maps, one.speaks, one.pictures) for one in found), strict=True)
    return PieceDistances(np.concatenate(maps), np.concatenate(speaks), np.concatenate(pictures))
