"""Where INT8 loses it: each layer's result against FP32's, and values that calibration never saw."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from calibration.choosing import Noise
from calibration.collect import frames_of
from calibration.equalising import equalised
from calibration.graphs import Graph
from calibration.placement import tensorrt_placement
from calibration.ranges import RangeTable
from calibration.sessions import open_session
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["Layer", "Strange", "layers_of", "strangeness"]

_MOST = 16
"""Pictures looked at: what is seen of a layer is a sum over all of its values."""
_STRANGE = 0.25
"""Share of tensors that a picture leaves before the pictures are called another kind."""


@dataclass(frozen=True)
class Layer:
    """One layer with weights."""

    node: str
    operation: str
    sqnr_db: float
    """Of its result in the rendering, with all that was lost before it; infinite where no bit differs."""
    why_float: str | None
    """Why it was left in float; none of what is int8."""
    gain_db: float | None
    """What the outputs gain where this layer alone is in float, as far as it was measured."""


@dataclass(frozen=True)
class Strange:
    """How far pictures go beyond what calibration saw."""

    share: float
    """Of tensors, in the mean over pictures, that hold a value outside the range that was seen."""
    expected: float
    """At most, of pictures like those that calibrated."""

    @property
    def sentence(self) -> str | None:
        """What is wrong; nothing where the pictures may be of the kind that calibrated."""
        if self.share <= max(_STRANGE, 4 * self.expected):
            return None
        return (
            f"the pictures leave the calibrated range in {100 * self.share:.0f} % of the tensors, where at most "
            f"{100 * self.expected:.0f} % is usual: they are of another kind than those that calibrated; calibrate on "
            "pictures of this line"
        )


def layers_of(
    graph: Graph,
    renderings: Mapping[str, Path],
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    ranges: RangeTable | None = None,
    asked: Sequence[str] = (),
) -> dict[str, tuple[Layer, ...]]:
    """By rendering: its layers in the order of the graph, run as they are written on up to 16 of the pictures.

    Args:
        graph: FP32.
        renderings: ``trt`` or ``cpu`` to file; others are passed over.
        samples: Held-out pictures.
        spec: What the network was trained with.
        ranges: That they were written from: why layers are in float, what they gain, and what was equalised; without
            it layers whose own output is equalised cannot be compared and are left out.
        asked: Nodes that the network itself wants in float.
    """
    found: dict[str, tuple[Layer, ...]] = {}
    for kind, path in renderings.items():
        if kind not in ("trt", "cpu"):
            continue
        # layer by layer a rendering is held against FP32 in the rendering's own units
        own = equalised(graph, ranges.factors) if ranges and kind == "trt" else graph
        weighted = {own.nodes[n].name: own.nodes[n] for n in sorted(tensorrt_placement(own).weighted)}
        model = onnx.load(path)
        there = {node.name: node for node in model.graph.node}
        outputs = {name: node for node in model.graph.node for name in node.output}
        behind = _rounded_behind(model)
        made = {name: _made(own, node, outputs) for name, node in weighted.items() if name in there}
        if ranges is None:
            made = {name: output for name, output in made.items() if output in outputs}
        # what the rounding behind a layer clips, a ReLU clips in FP32
        rounded = {
            name: behind.get(name, name) if kind == "cpu" else name for name in made.values()
        }
        fp32 = open_session(own.model, watched=sorted(rounded), reference=True, frugal=True)
        int8 = open_session(model, watched=sorted(rounded.values()), reference=True, frugal=True)
        noise = Noise()
        for _, frame in frames_of(_some(samples), spec):
            before, after = fp32.run(frame), int8.run(frame)
            noise.see({name: before[name] for name in rounded}, {name: after[at] for name, at in rounded.items()})
        decibels = noise.by_output()
        found[kind] = tuple(
            Layer(
                node=name,
                operation=weighted[name].op_type,
                sqnr_db=decibels[output],
                why_float=None
                if there[name].input[1] in outputs and outputs[there[name].input[1]].op_type == "DequantizeLinear"
                else _why_float(name, kind, ranges, asked),
                # measured with the TensorRT rendering, and no other
                gain_db=ranges.gains_db.get(name) if ranges and kind == "trt" else None,
            )
            for name, output in made.items()
        )
    return found


def _rounded_behind(model: ModelProto) -> dict[str, str]:
    """Tensor to the same as it is read once it was rounded."""
    integers = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    return {
        integers[node.input[0]]: node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in integers
    }


def _made(graph: Graph, node: NodeProto, outputs: Collection[str]) -> str:
    """What a layer makes in a rendering, where its own tensor is missing if a rounding absorbed the clip behind it."""
    name: str = node.output[0] if node.output[0] in outputs else graph.users(node.output[0])[0].output[0]
    return name


def _why_float(name: str, kind: str, ranges: RangeTable | None, asked: Sequence[str]) -> str:
    if name in asked:
        return "the network asks for it"
    layers = ranges.float_layers if ranges and kind == "trt" else ()
    measured = next((layer.why for layer in layers if layer.node == name), None)
    if measured:
        return measured
    if kind == "cpu":
        return "it makes an output, or ONNX Runtime has no integer kernel for it there"
    return "asked for when it was rendered"


def strangeness(graph: Graph, ranges: RangeTable, samples: Sequence[Sample], spec: PreprocessSpec) -> Strange:
    """Count the tensors in which a picture goes beyond the extremes that calibration saw.

    Of n pictures that calibrated and one more like them, each is as likely as another to hold a tensor's greatest
    value, or its least: one new picture in n + 1 goes beyond at either end.
    """
    rows = ranges.unequalised().tensors
    session = open_session(graph.model, watched=list(rows), reference=True, frugal=True)
    shares = []
    for _, frame in frames_of(_some(samples), spec):
        made = {**session.run(frame), graph.inputs[0]: frame}
        outside = [bool(made[name].min() < row.lo or made[name].max() > row.hi) for name, row in rows.items()]
        shares.append(float(np.mean(outside)))
        del made
    return Strange(float(np.mean(shares)), 2 / (ranges.n + 1))


def _some(samples: Sequence[Sample]) -> list[Sample]:
    """Up to 16, evenly chosen."""
    count = min(_MOST, len(samples))
    return [samples[n * len(samples) // count] for n in range(count)]
