"""ONNX Runtime as calibration, export and their tests use it: quiet, on the CPU, with counted threads."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnxruntime
from onnx import ModelProto, TensorProto, helper

from edge_sdk.arrays import Floats
from edge_sdk.errors import RunnerError
from edge_sdk.runners.ort import NEVER

__all__ = ["Session", "open_session"]

_LOG_ERRORS_ONLY = 3


class Session:
    """A graph that is ready to run."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.inputs: tuple[str, ...] = tuple(value.name for value in session.get_inputs())
        self.outputs: tuple[str, ...] = tuple(value.name for value in session.get_outputs())

    def run(self, frame: Floats) -> dict[str, Floats]:
        """Every output of the graph for ``(N, 3, H, W)`` frames."""
        try:
            found = self._session.run(list(self.outputs), {self.inputs[0]: frame})
        except Exception as error:
            raise RunnerError(
                f"the graph did not run ({_brief(error)}); does it take {frame.shape}?"
            ) from error
        return dict(zip(self.outputs, found, strict=True))


def open_session(
    model: Path | ModelProto,
    *,
    watched: Iterable[str] = (),
    threads: int = 1,
    reference: bool = False,
    optimise: bool = True,
    frugal: bool = False,
) -> Session:
    """Open a graph on the CPU.

    Args:
        model: A file, or a model in memory.
        watched: Float tensors that become outputs as well, of a model in memory.
        threads: Of one operation.
        reference: Compute the graph to the bit as it is written.  ONNX Runtime otherwise sums some convolutions in
            another order: a difference in the last bit flips roundings downstream, and the answers are 20 to 48 dB
            apart.
        optimise: Without it not one node is fused.
        frugal: Give memory back at once, for graphs of which many tensors are watched.

    Raises:
        RunnerError: The runtime refuses the graph.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _LOG_ERRORS_ONLY
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # an arena keeps what its largest moment took
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not frugal
    # a waiting thread that spins takes the core from whoever else measures
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    elif reference:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    with tempfile.TemporaryDirectory(prefix="edge-sdk-") as folder:
        path = model if isinstance(model, Path) else _written(model, watched, Path(folder) / "model.onnx")
        try:
            session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=list(NEVER)
            )
        except Exception as error:
            name = str(model) if isinstance(model, Path) else "the graph"
            raise RunnerError(
                f"{name} does not open ({_brief(error)}); is it an ONNX graph for this runtime?"
            ) from error
    return Session(session)


def _written(model: ModelProto, watched: Iterable[str], path: Path) -> Path:
    """The model in a file: the runtime then holds its weights once, where it keeps a copy of bytes that it is given."""
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    more = ModelProto()
    more.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in watched if name not in there
    )
    with path.open("wb") as file:
        file.write(model.SerializeToString())
        # protobuf reads messages that follow each other as one, so the model need not be copied
        file.write(more.SerializeToString())
    return path


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160] if lines else type(error).__name__
