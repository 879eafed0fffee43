"""The two INT8 graphs, written from one table of ranges.

``tensorrt``     symmetric int8 with zero point 0, int8 weights per channel behind a DequantizeLinear,
                 bias in float.  TensorRT refuses anything else.
``onnxruntime``  activations with a zero point, int32 bias, so that ONNX Runtime's integer kernels take
                 over: uint8 on x86-64, int8 on aarch64.  It runs two to three times as fast as FP32 there;
                 TensorRT's graph runs slower than FP32.
"""

from __future__ import annotations

import difflib
import platform
from collections.abc import Collection
from typing import Any, Literal

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.enlarging import enlarged_by_convolutions
from calibration.equalising import equalised
from calibration.graphs import Graph, channel_axis
from calibration.placement import Placement, onnxruntime_placement, tensorrt_placement
from calibration.ranges import RangeTable
from calibration.scales import Rule, activation_step, weight_steps
from calibration.tuned import TUNED, Tuned
from edge_sdk.arrays import Array
from edge_sdk.errors import ConfigError

__all__ = ["RANGES", "Architecture", "Layout", "host_architecture", "qdq_from_onnx"]

RANGES = "edge_sdk.ranges"
"""Under which a rendering's metadata has the digest of the range table that it was written from."""

Layout = Literal["tensorrt", "onnxruntime"]
Architecture = Literal["x86_64", "aarch64"]


def host_architecture() -> Architecture:
    """What this machine is; ``x86_64`` where it is neither."""
    return "aarch64" if platform.machine().lower() in ("aarch64", "arm64") else "x86_64"


