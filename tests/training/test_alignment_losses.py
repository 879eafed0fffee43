"""The losses that align two lines, against slow versions written from their equations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.losses.adversarial import Discriminator, discriminator_loss, mapping_loss
from training.losses.correlation import coral
from training.losses.discrepancy import FACTORS, mmd
from training.losses.rows import pooled_rows

seeds = st.integers(0, 10_000)


def drawn(seed: int, n: int = 5, m: int = 7, width: int = 4) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=chance), 1 + 2 * torch.randn(m, width, generator=chance)


def printed_mmd(here: list[list[float]], there: list[list[float]]) -> float:
    """Pair by pair, as in Gretton et al., eq. 5."""
    unit = [[x / math.sqrt(sum(y * y for y in row)) for x in row] for row in here + there]
    n, count = len(here), len(here) + len(there)

    def apart(i: int, j: int) -> float:
        return sum((a - b) ** 2 for a, b in zip(unit[i], unit[j], strict=True))

    width = sum(apart(i, j) for i in range(count) for j in range(count) if i != j) / (count * (count - 1))

    def kernel(i: int, j: int) -> float:
        return sum(math.exp(-apart(i, j) / (factor * width)) for factor in FACTORS) / len(FACTORS)

    old, new = range(n), range(n, count)
    within = sum(kernel(i, j) for i in old for j in old) / n**2
    within += sum(kernel(i, j) for i in new for j in new) / (count - n) ** 2
    return within - 2 * sum(kernel(i, j) for i in old for j in new) / (n * (count - n))


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_discrepancy_agrees_with_the_printed_equation(seed: int) -> None:
    here, there = drawn(seed)
    assert mmd(here, there).item() == pytest.approx(printed_mmd(here.tolist(), there.tolist()), rel=1e-3, abs=1e-5)


def test_the_same_rows_have_no_discrepancy_and_others_pull() -> None:
    here, there = drawn(1)
    assert abs(mmd(here, here).item()) < 1e-6
    there.requires_grad_()
    before = mmd(here, there)
    before.backward()
    assert there.grad is not None
    assert mmd(here, there.detach() - 0.5 * there.grad).item() < before.item()
    assert mmd(here, torch.zeros(3, 4)).isfinite()


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_the_correlation_agrees_with_the_printed_equation(seed: int) -> None:
    here, there = drawn(seed)

    def covariance(rows: Tensor) -> np.ndarray:
        x, n = rows.double().numpy(), len(rows)
        ones = np.ones((1, n))
        return np.asarray((x.T @ x - (ones @ x).T @ (ones @ x) / n) / (n - 1))

    wanted = float(((covariance(here) - covariance(there)) ** 2).sum() / (4 * 4**2))
    assert coral(here, there).item() == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_a_shifted_mean_is_no_difference_of_correlation() -> None:
    here, _ = drawn(2)
    assert coral(here, here + 3).item() == pytest.approx(0, abs=1e-6)
    assert coral(here, 2 * here).item() > 0.1


def test_addas_losses_agree_with_the_printed_equations() -> None:
    torch.manual_seed(0)
    discriminator = Discriminator(3)
    here, there = torch.randn(2, 3, 2, 2), torch.randn(3, 3, 2, 2)

    def judged(maps: Tensor) -> list[float]:
        return [1 / (1 + math.exp(-logit)) for logit in discriminator(maps).flatten().tolist()]

    of_original = -sum(math.log(d) for d in judged(here)) / 8
    of_new = -sum(math.log(1 - d) for d in judged(there)) / 12
    assert discriminator_loss(discriminator, here, there).item() == pytest.approx(of_original + of_new, rel=1e-5)
    inverted = -sum(math.log(d) for d in judged(there)) / 12
    assert mapping_loss(discriminator, there).item() == pytest.approx(inverted, rel=1e-5)


def test_each_of_addas_losses_teaches_its_own_side_alone() -> None:
    discriminator = Discriminator(3)
    here = torch.randn(2, 3, 1, 1, requires_grad=True)
    there = torch.randn(2, 3, 1, 1, requires_grad=True)
    discriminator_loss(discriminator, here, there).backward()
    assert here.grad is None and there.grad is None
    learnt = [parameter.grad.clone() for parameter in discriminator.parameters() if parameter.grad is not None]
    assert len(learnt) == 6 and all(gradient.any() for gradient in learnt[::2])
    mapping_loss(discriminator, there).backward()
    assert there.grad is not None and there.grad.any()
    after = [parameter.grad for parameter in discriminator.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(learnt, after, strict=True) if other is not None)


def test_the_original_line_is_one_and_the_encoder_wants_to_be_it() -> None:
    sure = nn.Conv2d(1, 1, 1)
    nn.init.constant_(sure.weight, 5.0)
    nn.init.zeros_(sure.bias)  # type: ignore[arg-type]
    high, low = torch.ones(1, 1, 1, 1), -torch.ones(1, 1, 1, 1)
    assert discriminator_loss(sure, high, low).item() < 0.1 < discriminator_loss(sure, low, high).item()
    assert mapping_loss(sure, high).item() < 0.1 < mapping_loss(sure, low).item()


def test_the_discriminator_normalises_nothing_by_its_batch() -> None:
    layers = [type(layer).__name__ for layer in Discriminator(8)]
    assert layers == ["Conv2d", "LeakyReLU", "Conv2d", "LeakyReLU", "Conv2d"]
    assert [layer.out_channels for layer in Discriminator(8) if isinstance(layer, nn.Conv2d)] == [128, 128, 1]
    one, both = torch.randn(1, 8, 1, 1), torch.randn(3, 8, 1, 1)
    judge = Discriminator(8).train()
    assert torch.allclose(judge(torch.cat([one, both]))[:1], judge(one), atol=1e-6)


def test_a_row_is_the_mean_over_places() -> None:
    maps = torch.arange(16.0).reshape(2, 2, 2, 2)
    assert pooled_rows(maps).tolist() == [[1.5, 5.5], [9.5, 13.5]]
