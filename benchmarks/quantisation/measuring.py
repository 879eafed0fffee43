"""One calibrator in a process of its own: how much memory it took beyond the loaded process, and how many CPU seconds.

``python -m benchmarks.quantisation.measuring WHAT GRAPH PICTURES COUNT``; prints one JSON object.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from calibration.calibrating import calibrate
from calibration.collect import frames_of
from calibration.graphs import Graph, load_graph
from calibration.pictures import pictures_in
from calibration.sessions import open_session
from edge_sdk.arrays import Floats
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["WHATS", "measured"]

Facts = dict[str, Any]


def measured(what: str, model: Path, folder: Path, count: int, *, calibrated: int) -> Facts:
    """Run it and look at the process.

    Args:
        what: One of ``WHATS``.
        model: FP32.
        folder: Of pictures as large as the graph's input.
        count: How many of them are read.
        calibrated: How many of those calibrate; the others choose, where something is chosen.
    """
    graph = load_graph(model)
    samples = pictures_in(folder)[:count]
    side = graph.model.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    spec = PreprocessSpec(width=side, height=side)
    _load_runtime()
    before, began = _reset_peak_mb(), time.process_time()
    facts = WHATS[what](graph, model, samples, spec, calibrated)
    return {
        "cpu_s": round(time.process_time() - began, 3),
        "growth_mb": round(_status_mb("VmHWM") - before, 1),
        "pictures": count,
        **facts,
    }


def _load_runtime() -> None:
    """What every one of them needs is there before anything is measured."""
    import cv2  # noqa: F401
    import onnxruntime.quantization.calibrate
    import onnxruntime.quantization.registry  # noqa: F401


def _forward(graph: Graph, _: Path, samples: Sequence[Sample], spec: PreprocessSpec, __: int) -> Facts:
    """The pictures through the FP32 graph as a station runs it."""
    session = open_session(graph.model)
    for _sample, frame in frames_of(samples, spec):
        session.run(frame)
    return {}


def _ours(graph: Graph, _: Path, samples: Sequence[Sample], spec: PreprocessSpec, calibrated: int) -> Facts:
    """As the command does it: watch, choose the rule, choose the layers in float."""
    table = calibrate(graph, samples, spec, most=calibrated)
    return {"calibrated": table.n, "chose_on": len(table.choosing), "rule": table.rule}


def _watched(graph: Graph, _: Path, samples: Sequence[Sample], spec: PreprocessSpec, calibrated: int) -> Facts:
    """All four rules from one pass, and nothing chosen."""
    table = calibrate(graph, samples, spec, rule="mse", most=calibrated, most_float=0)
    return {"calibrated": table.n}


def _peer(method: str) -> Callable[[Graph, Path, Sequence[Sample], PreprocessSpec, int], Facts]:
    """ONNX Runtime's calibrator as its quantize_static feeds it: all pictures, one after another."""

    def run(_: Graph, model: Path, samples: Sequence[Sample], spec: PreprocessSpec, __: int) -> Facts:
        from onnxruntime.quantization.calibrate import (
            CalibrationDataReader,
            CalibrationMethod,
            create_calibrator,
        )
        from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self._frames: Iterator[tuple[Sample, Floats]] = frames_of(samples, spec)

            def get_next(self) -> dict[str, Floats] | None:
                found = next(self._frames, None)
                return None if found is None else {"frame": found[1]}

        # it says on the root logger what it does
        logging.getLogger().setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as work:
            calibrator = create_calibrator(
                model,
                sorted({*QLinearOpsRegistry, *QDQRegistry}),
                augmented_model_path=str(Path(work) / "augmented.onnx"),
                calibrate_method=CalibrationMethod[method],
            )
            calibrator.collect_data(Reader())
            tensors = len(calibrator.compute_data().data)
        return {"tensors": tensors}

    return run


WHATS: dict[str, Callable[[Graph, Path, Sequence[Sample], PreprocessSpec, int], Facts]] = {
    "forward": _forward,
    "ours": _ours,
    "ours, nothing chosen": _watched,
    "onnxruntime MinMax": _peer("MinMax"),
    "onnxruntime Percentile": _peer("Percentile"),
    "onnxruntime Entropy": _peer("Entropy"),
}


def _reset_peak_mb() -> float:
    """Forget the peak so far; what the process holds now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status_mb("VmRSS")


def _status_mb(key: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {key}; memory can be measured on Linux alone")


if __name__ == "__main__":
    name, graph_path, pictures, number, calibrating = sys.argv[1:]
    found = measured(name, Path(graph_path), Path(pictures), int(number), calibrated=int(calibrating))
    sys.stdout.write(json.dumps(found) + "\n")
