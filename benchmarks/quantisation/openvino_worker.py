"""Runs in the environment of OpenVINO, not in ours: quantises, runs and times graphs, asked line by line.

A request is one JSON object a line on stdin, an answer one on stdout.  Pictures come as ``.npy`` of what our own
preprocessing made.  ``asking`` is the other side.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import nncf
import numpy as np
import openvino

__all__ = ["Graphs", "main"]

ONE_THREAD = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}


class Graphs:
    """Compiled graphs, by the names that the asking side gave them."""

    def __init__(self) -> None:
        self._core = openvino.Core()
        self._requests: dict[str, Any] = {}

    def hello(self) -> dict[str, str]:
        """The versions."""
        return {"openvino": openvino.__version__.partition("-")[0], "nncf": nncf.__version__}

    def quantise(self, *, model: str, frames: str, out: str) -> dict[str, Any]:
        """As NNCF does it by default, on all frames."""
        shown = np.load(frames, mmap_mode="r")
        graph = self._core.read_model(model)
        data = nncf.Dataset([np.ascontiguousarray(shown[n : n + 1]) for n in range(len(shown))])
        quantised = nncf.quantize(graph, data, subset_size=len(shown))
        openvino.save_model(quantised, out, compress_to_fp16=False)
        return {"mb": Path(out).with_suffix(".bin").stat().st_size / 1e6}

    def open(self, *, name: str, model: str, exact: bool) -> dict[str, Any]:
        """Compile for one picture and one thread; ``exact``: what is not INT8 in float32, not in what it prefers."""
        graph = self._core.read_model(model)
        shape = graph.input(0).partial_shape
        shape[0] = 1
        graph.reshape(shape)
        options = {**ONE_THREAD, **({"INFERENCE_PRECISION_HINT": "f32"} if exact else {})}
        compiled = self._core.compile_model(graph, "CPU", options)
        self._requests[name] = compiled.create_infer_request()
        return {"precision": compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()}

    def answers(self, *, name: str, frames: str, out: str) -> dict[str, Any]:
        """What it says of each picture: its first output, ``(N, ...)`` in an ``.npy``."""
        shown, found = np.load(frames), []
        for n in range(len(shown)):
            self._requests[name].infer([shown[n : n + 1]])
            found.append(np.array(self._requests[name].get_output_tensor(0).data))
        np.save(out, np.concatenate(found))
        return {}

    def time(self, *, name: str, frames: str, runs: int) -> dict[str, Any]:
        """Milliseconds, by the clock and of the process, of each of so many runs after one that does not count."""
        frame = np.ascontiguousarray(np.load(frames, mmap_mode="r")[:1])
        request = self._requests[name]
        wall, cpu = [], []
        for _ in range(1 + runs):
            start, used = time.perf_counter(), time.process_time()
            request.infer([frame])
            cpu.append(1e3 * (time.process_time() - used))
            wall.append(1e3 * (time.perf_counter() - start))
        return {"wall": wall[1:], "cpu": cpu[1:]}


def main() -> None:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    graphs = Graphs()
    for line in sys.stdin:
        request = json.loads(line)
        try:
            found = getattr(graphs, request.pop("do"))(**request)
        except Exception as error:  # noqa: BLE001  the other side says it
            found = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        answers.write(json.dumps(found) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
