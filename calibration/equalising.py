"""Channels made equally large before they are rounded for TensorRT, where the convolutions that read them undo it.

A tensor has one int8 step, so a channel a tenth as large as the largest keeps a tenth of its levels.  A factor ``r[c]``
on each channel and its inverse in the weights that read it leave the function as it is:

    sum over c of W[o, c] x[c]  =  sum over c of (W[o, c] / r[c]) (r[c] x[c])

The factors stand where they cost no kernel: in a multiplication behind an activation that TensorRT computes point by
point anyway, on the gate where a gate made the tensor, and behind a ReLU in the convolution before it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from calibration.graphs import Graph, attribute
from calibration.placement import tensorrt_placement
from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError

__all__ = ["Site", "equalised", "equalised_name", "over_inputs", "plain_weights", "sites_of"]

_POINTWISE = frozenset({"HardSwish", "Mul", "Gelu", "Mish", "Swish", "Elu", "Selu", "Softplus"})
"""Activations that are no part of a convolution's kernel."""
_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu"})
"""``f(r x) = r f(x)`` for r above 0, and part of a convolution's kernel."""


@dataclass(frozen=True)
class Site:
    """A tensor whose channels may have factors: all that use it are convolutions that TensorRT runs in int8."""

    tensor: str
    readers: tuple[int, ...]
    """Places of the convolutions."""
    channels: int
    producer: int | None
    """Place of the convolution whose weights take the factors; none where a multiplication does."""
    gate: str | None
    """``(N, C, 1, 1)``, the input of the multiplication that makes the tensor; it takes the factors, being small."""


def equalised_name(tensor: str) -> str:
    """Of what is rounded in place of a tensor."""
    return f"{tensor}_equalised"


def sites_of(graph: Graph) -> tuple[Site, ...]:
    """Where factors change nothing and cost next to nothing, in the order of the graph.

    None where the graph has a name already that its factors would bring: ranges are kept by these names.
    """
    placement = tensorrt_placement(graph)
    sizes, names = _sizes(graph), graph.names()
    found = (_site(graph, tensor, placement.weighted, sizes) for tensor in placement.tensors)
    return tuple(site for site in found if site is not None and names.isdisjoint(_added(graph, site)))


def equalised(graph: Graph, factors: Mapping[str, Sequence[float]]) -> Graph:
    """The same function, with channels equalised and the digest of the graph.

    Args:
        graph: FP32.
        factors: By tensor, as ``calibration.factors`` found them; without any the graph is returned as it is.

    Raises:
        FormatError: A tensor cannot have factors in this graph.
    """
    if not factors:
        return graph
    sites = _chosen(graph, factors)
    model = ModelProto()
    model.CopyFrom(graph.model)
    multipliers = _multipliers(graph, sites, factors)
    for tensor in model.graph.initializer:
        if tensor.name in multipliers:
            values = numpy_helper.to_array(tensor)
            made = (values * multipliers[tensor.name]).astype(values.dtype)
            tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
    renamed: dict[str, str] = {}
    behind: dict[str, NodeProto] = {}
    for site in sites:
        new = equalised_name(site.tensor)
        if site.producer is not None:
            made = graph.nodes[site.producer].output[0]
            renamed |= {site.tensor: new, made: equalised_name(made)}
            continue
        source = site.gate or site.tensor
        values = np.asarray(factors[site.tensor], np.float32).reshape(1, -1, 1, 1)
        constant = _constant(site.tensor)
        model.graph.initializer.append(numpy_helper.from_array(values, constant))
        behind[source] = helper.make_node(
            "Mul", [source, constant], [equalised_name(source)], name=_node(site.tensor)
        )
        if site.gate is not None:
            renamed[site.tensor] = new
    nodes = list(model.graph.node)
    del model.graph.node[:], model.graph.value_info[:]
    for node in nodes:
        for slot, name in enumerate(node.input):
            if name in behind or name in renamed:
                node.input[slot] = equalised_name(name)
        for slot, name in enumerate(node.output):
            node.output[slot] = renamed.get(name, name)
        model.graph.node.append(node)
        model.graph.node.extend(behind[name] for name in node.output if name in behind)
    return Graph(model, graph.digest)


def plain_weights(
    graph: Graph, factors: Mapping[str, Sequence[float]], weights: Mapping[str, Array]
) -> dict[str, Array]:
    """Weights of the equalised graph as the graph itself would hold them."""
    how = _multipliers(graph, _chosen(graph, factors), factors) if factors else {}
    return {
        name: (values / how[name]).astype(values.dtype) if name in how else values for name, values in weights.items()
    }