def qdq_from_onnx(
    graph: Graph,
    ranges: RangeTable,
    *,
    layout: Layout,
    architecture: Architecture = "x86_64",
    rule: Rule | None = None,
    keep_float: Collection[str] = (),
    tuned: Tuned | None = None,
) -> ModelProto:
    """Write an INT8 graph.

    Args:
        graph: FP32.
        ranges: Made of this very graph.
        layout: Who is to run it.
        architecture: Of the CPU that is to run it; only for ``onnxruntime``.
        rule: How ranges are chosen; by default as the table says, tensor by tensor.
        keep_float: Names of nodes that stay as they are.
        tuned: Weights to take in place of the graph's, fine-tuned for these ranges.

    Returns:
        A checked model; equal inputs give equal bytes.

    Raises:
        FormatError: The table was made of another graph, or the weights were tuned for another one.
        ConfigError: ``keep_float`` names a node that is not there.
    """
    ranges.check_graph(graph)
    if tuned is not None:
        tuned.check(graph, ranges)
        graph = graph.with_weights(tuned.weights)
    if layout == "tensorrt":
        graph = equalised(graph, ranges.factors)
    unknown = sorted(set(keep_float) - {node.name for node in graph.nodes})
    if unknown:
        near = difflib.get_close_matches(unknown[0], [node.name for node in graph.nodes], 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"the first is {graph.nodes[0].name}"
        raise ConfigError(f"there is no node named {unknown[0]} to keep in float; {hint}")
    kept = frozenset(keep_float)
    if layout == "onnxruntime":
        graph = enlarged_by_convolutions(graph, keep_float=kept)
    place = tensorrt_placement if layout == "tensorrt" else onnxruntime_placement
    placement = place(graph, keep_float=kept)
    writer = _Writer(graph, ranges, placement, layout=layout, architecture=architecture, rule=rule, tuned=tuned)
    return writer.write()


class _Writer:
    def __init__(
        self,
        graph: Graph,
        ranges: RangeTable,
        placement: Placement,
        *,
        layout: Layout,
        architecture: Architecture,
        rule: Rule | None,
        tuned: Tuned | None,
    ) -> None:
        self._graph = graph
        self._ranges = ranges
        self._placement = placement
        self._symmetric = layout == "tensorrt"
        self._unsigned = not self._symmetric and architecture == "x86_64"
        self._layout = layout if layout == "tensorrt" else f"{layout} {architecture}"
        self._rule = rule
        self._tuned = tuned
        self._nodes: list[NodeProto] = []
        self._constants: list[TensorProto] = []
        self._weights: dict[str, tuple[str, Array]] = {}
        self._biases: dict[tuple[str, str], str] = {}
        self._scales: dict[str, tuple[np.float32, int]] = {}
        self._rounded: dict[str, str] = {}
        """Tensor to what its readers read."""
        self._taken = graph.names()

    def write(self) -> ModelProto:
        graph, placement = self._graph, self._placement
        rounded = set(placement.tensors)
        for name in graph.inputs:
            if name in rounded:
                self._round(name)
        for place, original in enumerate(graph.nodes):
            if place in placement.absorbed:
                continue
            node = NodeProto()
            node.CopyFrom(original)
            for slot, name in enumerate(original.input):
                if (place, slot) in placement.readers:
                    node.input[slot] = self._rounded[name]
            if place in placement.weighted:
                self._quantise_weight(node, original)
            absorbs = [other for other in self._clips_behind(original) if other in placement.absorbed]
            if absorbs:
                node.output[0] = graph.nodes[absorbs[0]].output[0]
            self._nodes.append(node)
            for name in node.output:
                if name in rounded:
                    self._round(name)
        return self._finished()

    def _clips_behind(self, node: NodeProto) -> list[int]:
        return self._graph.consumers.get(node.output[0], [])

    def _scale_of(self, tensor: str) -> tuple[np.float32, int]:
        """Step and zero point of an activation."""
        if tensor not in self._scales:
            row = self._ranges.of(self._placement.range_of(tensor))
            rule = self._rule or row.chosen
            if self._symmetric:
                self._scales[tensor] = (activation_step(row.amax[rule]), 0)
            else:
                lo, hi = row.range[rule]
                step = np.float32((hi - lo) / 255 or 1.0)
                least = 0 if self._unsigned else -128
                zero = least + int(np.clip(np.rint(-lo / step), 0, 255))
                self._scales[tensor] = (step, zero)
        return self._scales[tensor]

    def _round(self, tensor: str) -> None:
        step, zero = self._scale_of(tensor)
        kind = np.uint8 if self._unsigned else np.int8
        scale = self._constant(f"{tensor}_scale", np.asarray(step, np.float32))
        point = self._constant(f"{tensor}_zero", np.asarray(zero, kind))
        integers = self._new(f"{tensor}_q")
        self._nodes.append(
            helper.make_node(
                "QuantizeLinear", [tensor, scale, point], [integers], name=self._new(f"{tensor}_quantize")
            )
        )
        self._rounded[tensor] = self._dequantised(tensor, [integers, scale, point])

    def _quantise_weight(self, node: NodeProto, original: NodeProto) -> None:
        name = original.input[1]
        axis = channel_axis(original)
        if name not in self._weights:
            values = self._graph.weight(name).astype(np.float32)
            steps = weight_steps(values, axis)
            if not self._symmetric and (bias := self._bias_of(original)) is not None:
                # steps so small that the bias would not fit in 31 bits are widened
                least = np.abs(bias) / (float(self._scale_of(original.input[0])[0]) * 2.0**30)
                steps = np.maximum(steps, least.astype(np.float32))
            shape = [1] * values.ndim
            shape[axis] = -1
            integers = np.clip(np.rint(values / steps.reshape(shape)), -127, 127).astype(np.int8)
            inputs = [
                self._constant(f"{name}_q", integers),
                self._constant(f"{name}_scale", steps),
                self._constant(f"{name}_zero", np.zeros(len(steps), np.int8)),
            ]
            self._weights[name] = (self._dequantised(name, inputs, axis=axis), steps)
        node.input[1], steps = self._weights[name]
        bias = None if self._symmetric else self._bias_of(original)
        if bias is not None:
            node.input[2] = self._quantised_bias(original, bias, steps)

    def _bias_of(self, node: NodeProto) -> Array | None:
        if len(node.input) < 3 or not self._graph.is_weight(node.input[2]):
            return None
        return self._graph.weight(node.input[2]).astype(np.float64).reshape(-1)

    def _quantised_bias(self, original: NodeProto, values: Array, steps: Array) -> str:
        """An int32 bias in steps of input times weight, as the integer kernels add it."""
        name, weight = original.input[2], original.input[1]
        key = (name, original.input[0])
        if key not in self._biases:
            step = (np.float32(self._scale_of(original.input[0])[0]) * steps).astype(np.float32)
            most = 2.0**31 - 1
            integers = np.clip(np.rint(values / step.astype(np.float64)), -most, most).astype(np.int32)
            stem = f"{name}_{original.name or weight}"
            inputs = [
                self._constant(f"{stem}_q", integers),
                self._constant(f"{stem}_scale", step),
                self._constant(f"{stem}_zero", np.zeros(len(integers), np.int32)),
            ]
            self._biases[key] = self._dequantised(stem, inputs, axis=0)
        return self._biases[key]

    def _dequantised(self, stem: str, inputs: list[str], *, axis: int | None = None) -> str:
        made = self._new(f"{stem}_dq")
        name = self._new(f"{stem}_dequantize")
        self._nodes.append(helper.make_node("DequantizeLinear", inputs, [made], name=name, axis=axis))
        return made

    def _new(self, name: str) -> str:
        """A name that no tensor or node of the graph has, nor one that was added."""
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def _constant(self, stem: str, values: Array) -> str:
        name = self._new(stem)
        self._constants.append(numpy_helper.from_array(values, name))
        return name

    def _finished(self) -> ModelProto:
        model = _without_content(self._graph.model)
        used = {name for node in self._nodes for name in node.input} | set(self._graph.outputs)
        kept = [tensor for tensor in self._graph.model.graph.initializer if tensor.name in used]
        constants = kept + self._constants
        model.graph.node.extend(self._nodes)
        model.graph.initializer.extend(constants)
        said = {
            "edge_sdk.layout": self._layout,
            "edge_sdk.fp32": self._graph.digest,
            RANGES: self._ranges.digest(),
        }
        if self._tuned is not None:
            said[TUNED] = self._tuned.digest
        helper.set_model_props(model, said)
        model = onnx.shape_inference.infer_shapes(model)
        del model.graph.value_info[:]
        onnx.checker.check_model(model, full_check=True)
        return model


def _without_content(model: ModelProto) -> ModelProto:
    """Everything but nodes, weights and shapes, which may be large and are written anew."""
    found = ModelProto()
    for descriptor, value in model.ListFields():
        if descriptor.name != "graph":
            _copy_field(found, descriptor.name, value)
    for descriptor, value in model.graph.ListFields():
        if descriptor.name not in ("node", "initializer", "value_info"):
            _copy_field(found.graph, descriptor.name, value)
    return found


def _copy_field(into: Any, name: str, value: Any) -> None:
    if isinstance(value, (str, bytes, int)):
        setattr(into, name, value)
    else:
        getattr(into, name).MergeFrom(value)
