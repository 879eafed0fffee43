"""An ONNX graph as calibration sees it: who makes a tensor, who uses it, what is a weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from edge_sdk.arrays import Array
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import FormatError

__all__ = ["Graph", "attribute", "channel_axis", "load_graph"]

_QUANTISED = {
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "QGemm",
}

_ONNX = ("", "ai.onnx")
_LEAST_OPSET = 13


class Graph:
    """A read-only view of a model; ``model`` itself is never changed."""

    def __init__(self, model: ModelProto, digest: str, stand_ins: Mapping[str, str] | None = None) -> None:
        self.model = model
        self.digest = digest
        """sha256 of the file's bytes, hexadecimal."""
        self.stand_ins: dict[str, str] = dict(stand_ins or {})
        """Tensors that the file has not, each to the one of the file that has its values, in another order."""
        self.nodes: tuple[NodeProto, ...] = tuple(model.graph.node)
        self.outputs: tuple[str, ...] = tuple(value.name for value in model.graph.output)
        self.inputs: tuple[str, ...] = tuple(value.name for value in model.graph.input)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.producer: dict[str, int] = {}
        """Tensor to the place of the node that makes it."""
        self.consumers: dict[str, list[int]] = defaultdict(list)
        """Tensor to the places of the nodes that use it, in order."""
        for place, node in enumerate(self.nodes):
            for name in node.output:
                self.producer[name] = place
            for name in node.input:
                if name:
                    self.consumers[name].append(place)

    def is_weight(self, name: str) -> bool:
        """Whether a tensor is a constant stored in the file."""
        return name in self._initializers

    def weight(self, name: str) -> Array:
        """A constant's values."""
        return numpy_helper.to_array(self._initializers[name])

    def with_weights(self, weights: Mapping[str, Array]) -> Graph:
        """The same graph with other values in some of its constants; its digest stays that of the file it is of."""
        model = ModelProto()
        model.CopyFrom(self.model)
        for tensor in model.graph.initializer:
            if tensor.name in weights:
                tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
        return Graph(model, self.digest)

    def names(self) -> set[str]:
        """Of every tensor and node."""
        tensors = {name for node in self.nodes for name in (*node.input, *node.output)}
        return {*tensors, *self.inputs, *self.outputs, *self._initializers, *(node.name for node in self.nodes)}

    def maker(self, tensor: str) -> NodeProto | None:
        """The node that makes a tensor; none of an input or a constant."""
        place = self.producer.get(tensor)
        return None if place is None else self.nodes[place]

    def users(self, tensor: str) -> list[NodeProto]:
        """The nodes that use a tensor."""
        return [self.nodes[place] for place in self.consumers.get(tensor, ())]

    @cached_property
    def float_tensors(self) -> frozenset[str]:
        """Every activation known to be float32, inputs included."""
        inferred = onnx.shape_inference.infer_shapes(self.model)
        values = [*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output]
        kinds = {value.name: value.type.tensor_type.elem_type for value in values}
        return frozenset(name for name, kind in kinds.items() if kind == TensorProto.FLOAT)

    @cached_property
    def depth(self) -> dict[str, int]:
        """Of each tensor, how many weighted operations lie behind it at most."""
        found: dict[str, int] = dict.fromkeys(self.inputs, 0)
        for node in self.nodes:
            behind = max((found.get(name, 0) for name in node.input), default=0)
            own = 1 if any(self.is_weight(name) for name in node.input[1:2]) else 0
            for name in node.output:
                found[name] = behind + own
        return found


def load_graph(path: Path) -> Graph:
    """Read an FP32 graph.

    Raises:
        FormatError: The file is missing, no ONNX, already quantised, of an opset that cannot be, or holds control flow
            or operations that are not ONNX's own.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); is the path right?") from error
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx raises protobuf's, its own and Python's errors
        raise FormatError(f"{path} is no ONNX graph ({_first_line(error)}); export it again") from error
    _check_operations(path, model)
    quantised = sum(node.op_type in _QUANTISED for node in model.graph.node)
    if quantised:
        raise FormatError(
            f"{path} is already quantised: it holds {quantised} quantising nodes; give the FP32 graph, model.onnx"
        )
    _name_nodes(model)
    return Graph(model, sha256_hex(data))


def _name_nodes(model: ModelProto) -> None:
    """Nodes are told apart by their names, which ONNX does not ask for: those without get one of what they make, and
    of several with one name the first keeps it."""
    taken = {node.name for node in model.graph.node}
    kept = {""}
    for node in model.graph.node:
        name = node.name or f"{node.output[0]}_node"
        while node.name in kept and name in taken:
            name += "_"
        taken.add(name)
        kept.add(name)
        node.name = name


def _check_operations(path: Path, model: ModelProto) -> None:
    for node in model.graph.node:
        if any(item.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for item in node.attribute):
            raise FormatError(
                f"{path} has control flow (node {node.name or node.output[0]} is {_article(node.op_type)}): what may "
                "not run has no range; export the network without it"
            )
        if node.domain not in _ONNX:
            raise FormatError(
                f"{path} holds {node.domain}.{node.op_type} (node {node.name or node.output[0]}), which is no ONNX "
                "operation; replace it in the network by ones that are, and export it again"
            )
    opset = max((entry.version for entry in model.opset_import if entry.domain in _ONNX), default=0)
    if opset < _LEAST_OPSET:
        raise FormatError(
            f"{path} is of opset {opset}, but a weight can be quantised per channel from opset {_LEAST_OPSET} on; "
            "export it with opset 19"
        )


def _article(word: str) -> str:
    return f"an {word}" if word[:1] in "AEIOU" else f"a {word}"


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of a node's attribute."""
    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0][:120] if text else type(error).__name__


def channel_axis(node: NodeProto) -> int:
    """The axis of a weight along which the output's channels lie."""
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        return 1
    return 0
