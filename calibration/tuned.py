"""Fine-tuned weights (``tuned/1``): what quantisation-aware training made of a graph's int8 layers.

They take the place of the graph's own weights in an INT8 rendering, beside the range table that they were trained with.
The FP32 graph stays what it was: what a rendering cost is told against it, whatever its weights are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from onnx import ModelProto
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import load, save

from calibration.graphs import Graph
from calibration.ranges import PictureEntry, RangeTable
from edge_sdk.arrays import Array
from edge_sdk.documents import Tolerant, canonical_json, parse_json, sha256_hex, write_atomic
from edge_sdk.errors import FormatError

__all__ = ["TUNED", "TUNED_NAME", "Judgement", "Tuned", "TunedFile", "read_tuned", "tuned_digest_of", "write_tuned"]

TUNED = "edge_sdk.tuned"
"""Under which a rendering's metadata has the digest of the weights that it was written with."""
TUNED_NAME = "tuned.safetensors"
_AGAIN = "fine-tune again: python -m export qat"


class Judgement(Tolerant):
    """What one rendering gained, on pictures that trained nothing."""

    before_db: float | None
    """SQNR of its outputs with the graph's own weights; none where no bit differs."""
    after_db: float | None
    taken: bool
    """Whether the fine-tuned weights lose less, and so are rendered."""


class TunedFile(Tolerant):
    """What stands beside the weights."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["tuned/1"] = Field("tuned/1", alias="schema")
    graph_sha256: str
    ranges_sha256: str
    """Digest of the table whose ranges were trained with."""
    keep_float: tuple[str, ...] = ()
    """Nodes that TensorRT's rendering left in float meanwhile."""
    pictures: tuple[PictureEntry, ...]
    """That were trained on; the report is made on others."""
    judged_on: int = Field(ge=1)
    """Pictures."""
    trt: Judgement
    cpu: Judgement
    epochs: int = Field(ge=1)
    rate: float = Field(gt=0)
    seed: int = Field(ge=0)
    losses: tuple[float, ...] = ()
    """By epoch: the outputs' noise over their signal, summed over outputs."""


@dataclass(frozen=True, eq=False)
class Tuned:
    """Weights by name, and where they come from."""

    said: TunedFile
    weights: Mapping[str, Array]

    @cached_property
    def data(self) -> bytes:
        """The file; equal weights, equal bytes."""
        arrays = {name: np.ascontiguousarray(values) for name, values in self.weights.items()}
        return bytes(save(arrays, {"said": canonical_json(self.said).decode()}))

    @property
    def digest(self) -> str:
        """sha256 of the file."""
        return sha256_hex(self.data)

    def check(self, graph: Graph, ranges: RangeTable) -> None:
        """Refuse weights that were tuned for something else.

        Raises:
            FormatError: Names what differs.
        """
        for what, wanted, given in (
            ("graph", graph.digest, self.said.graph_sha256),
            ("range table", ranges.digest(), self.said.ranges_sha256),
        ):
            if given != wanted:
                raise FormatError(
                    f"the weights were fine-tuned for {what} {given[:12]}, but this is {what} {wanted[:12]}; {_AGAIN}"
                )
        for name, values in self.weights.items():
            if not graph.is_weight(name) or graph.weight(name).shape != values.shape:
                raise FormatError(f"the fine-tuned weight {name} does not fit the graph; {_AGAIN}")


def read_tuned(path: Path) -> Tuned:
    """Read fine-tuned weights.

    Raises:
        FormatError: The file is missing or damaged, or not of ``tuned/1``.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); is the path right?") from error
    try:
        # safetensors: its header is JSON after eight bytes of length
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said = header["__metadata__"]["said"]
        weights = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path} holds no fine-tuned weights, or is damaged; {_AGAIN}") from error
    return Tuned(parse_json(said.encode(), TunedFile, name=str(path)), weights)


def write_tuned(path: Path, tuned: Tuned) -> None:
    """Write fine-tuned weights, whole or not at all."""
    write_atomic(path, tuned.data)


def tuned_digest_of(model: ModelProto) -> str | None:
    """Of the fine-tuned weights that a rendering was written with; none where it has the graph's own."""
    return next((entry.value for entry in model.metadata_props if entry.key == TUNED), None)
