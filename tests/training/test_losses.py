"""The losses against slow versions written from the printed equations."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from training.losses.adversarial import DomainSegmenter, adversarial_loss, ganin_weight, reverse_gradient
from training.losses.masked import masked_bce
from training.losses.supervised import picture_loss, supervised_loss

seeds = st.integers(0, 10_000)


def drawn(seed: int, *shape: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that ask for a gradient, truth, and M."""
    chance = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(*shape, generator=chance)).requires_grad_()
    truth = (torch.rand(*shape, generator=chance) < 0.3).float()
    mentored = (torch.rand(*shape, generator=chance) < 0.4).float()
    return logits, truth, mentored


def equation_4(logits: Tensor, truth: Tensor, mentored: Tensor) -> float:
    """As printed, area by area."""
    total, annotated = 0.0, 0
    for score, y, m in zip(logits.flatten().tolist(), truth.flatten(), mentored.flatten(), strict=True):
        if m:
            p = 1 / (1 + math.exp(-score))
            total += float(y) * math.log(p) + (1 - float(y)) * math.log(1 - p)
            annotated += 1
    return -total / annotated


@given(seeds)
@settings(max_examples=30, deadline=None)
def test_agrees_with_the_printed_equation(seed: int) -> None:
    logits, truth, mentored = drawn(seed, 2, 3, 4, 5)
    found = masked_bce(logits, truth, mentored).item()
    assert found == pytest.approx(equation_4(logits, truth, mentored), rel=1e-4)


def test_anchors_are_areas_too() -> None:
    logits, truth, mentored = drawn(1, 2, 9, 3)
    assert masked_bce(logits, truth, mentored).item() == pytest.approx(equation_4(logits, truth, mentored), rel=1e-4)


def test_areas_nobody_judged_pass_no_gradient() -> None:
    logits, truth, mentored = drawn(2, 2, 1, 6, 6)
    masked_bce(logits, truth, mentored).backward()
    assert logits.grad is not None
    assert (logits.grad[mentored == 0] == 0).all()
    assert (logits.grad[mentored == 1] != 0).all()


def test_a_batch_without_an_answer_gives_zero_with_a_graph() -> None:
    logits, truth, mentored = drawn(3, 2, 1, 4, 4)
    loss = masked_bce(logits, truth, torch.zeros_like(mentored))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_with_everything_answered_it_is_plain_cross_entropy() -> None:
    logits, truth, mentored = drawn(4, 2, 1, 4, 4)
    plain = nn.functional.binary_cross_entropy_with_logits(logits, truth)
    assert masked_bce(logits, truth, torch.ones_like(mentored)).item() == pytest.approx(plain.item(), rel=1e-6)
    known, nowhere = torch.ones_like(mentored), torch.zeros(2, 1)
    assert supervised_loss(logits, truth, known, nowhere).item() == pytest.approx(plain.item(), rel=1e-6)


def test_the_mean_runs_over_the_batch_and_not_over_pictures() -> None:
    logits, truth, mentored = drawn(5, 2, 1, 4, 4)
    mentored = torch.zeros_like(mentored)
    mentored[0, 0, 0, 0] = 1
    mentored[1] = 1
    by_hand = nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    expected = (by_hand[0, 0, 0, 0] + by_hand[1].sum()) / 17
    assert masked_bce(logits, truth, mentored).item() == pytest.approx(expected.item(), rel=1e-6)


def test_of_a_maskless_defect_the_strongest_cell_alone_is_trained() -> None:
    logits, truth, known = drawn(6, 1, 1, 4, 4)
    supervised_loss(logits, truth, torch.zeros_like(known), torch.ones(1, 1)).backward()
    assert logits.grad is not None
    assert torch.nonzero(logits.grad.flatten()).flatten().tolist() == [int(logits.flatten().argmax())]
    assert logits.grad.min() < 0  # gradient descent raises it


def test_a_batch_that_knows_nothing_trains_nothing() -> None:
    logits, truth, known = drawn(7, 2, 2, 4, 4)
    loss = supervised_loss(logits, truth, torch.zeros_like(known), torch.zeros(2, 2))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_reversal_is_the_identity_forwards_and_minus_the_weight_backwards() -> None:
    features = torch.randn(2, 3, requires_grad=True)
    turned = reverse_gradient(features, 0.25)
    assert torch.equal(turned, features)
    (turned * torch.arange(6.0).reshape(2, 3)).sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad, -0.25 * torch.arange(6.0).reshape(2, 3))


