"""The two ways from a torch module to ONNX: ``torch.export`` first, tracing where that cannot follow.

Tracing records what one example does, so it is taken only where nothing in the recording hung on the example's values:
a branch on data would else be frozen as the example went through it.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any, Literal

import onnx
import torch
from onnx import ModelProto
from torch import Tensor, nn

from edge_sdk.errors import EdgeError

__all__ = ["ExportError", "Made", "first_line", "made_by_torch"]

Way = Literal["dynamo", "torchscript"]


class ExportError(EdgeError, RuntimeError):
    """The network could not be written as asked."""


@dataclass(frozen=True, eq=False)
class Made:
    """A graph as torch gave it, and how it came about."""

    model: ModelProto
    way: Way
    note: str = ""
    """Why it was not made the first way."""


def made_by_torch(network: nn.Module, names: tuple[str, ...], example: Tensor, *, opset: int, dynamic: bool) -> Made:
    """Write a network whose outputs come as a tuple.

    Args:
        network: Takes ``example``.
        names: Of the outputs.
        example: ``(N, 3, H, W)``.
        opset: Asked for; the caller looks whether it came.
        dynamic: Whether N stays open.

    Raises:
        ExportError: Neither way follows the network.
    """
    try:
        return Made(_by_dynamo(network, names, example, opset, dynamic), "dynamo")
    except ExportError:
        raise
    except Exception as error:  # noqa: BLE001 - the exporter raises what anybody's code raised inside it
        first = error
    try:
        model, frozen = _by_tracing(network, names, example, opset, dynamic)
    except Exception as error:  # noqa: BLE001 - the same
        raise ExportError(_sentence(first, error)) from first
    why = first_line(_root(first))
    if frozen:
        raise ExportError(
            f"torch cannot export the network ({why}); write its forward without branches that depend on the data"
        ) from first
    return Made(model, "torchscript", f"torch.export does not follow the network ({why}), so it was traced")


def first_line(error: BaseException) -> str:
    """The kind of an error and the beginning of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _by_dynamo(network: nn.Module, names: tuple[str, ...], example: Tensor, opset: int, dynamic: bool) -> ModelProto:
    with _quietly():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=({0: torch.export.Dim("N")},) if dynamic else None,
            input_names=["frame"],
            output_names=list(names),
            verbose=False,
            external_data=False,
        )
    if program is None:
        raise ExportError("torch gave no graph; is the package onnxscript installed?")
    return program.model_proto


def _by_tracing(
    network: nn.Module, names: tuple[str, ...], example: Tensor, opset: int, dynamic: bool
) -> tuple[ModelProto, bool]:
    """The graph, and whether something in it hung on the example's values."""
    from onnxscript import optimizer

    file = io.BytesIO()
    # the whole graph is printed where one node cannot be written, past Python's streams and whatever verbose says
    talk = torch._C._jit_onnx_log
    torch._C._jit_onnx_log = _nothing
    try:
        with _quietly(), warnings.catch_warnings(record=True) as told, redirect_stdout(io.StringIO()):
            warnings.simplefilter("always")
            torch.onnx.export(
                network,
                (example,),
                file,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=opset,
                input_names=["frame"],
                output_names=list(names),
                dynamic_axes={name: {0: "N"} for name in ("frame", *names)} if dynamic else None,
            )
            model: Any = optimizer.optimize(onnx.load_model_from_string(file.getvalue()))
    finally:
        torch._C._jit_onnx_log = talk
    frozen = any(
        one.category.__name__ == "TracerWarning"
        and str(one.message).startswith(("Converting a tensor to", "Iterating over a tensor"))
        for one in told
    )
    return model, frozen


def _nothing(*_: object) -> None:
    """Says nothing."""


def _sentence(first: Exception, second: Exception) -> str:
    """What neither way could do; an operation that ONNX does not have is named."""
    missing = next(
        (one for one in (second, _root(first)) if type(one).__name__ in ("UnsupportedOperatorError", "DispatchError")),
        None,
    )
    if missing is not None:
        return (
            f"torch cannot export the network ({first_line(missing)}); replace that operation by others, or leave it "
            "out of the graph"
        )
    return (
        f"torch cannot export the network ({first_line(_root(first))}); "
        "write its forward without branches that depend on the data"
    )


def _root(error: BaseException) -> BaseException:
    """What began it: the exporter wraps its errors several times."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's talk: it warns of its own deprecations and of packages that nobody asked for."""
    loggers = [
        logging.getLogger(name)
        for name in ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir")
    ]
    loggers += list(_children(loggers))
    before = [(logger, logger.level) for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
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
