"""Preprocessing inside the graph: it then takes the picture's bytes, a quarter of what floats would be to copy.

Channel order and normalisation are written as they are computed by ``edge_sdk.vision.preprocess.normalised``, operation
by operation, so that the network sees the very same numbers.  They are not folded into the first convolution: its zero
padding stands for a pixel of the mean, and a mean that went into the bias would be missing at the border.  The scale
alone could go into its weights, but for rounding; that saves one multiplication a value, and makes another graph, to be
calibrated again.
Resize and letterbox stay outside, where pictures still have their own size.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

from calibration.sessions import open_session
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, normalised
from export.exporters import ExportError

__all__ = ["check_fused", "with_preprocessing"]

INPUT = "frame"


def with_preprocessing(model: ModelProto, spec: PreprocessSpec) -> ModelProto:
    """The graph with uint8 ``(N, H, W, 3)`` blue green red as its input ``frame``.

    Args:
        model: Takes ``frame`` float32 ``(N, 3, H, W)``; FP32 or INT8.
        spec: How its pictures are normalised.

    Raises:
        ExportError: The graph takes something else.
    """
    fused = ModelProto()
    fused.CopyFrom(model)
    graph = fused.graph
    taken = graph.input[0].type.tensor_type if len(graph.input) == 1 else None
    if taken is None or graph.input[0].name != INPUT or taken.elem_type != TensorProto.FLOAT:
        raise ExportError(
            "preprocessing goes into a graph that takes one float32 input named frame; this one takes "
            f"{', '.join(value.name for value in graph.input)} and has it already, or is of another origin"
        )
    batch = taken.shape.dim[0].dim_param or taken.shape.dim[0].dim_value
    inner = f"{INPUT}_normalised"
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == INPUT:
                node.input[place] = inner
    scale = np.array([np.float32(1 / (255 * std)) for std in spec.std], np.float32).reshape(1, 3, 1, 1)
    offset = np.array(
        [np.float32(mean / std) for mean, std in zip(spec.mean, spec.std, strict=True)], np.float32
    ).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Transpose", [INPUT], ["frame_planes"], "frame_transpose", perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["frame_planes"], ["frame_float"], "frame_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", ["frame_float", "frame_scale"], ["frame_scaled"], "frame_mul"),
        helper.make_node("Sub", ["frame_scaled", "frame_offset"], [inner], "frame_sub"),
    ]
    constants = {"frame_scale": scale, "frame_offset": offset}
    if spec.colour == "rgb":
        constants["frame_order"] = np.array([2, 1, 0], np.int64)
        nodes[0].input[0] = "frame_ordered"
        nodes.insert(
            0, helper.make_node("Gather", [INPUT, "frame_order"], ["frame_ordered"], "frame_gather", axis=3)
        )
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    graph.input[0].CopyFrom(
        helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [batch, spec.height, spec.width, 3])
    )
    onnx.checker.check_model(fused, full_check=True)
    return fused


def check_fused(model: ModelProto, fused: ModelProto, spec: PreprocessSpec) -> float:
    """Compare both graphs on pictures that are letterboxed, so that padding is among what the network sees.

    Args:
        model: Takes ``frame`` as floats.
        fused: That ``with_preprocessing`` made of it.
        spec: Of both.

    Returns:
        The greatest difference of any output over the output's greatest magnitude.

    Raises:
        ExportError: They differ by more than rounding.
    """
    random = np.random.default_rng(0)
    plain, inside = open_session(model), open_session(fused)
    taken = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    worst = 0.0
    whole = PreprocessSpec(**{**spec.document(), "tile_overlap_px": None, "shrink": None, "defect_px": None})
    for height, width in ((spec.height, max(1, spec.width // 2)), (max(1, spec.height // 3), spec.width)):
        picture = fitted(random.integers(0, 256, (height, width, 3), np.uint8), whole)
        wanted = plain.run(np.repeat(normalised(picture, whole), taken, axis=0))
        found = inside.run(np.repeat(picture[None], taken, axis=0))
        for name, reference in wanted.items():
            size = max(1.0, float(np.abs(reference).max(initial=0)))
            worst = max(worst, float(np.abs(found[name] - reference).max(initial=0)) / size)
    if not worst <= 1e-5:
        raise ExportError(
            f"with its preprocessing inside the graph answers {worst:.3g} apart; the export is wrong, do not use it"
        )
    return worst
