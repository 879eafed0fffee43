"""Small graphs written by hand: a residual one, one with a concat, and ones that are refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from calibration.graphs import Graph
from calibration.observers import Histogram, Observer
from calibration.placement import observed_tensors
from calibration.sessions import open_session
from edge_sdk.arrays import Array, Floats
from edge_sdk.documents import sha256_hex

__all__ = ["SIDE", "Builder", "concat_graph", "excited_model", "frames", "graph_of", "hswish_model", "residual_model",
           "save", "uneven_model", "watched"]  # fmt: skip

SIDE = 32


class Builder:
    """Collects nodes and constants."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._random = np.random.default_rng(seed)

    def constant(self, name: str, values: Array) -> str:
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self, source: str, name: str, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1
    ) -> str:
        scale = np.sqrt(2 / (inputs * kernel * kernel))
        weight = self._random.normal(0, scale, (outputs, inputs, kernel, kernel)).astype(np.float32)
        bias = self._random.normal(0, 0.2, outputs).astype(np.float32)
        parts = [source, self.constant(f"{name}.weight", weight), self.constant(f"{name}.bias", bias)]
        node = helper.make_node(
            "Conv", parts, [name], name=f"{name}.node", pads=[kernel // 2] * 4, strides=[stride, stride]
        )
        self.nodes.append(node)
        return name

    def add(self, op: str, sources: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, sources, [name], name=f"{name}.node", **attributes))
        return name

    def model(self, outputs: dict[str, list[int | str]], *, side: int = SIDE) -> ModelProto:
        given = [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, side, side])]
        made = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "test", given, made, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=10)
        onnx.checker.check_model(model, full_check=True)
        return model


