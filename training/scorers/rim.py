"""What a picture's border adds to distances there, taken off again.

A convolution near the border looks at zeros beside the picture, and a part's own edge is cut by the picture's, a little
elsewhere each time.  So even good parts are strangest at the border, a picture's highest place lies there, and a defect
inside must be stranger than all of it to be seen.  With the rings ``r = 0, 1, ...`` of cells about the interior and
``q_r`` the 0.99 quantile of normal distances in ring ``r``,

    M'(p) = M(p) / max(1, q_r(p) / q_interior)

is the distance in units of what is usual so near to the border; nothing is ever enlarged.  It is a product with a
constant map, so it exports as it is.

Reference:
    The effect: Alsallakh, Kokhlikyan, Miglani, Yuan and Reblitz-Richardson, Mind the pad: CNNs can develop blind spots,
    ICLR 2021, section 3.  The remedy is ours.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edge_sdk.arrays import Array, Bools, Floats

__all__ = ["Rim", "rim_of", "rings"]

USUAL = 0.99
"""Quantile of normal distances in a ring: a picture is judged by its highest places, so the middle ones say little."""


class Rim(nn.Module):
    """Distances ``(N, 1, h, w)`` times ``share``, which is 1 until it is set.

    Args:
        grid: ``(h, w)``.
        count: Rings about the interior.
    """

    share: Tensor
    """``(1, 1, h, w)`` in (0, 1]."""

    def __init__(self, grid: tuple[int, int], count: int) -> None:
        super().__init__()
        self.count = count
        self.register_buffer("share", torch.ones(1, 1, *grid))

    def forward(self, distances: Tensor) -> Tensor:
        return distances * self.share

    def set_from(self, maps: Floats, speaks: Bools | None = None) -> None:
        """Learn it from normals' distances, ``(N, h, w)``, as they are without it; see ``rim_of``."""
        self.share.copy_(torch.from_numpy(rim_of(maps, self.count, speaks))[None, None])


def rings(grid: tuple[int, int], count: int) -> Array:
    """``(h, w)`` of each cell how many lie between it and the nearest border, at most ``count``: the interior.

    There are fewer rings where they would leave no interior.
    """
    rows, columns = (np.minimum(np.arange(size), np.arange(size)[::-1]) for size in grid)
    depth = np.minimum(rows[:, None], columns[None, :])
    return np.asarray(np.minimum(depth, min(count, int(depth.max()))))


def rim_of(maps: Floats, count: int, speaks: Bools | None = None) -> Floats:
    """``(h, w)`` float32 in (0, 1]: what to multiply distances with.

    Args:
        maps: ``(N, h, w)`` distances of normals, N at least 1.
        count: Rings about the interior, 0 for none.
        speaks: ``(N, h, w)`` of tiles the cells that count; without it all do.  Where some do not, a side is the
            picture's own in some tiles and a seam in others, or has padding behind it, so each is measured apart.
    """
    ring = rings((maps.shape[1], maps.shape[2]), count)
    if speaks is None:
        speaks = np.ones(maps.shape, bool)
    if not speaks.all():
        ring = np.where(ring < ring.max(), 4 * ring + _sides(ring.shape), 4 * ring.max())
    found: Floats = np.ones(ring.shape, np.float32)
    inside = maps[:, ring == ring.max()][speaks[:, ring == ring.max()]]
    usual = float(np.quantile(inside, USUAL)) if inside.size else 0.0
    for r in np.unique(ring[ring < ring.max()]):
        there = maps[:, ring == r][speaks[:, ring == r]]
        if usual > 0 and there.size:
            found[ring == r] = 1 / max(1.0, float(np.quantile(there, USUAL)) / usual)
    return found


def _sides(grid: tuple[int, ...]) -> Array:
    """``(h, w)`` which side is nearest: 0 top, 1 bottom, 2 left, 3 right."""
    rows, columns = np.arange(grid[0])[:, None], np.arange(grid[1])[None]
    away = np.broadcast_arrays(rows, grid[0] - 1 - rows, columns, grid[1] - 1 - columns)
    return np.asarray(np.stack(away).argmin(axis=0))
