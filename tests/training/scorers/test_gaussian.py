"""Normal features as a Gaussian, against the formula written out."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from edge_sdk.errors import ConfigError, RangeError
from training.scorers.embedding import joined_maps
from training.scorers.gaussian import RIDGE, Covariance, GaussianFit, GaussianHead, orthogonal, whitening

CHANNELS, STRIDES, GRID = (3, 5, 4), (4, 8, 16), (4, 6)


def stages(pictures: int, seed: int = 103) -> list[Tensor]:
    """Maps of three stages whose channels hang together and differ in size."""
    generator = torch.Generator().manual_seed(seed)
    maps = []
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        side = (GRID[0] * 8 // stride, GRID[1] * 8 // stride)
        noise = torch.randn(pictures, channels, *side, generator=generator)
        mix = torch.randn(channels, channels, generator=generator)
        maps.append(torch.einsum("nchw,dc->ndhw", noise, mix) * stride + 3 * stride)
    return maps


def fitted(maps: list[Tensor], covariance: Covariance, rank: int, *, batch: int = 100) -> tuple[GaussianHead, Tensor]:
    head = GaussianHead(CHANNELS, STRIDES, stride=8, grid=GRID, rank=rank, covariance=covariance)
    rows = joined_maps(maps, STRIDES, 8)
    scale = 1 / rows.permute(0, 2, 3, 1).reshape(-1, 12).double().std(dim=0, correction=0)
    fit = GaussianFit(head, scale, seed=7)
    for piece in torch.split(rows, batch):
        fit.see(piece)
    fit.finish()
    return head, scale


def slowly(maps: list[Tensor], normals: list[Tensor], scale: Tensor, covariance: Covariance, rank: int) -> np.ndarray:
    """Mahalanobis place by place, with an explicit inverse."""
    q = orthogonal(12, rank, seed=7).numpy()
    known = (joined_maps(normals, STRIDES, 8).double() * scale[:, None, None]).permute(0, 2, 3, 1).numpy()
    asked = (joined_maps(maps, STRIDES, 8).double() * scale[:, None, None]).permute(0, 2, 3, 1).numpy()
    found = np.zeros(asked.shape[:3])
    for y in range(GRID[0]):
        for x in range(GRID[1]):
            rows = {
                "shared": known,
                "block": known[:, y // 2 * 2 :, x // 2 * 2 :][:, :2, :2],
            }.get(covariance, known[:, y, x]).reshape(-1, 12)
            rows = rows @ q
            centre = rows.mean(axis=0)
            spread = (rows - centre).T @ (rows - centre) / len(rows)
            if covariance == "block":
                whole = known.reshape(-1, 12) @ q
                off = whole - whole.mean(axis=0)
                spread = (len(rows) * spread + rank * off.T @ off / len(whole)) / (len(rows) + rank)
            if covariance == "diagonal":
                spread = np.diag(np.diag(spread))
            inverse = np.linalg.inv(spread + RIDGE * np.eye(rank))
            for n in range(len(asked)):
                off = asked[n, y, x] @ q - centre
                found[n, y, x] = np.sqrt(off @ inverse @ off / rank)
    return found


@pytest.mark.parametrize("covariance", get_args(Covariance))
@pytest.mark.parametrize("rank", [12, 5])
def test_the_convolution_is_the_mahalanobis_distance(covariance: Covariance, rank: int) -> None:
    normals, others = stages(30), stages(3, seed=104)
    head, scale = fitted(normals, covariance, rank)
    with torch.no_grad():
        found = head(others)[:, 0].numpy()
    np.testing.assert_allclose(found, slowly(others, normals, scale, covariance, rank), rtol=2e-4)


@pytest.mark.parametrize("covariance", get_args(Covariance))
def test_how_the_pictures_come_in_batches_changes_nothing(covariance: Covariance) -> None:
    normals, others = stages(12), stages(2, seed=105)
    whole, _ = fitted(normals, covariance, 6)
    pieces, _ = fitted(normals, covariance, 6, batch=5)
    with torch.no_grad():
        torch.testing.assert_close(whole(others), pieces(others), rtol=1e-5, atol=1e-6)


def test_normals_lie_near_one() -> None:
    maps = stages(50)
    head, _ = fitted([one[:40] for one in maps], "shared", 12)
    with torch.no_grad():
        assert 0.8 < float(head([one[40:] for one in maps]).median()) < 1.2


@pytest.mark.parametrize("covariance", get_args(Covariance))
def test_one_normal_and_a_singular_covariance_give_finite_distances(covariance: Covariance) -> None:
    head, _ = fitted(stages(1), covariance, 12)
    with torch.no_grad():
        assert torch.isfinite(head(stages(2, seed=107))).all()


def test_a_covariance_of_zeros_is_whitened_by_the_ridge_alone() -> None:
    torch.testing.assert_close(whitening(torch.zeros(3, 3, dtype=torch.float64)), torch.eye(3).double() * 10)


def test_no_normal_is_refused() -> None:
    head = GaussianHead(CHANNELS, STRIDES, stride=8, grid=GRID, rank=12)
    with pytest.raises(RangeError, match="no normal was seen; give at least one picture of a good part"):
        GaussianFit(head, torch.ones(12), seed=0).finish()


def test_an_unknown_covariance_is_refused() -> None:
    with pytest.raises(ConfigError, match="covariance is 'tied'; give shared, block, position or diagonal"):
        GaussianHead(CHANNELS, STRIDES, stride=8, grid=GRID, rank=12, covariance="tied")  # type: ignore[arg-type]


def test_blocks_need_an_even_grid() -> None:
    with pytest.raises(ConfigError, match="the grid is 4 x 5 cells; blocks are 2 x 2, so give an input with an even"):
        GaussianHead(CHANNELS, STRIDES, stride=8, grid=(4, 5), rank=12, covariance="block")


def test_blocks_take_a_quarter_of_the_memory_of_places() -> None:
    kinds: tuple[Covariance, ...] = ("block", "position")
    block, position = (fitted(stages(6), kind, 12)[0].whiten.weight for kind in kinds)
    assert 4 * block.numel() == position.numel()


def test_of_few_pictures_blocks_keep_near_what_all_places_say() -> None:
    maps = stages(40)
    few, others = [one[:3] for one in maps], [one[3:] for one in maps]
    kinds: tuple[Covariance, ...] = ("block", "position")
    with torch.no_grad():
        usual = {kind: float(fitted(few, kind, 12)[0](others).median()) for kind in kinds}
    assert usual["block"] < 2 < 3 < usual["position"]


def test_the_projection_is_orthonormal_and_the_same_for_a_seed() -> None:
    q = orthogonal(20, 6, seed=1)
    torch.testing.assert_close(q.T @ q, torch.eye(6, dtype=torch.float64))
    assert torch.equal(q, orthogonal(20, 6, seed=1))
    assert not torch.equal(q, orthogonal(20, 6, seed=2))
