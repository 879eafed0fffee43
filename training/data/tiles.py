"""A picture's cells where it is cut into tiles: which tile sees which of them, and which it speaks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Image, Ints
from edge_sdk.errors import ConfigError
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, tiled
from edge_sdk.vision.tiles import pictures_of_frame

__all__ = ["Piece", "Tiles", "grid_of", "pieces_of"]


@dataclass(frozen=True, eq=False)
class Piece:
    """One input of the network: a tile, or a picture that is not cut."""

    image: Image
    """``(height, width, 3)`` uint8 of the network's input."""
    row: int
    """Of its first cell among all of the picture's."""
    column: int
    core: Bools
    """``(h, w)`` the cells that it speaks for: of all pieces together each cell once."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """Where N tiles lie in their pictures."""

    corners: Ints
    """``(N, 2)``: row and column of each one's first cell among all of its picture's."""
    cores: Bools
    """``(N, h, w)`` the cells that each speaks for: of all tiles of a picture together each cell once."""

    @staticmethod
    def of(pieces: Sequence[Piece], grid: tuple[int, int]) -> Tiles:
        """As they were cut, one after the other."""
        corners = np.array([(piece.row, piece.column) for piece in pieces], np.int32).reshape(-1, 2)
        return Tiles(corners, np.array([piece.core for piece in pieces], bool).reshape(-1, *grid))

    def taken(self, chosen: Array) -> Tiles:
        """Some of them, by number."""
        return Tiles(self.corners[chosen], self.cores[chosen])

    def joined(self, other: Tiles) -> Tiles:
        """These, then the other's."""
        return Tiles(np.concatenate([self.corners, other.corners]), np.concatenate([self.cores, other.cores]))

    def whole(self, maps: Array, of: Ints) -> list[Array]:
        """Maps of pictures from those of all their tiles.

        Args:
            maps: ``(N, K, h, w)``.
            of: ``(N,)`` the picture that each tile is of, counted from 0.

        Returns:
            Of each picture ``(K, rows, columns)``.
        """
        ends = self.corners + np.array(maps.shape[2:], np.int32)
        sizes = [ends[of == n].max(axis=0) for n in range(int(of.max(initial=-1)) + 1)]
        found = [np.zeros((maps.shape[1], *size), maps.dtype) for size in sizes]
        for n, (row, column) in enumerate(self.corners):
            there = found[of[n]][:, row : ends[n, 0], column : ends[n, 1]]
            np.copyto(there, maps[n], where=self.cores[n])
        return found

    def pieces(self, wholes: Sequence[Array], of: Ints) -> Array:
        """Maps of tiles, ``(N, K, h, w)``, from those of pictures; 0 outside a tile's core."""
        h, w = self.cores.shape[1:]
        placed = zip(of, self.corners, strict=True)
        cut = [wholes[n][:, row : row + h, column : column + w] for n, (row, column) in placed]
        return np.stack(cut) * self.cores[:, None]


def grid_of(spec: PreprocessSpec, height: int, width: int, grid: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of cells of a whole picture.

    Args:
        spec: Says whether and how pictures are cut.
        height: Of the picture, pixels.
        width: Of the picture.
        grid: ``(h, w)`` cells on the network's input.

    Raises:
        ConfigError: The cells of two tiles would not lie on each other.
    """
    if spec.tile_overlap_px is None:
        return grid
    axes = tiled(spec, height, width)
    cell = spec.height // grid[0], spec.width // grid[1]
    if grid == (1, 1) or any(start % one for axis, one in zip(axes, cell, strict=True) for start in axis.starts):
        raise ConfigError(
            f"the network judges cells of {cell[1]} x {cell[0]} pixels, whose borders do not lie alike in all "
            "tiles; leave tile_overlap_px out, or take head: cells, whose cells have 8, 16 or 32 pixels"
        )
    return axes[0].total // cell[0], axes[1].total // cell[1]


def pieces_of(image: Image, spec: PreprocessSpec, grid: tuple[int, int]) -> Iterator[Piece]:
    """What the network sees of a picture, piece by piece, as the station cuts it.

    Raises:
        ConfigError: As of ``grid_of``.
        DefectErased: The resize would erase the smallest defect that must be seen.
    """
    if spec.tile_overlap_px is None:
        yield Piece(fitted(image, spec), 0, 0, np.ones(grid, bool))
        return
    height, width = image.shape[:2]
    grid_of(spec, height, width, grid)
    down, across = tiled(spec, height, width)
    cell = spec.height // grid[0], spec.width // grid[1]
    tops, lefts = down.cores(cell[0]), across.cores(cell[1])
    for tile, picture in pictures_of_frame(image, spec):
        row, column = tile.top // cell[0], tile.left // cell[1]
        core = np.zeros(grid, bool)
        rows = slice(tops[tile.row] - row, tops[tile.row + 1] - row)
        core[rows, lefts[tile.column] - column : lefts[tile.column + 1] - column] = True
        yield Piece(picture, row, column, core)