def _chosen(graph: Graph, factors: Mapping[str, Sequence[float]]) -> list[Site]:
    sites = {site.tensor: site for site in sites_of(graph)}
    for tensor, values in factors.items():
        if tensor not in sites or len(values) != sites[tensor].channels:
            raise FormatError(f"the channels of {tensor} cannot be equalised in this graph; make the ranges again")
    return [site for site in sites.values() if site.tensor in factors]


def _site(
    graph: Graph, tensor: str, weighted: frozenset[int], sizes: Mapping[str, tuple[int, int]]
) -> Site | None:
    places = graph.consumers.get(tensor, [])
    maker = graph.maker(tensor)
    if maker is None or not places or tensor in graph.outputs or sizes.get(tensor) == (1, 1):
        return None
    if not all(place in weighted and _can_undo(graph, graph.nodes[place], tensor) for place in places):
        return None
    counts = {_channels(graph, graph.nodes[place]) for place in places}
    if len(counts) != 1:
        return None
    readers = [graph.nodes[place] for place in places]
    producer, gate = None, None
    if maker.op_type in _HOMOGENEOUS:
        producer = graph.producer.get(maker.input[0])
        deep = any(attribute(node, "group", 1) > 1 for node in readers)
        # a residual network's channels are of one size already, and factors gained it nothing
        if not deep or producer is None or not _takes_factors(graph, producer):
            return None
    elif maker.op_type not in _POINTWISE:
        return None
    elif maker.op_type == "Mul":
        small = [name for name in maker.input if sizes.get(name) == (1, 1) and _only_used_once(graph, name)]
        gate = small[0] if len(set(maker.input)) == 2 and small else None
    return Site(tensor, tuple(places), counts.pop(), producer, gate)


def _constant(tensor: str) -> str:
    return f"{tensor}_factors"


def _node(tensor: str) -> str:
    return f"{tensor}_equalise"


def _added(graph: Graph, site: Site) -> set[str]:
    """Names that factors bring."""
    made = {site.tensor, *(graph.nodes[site.producer].output if site.producer is not None else ())}
    made |= {site.gate} if site.gate else set()
    return {_constant(site.tensor), _node(site.tensor), *map(equalised_name, made)}


def _can_undo(graph: Graph, node: NodeProto, tensor: str) -> bool:
    plain = node.op_type == "Conv" or (node.op_type == "ConvTranspose" and attribute(node, "group", 1) == 1)
    return plain and list(node.input).count(tensor) == 1 and len(graph.consumers[node.input[1]]) == 1


def _takes_factors(graph: Graph, place: int) -> bool:
    node = graph.nodes[place]
    if node.op_type != "Conv" or not _only_used_once(graph, node.output[0]):
        return False
    return all(graph.is_weight(name) and len(graph.consumers[name]) == 1 for name in node.input[1:] if name)


def _only_used_once(graph: Graph, tensor: str) -> bool:
    return tensor in graph.producer and len(graph.consumers[tensor]) == 1 and tensor not in graph.outputs


def _sizes(graph: Graph) -> dict[str, tuple[int, int]]:
    """Height and width of every tensor of four dimensions of which they are known."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    found = {}
    for value in inferred.value_info:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 4 and dims[2].dim_value and dims[3].dim_value:
            found[value.name] = (dims[2].dim_value, dims[3].dim_value)
    return found


def _channels(graph: Graph, node: NodeProto) -> int:
    shape = graph.weight(node.input[1]).shape
    return int(shape[0] if node.op_type == "ConvTranspose" else shape[1] * attribute(node, "group", 1))


def over_inputs(graph: Graph, node: NodeProto, values: Array) -> Array:
    """``(C,)`` of a convolution's input channels, shaped to be multiplied with its weight."""
    weight = graph.weight(node.input[1])
    ones = [1] * (weight.ndim - 2)
    if node.op_type == "ConvTranspose":
        return values.reshape(-1, 1, *ones)
    groups = attribute(node, "group", 1)
    of_output = np.repeat(values.reshape(groups, -1), weight.shape[0] // groups, axis=0)
    return of_output.reshape(*of_output.shape, *ones)


def _multipliers(
    graph: Graph, sites: Sequence[Site], factors: Mapping[str, Sequence[float]]
) -> dict[str, Array]:
    """By constant: what equalising multiplies it by."""
    found: dict[str, Array] = {}
    for site in sites:
        values = np.asarray(factors[site.tensor], np.float64)
        for place in site.readers:
            node = graph.nodes[place]
            name = node.input[1]
            found[name] = found.get(name, 1.0) * over_inputs(graph, node, 1 / values)
        if site.producer is not None:
            name, *bias = [one for one in graph.nodes[site.producer].input[1:] if one]
            found[name] = found.get(name, 1.0) * values.reshape(-1, *[1] * (graph.weight(name).ndim - 1))
            found |= dict.fromkeys(bias, values)
    return found
