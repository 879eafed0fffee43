"""Transposed convolutions that only enlarge are the same function as convolutions, and then run in integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto

from calibration.calibrating import calibrate
from calibration.collect import frames_of, ranges_from_pictures
from calibration.enlarging import enlarged_by_convolutions
from calibration.graphs import Graph
from calibration.layers import layers_of
from calibration.pictures import pictures_in
from calibration.placement import observed_tensors
from calibration.qdq import Architecture, qdq_from_onnx
from calibration.ranges import RangeTable
from calibration.sessions import open_session
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.testing import drawn_picture
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, Builder, frames, graph_of, save


def enlarging_model(
    *, stride: tuple[int, int] = (2, 2), clip: str = "Relu", bias: bool = True, **more: Any
) -> ModelProto:
    """Down, up again by a transposed convolution, concat with the skip, a head."""
    build = Builder(4)
    first = build.add("Relu", [build.conv("frame", "down1", 3, 8)], "down1.on")
    low = build.add("MaxPool", [first], "pool", kernel_shape=list(stride), strides=list(stride))
    low = build.add("Relu", [build.conv(low, "down2", 8, 16)], "down2.on")
    random = np.random.default_rng(5)
    groups = more.get("group", 1)
    kernel = more.pop("kernel", stride)
    weight = random.normal(0, 0.3, (16, 8 // groups, *kernel)).astype(np.float32)
    parts = [low, build.constant("wider.weight", weight)]
    if bias:
        parts.append(build.constant("wider.bias", random.normal(0, 0.3, 8).astype(np.float32)))
    wide = build.add("ConvTranspose", parts, "wider", strides=list(stride), **more)
    if clip == "Clip":
        ends = [build.constant(f"end{value}", np.array(value, np.float32)) for value in (-1, 1)]
        wide = build.add("Clip", [wide, *ends], "wider.on")
    elif clip:
        wide = build.add(clip, [wide], "wider.on")
    both = build.add("Concat", [wide, first], "both", axis=1)
    last = build.add("Relu", [build.conv(both, "up", 16, 8)], "up.on")
    build.conv(last, "cells", 8, 1, kernel=1)
    return build.model({"cells": ["N", 1, SIDE, SIDE]})


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("enlarging")
    for n in range(12):
        cv2.imwrite(str(folder / f"{n:02d}.png"), drawn_picture(SIDE, SIDE, seed=n))
    return pictures_in(folder)


def ranges_of(graph: Graph, samples: tuple[Sample, ...]) -> RangeTable:
    return ranges_from_pictures(graph, samples, SPEC, rule="mse")


@pytest.mark.parametrize("stride", [(2, 2), (4, 2), (1, 1)])
@pytest.mark.parametrize("clip", ["", "Relu", "Clip", "Sigmoid"])
def test_it_is_the_same_function(stride: tuple[int, int], clip: str) -> None:
    graph = graph_of(enlarging_model(stride=stride, clip=clip, bias=clip != "Relu"))
    other = enlarged_by_convolutions(graph)
    onnx.checker.check_model(other.model, full_check=True)
    assert not any(node.op_type == "ConvTranspose" for node in other.nodes) and other.digest == graph.digest
    batch = np.concatenate(frames(3))
    wanted, found = (open_session(one.model, optimise=False).run(batch)["cells"] for one in (graph, other))
    assert np.abs(wanted - found).max() < 1e-5 * np.abs(wanted).max()


def test_each_new_tensor_has_the_values_of_the_one_that_it_stands_in_for() -> None:
    graph = graph_of(enlarging_model())
    other = enlarged_by_convolutions(graph)
    frame = frames(1)[0]
    wanted = open_session(graph.model, watched=["wider.on"], optimise=False).run(frame)["wider.on"]
    clipped = [name for name in other.stand_ins if not name.endswith("blocks")]
    found = open_session(other.model, watched=[*clipped, "wider.on"], optimise=False).run(frame)
    assert set(other.stand_ins.values()) == {"wider.on"} and len(clipped) == 5
    for name in clipped:
        np.testing.assert_allclose(np.sort(found[name], None), np.sort(wanted, None), atol=1e-5)
    np.testing.assert_allclose(found["wider.on"], wanted, atol=1e-5)


def test_a_constant_of_the_graph_that_has_one_of_the_new_names_keeps_it() -> None:
    model = enlarging_model(clip="")
    for held in (*model.graph.initializer, *model.graph.node):
        if isinstance(held, onnx.TensorProto):
            held.name = held.name.replace("wider.", "wider_")
        else:
            held.input[:] = [name.replace("wider.", "wider_") for name in held.input]
    graph = graph_of(model)
    other = enlarged_by_convolutions(graph)
    assert graph.is_weight("wider_weight")
    assert np.array_equal(other.weight("wider_weight"), graph.weight("wider_weight"))
    onnx.checker.check_model(other.model, full_check=True)
    wanted, found = (open_session(one.model, optimise=False).run(frames(1)[0])["cells"] for one in (graph, other))
    assert np.abs(wanted - found).max() < 1e-5 * np.abs(wanted).max()


@pytest.mark.parametrize(
    "more",
    [
        {"kernel": (4, 4), "pads": [1, 1, 1, 1]},
        {"group": 2},
        {"kernel": (1, 1), "output_padding": [1, 1]},
    ],
    ids=["overlapping", "grouped", "with holes"],
)
def test_what_does_more_than_enlarge_stays(more: dict[str, Any]) -> None:
    graph = graph_of(enlarging_model(**more))
    assert enlarged_by_convolutions(graph) is graph


def test_a_head_and_what_is_to_stay_in_float_stay() -> None:
    graph = graph_of(enlarging_model())
    assert enlarged_by_convolutions(graph, keep_float=["wider.node"]) is graph
    build = Builder(1)
    low = build.add("Relu", [build.conv("frame", "down", 3, 8, stride=2)], "down.on")
    build.add("ConvTranspose", [low, build.constant("w", np.ones((8, 1, 2, 2), np.float32))], "cells", strides=[2, 2])
    head = graph_of(build.model({"cells": ["N", 1, SIDE, SIDE]}))
    assert enlarged_by_convolutions(head) is head


@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
@pytest.mark.parametrize("clip", ["", "Relu"])
def test_the_rendering_for_the_cpu_computes_it_in_integers(
    architecture: Architecture, clip: str, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    graph = graph_of(enlarging_model(clip=clip))
    table = ranges_of(graph, samples)
    model = qdq_from_onnx(graph, table, layout="onnxruntime", architecture=architecture)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    # as it is by default on ARM
    options.add_session_config_entry("session.qdqisint8allowed", "1")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    there = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    # the head alone is in float
    assert there.count("QLinearConv") == 4 and there.count("DequantizeLinear") == 1
    assert "ConvTranspose" not in there and there.count("QuantizeLinear") == 1
    kept = qdq_from_onnx(graph, table, layout="onnxruntime", architecture=architecture, keep_float=["wider.node"])
    fp32, int8, before = (open_session(one, reference=True) for one in (graph.model, model, kept))
    batch = np.concatenate(frames(8, seed=3))
    wanted = fp32.run(batch)["cells"]
    assert sqnr_db(wanted, int8.run(batch)["cells"]) > sqnr_db(wanted, before.run(batch)["cells"]) - 1.5


def test_the_other_rendering_is_left_alone(samples: tuple[Sample, ...]) -> None:
    graph = graph_of(enlarging_model())
    model = qdq_from_onnx(graph, ranges_of(graph, samples), layout="tensorrt")
    assert [node.name for node in model.graph.node if node.op_type == "ConvTranspose"] == ["wider.node"]


def test_what_only_the_rewritten_graph_rounds_is_watched(samples: tuple[Sample, ...]) -> None:
    """Two in a row: no integer kernel reads what the first one makes as long as neither has one."""
    build = Builder(6)
    low = build.add("Relu", [build.conv("frame", "down", 3, 8, stride=4)], "down.on")
    for name in ("one", "two"):
        weight = build.constant(f"{name}.weight", np.full((8, 8, 2, 2), 0.2, np.float32))
        low = build.add("ConvTranspose", [low, weight], name, strides=[2, 2])
    build.conv(build.add("Sigmoid", [low], "squashed"), "cells", 8, 1, kernel=1)
    graph = graph_of(build.model({"cells": ["N", 1, SIDE, SIDE]}))
    assert {"one", "two"} <= set(observed_tensors(graph)) <= {*graph.inputs, *graph.producer}
    table = calibrate(graph, samples, SPEC, rule="mse", most_float=0)
    model = qdq_from_onnx(graph, table, layout="onnxruntime")
    frame = next(frame for _, frame in frames_of(samples, SPEC))
    wanted, found = (open_session(one).run(frame)["cells"] for one in (graph.model, model))
    assert sqnr_db(wanted, found) > 25


@pytest.mark.parametrize("clip", ["", "Relu"])
def test_the_layer_table_compares_it_by_what_it_makes_in_the_file(
    clip: str, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    graph = graph_of(enlarging_model(clip=clip))
    table = ranges_of(graph, samples)
    files = {
        kind: save(qdq_from_onnx(graph, table, layout=layout), tmp_path / f"{kind}.onnx")
        for kind, layout in (("cpu", "onnxruntime"), ("trt", "tensorrt"))
    }
    found = layers_of(graph, files, samples, SPEC, ranges=table)
    for kind in files:
        row = next(one for one in found[kind] if one.node == "wider.node")
        assert row.operation == "ConvTranspose" and row.why_float is None and 20 < row.sqnr_db < 80
