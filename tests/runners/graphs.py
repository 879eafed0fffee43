"""Tiny graphs, made when a test needs them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

__all__ = ["cells_graph"]


def cells_graph(
    path: Path, *, height: int = 64, width: int = 64, cell_px: int = 16, scale: float = 1.0, ir: int = 8
) -> Path:
    """A graph of the bundle's kind: logits are each cell's mean over all channels times ``scale``.

    ``frame (N, 3, H, W)`` to ``cells (N, 1, h, w)`` and ``feature (N, 3)``.
    """
    graph = helper.make_graph(
        [
            helper.make_node(
                "AveragePool", ["frame"], ["pooled"], kernel_shape=[cell_px] * 2, strides=[cell_px] * 2
            ),
            helper.make_node("ReduceMean", ["pooled"], ["mean"], axes=[1], keepdims=1),
            helper.make_node("Mul", ["mean", "scale"], ["cells"]),
            helper.make_node("ReduceMean", ["frame"], ["feature"], axes=[2, 3], keepdims=0),
        ],
        "cells",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, height, width])],
        [
            helper.make_tensor_value_info(
                "cells", TensorProto.FLOAT, ["N", 1, height // cell_px, width // cell_px]
            ),
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", 3]),
        ],
        [numpy_helper.from_array(np.array(scale, np.float32), "scale")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=ir)
    save(model, str(path))
    return path
