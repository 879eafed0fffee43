"""The strongly typed rendering: float16 wherever it is not int8, and the same answers as far as float16 goes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration.graphs import Graph
from calibration.qdq import qdq_from_onnx
from calibration.ranges import RangeTable
from calibration.sessions import open_session
from calibration.typed import half_from_qdq
from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError, RangeError
from edge_sdk.quality.measures import sqnr_db
from tests.calibration.conftest import table
from tests.calibration.networks import (
    SIDE,
    Builder,
    concat_graph,
    frames,
    graph_of,
    hswish_model,
    residual_model,
)

NETS = {"residual": residual_model, "concat": concat_graph, "hswish": hswish_model}


def kinds(model: ModelProto) -> dict[str, int]:
    """Of every tensor that a runtime would see."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def cells(model: ModelProto) -> Array:
    session = open_session(model, reference=True)
    return np.concatenate([session.run(frame)["cells"] for frame in frames(8, seed=9)])


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("keep", [(), ("stem.node", "down1.node", "cells.node")])
def test_nothing_is_float32_but_the_ends(net: str, keep: tuple[str, ...]) -> None:
    graph = graph_of(NETS[net]())
    ranges = table(graph)
    kept = [node.name for node in graph.nodes if node.name in keep]
    whole = qdq_from_onnx(graph, ranges, layout="tensorrt", keep_float=kept)
    model = half_from_qdq(whole, ranges)
    found = kinds(model)
    ends = {"frame", *graph.outputs}
    # enlarging takes its scales in float32 and nothing else
    float32 = {name for name, kind in found.items() if kind == TensorProto.FLOAT} - ends
    assert float32 <= {"scales_full"}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert found[node.input[1]] == TensorProto.FLOAT16
        if node.op_type in ("Conv", "Add", "Relu", "HardSwish"):
            assert found[node.output[0]] == TensorProto.FLOAT16
    rounded = [sum(node.op_type == "QuantizeLinear" for node in one.graph.node) for one in (whole, model)]
    assert rounded[0] == rounded[1]
    assert cells(model).dtype == np.float32


@pytest.mark.parametrize("net", NETS)
def test_it_answers_as_the_float32_rendering_does(net: str) -> None:
    graph = graph_of(NETS[net]())
    ranges = table(graph)
    whole = qdq_from_onnx(graph, ranges, layout="tensorrt")
    half = half_from_qdq(whole, ranges)
    fp32 = cells(graph.model)
    # roundings flip downstream, so the two are as far apart as two runtimes of one graph
    assert sqnr_db(cells(whole), cells(half)) > 20
    assert sqnr_db(fp32, cells(half)) > sqnr_db(fp32, cells(whole)) - 1.5
    assert half_from_qdq(whole, ranges).SerializeToString(deterministic=True) == half.SerializeToString(
        deterministic=True
    )


def test_without_roundings_it_differs_by_float16_alone(residual: Graph, residual_ranges: RangeTable) -> None:
    everything = [node.name for node in residual.nodes]
    plain = qdq_from_onnx(residual, residual_ranges, layout="tensorrt", keep_float=everything)
    model = half_from_qdq(plain, residual_ranges)
    assert sqnr_db(cells(residual.model), cells(model)) > 50


def test_channels_with_tiny_weights_keep_their_gain() -> None:
    build = Builder(2)
    at = build.add("Relu", [build.conv("frame", "stem", 3, 8)], "stem.on")
    at = build.conv(at, "small", 8, 8)
    loud = build.constant("loud", np.full((1, 8, 1, 1), 2.0**18, np.float32).astype(np.float32) / 2**4)
    build.conv(build.add("Mul", [at, loud], "louder"), "cells", 8, 1, kernel=1)
    model = build.model({"cells": ["N", 1, SIDE, SIDE]})
    for tensor in model.graph.initializer:
        if tensor.name in ("small.weight", "small.bias"):
            # steps of about 2**-22: float16 holds those to a quarter of themselves
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(2.0**-14), tensor.name))
    graph = graph_of(model)
    ranges = table(graph)
    whole = qdq_from_onnx(graph, ranges, layout="tensorrt")
    values = {t.name: numpy_helper.to_array(t) for t in half_from_qdq(whole, ranges).graph.initializer}
    before = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    for channel in range(8):
        wanted = before["small.weight_q"][channel] * before["small.weight_scale"][channel].astype(np.float64)
        kept = values["small.weight_q"][channel] * values["small.weight_scale"][channel].astype(np.float64)
        step = float(values["small.weight_scale"][channel])
        assert np.abs(kept - wanted).max() <= step / 2 + 1e-12
        assert step >= before["small.weight_scale"][channel]


def test_what_fp16_does_not_hold_is_refused(residual: Graph, residual_ranges: RangeTable) -> None:
    whole = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    row = residual_ranges.tensors["pool"].model_copy(update={"hi": 70000.0})
    loud = residual_ranges.model_copy(update={"tensors": {**residual_ranges.tensors, "pool": row}})
    sentence = "tensor pool reaches 70000, beyond the 65504 of FP16; build the float32 rendering"
    with pytest.raises(RangeError, match=f"^{sentence}$"):
        half_from_qdq(whole, loud)
    for tensor in whole.graph.initializer:
        if tensor.name == "stem.bias":
            tensor.CopyFrom(numpy_helper.from_array(np.full(16, 1e6, np.float32), "stem.bias"))
    with pytest.raises(RangeError, match="^the constant stem.bias holds 1e.06, beyond the 65504 of FP16; build"):
        half_from_qdq(whole, residual_ranges)


def test_an_opset_that_cannot_round_float16_is_refused(residual: Graph, residual_ranges: RangeTable) -> None:
    whole = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    whole.opset_import[0].CopyFrom(helper.make_opsetid("", 18))
    sentence = (
        "the graph is of opset 18, but float16 can be rounded from opset 19 on; export it with opset 19"
    )
    with pytest.raises(FormatError, match=f"^{sentence}$"):
        half_from_qdq(whole, residual_ranges)
