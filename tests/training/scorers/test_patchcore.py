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
    flat = joined_maps(stages(pictures), STRIDES, 8).permute(0, 2, 3, 1).reshape(-1, 12).double()
    fit = PatchCoreFit(head, 1 / flat.std(dim=0), flat.mean(dim=0), seed=3)
    normals, parts = places(head, pictures)
    fit.see(normals, parts)
    fit.finish()
    return head, normals.numpy()


def places(head: PatchCoreHead, pictures: int, *, seed: int = 103) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of every place, and the number of the picture that each is of."""
    with torch.no_grad():
        found = head.joined(stages(pictures, seed=seed)).permute(0, 2, 3, 1)
    return found.flatten(0, 2), torch.arange(pictures).repeat_interleave(found[0, :, :, 0].numel())


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
        fit.see(*places(head, 3, seed=seed))
        assert sum(len(lots) for lots, _, _ in fit._kept) <= 62
    assert len(fit.finish()) == 8


def test_of_very_many_normals_all_have_the_same_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patchcore, "POOL", 600)
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=600)
    fit = PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3)
    for number in range(12):
        rows, _ = places(head, 5, seed=number)
        fit.see(rows, torch.full((len(rows),), number))
    counts = torch.bincount(fit.finish(), minlength=12)
    assert counts.sum() == 600 and (counts - 50).abs().max() < 25  # 4.8 standard deviations


def test_the_bank_tells_which_part_each_feature_is_of_and_can_do_without_them() -> None:
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=96)
    fit = PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3)
    normals, parts = places(head, 4)
    fit.see(normals, parts)
    of = fit.finish()
    assert torch.bincount(of).tolist() == [24] * 4
    normals, of = normals.numpy(), of.numpy()
    before = head.bank.bias
    assert before is not None
    kept = before.detach().clone()
    for own in range(4):
        with torch.no_grad(), head.without(torch.from_numpy(of == own)):
            found = head(stages(4))[own].reshape(-1).numpy()
        mine, others = normals[parts == own], normals[parts != own]
        nearest = np.sqrt(((mine[:, None] - others) ** 2).sum(axis=-1).min(axis=-1) + FLOOR)
        np.testing.assert_allclose(found, nearest, rtol=1e-3)
    with pytest.raises(ZeroDivisionError), head.without(torch.ones(96, dtype=torch.bool)):
        raise ZeroDivisionError
    assert torch.equal(kept, before)


def test_what_fades_is_the_average_over_the_middle_beside_the_picture_too() -> None:
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=8, fade=True)
    plain = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=8)
    plain.load_state_dict(head.state_dict())
    with torch.no_grad():
        faded, whole = head.joined(stages(2)), plain.joined(stages(2))
    h, w = whole.shape[2:]
    rows, columns = (torch.full((size,), 3.0) for size in (h, w))
    for sides in (rows, columns):
        sides[[0, -1]] = 2.0
    torch.testing.assert_close(faded, whole * (rows[:, None] * columns[None] / 9))


def test_no_normal_is_refused() -> None:
    head = PatchCoreHead(CHANNELS, STRIDES, stride=8, rank=12, bank=8)
    with pytest.raises(RangeError, match="no normal was seen"):
        PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3).finish()
    fit = PatchCoreFit(head, torch.ones(12), torch.zeros(12), seed=3)
    fit.see(torch.zeros(0, 12), torch.zeros(0, dtype=torch.long))
    with pytest.raises(RangeError, match="no normal was seen"):
        fit.finish()
