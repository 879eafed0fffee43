"""The TensorRT rendering with its types in the graph: FP16 wherever it is not int8.

TensorRT 11 has no flag for FP16 any more, and builds a strongly typed network: what a tensor is stands in the graph, or
it is float32.  Made of the float32 rendering, so both round in the same places.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.graphs import Graph
from calibration.ranges import RangeTable
from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError, RangeError

__all__ = ["LAYOUT", "LEAST_OPSET", "half_from_qdq"]

LAYOUT = "tensorrt float16"
LEAST_OPSET = 19
"""The first whose QuantizeLinear takes float16."""
_GREATEST = 65504.0
_HALF, _FLOAT = "tensor(float16)", "tensor(float)"
_ROUNDING = ("QuantizeLinear", "DequantizeLinear")


def half_from_qdq(model: ModelProto, ranges: RangeTable) -> ModelProto:
    """Retype a TensorRT rendering; inputs and outputs stay float32 behind a Cast.

    Steps become the next float16 at or above, and int8 weights are rounded anew to the steps of their channel, so that
    a channel of tiny weights, whose step is no normal float16, keeps its gain.

    Args:
        model: Of ``qdq_from_onnx`` with the layout ``tensorrt``.
        ranges: That it was written from.

    Raises:
        FormatError: Its opset is below 19.
        RangeError: A constant, or a tensor that was watched, is beyond what float16 holds.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < LEAST_OPSET:
        raise FormatError(
            f"the graph is of opset {opset}, but float16 can be rounded from opset {LEAST_OPSET} on; "
            f"export it with opset {LEAST_OPSET}"
        )
    for name, row in ranges.tensors.items():
        most = max(abs(row.lo), abs(row.hi))
        if most > _GREATEST:
            raise RangeError(
                f"tensor {name} reaches {most:.6g}, beyond the {_GREATEST:g} of FP16; build the float32 rendering"
            )
    return _Retyping(model, opset).retyped()


