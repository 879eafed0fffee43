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

from edge_sdk.arrays import Array, Floats

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

    def set_from(self, maps: Floats) -> None:
        """Learn it from normals' distances, ``(N, h, w)``, as they are without it."""
        self.share.copy_(torch.from_numpy(rim_of(maps, self.count))[None, None])


def rings(grid: tuple[int, int], count: int) -> Array:
    """``(h, w)`` of each cell how many lie between it and the nearest border, at most ``count``: the interior.

    There are fewer rings where they would leave no interior.
    """
    rows, columns = (np.minimum(np.arange(size), np.arange(size)[::-1]) for size in grid)
    depth = np.minimum(rows[:, None], columns[None, :])
    return np.asarray(np.minimum(depth, min(count, int(depth.max()))))


def rim_of(maps: Floats, count: int) -> Floats:
    """``(h, w)`` float32 in (0, 1]: what to multiply distances with.

    Args:
        maps: ``(N, h, w)`` distances of normals, N at least 1.
        count: Rings about the interior, 0 for none.
    """
    ring = rings((maps.shape[1], maps.shape[2]), count)
    usual = np.array([np.quantile(maps[:, ring == r], USUAL) for r in range(int(ring.max()) + 1)])
    over = usual / usual[-1] if usual[-1] > 0 else np.ones_like(usual)
    found: Floats = (1 / np.maximum(1, over))[ring].astype(np.float32)
    return found
