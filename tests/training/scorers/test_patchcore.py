"""The nearest normal as a convolution and a minimum, against a search through all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge_sdk.errors import RangeError
from tests.training.scorers.test_gaussian import CHANNELS, STRIDES, stages
from training.scorers import patchcore
from training.scorers.embedding import joined_maps
from training.scorers.gaussian import orthogonal
from training.scorers.patchcore import FLOOR, PatchCoreFit, PatchCoreHead, greedy_coreset


def fitted(pictures: int, bank: int, rank: int = 12) -> tuple[PatchCoreHead, np.ndarray]:
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=rank, bank=bank)
    rows = joined_maps(stages(pictures), STRIDES, 8)
    flat = rows.permute(0, 2, 3, 1).reshape(-1, 12).double()
    fit = PatchCoreFit(head, 1 / flat.std(dim=0), flat.mean(dim=0), seed=3)
    fit.see(rows)
    fit.finish()
    with torch.no_grad():
        normals = head.joined(stages(pictures)).permute(0, 2, 3, 1).reshape(-1, rank).numpy()
    return head, normals


@pytest.mark.parametrize("rank", [12, 5])
def test_it_is_the_exact_nearest_neighbour(rank: int) -> None:
    head, normals = fitted(4, bank=96, rank=rank)  # all 4 x 24 places
    others = stages(2, seed=110)
    with torch.no_grad():
        found = head(others)[:, 0].numpy()
        asked = head.joined(others).permute(0, 2, 3, 1).numpy()
    nearest = np.sqrt(((asked[..., None, :] - normals) ** 2).sum(axis=-1).min(axis=-1) + FLOOR)
    np.testing.assert_allclose(found, nearest, rtol=1e-3)


def test_a_normal_of_the_bank_lies_at_the_floor() -> None:
    head, _ = fitted(3, bank=72)
    with torch.no_grad():
        assert float(head(stages(3)).max()) < 0.02


def test_the_coreset_adds_the_farthest_each_time() -> None:
    rows = torch.randn(60, 4, generator=torch.Generator().manual_seed(111))
    found = greedy_coreset(rows, 12, seed=5).tolist()
    chosen = [found[0]]
    small = rows.numpy() @ orthogonal(4, 32, seed=5).numpy()
    while len(chosen) < 12:
        off = ((small[:, None] - small[chosen][None]) ** 2).sum(axis=2).min(axis=1)
        chosen.append(int(off.argmax()))
    assert found == chosen


def test_no_more_is_chosen_than_there_is_and_equal_rows_do_no_harm() -> None:
    assert sorted(greedy_coreset(torch.zeros(5, 3), 9, seed=0).tolist()) == [0, 1, 2, 3, 4]


def test_the_same_seed_gives_the_same_bank() -> None:
    first, _ = fitted(5, bank=10)
    second, _ = fitted(5, bank=10)
    assert torch.equal(first.bank.weight, second.bank.weight)


def test_memory_stays_bounded_however_many_normals_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchcore, "POOL", 50)
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=8)
    fit = PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3)
    for seed in range(6):
        fit.see(joined_maps(stages(3, seed=seed), STRIDES, 8))
        assert len(fit._kept) == min(50, 72 * (seed + 1))
    fit.finish()


def test_no_normal_is_refused() -> None:
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=8)
    with pytest.raises(RangeError, match="no normal was seen"):
        PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3).finish()
