"""Where an INT8 graph rounds: which tensors get a Q/DQ pair, in each of the two layouts.

TensorRT fuses Conv, Add and ReLU itself, so it wants rounding before what multiplies and on the way
round a residual block, and nowhere in between.  ONNX Runtime replaces an operation by its integer
kernel only where the rounding stands before and behind it.  One table of ranges serves both.
"""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto

from calibration.enlarging import enlarged_by_convolutions
from calibration.graphs import Graph, attribute

__all__ = ["Placement", "observed_tensors", "onnxruntime_placement", "tensorrt_placement"]

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SAME_VALUES = frozenset({"MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Slice"})
"""Their results are among their inputs' values, so both sides share one range."""
_INTEGER_KERNELS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu"}
)
"""What ONNX Runtime computes in integers between two Q/DQ pairs."""


@dataclass(frozen=True)
class Placement:
    """What is rounded, and who then reads the rounded values."""

    tensors: tuple[str, ...]
    """Tensors with a Q/DQ pair, in the order in which the graph makes them."""
    readers: frozenset[tuple[int, int]]
    """``(place of node, place among its inputs)`` that read the rounded tensor."""
    weighted: frozenset[int]
    """Places of nodes whose weight is int8."""
    absorbed: frozenset[int]
    """Places of activations that the rounding itself does: their zero is its least value."""
    shares_range_with: dict[str, str]
    """Tensors that take another one's range."""

    def range_of(self, tensor: str) -> str:
        """The tensor whose range a tensor is rounded with."""
        while tensor in self.shares_range_with:
            tensor = self.shares_range_with[tensor]
        return tensor


def observed_tensors(graph: Graph) -> tuple[str, ...]:
    """The tensors whose ranges either layout may ask for, in the order in which the graph makes them."""
    wanted: set[str] = set()
    for placement in (tensorrt_placement(graph), onnxruntime_placement(enlarged_by_convolutions(graph))):
        wanted.update(placement.range_of(tensor) for tensor in placement.tensors)
    return _in_order(graph, wanted)


