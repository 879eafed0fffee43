"""Each operation in torch against ONNX Runtime, with the attributes that networks have."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, helper

from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError
from export.operations import OPERATIONS
from export.trainable import TorchGraph, check_same
from tests.calibration.networks import (
    SIDE,
    Builder,
    concat_graph,
    frames,
    graph_of,
    hswish_model,
    residual_model,
)

FRAME = ["frame"]


def ints(*values: int) -> Array:
    return np.array(values, np.int64)


def floats(*shape: int) -> Array:
    return np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)


CASES: list[tuple[str, list[str | Array], dict[str, Any]]] = [
    ("Conv", [*FRAME, floats(4, 3, 3, 3), floats(4)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [*FRAME, floats(3, 1, 3, 3)], {"group": 3, "dilations": [2, 2]}),
    ("ConvTranspose", [*FRAME, floats(3, 4, 2, 2), floats(4)], {"strides": [2, 2], "output_padding": [1, 1]}),
    ("ConvTranspose", [*FRAME, floats(3, 2, 3, 3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", FRAME, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    ("MaxPool", FRAME, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("AveragePool", FRAME, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", FRAME, {"kernel_shape": [2, 2], "strides": [2, 2], "count_include_pad": 1}),
    ("GlobalAveragePool", FRAME, {}),
    ("GlobalMaxPool", FRAME, {}),
    ("BatchNormalization", [*FRAME, floats(3), floats(3), floats(3), np.abs(floats(3))], {"epsilon": 1e-3}),
    ("InstanceNormalization", [*FRAME, floats(3), floats(3)], {"epsilon": 1e-3}),
    ("LayerNormalization", [*FRAME, floats(SIDE), floats(SIDE)], {"axis": -1}),
    ("MatMul", [*FRAME, floats(SIDE, 5)], {}),
    ("Relu", FRAME, {}),
    ("LeakyRelu", FRAME, {"alpha": 0.2}),
    ("PRelu", [*FRAME, floats(3, 1, 1)], {}),
    ("Elu", FRAME, {"alpha": 0.7}),
    ("Mish", FRAME, {}),
    ("Where", [np.array([[True], [False], [True]])[..., None], *FRAME, floats(1)], {}),
    ("HardSigmoid", FRAME, {}),
    ("HardSigmoid", FRAME, {"alpha": 1 / 6, "beta": 0.5}),
    ("HardSwish", FRAME, {}),
    ("Sigmoid", FRAME, {}),
    ("Tanh", FRAME, {}),
    ("Softplus", FRAME, {}),
    ("Softmax", FRAME, {"axis": 1}),
    ("Erf", FRAME, {}),
    ("Exp", FRAME, {}),
    ("Abs", FRAME, {}),
    ("Neg", FRAME, {}),
    ("Identity", FRAME, {}),
    ("Clip", [*FRAME, np.float32(-0.5), np.float32(0.25)], {}),
    ("Clip", [*FRAME, "", np.float32(0.25)], {}),
    ("Add", [*FRAME, floats(3, 1, 1)], {}),
    ("Sub", [*FRAME, floats(1)], {}),
    ("Mul", ["frame", "frame"], {}),
    ("Div", [*FRAME, np.float32(3)], {}),
    ("Pow", [*FRAME, np.float32(2)], {}),
    ("Max", [*FRAME, np.float32(0.1)], {}),
    ("Min", [*FRAME, floats(3, 1, 1), np.float32(0.1)], {}),
    ("Sum", ["frame", "frame", "frame"], {}),
    ("ReduceMean", [*FRAME, ints(2, 3)], {"keepdims": 1}),
    ("ReduceMean", [*FRAME, ints(-1)], {"keepdims": 0}),
    ("ReduceMean", FRAME, {}),
    ("ReduceSum", [*FRAME, ints(1)], {"keepdims": 0}),
    ("ReduceMax", [*FRAME, ints(2)], {}),
    ("ReduceMin", [*FRAME, ints(2)], {}),
    ("ReduceL2", [*FRAME, ints(1)], {}),
    ("Concat", ["frame", "frame"], {"axis": 1}),
    ("Reshape", [*FRAME, ints(0, -1, 8)], {}),
    ("Flatten", FRAME, {"axis": 2}),
    ("Transpose", FRAME, {"perm": [0, 2, 3, 1]}),
    ("Transpose", FRAME, {}),
    ("Unsqueeze", [*FRAME, ints(1, -1)], {}),
    ("Slice", [*FRAME, ints(1, -3), ints(2**62, -(2**62)), ints(1, 3), ints(1, -2)], {}),
    ("Gather", [*FRAME, ints(2, -1, 0)], {"axis": 1}),
    ("Expand", [*FRAME, ints(2, 1, 1, 1)], {}),
    ("Pad", [*FRAME, ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.5)], {}),
    ("Pad", [*FRAME, ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "reflect"}),
    ("Pad", [*FRAME, ints(0, 0, 1, 2, 0, 0, 3, 0)], {"mode": "edge"}),
    ("Resize", [*FRAME, "", np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}),
    ("Resize", [*FRAME, "", np.array([1, 1, 3, 2], np.float32)], {"mode": "nearest"}),
    (
        "Resize",
        [*FRAME, "", np.array([1, 1, 1.5, 0.5], np.float32)],
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    (
        "Resize",
        [*FRAME, "", "", ints(1, 3, 48, 80)],
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    ("Dropout", FRAME, {}),
    ("Sqrt", [np.abs(floats(2, 3))], {}),
    ("Log", [np.abs(floats(2, 3))], {}),
    ("Reciprocal", [floats(2, 3)], {}),
    ("Gemm", [floats(5, 2), floats(4, 5), floats(4)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Squeeze", [floats(1, 3, 1), ints(0)], {}),
    ("Cast", [ints(3, 4)], {"to": 1}),
    ("ConstantOfShape", [ints(2, 3)], {}),
    ("DepthToSpace", [floats(1, 8, 2, 2)], {"blocksize": 2, "mode": "CRD"}),
]


def of_one(op: str, inputs: list[str | Array], attributes: dict[str, Any]) -> ModelProto:
    """A graph of this operation, which gives its result, and the frame with the result's sum added."""
    build = Builder()
    names = [one if isinstance(one, str) else build.constant(f"c{n}", one) for n, one in enumerate(inputs)]
    build.add(op, names, "cells", **attributes)
    build.add("Add", ["frame", build.add("ReduceSum", ["cells"], "total", keepdims=0)], "feature")
    model = build.model({"feature": ["N", 3, SIDE, SIDE]})
    inferred = onnx.shape_inference.infer_shapes(model).graph.value_info
    made = next(value.type.tensor_type for value in inferred if value.name == "cells")
    shape = [f"d{n}" for n in range(len(made.shape.dim))]
    model.graph.output.append(helper.make_tensor_value_info("cells", made.elem_type, shape))
    return model


