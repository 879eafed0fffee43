"""The files that rendering writes, and what they say of themselves: layout, graph, and whose weights they have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx

from calibration.graphs import Graph
from calibration.tuned import Tuned, read_tuned, tuned_digest_of
from calibration.typed import LAYOUT
from edge_sdk.errors import ConfigError, FormatError

__all__ = ["RENDERINGS", "TYPED", "renderings_of", "tuned_of"]

TYPED = "trt-fp16"
RENDERINGS = {"trt": "model.trt.onnx", "cpu": "model.cpu.onnx", TYPED: "model.trt.fp16.onnx"}
BESIDE = ("trt", "cpu")
"""What is compared too where it lies beside the one that was named."""


def renderings_of(named: list[Path], graph: Graph, *, say: Callable[[str], None]) -> dict[str, Path]:
    """Kind to file: those named, in order, and the other one where it lies beside the first.

    Args:
        named: Files, one or more.
        graph: FP32, that they must be of.
        say: Told of what was not named.

    Raises:
        FormatError: A file is no INT8 graph of this project, or of another graph.
        ConfigError: Two are the same rendering.
    """
    found: dict[str, Path] = {}
    for path in named:
        layout = _layout_of(path, graph)
        if layout in found:
            raise ConfigError(f"{path} and {found[layout]} are the same rendering; give one of each")
        found[layout] = path
    for kind in BESIDE:
        beside = named[0].with_name(RENDERINGS[kind])
        if kind not in found and beside.exists() and _layout_of(beside, graph) == kind:
            found[kind] = beside
            say(f"{beside} lies beside it and is compared too")
    return found


def tuned_of(files: dict[str, Path], path: Path) -> tuple[Tuned | None, tuple[str, ...]]:
    """The weights that renderings were written with, to leave out the pictures that trained them.

    Args:
        files: Kind to file.
        path: Where the weights should be.

    Returns:
        The weights, none where every rendering has the graph's own, and the kinds that have them.

    Raises:
        FormatError: A rendering has fine-tuned weights, and these are not they, or not those of all.
    """
    found: Tuned | None = None
    kinds: list[str] = []
    for kind, file in files.items():
        digest = tuned_digest_of(onnx.load(file, load_external_data=False))
        if digest is None:
            continue
        found = found or read_tuned(path)
        if found.digest != digest:
            raise FormatError(
                f"{file} was rendered with other fine-tuned weights than {path}; give the file that it was "
                "rendered with: --tuned"
            )
        kinds.append(kind)
    return found, tuple(kinds)


def _layout_of(path: Path, graph: Graph) -> str:
    try:
        model = onnx.load(path)
    except Exception as error:
        raise FormatError(f"{path} is no ONNX graph; render it: python -m calibration render") from error
    said = {entry.key: entry.value for entry in model.metadata_props}
    layout = said.get("edge_sdk.layout", "")
    if not layout:
        raise FormatError(
            f"{path} is not an INT8 graph of this project; render it: python -m calibration render"
        )
    if said.get("edge_sdk.fp32") != graph.digest:
        raise FormatError(
            f"{path} was rendered from another graph; render it again: python -m calibration render"
        )
    if layout == LAYOUT:
        return TYPED
    return "trt" if layout.startswith("tensorrt") else "cpu"
