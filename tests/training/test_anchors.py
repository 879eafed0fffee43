"""Anchors: where they lie, what boxes say of them, and the loss against slow versions written from the equations."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import load_dataset
from tests.requirements import need
from training.data.boxes import anchor_shapes
from training.losses.anchors import anchor_loss, hard_negatives, matched, weak_anchor_loss
from training.networks.anchornet import AnchorNetwork, anchor_network, boxes_of_offsets, offsets_of_boxes

STEEL = Path(__file__).resolve().parents[3] / "shared" / "data" / "neu_steel"


def tiny(*, classes: int = 2) -> AnchorNetwork:
    torch.manual_seed(0)
    shapes = [[16.0, 16.0], [40.0, 12.0]]
    return anchor_network(shapes=shapes, height=32, width_px=48, classes=classes, width=0.125)


def test_anchors_stand_row_by_row_column_by_column_then_by_shape() -> None:
    network = tiny()
    found = network.anchors.tolist()
    slow = [
        [(column + 0.5) * 16, (row + 0.5) * 16, *shape]
        for row in range(2)
        for column in range(3)
        for shape in ([16.0, 16.0], [40.0, 12.0])
    ]
    assert found == slow
    out = network.eval()(torch.zeros(1, 3, 32, 48))
    assert [tuple(one.shape) for one in out] == [(1, 12, 4), (1, 12, 2), (1, 64)]
    assert "anchors" not in network.state_dict()


def test_an_untrained_head_gives_nearly_the_anchors_and_little_confidence() -> None:
    network = tiny().eval()
    out = network(torch.zeros(1, 3, 32, 48))
    centres, sides = network.anchors[:, :2], network.anchors[:, 2:]
    wanted = torch.cat([centres - sides / 2, centres + sides / 2], dim=1)
    torch.testing.assert_close(out.boxes[0], wanted, atol=0.5, rtol=0)
    assert float(torch.sigmoid(out.scores.detach()).max()) < 0.02


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4))
def test_offsets_and_boxes_are_each_others_inverse(given_: list[float]) -> None:
    anchors = torch.tensor([[20.0, 30.0, 16.0, 40.0]])
    offsets = torch.tensor([given_])
    box = boxes_of_offsets(offsets, anchors)
    x, y = 20 + 1.6 * given_[0], 30 + 4 * given_[1]
    w, h = 16 * math.exp(0.2 * given_[2]), 40 * math.exp(0.2 * given_[3])
    torch.testing.assert_close(box, torch.tensor([[x - w / 2, y - h / 2, x + w / 2, y + h / 2]]), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(offsets_of_boxes(box, anchors), offsets, rtol=1e-3, atol=1e-3)


def test_one_box_is_taken_by_every_anchor_that_overlaps_it_by_half_and_by_the_best_in_any_case() -> None:
    anchors = np.array([[8, 8, 16, 16], [12, 8, 16, 16], [16, 8, 16, 16], [40, 40, 16, 16], [60, 60, 16, 16]], float)
    boxes = np.array([[0, 0, 16, 16], [50, 50, 54, 54]], float)
    found = matched(anchors, boxes, np.array([1, 0], np.int32), count=2)
    # overlaps with the first: 1, 0.6, 1/3, 0, 0; of the small second the best is 1/16, by the last anchor
    assert found.truth.tolist() == [[0, 1], [0, 1], [0, 0], [0, 0], [1, 0]]
    assert found.known.tolist() == [[1, 1]] * 5
    assert found.positive.tolist() == [True, True, False, False, True]
    np.testing.assert_array_equal(found.box[[0, 1, 4]], boxes[[0, 0, 1]])
    assert not found.box[[2, 3]].any()


def test_between_the_limits_an_anchor_has_no_truth() -> None:
    anchors = np.array([[8, 8, 16, 16], [14, 8, 16, 16]], float)  # the second overlaps by 10/22
    found = matched(anchors, np.array([[0, 0, 16, 16]], float), np.array([0], np.int32), count=1)
    assert found.known[:, 0].tolist() == [1, 0]


def test_two_boxes_on_one_anchor_get_an_anchor_each() -> None:
    anchors = np.array([[8, 8, 16, 16], [30, 8, 16, 16]], float)
    boxes = np.array([[0, 0, 16, 16], [1, 0, 17, 16]], float)
    found = matched(anchors, boxes, np.array([0, 1], np.int32), count=2)
    assert found.positive.all()
    assert found.truth.tolist() == [[1, 0], [0, 1]]


def test_a_picture_without_a_box_is_background_everywhere() -> None:
    found = matched(np.array([[8, 8, 16, 16.0]]), np.zeros((0, 4)), np.zeros(0, np.int32), count=3)
    assert found.known.all()
    assert not found.truth.any()


def slow_loss(scores, boxes, truth, known, wanted, anchors):  # type: ignore[no-untyped-def]
    """Anchor by anchor, from the two sums of the docstring."""
    classification = regression = 0.0
    defects = regressed = 0
    for n in range(len(scores)):
        costs, mine = [], 0
        for i in range(scores.shape[1]):
            for k in range(scores.shape[2]):
                p = 1 / (1 + math.exp(-float(scores[n, i, k])))
                y = float(truth[n, i, k])
                cost = -(y * math.log(p) + (1 - y) * math.log(1 - p))
                if known[n, i, k] and y:
                    classification += cost
                    mine += 1
                elif known[n, i, k]:
                    costs.append(cost)
            if (known[n, i] * truth[n, i]).any():
                regressed += 1
                x_a, y_a, w_a, h_a = (float(v) for v in anchors[i])
                offsets = []
                for box in (boxes[n, i], wanted[n, i]):
                    left, top, right, bottom = (float(v) for v in box)
                    offsets.append(
                        (
                            ((left + right) / 2 - x_a) / w_a / 0.1,
                            ((top + bottom) / 2 - y_a) / h_a / 0.1,
                            math.log((right - left) / w_a) / 0.2,
                            math.log((bottom - top) / h_a) / 0.2,
                        )
                    )
                apart = [a - b for a, b in zip(*offsets, strict=True)]
                regression += sum(0.5 * d * d if abs(d) < 1 else abs(d) - 0.5 for d in apart)
        classification += sum(sorted(costs, reverse=True)[: max(8, 3 * mine)])
        defects += mine
    return classification / max(1, defects), regression / max(1, regressed)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_the_loss_is_the_printed_one(seed: int) -> None:
    chance = np.random.default_rng(seed)
    anchors = torch.from_numpy(np.column_stack([chance.uniform(0, 40, (6, 2)), chance.uniform(8, 30, (6, 2))])).float()
    scores = torch.from_numpy(chance.normal(0, 2, (3, 6, 2))).float()
    boxes = boxes_of_offsets(torch.from_numpy(chance.normal(0, 1, (3, 6, 4))).float(), anchors)
    wanted = boxes_of_offsets(torch.from_numpy(chance.normal(0, 2, (3, 6, 4))).float(), anchors)
    truth = torch.from_numpy((chance.random((3, 6, 2)) < 0.2).astype(np.float32))
    known = torch.from_numpy((chance.random((3, 6, 2)) < 0.8).astype(np.float32))
    found = anchor_loss(scores, boxes, truth, known, wanted, anchors)
    classification, regression = slow_loss(scores, boxes, truth, known, wanted, anchors)
    assert float(found["classification"]) == pytest.approx(classification, rel=1e-4)
    assert float(found["regression"]) == pytest.approx(regression, rel=1e-3, abs=1e-5)


def test_only_the_hardest_background_is_learnt_from() -> None:
    loss = torch.arange(40.0).reshape(1, 20, 2)
    truth, known = torch.zeros(1, 20, 2), torch.ones(1, 20, 2)
    truth[0, 0, 0] = truth[0, 1, 1] = truth[0, 2, 0] = 1
    known[0, 19] = 0
    found = hard_negatives(loss, truth, known)
    assert sorted(loss[found].tolist()) == list(range(29, 38))  # three times three, the unknown two left out
    assert not found[0, 19].any()


def test_answered_anchors_alone_pass_a_gradient_and_boxes_none() -> None:
    network = tiny()
    out = network(torch.rand(2, 3, 32, 48))
    out.scores.retain_grad()
    mentored = torch.zeros(2, 12, 2)
    mentored[0, 3, 1] = mentored[1, 7, 0] = 1
    truth = torch.zeros(2, 12, 2)
    truth[0, 3, 1] = 1
    weak_anchor_loss(out.scores, truth, mentored).backward()  # type: ignore[no-untyped-call]
    assert out.scores.grad is not None
    assert ((out.scores.grad != 0) == (mentored > 0)).all()
    assert network.offset.weight.grad is None


def test_no_answer_costs_nothing_and_still_has_a_graph() -> None:
    scores = torch.randn(1, 4, 2, requires_grad=True)
    loss = weak_anchor_loss(scores, torch.zeros(1, 4, 2), torch.zeros(1, 4, 2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_shapes_are_those_of_the_boxes_and_the_same_every_time() -> None:
    chance = np.random.default_rng(0)
    sides = np.concatenate([chance.normal((10, 40), 1, (60, 2)), chance.normal((60, 20), 1, (40, 2))])
    found = anchor_shapes(sides, count=2)
    np.testing.assert_allclose(found, [(10, 40), (60, 20)], atol=0.6)
    assert found == anchor_shapes(sides, count=2)
    assert anchor_shapes(np.array([[5.0, 6.0]] * 4), count=9) == ((5.0, 6.0),)
    with pytest.raises(DatasetError, match="there is no box to choose anchors from"):
        anchor_shapes(np.zeros((0, 2)))


def test_a_factory_that_cannot_be_called_so_says_why() -> None:
    with pytest.raises(ConfigError) as caught:
        anchor_network(shapes=[[10.0, 10.0]], height=40, width_px=48, width=0.125)
    assert str(caught.value) == "the network's input is 48 x 40; give multiples of the trunk's 16 px"
    with pytest.raises(ConfigError, match=r"shapes is \[\[0.0, 3.0\]\]; give a width and a height above 0 an anchor"):
        anchor_network(shapes=[[0.0, 3.0]], height=32, width_px=32, width=0.125)


def test_nine_shapes_cover_the_boxes_of_real_steel() -> None:
    need("../shared/data/neu_steel", found=STEEL.is_dir())
    boxes = [one for drawn in load_dataset(STEEL).boxes.values() for one in drawn]
    sides = np.array([(one.right - one.left, one.bottom - one.top) for one in boxes]) * 128 / 200
    shapes = np.array(anchor_shapes(sides))
    shared = np.minimum(sides[:, None], shapes[None]).prod(axis=2)
    best = (shared / (sides.prod(axis=1)[:, None] + shapes.prod(axis=1)[None] - shared)).max(axis=1)
    assert len(shapes) == 9
    assert best.mean() > 0.6