@pytest.mark.parametrize(("op", "inputs", "attributes"), CASES, ids=[op for op, _, _ in CASES])
def test_an_operation_computes_what_onnx_runtime_does(
    op: str, inputs: list[str | Array], attributes: dict[str, Any]
) -> None:
    check_same(TorchGraph(graph_of(of_one(op, inputs, attributes)), torch.device("cpu")), frames(1, seed=4)[0])


def test_every_operation_is_tried() -> None:
    elsewhere = {"Constant", "Gelu", "Greater", "Shape", "Split"}
    assert set(OPERATIONS) - elsewhere == {op for op, _, _ in CASES}


def test_what_gives_several_results_or_counts_sizes_is_computed_too() -> None:
    build = Builder()
    build.nodes.append(helper.make_node("Split", ["frame"], ["a", "b", "c"], axis=1, num_outputs=3))
    build.nodes.append(helper.make_node("Constant", [], ["one"], value_ints=[1]))
    build.add("Shape", ["frame"], "shape", start=2)
    build.add("Concat", ["one", "one", "shape"], "wide", axis=0)
    build.add("Expand", ["b", "wide"], "cells")
    check_same(TorchGraph(graph_of(build.model({"cells": ["N", 1, SIDE, SIDE]})), torch.device("cpu")), frames(1)[0])


