"""From a torch module to an ONNX graph that is the same bytes every time and names no machine."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import onnx
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from calibration.placement import WEIGHTED
from edge_sdk.errors import FormatError
from edge_sdk.vision.preprocess import PreprocessSpec
from export.exporters import ExportError, Made, first_line, made_by_torch

__all__ = [
    "IR",
    "OPSET",
    "OUTPUTS",
    "ExportError",
    "Named",
    "check_grid",
    "graph_of",
    "kept_in_float",
    "onnx_from_torch",
    "outputs_of",
    "stripped",
    "unrounded",
]

OPSET = 19
"""The least that knows FP16 Q/DQ, and one that the last ONNX Runtime for Python 3.10 reads."""
IR = 10
OUTPUTS = ("cells", "novelty", "boxes", "scores", "feature")
"""What a graph may give, in this order."""
_JUDGED = {"cells", "novelty", "boxes"}


class Named(nn.Module):
    """A network whose outputs leave as a tuple in the order of ``names``."""

    def __init__(self, network: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        found = _by_name(self.network(frame))
        return tuple(found[name] for name in self.names)


def outputs_of(network: nn.Module, spec: PreprocessSpec) -> dict[str, Tensor]:
    """The network's outputs by name for a batch of two, to learn what it gives.

    Raises:
        ExportError: It fails, or its outputs are not named as a graph's must be.
    """
    network.eval()
    frame = torch.zeros(2, 3, spec.height, spec.width)
    try:
        with torch.no_grad():
            found = _by_name(network(frame))
    except ExportError:
        raise
    except Exception as error:  # anybody's network fails in its own way
        raise ExportError(
            f"the network does not take frames of {tuple(frame.shape)} float32 ({first_line(error)}); "
            "mind width and height of the preprocessing, and let forward convert what it needs otherwise"
        ) from error
    strange = sorted(found.keys() - set(OUTPUTS))
    if strange or not found.keys() & _JUDGED:
        raise ExportError(
            f"the network's outputs are {', '.join(found) or 'without names'}; "
            f"give at least one of cells, novelty, boxes, and no others than {', '.join(OUTPUTS)}"
        )
    return {name: found[name] for name in OUTPUTS if name in found}


def onnx_from_torch(
    network: nn.Module, spec: PreprocessSpec, *, opset: int = OPSET, batch: int | None = None
) -> ModelProto:
    """Write a network as ONNX; see ``graph_of``."""
    return graph_of(network, spec, opset=opset, batch=batch).model


def graph_of(network: nn.Module, spec: PreprocessSpec, *, opset: int = OPSET, batch: int | None = None) -> Made:
    """Write a network as ONNX, and say how that was done.

    Args:
        network: Takes ``(N, 3, H, W)`` float32; gives a mapping, a named tuple or a tuple beginning with
            ``cells``.
        spec: Height and width.
        opset: Asked for, and checked afterwards.
        batch: Fixes N; without it N is the one dimension that is open.

    Returns:
        A checked model with input ``frame``, without metadata.

    Raises:
        ExportError: The exporters cannot follow the network, or wrote another opset than asked.
    """
    given = outputs_of(network, spec)
    names = tuple(given)
    # with a batch of 1 an exporter may take the batch for a constant
    example = torch.zeros(batch or 2, 3, spec.height, spec.width)
    made = made_by_torch(Named(network, names).eval(), names, example, opset=opset, dynamic=batch is None)
    model = stripped(made.model)
    for value in model.graph.output:
        # tracing leaves dimensions open that are not
        dims = (batch or "N", *given[value.name].shape[1:])
        value.CopyFrom(helper.make_tensor_value_info(value.name, value.type.tensor_type.elem_type, dims))
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset or set(written) != {""}:
        shown = ", ".join(f"{domain or 'onnx'} {version}" for domain, version in sorted(written.items()))
        raise ExportError(
            f"opset {opset} was asked for, but torch wrote {shown}; ask for 18 to 23, best {OPSET}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"torch wrote a graph that ONNX refuses ({first_line(error)})") from error
    return Made(model, made.way, made.note)


def stripped(model: ModelProto) -> ModelProto:
    """The model without metadata: the exporter notes stack traces with machine paths at every node."""
    bare = ModelProto()
    bare.CopyFrom(model)
    bare.ir_version = IR
    bare.producer_version = ""
    bare.doc_string = ""
    del bare.metadata_props[:]
    graph = bare.graph
    graph.name = "network"
    del graph.value_info[:]
    del graph.quantization_annotation[:]
    for holder in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        holder.doc_string = ""
        del holder.metadata_props[:]
    return bare


def check_grid(outputs: Mapping[str, Tensor], spec: PreprocessSpec, *, cell_px: int, classes: int) -> None:
    """Hold the network to what its checkpoint says of it.

    Raises:
        FormatError: It gives another number of classes or cells.
    """
    if "scores" in outputs:
        _check_anchors(outputs, classes=classes)
    judged = next((name for name in ("cells", "novelty") if name in outputs), None)
    if judged is None:
        return
    if outputs[judged].ndim != 4:
        raise FormatError(f"the network's {judged} is {tuple(outputs[judged].shape)}; give (N, classes, rows, columns)")
    _, found, rows, columns = outputs[judged].shape
    if found != classes:
        raise FormatError(
            f"the network gives {found} classes but the checkpoint names {classes}; mind its arguments"
        )
    wanted = (round(spec.height / cell_px), round(spec.width / cell_px))
    if (rows, columns) != wanted:
        raise FormatError(
            f"the network gives {rows} x {columns} cells for {spec.height} x {spec.width} pixels, but with cell_px "
            f"{cell_px} they must be {wanted[0]} x {wanted[1]}; mind cell_px in checkpoint.json"
        )


def kept_in_float(network: nn.Module, model: ModelProto) -> tuple[str, ...]:
    """Nodes that are not to be rounded to INT8.

    They are what has a weight of the submodules that the network names in ``keep_float``, and all that is computed from
    it; and what has a weight of those in ``keep_float_first``, and what is computed from nothing else.

    Args:
        network: May have the attributes ``keep_float`` and ``keep_float_first``, names of submodules.
        model: That it was exported to; its weights are still called as the network's.

    Raises:
        ExportError: The network has no such submodule, or one has no weight in the graph, as where tracing folds and
            renames it.
    """
    there = [name for name, _ in network.named_modules() if name]
    for said in ("keep_float", "keep_float_first"):
        for unknown in (name for name in getattr(network, said, ()) if name not in there):
            near = difflib.get_close_matches(unknown, there, 3, 0.4) or there[:3]
            raise ExportError(
                f"the network's {said} names {unknown}, which it does not have; give names of its submodules, "
                f"e.g. {', '.join(near) or 'none, as it has no submodule'}"
            )
    last, first = (
        tuple(f"network.{name}." for name in getattr(network, said, ())) for said in ("keep_float", "keep_float_first")
    )
    fixed = {tensor.name for tensor in model.graph.initializer}
    had = {f"network.{name}" for name in network.state_dict()}
    lost = [one for one in (*last, *first) if _any_in(had, one) and not _any_in(fixed, one)]
    if lost:
        raise ExportError(
            f"the network keeps {lost[0].removeprefix('network.').rstrip('.')} in float, but no weight of the graph is "
            "called so; write the network without what torch.export cannot follow, or leave it out of keep_float"
        )
    below: set[str] = set()
    above = {one.name for one in model.graph.input}
    kept = []
    for node in model.graph.node:
        weights = [name for name in node.input if name in fixed and name.startswith("network.")]
        early = all(name in above for name in node.input if name and name not in fixed)
        if last and any(name.startswith(last) or name in below for name in node.input):
            below.update(node.output)
        elif first and early and all(name.startswith(first) for name in weights):
            above.update(node.output)
        else:
            continue
        kept.append(node.name)
    return tuple(kept)


def unrounded(network: nn.Module, model: ModelProto, kept: Sequence[str]) -> str:
    """A sentence where ``kept`` leaves no layer to round to INT8, or nothing.

    Args:
        network: May say why, and what to do, in an attribute ``float_because``.
        model: That it was exported to.
        kept: Nodes that stay in float.
    """
    layers = [node.name for node in model.graph.node if node.op_type in WEIGHTED]
    if not kept or not layers or not set(layers) <= set(kept):
        return ""
    why = getattr(network, "float_because", "") or "the network's keep_float names all of it; name less to change that"
    return f"no layer is rounded to INT8, and its INT8 graphs are as large and as slow as FP32: {why}"


def _any_in(names: set[str], submodule: str) -> bool:
    return any(name.startswith(submodule) for name in names)


def _check_anchors(outputs: Mapping[str, Tensor], *, classes: int) -> None:
    """A detector's boxes and scores must be of the same anchors, and its scores of all classes."""
    boxes, scores = outputs.get("boxes"), outputs["scores"]
    if boxes is None or boxes.ndim != 3 or scores.ndim != 3 or boxes.shape[1:] != (scores.shape[1], 4):
        told = "no boxes" if boxes is None else f"boxes {tuple(boxes.shape[1:])}"
        raise FormatError(
            f"the network gives {told} and scores {tuple(scores.shape[1:])}; a detector gives boxes (A, 4) and scores "
            "(A, K) of the same anchors"
        )
    if scores.shape[2] != classes:
        raise FormatError(
            f"the network gives {scores.shape[2]} classes but the checkpoint names {classes}; mind its arguments"
        )


def _by_name(found: Any) -> dict[str, Tensor]:
    if isinstance(found, Mapping):
        named = dict(found)
    elif hasattr(found, "_asdict"):
        named = found._asdict()
    elif isinstance(found, Tensor):
        named = {"cells": found}
    elif isinstance(found, tuple | list) and len(found) <= 2:
        named = dict(zip(("cells", "feature"), found, strict=False))
    else:
        raise ExportError(f"the network gives a {type(found).__name__}; give a dict of tensors by name")
    bad = [name for name, value in named.items() if not isinstance(value, Tensor)]
    if bad:
        raise ExportError(f"the network's output {bad[0]} is no tensor; give a dict of tensors by name")
    return named
