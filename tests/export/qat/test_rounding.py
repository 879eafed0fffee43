"""What is trained rounds where the renderer rounds, and by the same steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from calibration.calibrating import calibrate
from calibration.choosing import Noise
from calibration.collect import frames_of
from calibration.equalising import equalised
from calibration.graphs import Graph
from calibration.pictures import pictures_in
from calibration.qdq import qdq_from_onnx
from calibration.ranges import RangeTable
from calibration.sessions import open_session
from calibration.tuned import Tuned
from edge_sdk.errors import FormatError
from export.qat import Parting, parted, quantisation_aware
from export.trainable import FakeQuantised, TorchGraph
from export.tuning import Plan, tune
from tests.calibration.conftest import SPEC
from tests.calibration.networks import (
    SIDE,
    Builder,
    concat_graph,
    excited_model,
    graph_of,
    hswish_model,
    residual_model,
    uneven_model,
)
from tests.export.qat.surfaces import CPU


def agreement(student: FakeQuantised, rendering: ModelProto, parts: Parting) -> list[float]:
    """SQNR of the training graph's outputs against the rendering's in the reference session, a picture each."""
    session = open_session(rendering, reference=True)
    found = []
    for _, frame in frames_of(parts.judging, SPEC):
        with torch.no_grad():
            made = {name: value.numpy() for name, value in student(torch.from_numpy(frame)).items()}
        noise = Noise()
        noise.see(session.run(frame), made)
        found.append(min(noise.by_output().values()))
    return found


@pytest.mark.parametrize("model", [residual_model, concat_graph, hswish_model, excited_model])
def test_what_is_trained_answers_as_the_rendered_graph_does(
    model: Callable[[], ModelProto], typical: Path
) -> None:
    graph = graph_of(model())
    samples = pictures_in(typical)[:30]
    table = calibrate(graph, samples, SPEC, most_float=0, equalise=False)
    parts = parted(samples, table, 256)
    for kept in ((), ("cells.node",)):
        student = FakeQuantised(TorchGraph(graph, CPU), table, keep_float=kept)
        tune(TorchGraph(graph, CPU), student, parts.training, SPEC, Plan(epochs=1))
        moved = [(values != graph.weight(name)).any() for name, values in student.weights().items()]
        assert sum(moved) > len(moved) / 2
        found = agreement(
            student,
            qdq_from_onnx(graph.with_weights(student.weights()), table, layout="tensorrt", keep_float=kept),
            parts,
        )
        # torch and the runtime sum in other orders: a value within 1e-6 of the edge between two steps may fall to
        # either side.  A wrong step or place shows below 35 dB; 100 dB and more is no such value at all
        assert min(found) > 40 and float(np.median(found)) > 80, found


def test_a_layer_in_float_reads_the_weight_that_it_shares_with_an_int8_layer_as_it_is(typical: Path) -> None:
    build = Builder(2)
    at = build.add("Relu", [build.conv("frame", "stem", 3, 8)], "stem.on")
    at = build.add("Relu", [build.conv(at, "one", 8, 8)], "one.on")
    at = build.add("Relu", [build.add("Conv", [at, "one.weight", "one.bias"], "two", pads=[1] * 4)], "two.on")
    build.conv(at, "cells", 8, 2, kernel=1)
    graph = graph_of(build.model({"cells": ["N", 2, SIDE, SIDE]}))
    samples = pictures_in(typical)[:30]
    table = calibrate(graph, samples, SPEC, most_float=0, equalise=False)
    for kept in ("one.node", "two.node"):
        student = FakeQuantised(TorchGraph(graph, CPU), table, keep_float=[kept])
        rendering = qdq_from_onnx(graph, table, layout="tensorrt", keep_float=[kept])
        found = agreement(student, rendering, parted(samples, table, 256))
        assert min(found) > 40 and float(np.median(found)) > 80, found


def test_channels_that_are_equalised_are_trained_as_they_are_rendered(typical: Path) -> None:
    graph, samples = graph_of(uneven_model()), pictures_in(typical)[:40]
    table = calibrate(graph, samples, SPEC)
    parts = parted(samples, table, 256)
    assert table.factors
    with pytest.raises(FormatError, match=r"the table equalises the channels of .*; give the equalised graph"):
        FakeQuantised(TorchGraph(graph, CPU), table)
    student = FakeQuantised(TorchGraph(equalised(graph, table.factors), CPU), table)
    found = agreement(student, qdq_from_onnx(graph, table, layout="tensorrt"), parts)
    assert min(found) > 40 and float(np.median(found)) > 80, found
    tuned = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, rate=1e-5))
    # what is kept are weights of the graph as it is, for either rendering
    for name, values in tuned.weights.items():
        np.testing.assert_allclose(values, graph.weight(name), rtol=1e-2, atol=1e-3 * np.abs(graph.weight(name)).max())


def test_steps_and_places_are_those_that_the_renderer_writes(graph: Graph, table: RangeTable) -> None:
    student = FakeQuantised(TorchGraph(graph, CPU), table)
    rendering = qdq_from_onnx(graph, table, layout="tensorrt")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in rendering.graph.initializer}
    written = {
        node.input[0]: float(constants[node.input[1]])
        for node in rendering.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert {name: float(step) for name, step in student._steps.items()} == written
    int8 = {name for name, values in constants.items() if values.dtype == np.int8 and values.ndim > 1}
    assert {f"{name}_q" for name in student._axes} == int8 and len(int8) == 14
    # and before a single step the weights are the graph's, to the bit
    assert all(np.array_equal(values, graph.weight(name)) for name, values in student.weights().items())


def test_layers_in_float_and_all_other_constants_stay_as_they_are(
    graph: Graph, table: RangeTable, parts: Parting
) -> None:
    kept = ("stem.node", "cells.node")
    parts = replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    found = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1), keep_float=kept)
    assert found.said.keep_float == tuple(sorted(kept))
    assert not {"stem.weight", "stem.bias", "cells.weight", "cells.bias", "axes"} & found.weights.keys()
    assert {"deep0.weight", "deep0.bias", "narrow2.weight"} <= found.weights.keys()
    rendering = qdq_from_onnx(graph, table, layout="tensorrt", keep_float=kept, tuned=found)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in rendering.graph.initializer}
    assert np.array_equal(constants["stem.weight"], graph.weight("stem.weight"))
    assert np.array_equal(constants["deep0.bias"], found.weights["deep0.bias"])


def test_the_same_nodes_are_written_with_and_without_fine_tuning(
    graph: Graph, table: RangeTable, tuned: Tuned
) -> None:
    before = qdq_from_onnx(graph, table, layout="tensorrt")
    after = qdq_from_onnx(graph, table, layout="tensorrt", tuned=tuned)
    assert list(before.graph.node) == list(after.graph.node)
    moved = {
        one.name for one, other in zip(before.graph.initializer, after.graph.initializer, strict=True) if one != other
    }
    assert moved and all(name.endswith((".bias", ".weight_q", ".weight_scale")) for name in moved)