def test_what_is_chosen_by_size_is_computed_too() -> None:
    build = Builder()
    above = build.add("Greater", ["frame", build.constant("limit", floats(3, 1, 1))], "above")
    build.add("Where", [above, "frame", build.add("Neg", ["frame"], "turned")], "cells")
    check_same(TorchGraph(graph_of(build.model({"cells": ["N", 3, SIDE, SIDE]})), torch.device("cpu")), frames(1)[0])


@pytest.mark.parametrize("approximate", ["none", "tanh"])
def test_what_came_with_a_later_opset_is_computed_too(approximate: str) -> None:
    build = Builder()
    made = build.add("Gelu", ["frame"], "cells", approximate=approximate)
    model = helper.make_model(
        helper.make_graph(
            build.nodes,
            "test",
            *([helper.make_tensor_value_info(name, 1, ["N", 3, SIDE, SIDE])] for name in ("frame", made)),
        ),
        opset_imports=[helper.make_opsetid("", 20)],
        ir_version=10,
    )
    check_same(TorchGraph(graph_of(model), torch.device("cpu")), frames(1)[0])


@pytest.mark.parametrize("model", [residual_model(), concat_graph(), hswish_model()], ids=["residual", "concat", "se"])
def test_whole_networks_agree_at_any_batch(model: ModelProto) -> None:
    network = TorchGraph(graph_of(model), torch.device("cpu"))
    check_same(network, frames(1)[0])
    check_same(network, np.concatenate(frames(3)))


def test_an_operation_that_is_not_known_is_named_with_what_is() -> None:
    model = of_one("Round", ["frame"], {})
    with pytest.raises(FormatError, match=r"holds Round \(node cells.node\), which fine-tuning cannot compute; the"):
        TorchGraph(graph_of(model), torch.device("cpu"))


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "why"),
    [
        ("Conv", ["frame", floats(4, 3, 3, 3)], {"auto_pad": "SAME_UPPER"}, "auto_pad SAME_UPPER"),
        ("Resize", ["frame", "", np.array([1, 1, 2, 2], np.float32)], {"mode": "cubic"}, "mode cubic with half_pixel"),
        ("Cast", ["frame"], {"to": 10}, "the type FLOAT16"),
    ],
)
def test_an_attribute_that_is_not_known_is_refused(
    op: str, inputs: list[str | Array], attributes: dict[str, Any], why: str
) -> None:
    build = Builder()
    names = [one if isinstance(one, str) else build.constant(f"c{n}", one) for n, one in enumerate(inputs)]
    build.add(op, names, "made", **attributes)
    build.add("Identity", ["frame"], "cells")
    network = TorchGraph(graph_of(build.model({"cells": ["N", 3, SIDE, SIDE]})), torch.device("cpu"))
    with pytest.raises(FormatError, match=f"node made.node \\({op}\\) asks for {why}, which .* do without it$"):
        network.run(torch.from_numpy(frames(1)[0]))


def test_a_graph_that_torch_computes_otherwise_is_refused_by_its_first_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPERATIONS, "HardSwish", lambda x, _: x[0] * torch.sigmoid(x[0]))
    network = TorchGraph(graph_of(hswish_model()), torch.device("cpu"))
    with pytest.raises(FormatError, match=r"node stem.on.node \(HardSwish\) is computed otherwise by torch"):
        check_same(network, frames(1)[0])
