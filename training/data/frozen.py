"""Pictures as a frozen trunk sees them: computed once, trained on often.

A trunk that never learns gives the same map of the same picture at every step and to every method, so the
maps are kept, not made again.  Training then costs a neck and a head.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.arrays import Image
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.streams import Batch, Stream, jittered
from training.data.views import Views, normalised
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.team import team

__all__ = ["Feed", "FrozenStream", "trunk_maps"]

VARIANTS = 3
"""Of each picture: as it is, and under jittered light; turned are the maps."""
MOST_BYTES = 512 * 2**20
"""Of maps that are kept; the ones asked for least lately go first."""
PIECE = 32

_KEPT: OrderedDict[bytes, Tensor] = OrderedDict()


def trunk_maps(trunk: nn.Module, images: Image, spec: PreprocessSpec) -> Tensor:
    """What a trunk makes of pictures, in inference mode and without a graph.

    Args:
        trunk: ``(N, 3, H, W)`` to ``(N, C, h, w)``, with whatever statistics are loaded.
        images: ``(N, H, W, 3)`` uint8 at the network's size, N at least 1.
        spec: Of the network's input.

    Returns:
        ``(N, C, h, w)`` on the CPU; each picture's is kept for the next call with the same trunk and that picture.
    """
    digest = hashlib.sha256(repr((spec, images.shape[1:])).encode())
    for name, tensor in trunk.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    asked = digest.digest()
    keys = [hashlib.sha256(asked + np.ascontiguousarray(image).tobytes()).digest() for image in images]
    found = {key: _KEPT[key] for key in keys if key in _KEPT}
    missing = list({key: n for n, key in enumerate(keys) if key not in found}.values())
    like = next(trunk.parameters())
    mode = trunk.training
    trunk.eval()
    with torch.no_grad():
        for piece in np.array_split(np.array(missing, int), -(-len(missing) // PIECE)) if missing else ():
            maps = trunk(normalised(images[piece], spec).to(like)).cpu()
            for n, one in zip(piece, maps, strict=True):
                found[keys[n]] = one.clone(memory_format=torch.contiguous_format)
    trunk.train(mode)
    for key, one in found.items():
        _KEPT[key] = one
        _KEPT.move_to_end(key)
    each = next(iter(found.values())).nbytes
    while len(_KEPT) > max(1, MOST_BYTES // each):
        _KEPT.popitem(last=False)
    return torch.stack([found[key] for key in keys])


class FrozenStream(Stream):
    """A stream whose ``frame`` is what a frozen trunk makes of the pictures, ``(N, C, h, w)``.

    Light varies between a few variants of each picture, drawn once; flips and quarter turns are made of
    the maps, since what a convolution sees of a turned picture is nearly its map turned.

    Args:
        trunk: Frozen; its statistics count as they are when a variant is first drawn.
        variants: Of each picture, at least 1.
        views, spec, batch, jitter, chance, balanced: As of ``Stream``.
    """

    def __init__(
        self,
        trunk: nn.Module,
        views: Views,
        spec: PreprocessSpec,
        *,
        batch: int,
        jitter: bool,
        chance: np.random.Generator,
        balanced: bool = True,
        variants: int = VARIANTS,
    ) -> None:
        super().__init__(views, spec, batch=batch, jitter=False, chance=chance, balanced=balanced)
        self._trunk = trunk
        self._variants = variants if jitter else 1
        self._maps: dict[tuple[int, int], Tensor] = {}

    def next(self) -> Batch:
        """The next batch, on the team's device."""
        chosen = self._chosen()
        views, together = self._views, team()
        drawn = [self._drawn() for _ in chosen]
        which = self._chance.integers(0, self._variants, len(chosen))
        asked = [(int(n), int(v)) for n, v in zip(chosen, which, strict=True)]
        self._ask(asked)
        maps = [self._maps[one].numpy() for one in asked]

        def turned(rows: list[np.ndarray], axis: int) -> Tensor:
            pieces = [one.turned(row, axis) for one, row in zip(drawn, rows, strict=True)]
            return together.placed(torch.from_numpy(np.stack(pieces)))

        return Batch(
            turned(maps, 1),
            turned([views.truth[n] for n in chosen], 1),
            turned([views.known[n] for n in chosen], 1),
            together.placed(torch.from_numpy(views.maximum[chosen])),
            turned([views.valid[n] for n in chosen], 0),
        )

    def _ask(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Have the trunk see those pictures and variants that no batch has shown yet: of many tiles few are drawn."""
        missing = [pair for pair in dict.fromkeys(pairs) if pair not in self._maps]
        if not missing:
            return
        images = self._views.images
        # drawn by the picture itself: wherever it comes again, so does what is kept of it
        shown = [images[n] if not v else jittered(images[n], _chance_of(images[n], v)) for n, v in missing]
        self._maps.update(zip(missing, trunk_maps(self._trunk, np.stack(shown), self._spec), strict=True))


def _chance_of(image: Image, number: int) -> np.random.Generator:
    return np.random.default_rng([number, *hashlib.sha256(np.ascontiguousarray(image).tobytes()).digest()[:8]])


class Feed:
    """Batches of a line, each with the last map that a network makes of it.

    A frozen trunk is asked once a picture and variant, any other at every step.

    Args:
        network: Whose map; it may learn meanwhile.
        views: At least one picture.
        spec: Of the network's input.
        recipe: Batch, jitter and iterations.
        chance: All randomness.
        balanced: As of ``Stream``.
    """

    def __init__(
        self,
        network: CellNetwork,
        views: Views,
        spec: PreprocessSpec,
        recipe: Recipe,
        chance: np.random.Generator,
        *,
        balanced: bool = True,
    ) -> None:
        self.network = network
        # a set that will hardly be seen twice is not worth keeping
        variants = min(VARIANTS, recipe.iterations * recipe.batch // max(1, len(views)))
        self._kept = network.frozen and variants >= 1
        if self._kept:
            self._stream: Stream = FrozenStream(
                network.trunk, views, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance,
                balanced=balanced, variants=variants,
            )  # fmt: skip
        else:
            self._stream = Stream(
                views, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance, balanced=balanced
            )

    def next(self) -> tuple[Batch, Tensor]:
        """The next batch, and the last map ``(N, F, h, w)`` with its graph."""
        batch = self.drawn()
        return batch, self.last_map(self.network, batch)

    def drawn(self) -> Batch:
        """The next batch alone."""
        return self._stream.next()

    def beside(self, other: Feed) -> tuple[Batch, Tensor, Batch, Tensor]:
        """The next batch of both feeds and their maps, normalised together: what they share is not a line's own."""
        mine, theirs = self.drawn(), other.drawn()
        whole = torch.cat([mine.frame, theirs.frame])
        last = self.network.above(whole) if self._kept else self.network.features(whole)
        return mine, last[: len(mine.frame)], theirs, last[len(mine.frame) :]

    def last_map(self, network: CellNetwork, batch: Batch) -> Tensor:
        """Of this feed's batch, ``(N, F, h, w)``, by this network or another one with the same trunk."""
        return network.above(batch.frame) if self._kept else network.features(batch.frame)