def residual_model(*, seed: int = 0, width: int = 16, side: int = SIDE) -> ModelProto:
    """Stem, pool, a block with an identity and one with a convolution on the way round, two outputs."""
    build = Builder(seed)
    at = build.add("Relu", [build.conv("frame", "stem", 3, width, stride=2)], "stem.on")
    at = build.add("MaxPool", [at], "pool", kernel_shape=[2, 2], strides=[2, 2])
    for name, inputs, outputs, stride in (("one", width, width, 1), ("two", width, 2 * width, 2)):
        inner = build.add(
            "Relu", [build.conv(at, f"{name}.a", inputs, outputs, stride=stride)], f"{name}.a.on"
        )
        inner = build.conv(inner, f"{name}.b", outputs, outputs)
        if inputs != outputs:
            at = build.conv(at, f"{name}.way", inputs, outputs, kernel=1, stride=stride)
        at = build.add("Relu", [build.add("Add", [inner, at], f"{name}.sum")], f"{name}.out")
    build.conv(at, "cells", 2 * width, 2, kernel=1)
    axes = build.constant("axes", np.array([2, 3], np.int64))
    build.add("ReduceMean", [at, axes], "feature", keepdims=0)
    return build.model({"cells": ["N", 2, side // 8, side // 8], "feature": ["N", 2 * width]}, side=side)


def concat_graph() -> ModelProto:
    """Down, nearest enlargement, concat with the skip: what a U-Net is made of."""
    build = Builder(3)
    first = build.add("Relu", [build.conv("frame", "down1", 3, 8)], "down1.on")
    low = build.add("MaxPool", [first], "pool", kernel_shape=[2, 2], strides=[2, 2])
    low = build.add("Relu", [build.conv(low, "down2", 8, 16)], "down2.on")
    scales = build.constant("scales", np.array([1, 1, 2, 2], np.float32))
    wide = build.add("Resize", [low, "", scales], "wide", mode="nearest")
    both = build.add("Concat", [wide, first], "both", axis=1)
    last = build.add("Relu", [build.conv(both, "up", 24, 8)], "up.on")
    build.conv(last, "cells", 8, 1, kernel=1)
    return build.model({"cells": ["N", 1, SIDE, SIDE]})


def hswish_model(*, seed: int = 0, width: int = 16) -> ModelProto:
    """Depthwise convolution, h-swish, squeeze and excite, a sum, and a head."""
    build = Builder(seed)
    at = build.add("HardSwish", [build.conv("frame", "stem", 3, width, stride=2)], "stem.on")
    scale = np.sqrt(2 / 9)
    weight = np.random.default_rng(seed + 1).normal(0, scale, (width, 1, 3, 3)).astype(np.float32)
    parts = [at, build.constant("deep.weight", weight), build.constant("deep.bias", np.zeros(width, np.float32))]
    deep = build.add("Conv", parts, "deep", pads=[1] * 4, group=width)
    deep = build.add("HardSwish", [deep], "deep.on")
    axes = build.constant("axes", np.array([2, 3], np.int64))
    gate = build.add("ReduceMean", [deep, axes], "squeezed", keepdims=1)
    gate = build.add("Relu", [build.conv(gate, "narrow", width, 4, kernel=1)], "narrow.on")
    gate = build.add("HardSigmoid", [build.conv(gate, "excite", 4, width, kernel=1)], "gate", alpha=1 / 6, beta=0.5)
    excited = build.add("Mul", [deep, gate], "excited")
    summed = build.add("Add", [build.conv(excited, "flat", width, width, kernel=1), at], "sum")
    build.conv(summed, "cells", width, 2, kernel=1)
    return build.model({"cells": ["N", 2, SIDE // 2, SIDE // 2]})


def uneven_model(*, seed: int = 0, width: int = 16) -> ModelProto:
    """Channels of very unlike sizes: behind an h-swish, behind a ReLU, and behind a gate."""
    build = Builder(seed)
    at = build.add("HardSwish", [build.conv("frame", "stem", 3, width, stride=2)], "stem.on")
    uneven = (2.0 ** np.linspace(-4, 3, width)).astype(np.float32)
    random = np.random.default_rng(seed + 1)
    for name in ("deep", "deeper"):
        weight = random.normal(0, np.sqrt(2 / 9), (width, 1, 3, 3)).astype(np.float32)
        weight *= random.permutation(uneven)[:, None, None, None]
        bias = np.full(width, 0.1, np.float32)
        parts = [at, build.constant(f"{name}.weight", weight), build.constant(f"{name}.bias", bias)]
        made = build.add("Conv", parts, name, pads=[1] * 4, group=width)
        at = build.add("Relu" if name == "deep" else "HardSwish", [made], f"{name}.on")
    axes = build.constant("axes", np.array([2, 3], np.int64))
    gate = build.add("ReduceMean", [at, axes], "squeezed", keepdims=1)
    gate = build.add("HardSigmoid", [build.conv(gate, "excite", width, width, kernel=1)], "gate")
    at = build.add("Mul", [at, gate], "excited")
    build.conv(at, "flat", width, width, kernel=1)
    build.conv(build.add("HardSwish", ["flat"], "flat.on"), "cells", width, 2, kernel=1)
    # what small channels say is asked for as loudly as what large ones say
    held = {tensor.name: tensor for tensor in build.constants}
    sizes = np.abs(numpy_helper.to_array(held["deeper.weight"])).max(axis=(1, 2, 3))
    flat = numpy_helper.to_array(held["flat.weight"]) / sizes[None, :, None, None]
    held["flat.weight"].CopyFrom(numpy_helper.from_array(flat, "flat.weight"))
    return build.model({"cells": ["N", 2, SIDE // 2, SIDE // 2]})


def graph_of(model: ModelProto) -> Graph:
    return Graph(model, sha256_hex(model.SerializeToString(deterministic=True)))


def save(model: ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def frames(count: int, *, seed: int = 0, side: int = SIDE) -> list[Floats]:
    """Smooth surfaces with noise, ``(1, 3, side, side)``."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        base = random.normal(size=(1, 3, side, side)).cumsum(-1).cumsum(-2) * 0.05
        found.append((base + random.normal(size=base.shape) * 0.2).astype(np.float32))
    return found


def watched(graph: Graph, frames: Iterable[Floats]) -> dict[str, Histogram]:
    """What the tensors that may be rounded are on network inputs ``(1, 3, H, W)`` that come from no picture."""
    observers = {name: Observer(name) for name in observed_tensors(graph)}
    session = open_session(graph.model, watched=tuple(observers), reference=True)
    for frame in frames:
        made = {**session.run(frame), graph.inputs[0]: frame}
        for name, observer in observers.items():
            observer.see(made[name])
    return {name: observer.histogram() for name, observer in observers.items()}


def excited_model(*, seed: int = 100, width: int = 16, blocks: int = 3) -> ModelProto:
    """Blocks of depthwise convolution, h-swish, squeeze and excite, whose channels differ in size as folding a batch
    normalisation leaves them: each rounding loses a little, and there are many."""
    build = Builder(seed)
    random = np.random.default_rng(seed)
    at = build.add("HardSwish", [build.conv("frame", "stem", 3, width, stride=2)], "stem.on")
    axes = build.constant("axes", np.array([2, 3], np.int64))
    for n in range(blocks):
        spread = np.exp(random.normal(0, 1, (width, 1, 1, 1)))
        weight = (random.normal(0, np.sqrt(2 / 9), (width, 1, 3, 3)) * spread).astype(np.float32)
        bias = random.normal(0, 0.2, width).astype(np.float32)
        parts = [at, build.constant(f"deep{n}.weight", weight), build.constant(f"deep{n}.bias", bias)]
        deep = build.add("HardSwish", [build.add("Conv", parts, f"deep{n}", pads=[1] * 4, group=width)], f"deep{n}.on")
        gate = build.add("ReduceMean", [deep, axes], f"squeezed{n}", keepdims=1)
        gate = build.add("Relu", [build.conv(gate, f"narrow{n}", width, 4, kernel=1)], f"narrow{n}.on")
        gate = build.conv(gate, f"excite{n}", 4, width, kernel=1)
        gate = build.add("HardSigmoid", [gate], f"gate{n}", alpha=1 / 6, beta=0.5)
        flat = build.conv(build.add("Mul", [deep, gate], f"excited{n}"), f"flat{n}", width, width, kernel=1)
        at = build.add("Add", [flat, at], f"sum{n}")
    build.conv(at, "cells", width, 2, kernel=1)
    return build.model({"cells": ["N", 2, SIDE // 2, SIDE // 2]})
