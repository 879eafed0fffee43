"""Normal features as a Gaussian, its distance as a convolution and a sum of squares.

With features ``f(p)`` in R^D of a place ``p``, each channel divided by its standard deviation on the normals, their
mean ``mu`` and covariance ``S``, and ``Q`` ``(D, d)`` with orthonormal columns:

    z(p) = L^-1 Q^T (f(p) - mu),  L L^T = Q^T (S + 0.01 I) Q,  M(p) = sqrt(|z(p)|^2 / d)

which for ``Q = I`` is the Mahalanobis distance over ``sqrt(D)``, so that normals lie near 1 whatever D.  The division
comes before the square: FP16 overflows above 256^2.

    shared      one mu and S for all places: right for webs and textures, whatever lies where
    block       mu and S of each 2 x 2 cells: what always lies alike is told apart, what lies anyhow is still learned
    position    mu(p) and S(p): right for parts that always lie alike
    diagonal    as position, with S(p) diagonal, at a d-th of the memory

A normal of a place is seen once a picture, so ``position`` needs many pictures or a small ``d``.  ``block`` sees
``n = 4`` cells a picture, at a quarter of the memory, and its covariance is drawn towards that of all places by as many
cells as there are dimensions, so that few pictures give nearly ``shared``:

    S_block = (n S_cells + d S_all) / (n + d)

Reference:
    Defard, Setkov, Loesch and Audigier, PaDiM: a patch distribution modeling framework for anomaly detection and
    localization, ICPR 2021, eq. 1 and 2, there with d random channels; with a random orthogonal Q: Kim, Kim, Yi and
    Lee, Semi-orthogonal embedding for efficient unsupervised anomaly segmentation, 2021.  Shared: Rippel, Mertens and
    Merhof, Modeling the distribution of normal data in pre-trained deep features for anomaly detection, ICPR 2020.
    Towards the pooled covariance: Friedman, Regularized discriminant analysis, JASA 1989, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError, RangeError
from training.scorers.embedding import Joined

__all__ = ["Covariance", "GaussianFit", "GaussianHead", "orthogonal", "whitening"]

Covariance = Literal["shared", "block", "position", "diagonal"]
BLOCK = 2
"""Cells a side of a block."""
RIDGE = 0.01
"""Added to the covariance of channels of unit variance (PaDiM, section III.B)."""


class GaussianHead(nn.Module):
    """Stages of a trunk to ``M``, ``(N, 1, h, w)``; no branch depends on the data.

    Args:
        channels: Of each stage.
        strides: Of each stage.
        stride: Of the grid.
        grid: ``(h, w)``.
        rank: d.
        covariance: Whose the covariance is.
    """

    mean: Tensor
    """``(1, d, h, w)`` of all but ``shared``, of what ``joined`` gives."""
    scale: Tensor
    """``(1, d, h, w)`` of ``diagonal``: one over standard deviation and ``sqrt(d)``."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        *,
        stride: int,
        grid: tuple[int, int],
        rank: int,
        covariance: Covariance = "shared",
    ) -> None:
        super().__init__()
        self.covariance, self.grid, self.rank = covariance, grid, rank
        self.joined = Joined(channels, strides, stride=stride, width=rank)
        if covariance not in get_args(Covariance):
            raise ConfigError(f"covariance is {covariance!r}; give shared, block, position or diagonal")
        self.side = BLOCK if covariance == "block" else 1
        if grid[0] % self.side or grid[1] % self.side:
            raise ConfigError(
                f"the grid is {grid[0]} x {grid[1]} cells; blocks are {BLOCK} x {BLOCK}, so give an input with an even "
                "number of cells a side"
            )
        if covariance != "shared":
            self.register_buffer("mean", torch.zeros(1, rank, *grid))
        if covariance == "diagonal":
            self.register_buffer("scale", torch.ones(1, rank, *grid))
        if covariance in ("block", "position"):
            # one group a place: a grouped convolution rounds each place's rows by themselves, a MatMul would not
            places = grid[0] * grid[1] // self.side**2
            self.whiten = nn.Conv2d(places * rank, places * rank, 1, groups=places, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        z: Tensor = self.joined(maps)
        if self.covariance == "shared":
            return (z * z).sum(dim=1, keepdim=True).sqrt()
        z = z - self.mean
        if self.covariance == "diagonal":
            z = z * self.scale
            return (z * z).sum(dim=1, keepdim=True).sqrt()
        (h, w), d, b = self.grid, self.rank, self.side
        blocks = z.reshape(-1, d, h // b, b, w // b, b).permute(0, 2, 4, 1, 3, 5)
        z = self.whiten(blocks.reshape(-1, h * w * d // b**2, b, b)).reshape(-1, h // b, w // b, d, b, b)
        return (z * z).sum(dim=3).sqrt().permute(0, 1, 3, 2, 4).reshape(-1, 1, h, w)


class GaussianFit:
    """Means and covariances of normals, in one pass and without keeping a picture.

    Args:
        head: To fill.
        scale: ``(D,)`` one over each channel's standard deviation.
        seed: Of ``Q``.
    """

    def __init__(self, head: GaussianHead, scale: Tensor, *, seed: int) -> None:
        self._head, self._scale = head, scale.double()
        width = len(scale)
        self._shared = head.covariance == "shared"
        self._q = orthogonal(width, head.rank, seed=seed)
        (h, w), b = head.grid, head.side
        places, inner = (1, width) if self._shared else (h * w // b**2, head.rank)
        self._count = torch.zeros(places, 1, dtype=torch.float64)
        self._sum = torch.zeros(places, inner, dtype=torch.float64)
        square = (places, inner) if head.covariance == "diagonal" else (places, inner, inner)
        self._squares = torch.zeros(*square, dtype=torch.float64)
        # sums of squares lose digits when the mean is large, so they are taken about the first picture's mean
        self._about: Tensor | None = None

    def see(self, maps: Tensor, speaks: Tensor | None = None) -> None:
        """Normals, ``(N, D, h, w)`` of ``joined_maps``; of tiles ``(N, h, w)`` which cells count, else all do."""
        rows = (maps.double() * self._scale[:, None, None]).permute(0, 2, 3, 1)
        if not self._shared:
            rows = rows @ self._q
        counted = torch.ones_like(rows[..., :1]) if speaks is None else speaks[..., None].to(rows.dtype)
        if self._about is None:
            self._about = rows.mean(dim=(0, 1, 2))
        rows = (rows - self._about) * counted
        self._count += self._by_place(counted).sum(dim=1)
        cells = self._by_place(rows)
        self._sum += cells.sum(dim=1)
        if self._head.covariance == "diagonal":
            self._squares += (cells * cells).sum(dim=1)
        else:
            self._squares += cells.mT @ cells

    def _by_place(self, rows: Tensor) -> Tensor:
        """``(N, h, w, d)`` to ``(places, n, d)``."""
        (n, h, w, d), b = rows.shape, self._head.side
        if self._shared:
            return rows.reshape(1, -1, d)
        return rows.reshape(n, h // b, b, w // b, b, d).permute(1, 3, 0, 2, 4, 5).reshape(-1, n * b * b, d)

    def finish(self) -> None:
        """Put what was seen into the head.

        Raises:
            RangeError: Nothing was seen, or features do not vary at all.
        """
        head, q = self._head, self._q
        n = self._count
        if not n.any() or self._about is None:
            raise RangeError("no normal was seen; give at least one picture of a good part")
        d = head.rank
        # where no tile spoke in a place, all places speak for it
        whole, square = self._sum.sum(dim=0) / n.sum(), self._squares.sum(dim=0) / n.sum()
        if self._shared:
            weight = whitening(q.T @ (square - torch.outer(whole, whole)) @ q) @ q.T / d**0.5
            _fill(head.joined, weight, -weight @ (whole + self._about), self._scale)
            return
        mean = torch.where(n > 0, self._sum / n.clamp(min=1), whole)
        if head.covariance != "diagonal":
            n = n[:, :, None]
        squares = torch.where(n > 0, self._squares / n.clamp(min=1), square)
        _fill(head.joined, q.T, torch.zeros(d, dtype=torch.float64), self._scale)
        with torch.no_grad():
            head.mean.copy_(self._on_grid(mean + self._about))
            if head.covariance == "diagonal":
                variance = (squares - mean * mean).clamp(min=0) + RIDGE
                head.scale.copy_(self._on_grid(variance.rsqrt() / d**0.5))
                return
            covariance = squares - mean[:, :, None] * mean[:, None, :]
            if head.covariance == "block":
                covariance = (n * covariance + d * (square - torch.outer(whole, whole))) / (n + d)
            head.whiten.weight.copy_((whitening(covariance) / d**0.5).reshape(-1, d, 1, 1))

    def _on_grid(self, values: Tensor) -> Tensor:
        """``(places, d)`` to ``(1, d, h, w)``, each cell as its block."""
        (h, w), b = self._head.grid, self._head.side
        blocks = values.T.reshape(1, -1, h // b, w // b)
        return blocks.repeat_interleave(b, dim=2).repeat_interleave(b, dim=3)


def whitening(covariance: Tensor) -> Tensor:
    """``L^-1`` with ``L L^T = covariance + 0.01 I``; of a singular covariance too.

    Args:
        covariance: ``(..., d, d)`` symmetric.
    """
    d = covariance.shape[-1]
    identity = torch.eye(d, dtype=covariance.dtype)
    lower = torch.linalg.cholesky((covariance + covariance.mT) / 2 + RIDGE * identity)
    found: Tensor = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
    return found


def orthogonal(width: int, rank: int, *, seed: int) -> Tensor:
    """``Q`` ``(width, rank)`` with orthonormal columns, float64; the identity where nothing is left out."""
    if rank >= width:
        return torch.eye(width, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(width, rank, generator=generator, dtype=torch.float64)
    found, upper = torch.linalg.qr(drawn)
    oriented: Tensor = found * torch.diagonal(upper).sign()
    return oriented


def _fill(joined: Joined, weight: Tensor, bias: Tensor, scale: Tensor) -> None:
    joined.set_linear((weight * scale[None]).float(), bias.float())
