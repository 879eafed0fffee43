"""What ``export onnx`` writes beside a graph, so that calibration can judge it without the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from edge_sdk.arrays import Floats
from edge_sdk.documents import Tolerant, canonical_json, read_json
from edge_sdk.labels import Thresholds
from edge_sdk.manifest import ClassThresholds
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["Exported", "ParityRow", "asked_in_float", "exported_bytes", "preprocess_bytes", "read_exported",
           "read_preprocess", "shapes_of"]  # fmt: skip


class _PreprocessFile(Tolerant):
    """``preprocess.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["preprocess/1"] = Field("preprocess/1", alias="schema")
    preprocess: PreprocessSpec


class ParityRow(Tolerant):
    """How far the graph is from the network it came from, at one batch size."""

    batch: int
    output: str
    greatest_difference: float
    """Over all values of the output."""
    allowed: float


class Exported(Tolerant):
    """``export.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["export/1"] = Field("export/1", alias="schema")
    graph_sha256: str
    factory: str
    line: str
    weights_sha256: str
    """Of the checkpoint's ``weights.safetensors``."""
    line_sha256: str
    """Of the line's tensors; empty where the line overrides none."""
    opset: int
    ir: int
    nodes: int
    inputs: dict[str, list[str | int]]
    """Name to shape; ``N`` is the batch."""
    outputs: dict[str, list[str | int]]
    classes: tuple[str, ...]
    thresholds: tuple[ClassThresholds, ...]
    how: str = "given"
    guarantee: str = "none"
    normals: tuple[float, ...] | None = None
    """Of an anomaly map: the highest distances of the normals that it was calibrated on."""
    keep_float: tuple[str, ...] | None = None
    """Nodes that an INT8 rendering leaves as they are, where the network says so."""
    cell_px: int
    parity: tuple[ParityRow, ...]
    way: Literal["dynamo", "torchscript"] = "dynamo"
    """How torch wrote it."""
    note: str | None = None
    """Why it was traced, or why none of it is rounded to INT8, where it is so."""
    fused_sha256: str | None = None
    """Of ``model.fused.onnx``, the same graph with its preprocessing inside, where it was asked for."""
    versions: dict[str, str] = Field(default_factory=dict)

    def bands(self) -> Thresholds:
        """The thresholds as arrays."""
        return Thresholds(
            boundary=np.array([band.boundary for band in self.thresholds], np.float32),
            pass_below=np.array([band.pass_below for band in self.thresholds], np.float32),
            defective_from=np.array([band.defective_from for band in self.thresholds], np.float32),
            how=self.how,
            guarantee=self.guarantee,
        )

    def temperature(self) -> Floats:
        """``(K,)``."""
        return np.array([band.temperature for band in self.thresholds], np.float32)


def read_preprocess(path: Path) -> PreprocessSpec:
    """Read ``preprocess.json``.

    Raises:
        FormatError: The file is missing or damaged.
    """
    return read_json(path, _PreprocessFile).preprocess


def preprocess_bytes(spec: PreprocessSpec) -> bytes:
    """Of ``preprocess.json``."""
    return canonical_json({"schema": "preprocess/1", "preprocess": spec.document()}) + b"\n"


def read_exported(path: Path) -> Exported:
    """Read ``export.json``.

    Raises:
        FormatError: The file is missing or damaged.
    """
    return read_json(path, Exported)


def asked_in_float(model: Path, digest: str) -> tuple[str, ...]:
    """Nodes that the network itself wants in float, as ``export.json`` beside a graph says.

    Args:
        model: The graph's file.
        digest: Of the graph; what was exported of another one says nothing.

    Raises:
        FormatError: The file is damaged.
    """
    path = model.with_name("export.json")
    exported = read_exported(path) if path.exists() else None
    return exported.keep_float or () if exported is not None and exported.graph_sha256 == digest else ()


def exported_bytes(exported: Exported) -> bytes:
    """Of ``export.json``."""
    return canonical_json(exported) + b"\n"


def shapes_of(values: Any) -> dict[str, list[str | int]]:
    """Name to shape of a graph's inputs or outputs."""
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    }