class _Retyping:
    def __init__(self, model: ModelProto, opset: int) -> None:
        self._model = ModelProto()
        self._model.CopyFrom(model)
        self._opset = opset
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._float_outputs = {
            value.name for value in graph.output if value.type.tensor_type.elem_type == TensorProto.FLOAT
        }
        self._is_half: set[str] = set()
        self._nodes: list[NodeProto] = []
        self._made: dict[tuple[str, str], str] = {}
        """Of a tensor and a type: the name of its cast."""
        self._added: dict[tuple[str, str], str] = {}
        """Of a tensor and what is added to its name: a name that nothing else has."""
        self._taken = Graph(model, "").names()

    def retyped(self) -> ModelProto:
        graph = self._model.graph
        self._round_steps()
        self._convert_constants()
        for value in graph.input:
            if value.type.tensor_type.elem_type == TensorProto.FLOAT:
                half = self._new(value.name, "half")
                self._made[value.name, _HALF] = self._cast(value.name, TensorProto.FLOAT16, half)
        for original in list(graph.node):
            self._nodes.append(self._retype(original))
        for name in sorted(self._float_outputs & self._is_half):
            self._cast(self._new(name, "half"), TensorProto.FLOAT, name)
        del graph.node[:]
        graph.node.extend(self._nodes)
        del graph.value_info[:]
        for entry in self._model.metadata_props:
            if entry.key == "edge_sdk.layout":
                entry.value = LAYOUT
        model = onnx.shape_inference.infer_shapes(self._model, strict_mode=True)
        del model.graph.value_info[:]
        onnx.checker.check_model(model, full_check=True)
        return model

    def _cast(self, source: str, kind: int, name: str) -> str:
        self._nodes.append(helper.make_node("Cast", [source], [name], name=self._new(name, "cast"), to=kind))
        return name

    def _new(self, name: str, what: str) -> str:
        if (name, what) not in self._added:
            found = f"{name}_{what}"
            while found in self._taken:
                found += "_"
            self._taken.add(found)
            self._added[name, what] = found
        return self._added[name, what]

    def _retype(self, original: NodeProto) -> NodeProto:
        node = NodeProto()
        node.CopyFrom(original)
        schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
        bound: set[str] = set()
        for slot, name in enumerate(original.input):
            formal = schema.inputs[min(slot, len(schema.inputs) - 1)]
            takes_half = _HALF in formal.types
            if not name or not self._is_float(name):
                continue
            node.input[slot] = self._as(name, _HALF if takes_half else _FLOAT)
            if takes_half:
                bound.add(formal.type_str)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
                bound.add(schema.outputs[0].type_str)
            elif attribute.name == "value" and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(_half(attribute.t, attribute.t.name))
                bound.add(schema.outputs[0].type_str)
        for slot, name in enumerate(original.output):
            formal = schema.outputs[min(slot, len(schema.outputs) - 1)]
            if name and formal.type_str in bound:
                self._is_half.add(name)
                if name in self._float_outputs:
                    node.output[slot] = self._new(name, "half")
        return node

    def _is_float(self, name: str) -> bool:
        tensor = self._constants.get(name)
        if tensor is not None:
            return bool(tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16))
        return name in self._is_half or (name, _HALF) in self._made

    def _as(self, name: str, kind: str) -> str:
        """The tensor in the type that is asked for, cast where it must be."""
        if (name, kind) in self._made:
            return self._made[name, kind]
        if name in self._constants:
            return name if kind == _HALF else self._new(name, "full")
        if name in self._is_half:
            here = self._new(name, "half") if name in self._float_outputs else name
            if kind == _HALF:
                return here
            self._made[name, kind] = self._cast(here, TensorProto.FLOAT, self._new(name, "full"))
            return self._made[name, kind]
        return name

    def _convert_constants(self) -> None:
        """Constants become float16, and stay float32 as well for what takes nothing else."""
        wanted: dict[str, set[str]] = defaultdict(set)
        for node in self._model.graph.node:
            schema = onnx.defs.get_schema(node.op_type, self._opset, node.domain)
            for slot, name in enumerate(node.input):
                formal = schema.inputs[min(slot, len(schema.inputs) - 1)]
                wanted[name].add(_HALF if _HALF in formal.types else _FLOAT)
        kept: list[TensorProto] = []
        for name, tensor in list(self._constants.items()):
            if tensor.data_type != TensorProto.FLOAT:
                kept.append(tensor)
                continue
            if _FLOAT in wanted[name]:
                full = TensorProto()
                full.CopyFrom(tensor)
                full.name = self._new(name, "full")
                kept.append(full)
            half = _half(tensor, name)
            self._constants[name] = half
            if _HALF in wanted[name]:
                kept.append(half)
        del self._model.graph.initializer[:]
        self._model.graph.initializer.extend(kept)

    def _round_steps(self) -> None:
        """Each step to the next float16 above it, and int8 weights to the steps that they then have."""
        for node in self._model.graph.node:
            if node.op_type not in _ROUNDING or node.input[1] not in self._constants:
                continue
            tensor = self._constants[node.input[1]]
            if tensor.data_type != TensorProto.FLOAT:
                continue
            before = numpy_helper.to_array(tensor)
            after = _half_above(before)
            weight = self._constants.get(node.input[0])
            if weight is not None:
                integers = numpy_helper.to_array(weight).astype(np.float64)
                shape = [1] * integers.ndim
                shape[next((item.i for item in node.attribute if item.name == "axis"), 1)] = -1
                ratio = (before.astype(np.float64) / after).reshape(shape)
                weight.CopyFrom(numpy_helper.from_array(np.rint(integers * ratio).astype(np.int8), weight.name))
            tensor.CopyFrom(numpy_helper.from_array(after.astype(np.float32), tensor.name))


def _half_above(steps: Array) -> Array:
    """The least float16 that is no less, as float32, so that what was kept still is."""
    found = np.asarray(steps, np.float32).astype(np.float16)
    up = np.nextafter(found, np.float16(np.inf))
    return np.where(found.astype(np.float32) < steps, up, found).astype(np.float32)


def _half(tensor: TensorProto, name: str) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    most = float(np.abs(values).max(initial=0.0))
    if np.isfinite(values).all() and most > _GREATEST:
        raise RangeError(
            f"the constant {name} holds {most:.6g}, beyond the {_GREATEST:g} of FP16; build the float32 rendering"
        )
    return numpy_helper.from_array(values.astype(np.float16), name)