def tensorrt_placement(graph: Graph, *, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Inputs of what multiplies with weights, and the residual input of Add; nothing else.

    Args:
        graph: FP32.
        keep_float: Names of nodes that stay as they are.

    Reference:
        NVIDIA TensorRT, "Explicit Quantization": quantise the inputs of weighted operations; with the
        residual quantised too, Conv, Add and ReLU become one kernel.
    """
    readers: set[tuple[int, int]] = set()
    weighted: set[int] = set()
    for place, node in enumerate(graph.nodes):
        if node.name in keep_float:
            continue
        if _has_weight(graph, node) and node.input[0] in graph.float_tensors:
            readers.add((place, 0))
            weighted.add(place)
        elif node.op_type == "Add":
            residual = _residual_input(graph, node)
            if residual is not None:
                readers.add((place, residual))
    tensors = {graph.nodes[place].input[slot] for place, slot in readers}
    return Placement(_in_order(graph, tensors), frozenset(readers), frozenset(weighted), frozenset(), {})


def onnxruntime_placement(graph: Graph, *, keep_float: frozenset[str] = frozenset()) -> Placement:
    """Every tensor before and behind what has an integer kernel; the graph's outputs stay float.

    A ReLU (or a clip from zero) behind such an operation is left to the rounding, whose least value is
    then zero.  What has no weights is computed in integers only behind something that is: a sum of a
    detector's coordinates, or of convolutions kept in float, would be rounded for nothing.
    """
    integer: set[int] = set()
    for place, node in enumerate(graph.nodes):
        if node.name in keep_float or not _runs_in_integers(graph, node):
            continue
        if node.op_type in WEIGHTED or any(_made_in(graph, name, integer) for name in node.input):
            integer.add(place)
    tensors: set[str] = set()
    absorbed: set[int] = set()
    silent: set[str] = set()
    shares: dict[str, str] = {}
    for place in sorted(integer):
        node = graph.nodes[place]
        tensors.update(
            name for name in node.input if name in graph.float_tensors and not graph.is_weight(name)
        )
        made = node.output[0]
        clip = _only_clip_behind(graph, made)
        if clip is not None and node.op_type not in _SAME_VALUES:
            absorbed.add(clip)
            silent.add(made)
            tensors.add(graph.nodes[clip].output[0])
        else:
            tensors.add(made)
    tensors -= silent
    # who only moves values about joins in where what it moves is rounded
    for node in graph.nodes:
        movable = _moves_values(node) and node.name not in keep_float and not _leaves(graph, node.output[0])
        if movable and node.input[0] in tensors and node.output[0] in graph.float_tensors:
            tensors.add(node.output[0])
            shares[node.output[0]] = node.input[0]
    for name, source in graph.stand_ins.items():
        shares.pop(source, None)
        shares[name] = source
    readers = {
        (place, slot)
        for place, node in enumerate(graph.nodes)
        if place not in absorbed
        for slot, name in enumerate(node.input)
        if name in tensors
    }
    weighted = {place for place in integer if _has_weight(graph, graph.nodes[place])}
    return Placement(
        _in_order(graph, tensors), frozenset(readers), frozenset(weighted), frozenset(absorbed), shares
    )


def _in_order(graph: Graph, tensors: set[str]) -> tuple[str, ...]:
    return tuple(sorted(tensors, key=lambda name: (graph.producer.get(name, -1), name)))


def _has_weight(graph: Graph, node: NodeProto) -> bool:
    return node.op_type in WEIGHTED and len(node.input) > 1 and graph.is_weight(node.input[1])


def _runs_in_integers(graph: Graph, node: NodeProto) -> bool:
    if node.op_type not in _INTEGER_KERNELS or _leaves(graph, node.output[0]):
        return False
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        fits = node.op_type != "Gemm" or (
            attribute(node, "alpha", 1.0) == 1.0
            and attribute(node, "beta", 1.0) == 1.0
            and not attribute(node, "transA", 0)
        )
        weight = _has_weight(graph, node) and (
            node.op_type != "MatMul" or graph.weight(node.input[1]).ndim == 2
        )
        return fits and weight and node.input[0] in graph.float_tensors
    return all(name in graph.float_tensors and not graph.is_weight(name) for name in node.input)


def _made_in(graph: Graph, tensor: str, places: set[int]) -> bool:
    """Whether one of these nodes makes a tensor, up to clips and to what only moves values about."""
    while (place := graph.producer.get(tensor)) is not None and place not in places:
        node = graph.nodes[place]
        if node.op_type not in ("Relu", "Clip") and not _moves_values(node):
            return False
        tensor = node.input[0]
    return place is not None


def _moves_values(node: NodeProto) -> bool:
    if node.op_type == "Resize":
        return bool(attribute(node, "mode", b"nearest") == b"nearest")
    return node.op_type in _SAME_VALUES


def _leaves(graph: Graph, tensor: str) -> bool:
    """Whether a tensor is an output of the graph, or becomes one without being computed on."""
    if tensor in graph.outputs:
        return True
    users = graph.users(tensor)
    return bool(users) and all(_moves_values(node) and _leaves(graph, node.output[0]) for node in users)


def _only_clip_behind(graph: Graph, tensor: str) -> int | None:
    """The place of the ReLU, or clip from zero, that alone uses a tensor."""
    places = graph.consumers.get(tensor, [])
    if len(places) != 1 or tensor in graph.outputs:
        return None
    node = graph.nodes[places[0]]
    if node.output[0] in graph.outputs:
        return None
    if node.op_type == "Relu":
        return places[0]
    if node.op_type == "Clip" and len(node.input) > 1 and graph.is_weight(node.input[1]):
        return places[0] if float(graph.weight(node.input[1]).reshape(-1)[0]) == 0 else None
    return None


def _residual_input(graph: Graph, node: NodeProto) -> int | None:
    """Which input of an Add goes round the block: the one with less arithmetic behind it."""
    names = list(node.input)
    if (
        not all(name in graph.float_tensors and not graph.is_weight(name) for name in names)
        or names[0] == names[1]
    ):
        return None

    def fuses(name: str) -> bool:
        maker = graph.maker(name)
        sole = len(graph.consumers.get(name, ())) == 1 and name not in graph.outputs
        return maker is not None and maker.op_type in WEIGHTED and sole

    if not any(fuses(name) for name in names):
        return None
    if fuses(names[0]) != fuses(names[1]):
        return 1 if fuses(names[0]) else 0
    return 0 if graph.depth[names[0]] < graph.depth[names[1]] else 1