def test_the_segmenters_own_gradient_keeps_its_sign() -> None:
    torch.manual_seed(0)
    segmenter = DomainSegmenter(3)
    features = torch.randn(4, 3, 2, 2)
    domain = torch.tensor([0, 0, 1, 1])
    plain = nn.functional.binary_cross_entropy_with_logits(
        segmenter(features), domain.float().reshape(-1, 1, 1, 1).expand(4, 1, 2, 2)
    )
    expected = torch.autograd.grad(plain, list(segmenter.parameters()))
    features.requires_grad_()
    loss = adversarial_loss(segmenter, features, domain, 0.1)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5)
    found = torch.autograd.grad(loss, [*segmenter.parameters(), features])
    for own, plain_own in zip(found[:-1], expected, strict=True):
        torch.testing.assert_close(own, plain_own)
    plain_features = features.detach().clone().requires_grad_()
    wanted = domain.float().reshape(-1, 1, 1, 1).expand(4, 1, 2, 2)
    again = nn.functional.binary_cross_entropy_with_logits(segmenter(plain_features), wanted)
    torch.testing.assert_close(found[-1], -0.1 * torch.autograd.grad(again, plain_features)[0])


def test_the_segmenter_has_the_layers_of_the_paper() -> None:
    layers = [type(layer).__name__ for layer in DomainSegmenter(8)]
    assert layers == ["Conv2d", "ReLU", "BatchNorm2d", "Conv2d"]
    assert DomainSegmenter(8)(torch.randn(2, 8, 5, 7)).shape == (2, 1, 5, 7)


def test_the_adversary_is_let_in_slowly() -> None:
    assert ganin_weight(0) == 0
    assert ganin_weight(1) == pytest.approx(0.1, rel=1e-3)
    steps = [ganin_weight(step / 10) for step in range(11)]
    assert steps == sorted(steps)


def test_the_padding_is_never_the_strongest_cell() -> None:
    logits = torch.tensor([[[[9.0, -1.0], [-2.0, -3.0]]]], requires_grad=True)
    shown = torch.tensor([[[False, True], [True, True]]])
    nothing = torch.zeros(1, 1, 2, 2)
    loss = supervised_loss(logits, nothing, nothing, torch.ones(1, 1), shown=shown)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(1 + math.exp(1.0)), rel=1e-6)
    assert logits.grad is not None
    assert (logits.grad != 0).nonzero().tolist() == [[0, 0, 0, 1]]


def test_a_healthy_pictures_strongest_cell_weighs_as_much_as_a_maskless_defects() -> None:
    logits = torch.zeros(2, 1, 4, 4, requires_grad=True)
    known = torch.stack([torch.zeros(1, 4, 4), torch.ones(1, 4, 4)])
    truth = torch.zeros(2, 1, 4, 4)
    loss = picture_loss(logits, truth, known, torch.tensor([[1.0], [0.0]]))
    loss.backward()
    assert logits.grad is not None
    pull = logits.grad.sum(dim=(1, 2, 3))
    assert float(pull[0]) == pytest.approx(-float(pull[1]))
    assert float(pull[0]) < 0


def test_with_every_defect_in_its_place_pictures_add_nothing() -> None:
    logits, truth, _ = drawn(3, 2, 1, 4, 4)
    logits.requires_grad_()
    loss = picture_loss(logits, truth, torch.ones_like(truth), torch.zeros(2, 1))
    assert float(loss.detach()) == 0
    loss.backward()
    assert logits.grad is not None and not logits.grad.any()


def test_a_picture_known_in_part_is_not_taken_for_healthy() -> None:
    logits = torch.zeros(2, 1, 2, 2, requires_grad=True)
    known = torch.zeros(2, 1, 2, 2)
    known[1, 0, 0, 0] = 1
    picture_loss(logits, torch.zeros(2, 1, 2, 2), known, torch.tensor([[1.0], [0.0]])).backward()
    assert logits.grad is not None and not logits.grad[1].any()
