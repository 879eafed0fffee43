"""From a torch module to an ONNX graph that is the same bytes every time and names no machine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edge_sdk.errors import EdgeError, FormatError
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = [
    "IR",
    "OPSET",
    "OUTPUTS",
    "ExportError",
    "Named",
    "check_grid",
    "kept_in_float",
    "onnx_from_torch",
    "outputs_of",
    "stripped",
]

OPSET = 19
"""The least that knows FP16 Q/DQ, and one that the last ONNX Runtime for Python 3.10 reads."""
IR = 10
OUTPUTS = ("cells", "novelty", "boxes", "scores", "feature")
"""What a graph may give, in this order."""
_JUDGED = {"cells", "novelty", "boxes"}


class ExportError(EdgeError, RuntimeError):
    """The network could not be written as asked."""


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
            f"the network does not take frames of {tuple(frame.shape)} ({_first_line(error)}); "
            "mind width and height of the preprocessing"
        ) from error
    strange = sorted(found.keys() - set(OUTPUTS))
    if strange or not found.keys() & _JUDGED:
        raise ExportError(
            f"the network's outputs are {', '.join(found) or 'without names'}; "
            f"give at least one of cells, novelty, boxes, and no others than {', '.join(OUTPUTS)}"
        )
    return {name: found[name] for name in OUTPUTS if name in found}


def onnx_from_torch(network: nn.Module, spec: PreprocessSpec, *, opset: int = OPSET) -> ModelProto:
    """Write a network as ONNX.

    Args:
        network: Takes ``(N, 3, H, W)`` float32; gives a mapping, a named tuple or a tuple beginning with
            ``cells``.
        spec: Height and width.
        opset: Asked for, and checked afterwards.

    Returns:
        A checked model with input ``frame``, dynamic in N alone, without metadata.

    Raises:
        ExportError: The exporter cannot follow the network, or wrote another opset than asked.
    """
    names = tuple(outputs_of(network, spec))
    # with a batch of 1 an exporter may take the batch for a constant
    example = torch.zeros(2, 3, spec.height, spec.width)
    batch = torch.export.Dim("N")
    with _quietly():
        try:
            program = torch.onnx.export(
                Named(network, names).eval(),
                (example,),
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=({0: batch},),
                input_names=["frame"],
                output_names=list(names),
                verbose=False,
                external_data=False,
            )
        except Exception as error:  # the exporter raises what anybody's code raised inside it
            raise ExportError(
                f"torch cannot export the network ({_first_line(_root(error))}); "
                "write its forward without branches that depend on the data"
            ) from error
    if program is None:
        raise ExportError("torch gave no graph; is the package onnxscript installed?")
    model = stripped(program.model_proto)
    written = {entry.domain: entry.version for entry in model.opset_import}
    if written.get("") != opset or set(written) != {""}:
        shown = ", ".join(f"{domain or 'onnx'} {version}" for domain, version in sorted(written.items()))
        raise ExportError(
            f"opset {opset} was asked for, but torch wrote {shown}; ask for 18 to 23, best {OPSET}"
        )
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"torch wrote a graph that ONNX refuses ({_first_line(error)})") from error
    return model


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
    """Nodes that are not to be rounded to INT8: what has a weight of the submodules that the network names in
    ``keep_float``, and all that is computed from it.

    Args:
        network: May have an attribute ``keep_float``, names of submodules.
        model: That it was exported to; its weights are still called as the network's.
    """
    submodules = tuple(f"network.{name}." for name in getattr(network, "keep_float", ()))
    below: set[str] = set()
    kept = []
    for node in model.graph.node:
        if submodules and any(name.startswith(submodules) or name in below for name in node.input):
            kept.append(node.name)
            below.update(node.output)
    return tuple(kept)


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


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's talk: it warns of its own deprecations and of packages that nobody asked for."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "torch.export", "torch._dynamo", "onnxscript", "onnx_ir")
    ]
    loggers += list(_children(loggers))
    before = [(logger, logger.level) for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def _children(loggers: Iterable[logging.Logger]) -> Iterator[logging.Logger]:
    prefixes = tuple(f"{logger.name}." for logger in loggers)
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith(prefixes):
            yield logger


def _root(error: BaseException) -> BaseException:
    """What began it: the exporter wraps its errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
