"""Contrastive losses against loops written from their equations, and what they must not do."""

from __future__ import annotations

import importlib
import importlib.util
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.requirements import need
from training.losses.contrastive import contrastive_loss, triplet_loss

TAU = 0.1


def drawn(count: int = 12, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows: a third each of the original line's normals and defects and of the new line's normals."""
    chance = torch.Generator().manual_seed(seed)
    rows = F.normalize(torch.randn(count, 8, dtype=torch.float64, generator=chance), dim=1).requires_grad_()
    kind = torch.arange(count) % 3
    return rows, kind == 1, (kind == 2).long()


def slow(rows: Tensor, defective: Tensor, line: Tensor, *, cross_only: bool = False) -> float:
    found = []
    for i in range(len(rows)):
        same = [j for j in range(len(rows)) if j != i and defective[j] == defective[i]]
        positive, below = same, [j for j in range(len(rows)) if j != i]
        if cross_only and any(line[j] != line[i] for j in same):
            positive = [j for j in same if line[j] != line[i]]
            below = [j for j in below if defective[j] != defective[i] or line[j] != line[i]]
        if not positive:
            continue
        total = sum(math.exp((rows[i] @ rows[a]).item() / TAU) for a in below)
        each = [math.log(math.exp((rows[i] @ rows[p]).item() / TAU) / total) for p in positive]
        found.append(-sum(each) / len(positive))
    return sum(found) / max(len(found), 1)


@pytest.mark.parametrize("cross_only", [False, True])
def test_contrast_agrees_with_the_printed_equation(cross_only: bool) -> None:
    for seed in range(3):
        rows, defective, line = drawn(seed=seed)
        found = contrastive_loss(rows, defective, line, cross_only=cross_only).item()
        assert found == pytest.approx(slow(rows, defective, line, cross_only=cross_only), abs=1e-9)


def test_contrast_agrees_with_another_implementation() -> None:
    need("pytorch-metric-learning", found=importlib.util.find_spec("pytorch_metric_learning") is not None)
    metric = importlib.import_module("pytorch_metric_learning.losses")
    rows, defective, line = drawn(30)
    other = metric.SupConLoss(temperature=TAU)(rows, defective.long())
    assert contrastive_loss(rows, defective, line).item() == pytest.approx(other.item(), abs=1e-5)


def test_normals_of_both_lines_attract_and_defects_repel_both() -> None:
    rows, defective, line = drawn()
    (slope,) = torch.autograd.grad(contrastive_loss(rows, defective, line), rows)
    nudged = (rows - 1e-2 * slope).detach()
    kind = torch.where(defective, 1, 2 * line)

    def mean(of: Tensor, one: int, other: int) -> float:
        return float((of[kind == one] @ of[kind == other].T).mean())

    before, after = rows.detach(), F.normalize(nudged, dim=1)
    assert mean(after, 0, 2) > mean(before, 0, 2)
    assert mean(after, 1, 0) < mean(before, 1, 0)
    assert mean(after, 1, 2) < mean(before, 1, 2)


def test_a_row_without_a_positive_contributes_nothing() -> None:
    rows, _, line = drawn(6)
    alone = torch.tensor([False, True, False, False, False, False])
    (slope,) = torch.autograd.grad(contrastive_loss(rows, alone, line), rows)
    assert torch.isfinite(slope).all()
    assert contrastive_loss(rows, alone, line).item() == pytest.approx(slow(rows, alone, line), abs=1e-9)


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_to_contrast_is_zero_with_a_graph(count: int) -> None:
    rows, _, line = drawn(count)
    apart = torch.arange(count) == 1
    for loss in (contrastive_loss(rows, apart, line), triplet_loss(rows, apart)):
        assert float(loss.detach()) == 0
        (slope,) = torch.autograd.grad(loss, rows)
        assert (slope == 0).all()


def test_equal_rows_give_finite_losses_and_slopes() -> None:
    _, defective, line = drawn()
    rows = F.normalize(torch.ones(12, 8), dim=1).requires_grad_()
    for loss in (contrastive_loss(rows, defective, line), triplet_loss(rows, defective)):
        (slope,) = torch.autograd.grad(loss, rows, retain_graph=True)
        assert torch.isfinite(loss)
        assert torch.isfinite(slope).all()


def test_triplets_agree_with_the_printed_equation() -> None:
    rows, defective, _ = drawn(9)
    margin, found = 0.2, []
    for i in range(9):
        far = max((rows[i] - rows[p]).norm().item() for p in range(9) if p != i and defective[p] == defective[i])
        near = min((rows[i] - rows[n]).norm().item() for n in range(9) if defective[n] != defective[i])
        found.append(max(0.0, margin + far - near))
    assert triplet_loss(rows, defective, margin=margin).item() == pytest.approx(sum(found) / 9, abs=1e-9)
