"""Normal features as a Gaussian, its distance as a convolution and a sum of squares.

With features ``f(p)`` in R^D of a place ``p``, each channel divided by its standard deviation on the normals, their
mean ``mu`` and covariance ``S``, and ``Q`` ``(D, d)`` with orthonormal columns:

    z(p) = L^-1 Q^T (f(p) - mu),  L L^T = Q^T (S + 0.01 I) Q,  M(p) = sqrt(|z(p)|^2 / d)

which for ``Q = I`` is the Mahalanobis distance over ``sqrt(D)``, so that normals lie near 1 whatever D.  The division
comes before the square: FP16 overflows above 256^2.

    shared      one mu and S for all places: right for webs and textures, whatever lies where
    position    mu(p) and S(p): right for parts that always lie alike
    diagonal    as position, with S(p) diagonal, at a d-th of the memory

A normal of a place is seen once a picture, so ``position`` needs many pictures or a small ``d``.

Reference:
    Defard, Setkov, Loesch and Audigier, PaDiM: a patch distribution modeling framework for anomaly detection and
    localization, ICPR 2021, eq. 1 and 2, there with d random channels; with a random orthogonal Q: Kim, Kim, Yi and
    Lee, Semi-orthogonal embedding for efficient unsupervised anomaly segmentation, 2021.  Shared: Rippel, Mertens and
    Merhof, Modeling the distribution of normal data in pre-trained deep features for anomaly detection, ICPR 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError, RangeError
from training.scorers.embedding import Joined

__all__ = ["Covariance", "GaussianFit", "GaussianHead", "orthogonal", "whitening"]

Covariance = Literal["shared", "position", "diagonal"]
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
    """``(1, d, h, w)`` of ``position`` and ``diagonal``, of what ``joined`` gives."""
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
        if covariance not in ("shared", "position", "diagonal"):
            raise ConfigError(f"covariance is {covariance!r}; give shared, position or diagonal")
        if covariance != "shared":
            self.register_buffer("mean", torch.zeros(1, rank, *grid))
        if covariance == "diagonal":
            self.register_buffer("scale", torch.ones(1, rank, *grid))
        if covariance == "position":
            # one group a place: a grouped convolution rounds each place's rows by themselves, a MatMul would not
            places = grid[0] * grid[1]
            self.whiten = nn.Conv2d(places * rank, places * rank, 1, groups=places, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        z: Tensor = self.joined(maps)
        if self.covariance == "shared":
            return (z * z).sum(dim=1, keepdim=True).sqrt()
        z = z - self.mean
        if self.covariance == "diagonal":
            z = z * self.scale
            return (z * z).sum(dim=1, keepdim=True).sqrt()
        (h, w), d = self.grid, self.rank
        z = self.whiten(z.permute(0, 2, 3, 1).reshape(-1, h * w * d, 1, 1)).reshape(-1, h, w, d)
        return (z * z).sum(dim=3).sqrt().reshape(-1, 1, h, w)


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
        self._pictures = 0
        places = () if self._shared else head.grid
        inner = width if self._shared else head.rank
        self._sum = torch.zeros(*places, inner, dtype=torch.float64)
        square = (*places, inner) if head.covariance == "diagonal" else (*places, inner, inner)
        self._squares = torch.zeros(*square, dtype=torch.float64)
        # sums of squares lose digits when the mean is large, so they are taken about the first picture's mean
        self._about: Tensor | None = None

    def see(self, maps: Tensor) -> None:
        """Normals, ``(N, D, h, w)`` of ``joined_maps``."""
        rows = (maps.double() * self._scale[:, None, None]).permute(0, 2, 3, 1)
        if not self._shared:
            rows = rows @ self._q
        if self._about is None:
            self._about = rows.mean(dim=(0, 1, 2))
        rows = rows - self._about
        self._pictures += len(rows)
        if self._shared:
            flat = rows.reshape(-1, rows.shape[-1])
            self._sum += flat.sum(dim=0)
            self._squares += flat.T @ flat
            return
        self._sum += rows.sum(dim=0)
        if self._head.covariance == "diagonal":
            self._squares += (rows * rows).sum(dim=0)
        else:
            self._squares += torch.einsum("nhwi,nhwj->hwij", rows, rows)

    def finish(self) -> None:
        """Put what was seen into the head.

        Raises:
            RangeError: Nothing was seen, or features do not vary at all.
        """
        head, q = self._head, self._q
        if not self._pictures or self._about is None:
            raise RangeError("no normal was seen; give at least one picture of a good part")
        d = head.rank
        if self._shared:
            n = self._pictures * head.grid[0] * head.grid[1]
            mean = self._sum / n
            covariance = self._squares / n - torch.outer(mean, mean)
            weight = whitening(q.T @ covariance @ q) @ q.T / d**0.5
            _fill(head.joined, weight, -weight @ (mean + self._about), self._scale)
            return
        n = self._pictures
        mean = self._sum / n
        _fill(head.joined, q.T, torch.zeros(d, dtype=torch.float64), self._scale)
        with torch.no_grad():
            head.mean.copy_((mean + self._about).permute(2, 0, 1)[None])
            if head.covariance == "diagonal":
                variance = (self._squares / n - mean * mean).clamp(min=0) + RIDGE
                head.scale.copy_((variance.rsqrt() / d**0.5).permute(2, 0, 1)[None])
            else:
                covariance = self._squares / n - mean[..., :, None] * mean[..., None, :]
                head.whiten.weight.copy_((whitening(covariance) / d**0.5).reshape(-1, d, 1, 1))


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
