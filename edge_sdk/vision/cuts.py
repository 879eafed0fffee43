"""Where the tiles of a frame lie along one axis, and which of them speaks for a place."""

from __future__ import annotations

from dataclasses import dataclass

from edge_sdk.errors import RangeError

__all__ = ["STEP", "Cuts", "cuts"]

STEP = 32
"""Tiles begin at multiples of so many pixels, so that cells of 8, 16 or 32 pixels lie alike in all of them."""


@dataclass(frozen=True)
class Cuts:
    """The tiles of one axis; every pixel lies in one or more of them and in exactly one's core."""

    starts: tuple[int, ...]
    """First pixel of each tile, ascending; the first is 0."""
    tile: int
    """Pixels a tile."""

    @property
    def total(self) -> int:
        """Pixels from the first tile's begin to the last one's end; what lies behind the picture is padding."""
        return self.starts[-1] + self.tile

    def cores(self, unit: int = 1) -> tuple[int, ...]:
        """The edges of the cores, in units: tile ``i`` speaks for ``[edges[i], edges[i + 1])``.

        A core ends in the middle of what two tiles share, where both see equally far around it.

        Args:
            unit: Pixels a unit; cores end between two units.
        """
        shared = zip(self.starts[1:], self.starts, strict=False)
        inner = ((following + before + self.tile) // 2 // unit for following, before in shared)
        return (0, *inner, self.total // unit)


def cuts(length: int, tile: int, overlap: int) -> Cuts:
    """Spread as few tiles as will do evenly over a length.

    Args:
        length: Of the picture, pixels, 1 or more.
        tile: Side of the network's input, pixels.
        overlap: Pixels that neighbours share at least.

    Raises:
        RangeError: So large an overlap leaves no room to go on.
    """
    if length <= tile:
        return Cuts((0,), tile)
    stride = (tile - overlap) // STEP * STEP
    if stride < STEP:
        raise RangeError(
            f"tile_overlap_px is {overlap} on an input of {tile}; give at most {max(0, tile - STEP)}, or a larger input"
        )
    last = -(-(length - tile) // STEP)
    gaps = -(-last * STEP // stride)
    return Cuts(tuple(n * last // gaps * STEP for n in range(gaps + 1)), tile)
