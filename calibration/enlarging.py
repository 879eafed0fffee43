"""Transposed convolutions that only enlarge, written so that ONNX Runtime computes them in integers.

It has no integer kernel for ConvTranspose.  Where the kernel is as large as the stride, each place of the input makes a
block of the output that no other one touches:

    y[c, s i + a, t j + b] = bias[c] + sum over k of x[k, i, j] W[k, c, a, b],    0 <= a < s, 0 <= b < t

which is a 1 x 1 convolution to ``s t C`` channels, and then moving values.  They are moved with the channels last, as
the integer kernels hold them: between two of those no layout is changed.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.graphs import Graph, attribute

__all__ = ["enlarged_by_convolutions"]

_CLIPS = ("Relu", "Clip")


def enlarged_by_convolutions(graph: Graph, *, keep_float: Collection[str] = ()) -> Graph:
    """The same function; a ReLU or clip behind such a convolution is computed before the values are moved.

    Args:
        graph: FP32.
        keep_float: Names of nodes that stay as they are.

    Returns:
        The graph itself where there is nothing to rewrite, else one with its digest whose ``stand_ins`` names the new
        tensors.  The convolution has the name of what it stands for.
    """
    sizes = _sizes(graph) if any(node.op_type == "ConvTranspose" for node in graph.nodes) else {}
    nodes: list[NodeProto] = []
    weights: list[TensorProto] = []
    stand_ins: dict[str, str] = {}
    done: set[int] = set()
    for place, node in enumerate(graph.nodes):
        if place in done:
            continue
        size = sizes.get(node.input[0]) if node.name not in keep_float and _only_enlarges(graph, node) else None
        clip = None if size is None else _clip_behind(graph, node)
        made = node.output[0] if clip is None else graph.nodes[clip].output[0]
        if size is None or made in graph.outputs:
            nodes.append(node)
            continue
        found, constants = _blocks(graph, node, None if clip is None else graph.nodes[clip], size)
        nodes += found
        weights += constants
        stand_ins |= {name: made for new in found for name in new.output if name != made}
        done |= set() if clip is None else {clip}
    if not stand_ins:
        return graph
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    return Graph(model, graph.digest, stand_ins)


def _only_enlarges(graph: Graph, node: NodeProto) -> bool:
    """Whether no two places of the input reach the same one of the output, and all of it is reached."""
    if node.op_type != "ConvTranspose" or not all(graph.is_weight(name) for name in node.input[1:]):
        return False
    kernel = graph.weight(node.input[1]).shape[2:]
    return (
        len(kernel) == 2
        and tuple(attribute(node, "strides", (1, 1))) == kernel
        and attribute(node, "group", 1) == 1
        and attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
        and not any(attribute(node, "pads", ()))
        and not any(attribute(node, "output_padding", ()))
        and not attribute(node, "output_shape", ())
        and all(step == 1 for step in attribute(node, "dilations", ()))
    )


def _clip_behind(graph: Graph, node: NodeProto) -> int | None:
    places = graph.consumers.get(node.output[0], [])
    if len(places) != 1 or node.output[0] in graph.outputs:
        return None
    clip = graph.nodes[places[0]]
    known = all(not name or graph.is_weight(name) for name in clip.input[1:])
    return places[0] if clip.op_type in _CLIPS and known else None


def _blocks(
    graph: Graph, node: NodeProto, clip: NodeProto | None, size: tuple[int, int]
) -> tuple[list[NodeProto], list[TensorProto]]:
    values = graph.weight(node.input[1])
    _, channels, down, across = values.shape
    rows, columns = size
    made = node.output[0] if clip is None else clip.output[0]
    taken = graph.names()

    def new(what: str) -> str:
        name = f"{made}_{what}"
        while name in taken:
            name += "_"
        return name

    constants = {
        new("weight"): values.transpose(2, 3, 1, 0).reshape(down * across * channels, -1, 1, 1),
        new("lines_shape"): np.array([-1, columns, down, across * channels], np.int64),
        new("whole_shape"): np.array([-1, rows * down, columns * across, channels], np.int64),
    }
    if len(node.input) > 2:
        constants[new("bias")] = np.tile(graph.weight(node.input[2]), down * across)
    bias = [new("bias")] if len(node.input) > 2 else []
    nodes = [helper.make_node("Conv", [node.input[0], new("weight"), *bias], [new("blocks")], name=node.name)]
    at = new("blocks")
    if clip is not None:
        clipped = NodeProto()
        clipped.CopyFrom(clip)
        clipped.input[0], clipped.output[0], at = at, new("clipped"), new("clipped")
        nodes.append(clipped)
    steps: list[tuple[str, str | list[int]]] = [
        (new("last"), [0, 2, 3, 1]),
        (new("lines"), new("lines_shape")),
        (new("apart"), [0, 2, 1, 3]),
        (new("whole"), new("whole_shape")),
        (made, [0, 3, 1, 2]),
    ]
    for output, how in steps:
        name = f"{output}_moved"
        if isinstance(how, str):
            nodes.append(helper.make_node("Reshape", [at, how], [output], name=name))
        else:
            nodes.append(helper.make_node("Transpose", [at], [output], name=name, perm=how))
        at = output
    return nodes, [numpy_helper.from_array(np.ascontiguousarray(one), name) for name, one in constants.items()]


def _sizes(graph: Graph) -> dict[str, tuple[int, int]]:
    """Height and width of every tensor of four dimensions of which they are known."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    found = {}
    for value in (*inferred.value_info, *inferred.input, *inferred.output):
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[2].dim_value > 0 and dims[3].dim_value > 0:
            found[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return found
