"""Runs in the environment of ModelOpt, not in ours: quantises one graph by its two calibrations, on the CPU.

``python modelopt_worker.py GRAPH FRAMES FOLDER``: ``FRAMES`` is an ``.npy`` of ``(N, 3, H, W)`` that our own
preprocessing made; ``FOLDER`` gets ``max.onnx`` and ``entropy.onnx``.  Prints one JSON object, the versions.
"""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import numpy as np

__all__ = ["main"]

METHODS = ("max", "entropy")


def main(graph: str, frames: str, folder: str) -> None:
    """Quantise."""
    from modelopt.onnx.quantization import quantize

    pictures = np.load(frames)
    for method in METHODS:
        quantize(
            graph,
            quantize_mode="int8",
            calibration_data={"frame": pictures},
            calibration_method=method,
            calibration_eps=["cpu"],
            calibration_shapes=f"frame:1x{'x'.join(str(side) for side in pictures.shape[1:])}",
            # what is not int8 stays as exact as it is with the others
            high_precision_dtype="fp32",
            output_path=str(Path(folder) / f"{method}.onnx"),
            log_level="ERROR",
        )
    found = {name: metadata.version(name) for name in ("nvidia-modelopt", "onnx", "onnxruntime-gpu")}
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
