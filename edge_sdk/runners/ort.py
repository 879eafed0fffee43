"""ONNX graphs on the CPU, through ONNX Runtime.

``onnxruntime`` is imported when the first runner opens and nowhere else on the device.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import MissingPackage, RunnerError
from edge_sdk.runners.base import TensorSpec, check_feeds, check_results

__all__ = ["NEVER", "OrtRunner"]

NEVER = ("WeightBiasQuantization",)
"""What ONNX Runtime may not do to a graph: it rounds what was left in float between two roundings, with one scale for
all channels of a weight, which ruins a depthwise convolution; and float biases to int32, which costs 10 dB."""
ERRORS_ONLY = 3
"""Of ONNX Runtime's log levels."""
NUMPY_NAMES = {"float": "float32", "double": "float64", "float16": "float16"}


class OrtRunner:
    """A graph in an ONNX Runtime session.

    Threads are given, never guessed: the default takes every core and starves the camera.  One graph
    runs at a time; its threads sleep between frames instead of spinning.

    Args:
        path: The graph.
        threads: CPU threads for one inference.
        as_written: Execute a Q/DQ graph exactly as it is written, to the order of its sums, as a reference for an
            engine.

    Raises:
        MissingPackage: ONNX Runtime is not installed.
        RunnerError: The file is no graph, or one that this ONNX Runtime does not execute.
    """

    def __init__(self, path: Path, *, threads: int = 1, as_written: bool = False) -> None:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingPackage(
                f"{path.name} needs ONNX Runtime, which is not installed; pip install 'edge-sdk[cpu]'"
            ) from error
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = ERRORS_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if as_written:  # the last level changes layouts, and with them the order of sums
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        try:
            self._session: Any = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(NEVER)
            )
        except Exception as error:  # its exceptions share no base class but this
            raise RunnerError(
                f"{path} is refused by ONNX Runtime {ort.__version__} ({_first_line(error)}); "
                "it is damaged, or exported for a newer version: export it again"
            ) from error
        self._path = path
        self._inputs = tuple(_spec(each) for each in self._session.get_inputs())
        self._outputs = tuple(_spec(each) for each in self._session.get_outputs())
        self._names = [spec.name for spec in self._outputs]
        self._turn = threading.Lock()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the graph takes."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the graph gives."""
        return self._outputs

    def infer(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Execute the graph once; see ``Runner.infer``.  Contiguous inputs are read where they lie."""
        with self._turn:
            if self._session is None:
                raise RunnerError(f"the runner of {self._path.name} is closed; open it again")
            check_feeds(feeds, self._inputs)
            whole = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
            try:
                found = self._session.run(self._names, whole)
            except Exception as error:  # its exceptions share no base class but this
                raise RunnerError(
                    f"{self._path.name} failed in ONNX Runtime ({_first_line(error)}); "
                    "check the bundle with edge-sdk doctor"
                ) from error
        results = dict(zip(self._names, found, strict=True))
        check_results(results)
        return results

    def close(self) -> None:
        """Let the session go.  May be called twice."""
        with self._turn:
            self._session = None


def _spec(each: Any) -> TensorSpec:
    inside = str(each.type).partition("(")[2].rstrip(")")
    shape = tuple(length if isinstance(length, int) else None for length in each.shape)
    return TensorSpec(str(each.name), NUMPY_NAMES.get(inside, inside), shape)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
