"""The loop: its loss and its rate, how it goes on after a kill, and what ends it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper

from calibration.graphs import Graph
from calibration.ranges import RangeTable
from edge_sdk.errors import RangeError
from export.qat import Parting, quantisation_aware
from export.trainable import FakeQuantised, TorchGraph
from export.tuning import Plan, noise_to_signal, rate_at, tune
from tests.calibration.conftest import SPEC
from tests.calibration.networks import excited_model, graph_of
from tests.export.qat.surfaces import CPU


def test_the_loss_is_the_sum_over_outputs_of_noise_over_signal() -> None:
    random = np.random.default_rng(0)
    wanted = {name: random.normal(0, size, (3, 5)).astype(np.float32) for name, size in (("a", 1), ("b", 100))}
    made = {name: values + random.normal(0, 0.1, values.shape).astype(np.float32) for name, values in wanted.items()}
    slow = 0.0
    for name in wanted:
        pairs = list(zip(made[name].ravel().tolist(), wanted[name].ravel().tolist(), strict=True))
        slow += sum((y - t) ** 2 for y, t in pairs) / sum(t**2 for _, t in pairs)
    tensors = [{name: torch.from_numpy(value) for name, value in one.items()} for one in (made, wanted)]
    assert float(noise_to_signal(*tensors)) == pytest.approx(slow, rel=1e-5)
    index = {"places": torch.arange(4)}
    assert float(noise_to_signal(index, index)) == 0


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(share / 100, rate=2.0) for share in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.0) and rates[99] < 0.01


class Ended(Exception):
    """Stands for a kill."""


def test_a_training_that_was_ended_goes_on_after_its_last_epoch_to_the_same_bytes(
    graph: Graph, table: RangeTable, parts: Parting, tmp_path: Path
) -> None:
    plan, parts = Plan(epochs=3), replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    whole = quantisation_aware(graph, table, parts, SPEC, plan)
    kept = tmp_path / "part.safetensors"
    n = len(parts.training)

    def end(what: str, done: int, of: int) -> None:
        if done > 2 * n:
            raise Ended

    with pytest.raises(Ended):
        quantisation_aware(graph, table, parts, SPEC, plan, kept=kept, progress=end)
    told: list[int] = []
    again = quantisation_aware(
        graph, table, parts, SPEC, plan, kept=kept, progress=lambda what, done, of: told.append(done)
    )
    assert told[0] > 2 * n and again.data == whole.data
    # another plan, other pictures, or a damaged file: from the beginning
    for other, pictures in ((replace(plan, seed=1), parts), (plan, replace(parts, training=parts.training[:-1]))):
        told.clear()
        with pytest.raises(Ended):
            quantisation_aware(graph, table, pictures, SPEC, other, kept=kept, progress=_first(told))
        assert told[0] <= 8
    for damage in (b"", b"\x08\0\0\0\0\0\0\0 no JSON", kept.read_bytes()[:300]):
        kept.write_bytes(damage)
        told.clear()
        with pytest.raises(Ended):
            quantisation_aware(graph, table, parts, SPEC, plan, kept=kept, progress=_first(told))
        assert told[0] <= 8


def _first(told: list[int]) -> Callable[[str, int, int], None]:
    def step(what: str, done: int, of: int) -> None:
        told.append(done)
        raise Ended

    return step


def test_a_loss_that_is_no_number_ends_it(graph: Graph, table: RangeTable, parts: Parting) -> None:
    with pytest.raises(RangeError, match=r"the loss is (nan|inf) in epoch 1 after \d+ pictures; lower --rate \(1e\+30"):
        quantisation_aware(graph, table, parts, SPEC, Plan(rate=1e30))


def scaled(size: float) -> Graph:
    """The network of three blocks with its output multiplied."""
    model = excited_model()
    model.graph.node[-1].output[0] = "plain"
    model.graph.initializer.append(numpy_helper.from_array(np.array(size, np.float32), "size"))
    model.graph.node.append(helper.make_node("Mul", ["plain", "size"], ["cells"], name="scaled.node"))
    return graph_of(model)


def tuned_once(graph: Graph, table: RangeTable, parts: Parting) -> tuple[float, ...]:
    network = TorchGraph(graph, CPU)
    student = FakeQuantised(network, table.model_copy(update={"graph_sha256": graph.digest}))
    return tune(network, student, parts.training[:8], SPEC, Plan(epochs=1))


def test_an_output_of_fp32_that_is_zero_or_no_number_is_not_blamed_on_the_rate(
    table: RangeTable, parts: Parting
) -> None:
    with pytest.raises(RangeError, match="every output of the FP32 graph is zero on all 8 pictures, so there is noth"):
        tuned_once(scaled(0.0), table, parts)
    zero = {"cells": torch.ones(2, 3), "feature": torch.zeros(2, 3)}
    made = {name: torch.full((2, 3), 0.5) for name in zero}
    assert float(noise_to_signal(made, zero)) == pytest.approx(0.25)
    with pytest.raises(RangeError, match="FP32's output cells is no number in epoch 1 after 8 pictures; the graph is"):
        tuned_once(scaled(float("nan")), table, parts)
