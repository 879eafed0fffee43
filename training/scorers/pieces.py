"""What a scorer sees of pictures, one bounded batch at a time: each picture, or the tiles that it is cut into."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Bools, Floats, Image, Ints
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, valid_cells
from training.data.tiles import Piece, grid_of, pieces_of

__all__ = ["SIZE", "Batch", "Wholes", "batches", "tiles_each"]

SIZE = 8
"""Pictures a batch, at most: memory does not grow with their number, nor, …"""
BATCH_PIXELS = 2**20
"""… beyond one picture, with their size: pixels of the network's input a batch."""
TILES = 1024
"""Tiles that are fitted on, about: more of one line's parts say little new, and cost minutes."""


@dataclass(frozen=True, eq=False)
class Batch:
    """n inputs of the network, and which cells of theirs count."""

    images: Image
    """``(n, H, W, 3)`` uint8 blue green red."""
    pictures: Ints
    """``(n,)`` the sample that each is of, counted from 0, ascending."""
    corners: Ints
    """``(n, 2)`` row and column of each one's first cell among all of its picture's."""
    speaks: Bools
    """``(n, h, w)`` the cells that show the picture and that no other tile speaks for."""


def batches(
    samples: Sequence[Sample], spec: PreprocessSpec, *, stride: int, each: int | None = None
) -> Iterator[Batch]:
    """The network's inputs in the order of ``samples``, tile by tile; one batch in memory.

    Args:
        samples: At least one.
        spec: Of the network's input.
        stride: Pixels a cell.
        each: Tiles of a picture, at most, by lot; all of them without it.  The same tiles of a picture for a number,
            whichever pictures come with it.
    """
    grid = (spec.height // stride, spec.width // stride)
    size = min(SIZE, max(1, BATCH_PIXELS // (spec.height * spec.width)))
    held: list[tuple[int, Piece, Bools]] = []
    for number, sample in enumerate(samples):
        image = read_image(sample)
        height, width = image.shape[:2]
        shown = valid_cells(spec, height, width, grid_of(spec, height, width, grid))
        pieces = list(pieces_of(image, spec, grid))
        if each is not None and each < len(pieces):
            lots = np.random.default_rng(zlib.crc32(sample.image.encode())).permutation(len(pieces))
            pieces = [pieces[n] for n in sorted(lots[:each])]
        for piece in pieces:
            there = shown[piece.row : piece.row + grid[0], piece.column : piece.column + grid[1]]
            held.append((number, piece, piece.core & there))
            if len(held) == size:
                yield _batch(held)
                held = []
    if held:
        yield _batch(held)


def tiles_each(spec: PreprocessSpec, count: int) -> int | None:
    """Tiles of each of ``count`` pictures that are fitted on; ``None``: pictures are not cut."""
    return None if spec.tile_overlap_px is None else max(1, TILES // max(count, 1))


class Wholes:
    """Maps of pictures, put together of those of their pieces; 0 where no piece speaks: behind a picture's border."""

    def __init__(self) -> None:
        self._maps: list[Floats] = []

    def put(self, batch: Batch, maps: Floats) -> None:
        """``(n, h, w)`` of a batch; batches come in their order."""
        h, w = maps.shape[1:]
        for number, (row, column), speaks, one in zip(
            batch.pictures, batch.corners, batch.speaks, maps, strict=True
        ):
            if number == len(self._maps):
                self._maps.append(np.zeros((0, 0), np.float32))
            whole = self._maps[number]
            rows, columns = max(whole.shape[0], row + h), max(whole.shape[1], column + w)
            if whole.shape != (rows, columns):
                whole = np.pad(whole, ((0, rows - whole.shape[0]), (0, columns - whole.shape[1])))
                self._maps[number] = whole
            np.copyto(whole[row : row + h, column : column + w], one, where=speaks)

    def stacked(self) -> Floats:
        """``(N, h, w)`` of all; a smaller picture's ends in zeros."""
        rows, columns = (max(one.shape[axis] for one in self._maps) for axis in (0, 1))
        found: Floats = np.zeros((len(self._maps), rows, columns), np.float32)
        for place, one in zip(found, self._maps, strict=True):
            place[: one.shape[0], : one.shape[1]] = one
        return found


def _batch(held: Sequence[tuple[int, Piece, Bools]]) -> Batch:
    return Batch(
        np.stack([piece.image for _, piece, _ in held]),
        np.array([number for number, _, _ in held], np.int32),
        np.array([(piece.row, piece.column) for _, piece, _ in held], np.int32),
        np.stack([speaks for _, _, speaks in held]),
    )
