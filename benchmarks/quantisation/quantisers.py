"""What other quantisers make of a graph when they are set for TensorRT, and whether it would take it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper

from benchmarks.peers import PeerError
from calibration.placement import WEIGHTED
from edge_sdk.arrays import Floats

__all__ = ["ORT", "floats_of", "hushed", "modelopt_graphs", "ort_graph", "refused", "roundings_of"]

ORT: Mapping[str, tuple[str, tuple[str, ...] | None]] = {
    "onnxruntime, its own placement, min-max": ("MinMax", None),
    "onnxruntime, min-max": ("MinMax", (*sorted(WEIGHTED), "Add")),
    "onnxruntime, no residuals, min-max": ("MinMax", tuple(sorted(WEIGHTED))),
    "onnxruntime, percentile": ("Percentile", (*sorted(WEIGHTED), "Add")),
    "onnxruntime, entropy": ("Entropy", (*sorted(WEIGHTED), "Add")),
}
"""By row: calibration, and the operations whose inputs alone are rounded; without them what it rounds by default."""
WORKER = Path(__file__).with_name("modelopt_worker.py")


def ort_graph(
    model: Path, frames: Floats, work: Path, *, method: str, operations: tuple[str, ...] | None
) -> ModelProto:
    """ONNX Runtime's own quantiser: symmetric int8 with zero point 0, weights per channel, bias in float.

    Args:
        model: FP32.
        frames: ``(N, 3, H, W)``, one after another.
        work: Folder to write into.
        method: ``MinMax``, ``Percentile`` or ``Entropy``, as it comes.
        operations: As ``ORT`` has them.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[Floats] = iter(frames)

        def get_next(self) -> dict[str, Floats] | None:
            found = next(self._left, None)
            return None if found is None else {"frame": found[None]}

    options: dict[str, Any] = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    if operations is not None:
        options["OpTypesToExcludeOutputQuantization"] = list(operations)
    out = work / "onnxruntime.onnx"
    with hushed(), redirect_stdout(StringIO()):
        quantize_static(
            model,
            out,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=None if operations is None else list(operations),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod[method],
            extra_options=options,
        )
    return onnx.load(out)


@contextmanager
def hushed() -> Iterator[None]:
    """Without what onnxruntime's quantiser says on the root logger; afterwards that is as it was."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def modelopt_graphs(
    python: Path, model: Path, frames: Floats, work: Path
) -> tuple[dict[str, ModelProto], dict[str, str]]:
    """ModelOpt's two graphs, ``max`` and ``entropy``, and the versions of what made them.

    Args:
        python: Interpreter of its environment.
        model: FP32.
        frames: ``(N, 3, H, W)``.
        work: Folder to write into.

    Raises:
        PeerError: It ended otherwise than well; the last thing that it said.
    """
    pictures = work / "frames.npy"
    np.save(pictures, frames)
    done = subprocess.run(
        [str(python), "-P", "-W", "ignore", str(WORKER), str(model), str(pictures), str(work)],
        capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise PeerError(f"modelopt ended with {done.returncode}: {said[-1] if said else 'no word'}")
    versions: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return {method: onnx.load(work / f"{method}.onnx") for method in ("max", "entropy")}, versions


def floats_of(model: ModelProto) -> list[str]:
    """Nodes that have fixed weights and compute in float: no integers stand behind the weight."""
    maker = {name: node for node in model.graph.node for name in node.output}
    fixed = {one.name for one in model.graph.initializer}

    def origin(name: str) -> str:
        while name in maker and maker[name].op_type in ("Transpose", "Reshape"):
            name = maker[name].input[0]
        return maker[name].op_type if name in maker else "fixed" if name in fixed else "given"

    weighted = [node for node in model.graph.node if node.op_type in WEIGHTED]
    return [node.name for node in weighted if origin(node.input[1]) in ("fixed", "Constant")]


def roundings_of(model: ModelProto) -> int:
    """Tensors that are rounded while a picture runs, fixed ones not counted."""
    fixed = {one.name for one in model.graph.initializer}
    return sum(node.op_type == "QuantizeLinear" and node.input[0] not in fixed for node in model.graph.node)


def refused(model: ModelProto) -> str | None:
    """Why TensorRT would not take the graph's rounding, or nothing.

    Reference:
        NVIDIA TensorRT, "Explicit Quantization": int8, zero point 0; bias in float.
    """
    fixed = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            fixed[node.output[0]] = next(item.t for item in node.attribute if item.name == "value")
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if len(node.input) < 3 or node.input[2] not in fixed:
            return f"{node.name} has no fixed zero point of its own"
        zero = numpy_helper.to_array(fixed[node.input[2]])
        if zero.dtype != np.int8:
            return f"{node.name} rounds to {zero.dtype}"
        if zero.any():
            return f"{node.name} has a zero point that is not 0"
    return None
