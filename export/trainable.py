"""An ONNX graph that torch computes, so that its weights can be trained and written back where they were.

Fine-tuning works on the exported graph and not on the network it came from: there batch normalisation is folded, every
tensor has the name that the range table knows, and a network from anywhere has the same few operations.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx
import torch
from onnx import NodeProto, numpy_helper
from torch import Tensor, nn

from calibration.choosing import Noise
from calibration.graphs import Graph, channel_axis
from calibration.placement import tensorrt_placement
from calibration.ranges import RangeTable
from calibration.scales import activation_step, weight_steps
from calibration.sessions import open_session
from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import FormatError
from export.operations import OPERATIONS
from export.rounding import LEAST_WEIGHT, rounded

__all__ = ["SAME_DB", "FakeQuantised", "TorchGraph", "check_same"]

SAME_DB = 60.0
"""Two runtimes that compute the same in float32 agree to about 120 dB; a misread attribute shows far below this."""

_WITHOUT = "the calibrated graphs do without it"

Read = Callable[[int, int, str, Tensor], Tensor]
"""From place of node, place among its inputs, name and value to what the node reads."""


class TorchGraph:
    """A graph, ready to be computed by torch.

    Args:
        graph: FP32.
        device: Where to compute; shapes and indices stay on the CPU.

    Raises:
        FormatError: It holds an operation that is not known here.
    """

    def __init__(self, graph: Graph, device: torch.device) -> None:
        self.graph = graph
        self.device = device
        for node in graph.nodes:
            if node.op_type not in OPERATIONS:
                raise FormatError(
                    f"the graph holds {node.op_type} (node {node.name or node.output[0]}), which fine-tuning cannot "
                    f"compute; {_WITHOUT}, or build the network of what it knows: {', '.join(sorted(OPERATIONS))}"
                )
        self._said = [
            {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute} for node in graph.nodes
        ]
        self._constants = {
            tensor.name: self._placed(torch.from_numpy(numpy_helper.to_array(tensor).copy()))
            for tensor in graph.model.graph.initializer
        }
        self._last: dict[str, int] = {
            name: place for place, node in enumerate(graph.nodes) for name in node.input if name
        }

    def run(self, frame: Tensor, read: Read | None = None) -> dict[str, Tensor]:
        """Every output of the graph.

        Args:
            frame: ``(N, 3, H, W)`` on the device.
            read: Told of every input of every node; gives what the node takes instead.

        Raises:
            FormatError: An operation is asked for what is not here.
        """
        values = {**self._constants, self.graph.inputs[0]: frame}
        for place, node in enumerate(self.graph.nodes):
            given = [
                None if not name else values[name] if read is None else read(place, slot, name, values[name])
                for slot, name in enumerate(node.input)
            ]
            made = self._computed(place, node, given)
            values.update(zip((name for name in node.output), made, strict=False))
            for name in set(node.input):
                if self._last.get(name) == place and name not in self.graph.outputs:
                    values.pop(name, None)
        return {name: values[name] for name in self.graph.outputs}

    def _computed(self, place: int, node: NodeProto, given: list[Tensor | None]) -> tuple[Tensor, ...]:
        called = f"node {node.name or node.output[0]} ({node.op_type})"
        if len([name for name in node.output if name]) > 1 and node.op_type != "Split":
            raise FormatError(f"{called} gives more than one result, which fine-tuning cannot compute; {_WITHOUT}")
        try:
            made = OPERATIONS[node.op_type](given, self._said[place])
        except FormatError as error:
            raise FormatError(f"{called} asks for {error}, which fine-tuning cannot compute; {_WITHOUT}") from error
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
            said = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
            raise FormatError(f"{called} cannot be computed for fine-tuning ({said})") from error
        several = made if isinstance(made, tuple) else (made,)
        return tuple(self._placed(one) for one in several)

    def _placed(self, values: Tensor) -> Tensor:
        return values.to(self.device) if values.is_floating_point() else values


class FakeQuantised(nn.Module):
    """A graph that rounds as its TensorRT rendering does, and lets gradients pass; its int8 layers can be trained.

    What is rounded, and with which step, is what the renderer writes: the same placement, the table's ranges, and of a
    weight the step of its channel as it is now.  Weights and biases of int8 layers are parameters, each in units of a
    power of two near its own size, so that one rate moves all of them alike and none is changed by its unit.  Layers
    in float, and all other constants, stay as they are.

    Args:
        network: FP32, with channels equalised where the table says so.
        ranges: Of this graph.
        keep_float: Names of nodes that stay in float.

    Raises:
        FormatError: The table is of another graph, or of one that is equalised, or no layer is left to train.
    """

    def __init__(self, network: TorchGraph, ranges: RangeTable, *, keep_float: Collection[str] = ()) -> None:
        super().__init__()
        graph = network.graph
        ranges.check_graph(graph)
        self._network = network
        placement = tensorrt_placement(graph, keep_float=frozenset(keep_float))
        if not placement.weighted:
            raise FormatError("no layer of the graph is rounded to INT8, so there is nothing to fine-tune")
        for name in placement.tensors:
            if name in ranges.factors:
                raise FormatError(f"the table equalises the channels of {name}; give the equalised graph")
        self._readers = placement.readers
        self._steps = {}
        for name in placement.tensors:
            row = ranges.of(placement.range_of(name))
            self._steps[name] = torch.tensor(activation_step(row.amax[row.chosen]), device=network.device)
        self._axes: dict[str, int] = {}
        self._weighted = placement.weighted
        self._names: dict[str, int] = {}
        self._units: list[float] = []
        units = nn.ParameterList()
        for place in sorted(placement.weighted):
            node = graph.nodes[place]
            weight = graph.weight(node.input[1])
            self._axes.setdefault(node.input[1], channel_axis(node))
            for slot, name in enumerate(node.input):
                if slot and name and graph.is_weight(name) and name not in self._names:
                    unit = max(_unit(graph.weight(name)), _unit(weight)) or 1.0
                    self._names[name] = len(units)
                    self._units.append(unit)
                    held = torch.from_numpy(graph.weight(name).copy()).to(network.device) / unit
                    units.append(nn.Parameter(held))
        self._held = units

    def forward(self, frame: Tensor) -> dict[str, Tensor]:
        """Outputs by name for ``(N, 3, H, W)``."""
        done: dict[str, Tensor] = {}

        def read(place: int, slot: int, name: str, value: Tensor) -> Tensor:
            if (place, slot) in self._readers:
                if name not in done:
                    done[name] = rounded(value, self._steps[name])
                return done[name]
            if name not in self._names:
                return value
            own: Tensor = self._held[self._names[name]] * self._units[self._names[name]]
            # a layer in float that shares an int8 layer's weight reads it as it is
            if name not in self._axes or place not in self._weighted:
                return own
            if name not in done:
                done[name] = self._rounded_weight(name, own)
            return done[name]

        return self._network.run(frame, read)

    def _rounded_weight(self, name: str, weight: Tensor) -> Tensor:
        axis = self._axes[name]
        steps = torch.from_numpy(weight_steps(weight.detach().cpu().numpy(), axis)).to(weight.device)
        shape = [1] * weight.ndim
        shape[axis] = -1
        return rounded(weight, steps.reshape(shape), least=LEAST_WEIGHT)

    def weights(self) -> dict[str, Array]:
        """The trained constants by name, in float, as the graph holds them."""
        return {
            name: (self._held[n].detach() * self._units[n]).cpu().numpy().copy() for name, n in self._names.items()
        }


def check_same(network: TorchGraph, frame: Floats) -> None:
    """Refuse a graph that torch would compute otherwise than ONNX Runtime does.

    Args:
        network: The graph.
        frame: ``(N, 3, H, W)``.

    Raises:
        FormatError: The outputs differ; names the first node that does.
    """
    if _agreement(network.graph, network, frame, ()) >= SAME_DB:
        return
    for node in network.graph.nodes:
        name = node.output[0]
        if name in network.graph.float_tensors and _agreement(network.graph, network, frame, (name,)) < SAME_DB:
            raise FormatError(
                f"node {node.name or name} ({node.op_type}) is computed otherwise by torch than by ONNX Runtime, so "
                "the graph cannot be fine-tuned; write the network without it"
            )
    raise FormatError("the graph is computed otherwise by torch than by ONNX Runtime, so it cannot be fine-tuned")


def _agreement(graph: Graph, network: TorchGraph, frame: Floats, watched: tuple[str, ...]) -> float:
    """SQNR of torch's outputs, or of the watched tensors, against ONNX Runtime's."""
    found: dict[str, Tensor] = {}

    def read(place: int, slot: int, name: str, value: Tensor) -> Tensor:
        if name in watched:
            found[name] = value
        return value

    with torch.no_grad():
        found |= network.run(torch.from_numpy(frame).to(network.device), read)
    wanted = open_session(graph.model, watched=watched, reference=True, frugal=True).run(frame)
    noise = Noise()
    for name in watched or graph.outputs:
        if name in found and np.issubdtype(wanted[name].dtype, np.floating):
            noise.see({name: wanted[name]}, {name: found[name].cpu().numpy()})
    decibels = list(noise.by_output().values())
    return min(decibels, default=SAME_DB)


def _unit(values: Array) -> float:
    """The power of two nearest to a tensor's root mean square, by its logarithm; 0 of one that is zero."""
    square = float(np.square(values, dtype=np.float64).mean()) if values.size else 0.0
    return float(2.0 ** round(np.log2(square) / 2)) if square > 0 else 0.0
