"""The two INT8 graphs: where they round, and that they compute what is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, NodeProto, numpy_helper

from calibration.graphs import Graph, load_graph
from calibration.placement import observed_tensors, onnxruntime_placement, tensorrt_placement
from calibration.qdq import Architecture, qdq_from_onnx
from calibration.ranges import RangeTable
from calibration.sessions import Session, open_session
from calibration.typed import half_from_qdq
from edge_sdk.arrays import Array
from edge_sdk.errors import ConfigError, FormatError
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
    save,
)


def cells(session: Session, *, seed: int = 9) -> Array:
    return np.concatenate([session.run(frame)["cells"] for frame in frames(8, seed=seed)])


def makers(model: ModelProto) -> dict[str, NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def constants(model: ModelProto) -> dict[str, Array]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


# -- TensorRT


def test_tensorrt_rounds_before_weights_and_on_the_way_round_a_block(residual: Graph) -> None:
    placement = tensorrt_placement(residual)
    # of the block with an identity the pooled tensor goes round; of the other the short convolution's output
    assert set(placement.tensors) == {
        "frame",
        "pool",
        "one.a.on",
        "one.out",
        "two.a.on",
        "two.way",
        "two.out",
    }
    places = {node.name: place for place, node in enumerate(residual.nodes)}
    ways_round = {(places["one.sum.node"], 1), (places["two.sum.node"], 1)}
    assert {
        reader for reader in placement.readers if residual.nodes[reader[0]].op_type == "Add"
    } == ways_round


def test_the_way_round_is_found_on_either_side_of_the_add(residual: Graph) -> None:
    model = ModelProto()
    model.CopyFrom(residual.model)
    for node in model.graph.node:
        if node.op_type == "Add":
            swapped = list(reversed(node.input))
            del node.input[:]
            node.input.extend(swapped)
    assert tensorrt_placement(graph_of(model)).tensors == tensorrt_placement(residual).tensors


def test_tensorrts_graph_is_symmetric_int8_with_float_bias(
    residual: Graph, residual_ranges: RangeTable
) -> None:
    model = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    values, by = constants(model), makers(model)
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert values[node.input[2]].dtype == np.int8
            assert not values[node.input[2]].any()
            assert (values[node.input[1]] > 0).all()
        if node.op_type == "Conv":
            assert by[node.input[0]].op_type == "DequantizeLinear"
            weight = by[node.input[1]]
            assert weight.op_type == "DequantizeLinear"
            integers = values[weight.input[0]]
            assert integers.dtype == np.int8 and integers.min() >= -127
            assert values[weight.input[1]].shape == integers.shape[:1]
            assert values[node.input[2]].dtype == np.float32
        if node.op_type == "Relu":
            assert by[node.input[0]].op_type in ("Conv", "Add")


def test_weights_are_rounded_to_the_nearest_step_of_their_channel(
    residual: Graph, residual_ranges: RangeTable
) -> None:
    model = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    values = constants(model)
    for name in (
        tensor.name for tensor in residual.model.graph.initializer if tensor.name.endswith(".weight")
    ):
        original, steps = residual.weight(name), values[f"{name}_scale"].reshape(-1, 1, 1, 1)
        assert np.abs(values[f"{name}_q"] * steps - original).max() <= steps.max() / 2 * 1.001
        assert (np.abs(values[f"{name}_q"]).max(axis=(1, 2, 3)) == 127).all()


@pytest.mark.parametrize("net", ["residual", "concat", "hswish"])
@pytest.mark.parametrize("keep", [(), ("cells.node",)])
def test_the_reference_session_computes_the_graph_as_written_to_the_bit(net: str, keep: tuple[str, ...]) -> None:
    graph = graph_of({"residual": residual_model, "concat": concat_graph, "hswish": hswish_model}[net]())
    ranges = table(graph)
    model = qdq_from_onnx(graph, ranges, layout="tensorrt", keep_float=keep)
    for made in (model, half_from_qdq(model, ranges)):
        written = cells(open_session(made, optimise=False))
        assert np.array_equal(cells(open_session(made, reference=True)), written)


def test_a_gate_is_no_residual_and_squeezed_values_are_rounded_before_weights() -> None:
    graph = graph_of(hswish_model())
    placement = tensorrt_placement(graph)
    assert set(placement.tensors) == {
        "frame", "stem.on", "excited", "squeezed", "narrow.on", "sum",
    }  # fmt: skip
    places = {node.name: place for place, node in enumerate(graph.nodes)}
    assert (places["sum.node"], 1) in placement.readers, "what goes round the block is rounded for the sum"
    assert not {reader for reader in placement.readers if reader[0] == places["excited.node"]}


def test_tensorrts_graph_stays_close_to_fp32(residual: Graph, residual_ranges: RangeTable) -> None:
    model = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    assert sqnr_db(cells(open_session(residual.model)), cells(open_session(model, reference=True))) > 25


# -- ONNX Runtime


@pytest.mark.parametrize(("architecture", "kind"), [("x86_64", np.uint8), ("aarch64", np.int8)])
def test_onnxruntimes_graph_has_a_zero_point_and_an_int32_bias(
    residual: Graph, residual_ranges: RangeTable, architecture: Architecture, kind: type
) -> None:
    model = qdq_from_onnx(residual, residual_ranges, layout="onnxruntime", architecture=architecture)
    values, by = constants(model), makers(model)
    least = np.iinfo(kind).min
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert values[node.input[2]].dtype == kind
            if node.input[0].endswith((".on", ".out")):
                assert int(values[node.input[2]]) == least, "a ReLU's least value is zero"
        if node.op_type == "Conv" and node.output[0] != "cells":
            bias = by[node.input[2]]
            assert values[bias.input[0]].dtype == np.int32
            scale = values[by[node.input[0]].input[1]] * values[by[node.input[1]].input[1]]
            assert np.array_equal(values[bias.input[1]], scale.astype(np.float32))


def test_onnxruntime_runs_its_integer_kernels(
    residual: Graph, residual_ranges: RangeTable, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import onnxruntime

    model = qdq_from_onnx(residual, residual_ranges, layout="onnxruntime")
    assert "Relu" not in {node.op_type for node in model.graph.node}
    path = tmp_path_factory.mktemp("optimised") / "optimised.onnx"
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(path).graph.node)
    # all convolutions but the head, both adds; nothing is left between them in float
    assert kinds["QLinearConv"] == 6 and kinds["QLinearAdd"] == 2
    assert kinds["Conv"] + kinds["FusedConv"] == 1


def test_onnxruntimes_graph_stays_close_to_fp32(residual: Graph, residual_ranges: RangeTable) -> None:
    fp32 = cells(open_session(residual.model))
    for architecture in ("x86_64", "aarch64"):
        model = qdq_from_onnx(residual, residual_ranges, layout="onnxruntime", architecture=architecture)
        assert sqnr_db(fp32, cells(open_session(model))) > 27


def test_what_only_moves_values_shares_their_range(concat: Graph, concat_ranges: RangeTable) -> None:
    placement = onnxruntime_placement(concat)
    assert placement.range_of("pool") == "down1.on"
    assert placement.range_of("wide") == "down2.on"
    model = qdq_from_onnx(concat, concat_ranges, layout="onnxruntime")
    values = constants(model)
    assert values["pool_scale"] == values["down1.on_scale"]
    fp32 = cells(open_session(concat.model))
    assert sqnr_db(fp32, cells(open_session(model))) > 27
    assert sqnr_db(fp32, cells(open_session(qdq_from_onnx(concat, concat_ranges, layout="tensorrt")))) > 25


def test_a_sum_of_coordinates_is_not_rounded() -> None:
    build = Builder(5)
    heads = build.conv(build.add("Relu", [build.conv("frame", "stem", 3, 8)], "stem.on"), "heads", 8, 4)
    scale = build.constant("scale", np.array(16, np.float32))
    centre, half = (build.add("Mul", [heads, scale], name) for name in ("centre", "half"))
    right = build.add("Add", [centre, half], "right")
    build.add("Concat", [build.add("Sub", [centre, half], "left"), right], "cells", axis=1)
    graph = graph_of(build.model({"cells": ["N", 8, SIDE, SIDE]}))
    placement = onnxruntime_placement(graph)
    assert set(placement.tensors) == {"frame", "stem.on", "heads"}


def test_a_sum_of_what_is_left_in_float_is_left_in_float(residual: Graph) -> None:
    whole = onnxruntime_placement(residual)
    assert "two.out" in whole.tensors
    behind = [node.name for node in residual.nodes if node.op_type == "Conv" and node.name.startswith("two")]
    part = onnxruntime_placement(residual, keep_float=frozenset(behind))
    assert not {"two.b", "two.way", "two.sum", "two.out"} & set(part.tensors)
    assert "one.out" in part.tensors


# -- both


def test_the_outputs_keep_their_names_and_stay_float(residual: Graph, residual_ranges: RangeTable) -> None:
    for layout in ("tensorrt", "onnxruntime"):
        model = qdq_from_onnx(residual, residual_ranges, layout=layout)
        assert [value.name for value in model.graph.output] == ["cells", "feature"]
        assert [value.name for value in model.graph.input] == ["frame"]
        assert open_session(model).run(np.zeros((3, 3, 32, 32), np.float32))["feature"].shape == (3, 32)


def test_equal_inputs_give_equal_bytes(residual: Graph, residual_ranges: RangeTable) -> None:
    for layout in ("tensorrt", "onnxruntime"):
        made = [qdq_from_onnx(residual, residual_ranges, layout=layout) for _ in range(2)]
        assert made[0].SerializeToString(deterministic=True) == made[1].SerializeToString(deterministic=True)


def test_a_node_can_be_left_in_float(residual: Graph, residual_ranges: RangeTable) -> None:
    fp32 = cells(open_session(residual.model))
    whole = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    part = qdq_from_onnx(residual, residual_ranges, layout="tensorrt", keep_float=["stem.node"])
    stem = next(node for node in part.graph.node if node.name == "stem.node")
    assert list(stem.input) == ["frame", "stem.weight", "stem.bias"]
    better = sqnr_db(fp32, cells(open_session(part, reference=True)))
    assert better > sqnr_db(fp32, cells(open_session(whole, reference=True)))


def test_what_is_left_in_float_stays_float_in_the_runtime() -> None:
    """ONNX Runtime would round a float convolution between two roundings, one scale for all its channels."""
    builder = Builder(seed=3)
    builder.conv("frame", "stem", 3, 16)
    builder.add("Relu", ["stem"], "stem.relu")
    builder.conv("stem.relu", "uneven", 16, 16)
    ends = [builder.constant(f"clip.{end}", np.array(end, np.float32)) for end in (0, 6)]
    builder.add("Clip", ["uneven", *ends], "uneven.clip")
    builder.conv("uneven.clip", "next", 16, 16)
    builder.add("Relu", ["next"], "next.relu")
    builder.conv("next.relu", "cells", 16, 1)
    model = builder.model({"cells": ["N", 1, SIDE, SIDE]})
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("stem.weight", "stem.bias"):
            values[0] = 0
        if tensor.name == "uneven.weight":
            # weights of an input that is always 0 change nothing but the scale of a whole weight
            values[0, 0] = 300
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    graph = graph_of(model)
    made = qdq_from_onnx(graph, table(graph), layout="onnxruntime", architecture="x86_64", keep_float=["uneven.node"])
    as_run, as_written = cells(open_session(made)), cells(open_session(made, optimise=False))
    assert sqnr_db(as_written, as_run) > 30


def test_a_channel_without_weights_keeps_its_bias() -> None:
    model = residual_model(seed=5)
    for tensor in model.graph.initializer:
        if tensor.name == "one.b.weight":
            values = numpy_helper.to_array(tensor).copy()
            values[0] = 0
            values[1] *= 1e-9
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    graph = graph_of(model)
    fp32 = cells(open_session(model))
    for layout in ("tensorrt", "onnxruntime"):
        made = qdq_from_onnx(graph, table(graph), layout=layout)
        assert sqnr_db(fp32, cells(open_session(made))) > 25


def test_fully_connected_heads_are_quantised_whichever_way_their_weights_lie() -> None:
    build = Builder(1)
    at = build.add("Relu", [build.conv("frame", "stem", 3, 16, stride=4)], "stem.on")
    at = build.add("Flatten", [at], "flat", axis=1)
    random = np.random.default_rng(0)
    first = build.constant("first", random.normal(0, 0.05, (16 * 64, 24)).astype(np.float32))
    first_bias = build.constant("first.bias", random.normal(0, 0.1, 24).astype(np.float32))
    at = build.add("Relu", [build.add("Gemm", [at, first, first_bias], "hidden")], "hidden.on")
    second = build.constant("second", random.normal(0, 0.2, (12, 24)).astype(np.float32))
    second_bias = build.constant("second.bias", random.normal(0, 0.1, 12).astype(np.float32))
    at = build.add("Gemm", [at, second, second_bias], "wide", transB=1)
    third = build.constant("third", random.normal(0, 0.2, (12, 4)).astype(np.float32))
    at = build.add("MatMul", [at, third], "out")
    shape = build.constant("shape", np.array([-1, 1, 2, 2], np.int64))
    build.add("Reshape", [at, shape], "cells")
    graph = graph_of(build.model({"cells": ["N", 1, 2, 2]}))
    ranges = table(graph, count=300)
    fp32 = cells(open_session(graph.model))
    for layout in ("tensorrt", "onnxruntime"):
        model = qdq_from_onnx(graph, ranges, layout=layout)
        assert sqnr_db(fp32, cells(open_session(model))) > 25
        weights = {node.input[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"}
        assert [
            onnx.helper.get_node_attr_value(weights[f"{name}_q"], "axis") for name in ("first", "second")
        ] == [1, 0]


def test_every_tensor_either_layout_rounds_is_observed(residual: Graph, concat: Graph) -> None:
    for graph in (residual, concat):
        seen = set(observed_tensors(graph))
        for placement in (tensorrt_placement(graph), onnxruntime_placement(graph)):
            assert {placement.range_of(tensor) for tensor in placement.tensors} <= seen


def test_ranges_of_another_graph_are_refused(concat: Graph, residual_ranges: RangeTable) -> None:
    sentence = (
        f"the range table is of graph {residual_ranges.graph_sha256[:12]}, but this is graph {concat.digest[:12]}; "
        "make the ranges again: python -m calibration ranges"
    )
    with pytest.raises(FormatError, match=f"^{sentence}$"):
        qdq_from_onnx(concat, residual_ranges, layout="tensorrt")


def test_a_node_that_is_not_there_cannot_be_left_in_float(
    residual: Graph, residual_ranges: RangeTable
) -> None:
    with pytest.raises(
        ConfigError, match="^there is no node named stm to keep in float; did you mean stem.node"
    ):
        qdq_from_onnx(residual, residual_ranges, layout="tensorrt", keep_float=["stm"])


def test_a_tensor_without_a_row_is_named(residual: Graph, residual_ranges: RangeTable) -> None:
    fewer = {name: row for name, row in residual_ranges.tensors.items() if name != "pool"}
    with pytest.raises(
        FormatError, match="^the range table has no tensor pool; make the ranges again for this graph$"
    ):
        qdq_from_onnx(residual, residual_ranges.model_copy(update={"tensors": fewer}), layout="tensorrt")


def renamed(model: ModelProto, names: dict[str, str]) -> ModelProto:
    """The same graph, its tensors and constants called otherwise."""
    other = ModelProto()
    other.CopyFrom(model)
    for node in other.graph.node:
        for given in (node.input, node.output):
            given[:] = [names.get(name, name) for name in given]
    for tensor in other.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    onnx.checker.check_model(other, full_check=True)
    return other


def test_names_that_a_graph_has_are_not_taken_twice() -> None:
    hostile = {
        "one.a.on": "frame_q", "one.b": "frame_dq", "one.sum": "frame_dq_", "one.out": "pool_q", "pool": "frame_scale",
        "one.a.weight": "stem.weight_q", "one.b.weight": "stem.weight_dq", "two.a.bias": "stem.bias_stem.node_q",
        "stem.on": "cells_half", "two.a.on": "cells_half_cast", "two.b": "frame_half", "two.b.weight": "feature_half",
    }  # fmt: skip
    plain = residual_model()
    called = renamed(plain, hostile)
    called.graph.node[1].name = "frame_quantize"
    found = []
    for graph in (graph_of(plain), graph_of(called)):
        ranges = table(graph)
        trt = qdq_from_onnx(graph, ranges, layout="tensorrt")
        found.append((trt, qdq_from_onnx(graph, ranges, layout="onnxruntime"), half_from_qdq(trt, ranges)))
    for one, other in zip(*found, strict=True):
        assert len(one.graph.node) == len(other.graph.node)
        assert len({node.name for node in other.graph.node}) == len(other.graph.node)
        np.testing.assert_array_equal(
            cells(open_session(one, reference=True)), cells(open_session(other, reference=True))
        )


def test_nodes_without_a_name_get_one(tmp_path: Path) -> None:
    model = residual_model()
    for node in model.graph.node:
        node.name = "same" if node.op_type == "Relu" else ""
    graph = load_graph(save(model, tmp_path / "model.onnx"))
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names) and names[:3] == ["stem_node", "same", "pool_node"]
    # a name that is given stays, whatever comes before it
    model.graph.node[2].name = "stem_node"
    again = load_graph(save(model, tmp_path / "again.onnx"))
    assert [node.name for node in again.nodes[:3]] == ["stem_node_", "same", "stem_node"]
    kept = qdq_from_onnx(graph, table(graph), layout="tensorrt", keep_float=["stem_node"])
    assert next(node for node in kept.graph.node if node.name == "stem_node").input[1] == "stem.weight"
