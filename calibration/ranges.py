"""The range table (``ranges/1``): what each tensor of a graph was seen to hold, and what every rule makes of it.

Both INT8 graphs are written from it.  It knows the graph, the preprocessing and the pictures it came
from, and is refused for another graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from calibration.equalising import equalised_name
from calibration.graphs import Graph
from calibration.observers import MOST_BINS, Histogram
from calibration.scales import RULES, Rule, amax, span
from edge_sdk.documents import Tolerant, canonical_json, read_json, sha256_hex, write_atomic
from edge_sdk.errors import FormatError
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = [
    "Equalisation",
    "FloatLayer",
    "PictureEntry",
    "RangeTable",
    "TensorRange",
    "pictures_digest",
    "read_ranges",
    "spec_digest",
    "table_of",
    "write_ranges",
]

_DIGEST = r"^[0-9a-f]{64}$"


class PictureEntry(Tolerant):
    """A picture that was calibrated on."""

    name: str
    sha256: str = Field(pattern=_DIGEST)


class TensorRange(Tolerant):
    """Of one tensor."""

    lo: float
    """The least value seen."""
    hi: float
    bin_width: float = Field(gt=0)
    first_bin: int
    """Number of the first bin; bin 0 begins at zero."""
    counts: tuple[int, ...] = Field(max_length=MOST_BINS)
    amax: dict[Rule, float]
    """By rule: the greatest magnitude kept, symmetric."""
    range: dict[Rule, tuple[float, float]]
    """By rule: the ends kept, with a zero point."""
    chosen: Rule

    @model_validator(mode="after")
    def _complete(self) -> TensorRange:
        if self.chosen not in self.amax or self.chosen not in self.range:
            raise ValueError(f"the rule {self.chosen} is chosen but has no range; make the ranges again")
        return self

    @property
    def histogram(self) -> Histogram:
        """As it was observed."""
        counts = np.array(self.counts, np.int64)
        return Histogram(self.lo, self.hi, self.bin_width, self.first_bin, counts)


class FloatLayer(Tolerant):
    """A layer that the TensorRT rendering leaves in float."""

    node: str
    gain_db: float
    """What the outputs' SQNR gained when it was added to those before it."""
    why: str


Factor = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Equalisation(Tolerant):
    """What equalising channels for TensorRT does; the tensors' new ranges are rows of their own."""

    factors: dict[str, tuple[Factor, ...]] = Field(default_factory=dict)
    """By tensor: what each channel is multiplied by before it is rounded; none where it was tried and not taken."""
    sqnr_db: dict[Rule, float | None] = Field(default_factory=dict)
    """By rule: of the TensorRT rendering's outputs with these factors, on the choosing pictures."""


class RangeTable(Tolerant):
    """``ranges.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["ranges/1"] = Field("ranges/1", alias="schema")
    graph_sha256: str = Field(pattern=_DIGEST)
    preprocess_sha256: str = Field(pattern=_DIGEST)
    pictures_sha256: str = Field(pattern=_DIGEST)
    """Over names and contents of the pictures, in order."""
    pictures: tuple[PictureEntry, ...] = ()
    """The report is made on others."""
    n: int = Field(ge=1)
    tensors: dict[str, TensorRange]
    choosing: tuple[PictureEntry, ...] = ()
    """The pictures by which the rule and the layers in float were chosen; none of them calibrated."""
    sqnr_db: dict[Rule, float | None] = Field(default_factory=dict)
    """By rule: of the TensorRT rendering's outputs on the choosing pictures; none where no bit differs."""
    float_layers: tuple[FloatLayer, ...] = ()
    gains_db: dict[str, float] = Field(default_factory=dict)
    """By node: what its layer alone in float gains."""
    equalisation: Equalisation | None = None
    """Where there are channels to equalise, and it was tried; else the file says nothing of it."""

    @model_serializer(mode="wrap")
    def _said(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        if self.equalisation is None:
            found.pop("equalisation", None)
        return found

    @property
    def rule(self) -> Rule | None:
        """The rule of every tensor, where it is one."""
        rules = {row.chosen for row in self.tensors.values()}
        return next(iter(rules)) if len(rules) == 1 else None

    @property
    def factors(self) -> dict[str, tuple[float, ...]]:
        """By tensor: what TensorRT's rendering multiplies its channels by; empty where nothing is equalised."""
        return self.equalisation.factors if self.equalisation else {}

    @property
    def decibels(self) -> dict[Rule, float | None]:
        """By rule: of the TensorRT rendering with channels equalised or not, as the table has it."""
        return self.equalisation.sqnr_db if self.equalisation and self.factors else self.sqnr_db

    def unequalised(self) -> RangeTable:
        """The table without factors, and without the ranges of what they made."""
        if not self.factors:
            return self
        tried = Equalisation(sqnr_db=self.equalisation.sqnr_db) if self.equalisation else None
        names = {equalised_name(tensor) for tensor in self.factors}
        kept = {name: row for name, row in self.tensors.items() if name not in names}
        return self.model_copy(update={"tensors": kept, "equalisation": tried})

    def of(self, tensor: str) -> TensorRange:
        """The row of a tensor.

        Raises:
            FormatError: The table has none.
        """
        if tensor not in self.tensors:
            raise FormatError(f"the range table has no tensor {tensor}; make the ranges again for this graph")
        return self.tensors[tensor]

    def check_graph(self, graph: Graph) -> None:
        """Refuse a table of another graph.

        Raises:
            FormatError: Says both digests.
        """
        if graph.digest != self.graph_sha256:
            raise FormatError(
                f"the range table is of graph {self.graph_sha256[:12]}, but this is graph {graph.digest[:12]}; "
                "make the ranges again: python -m calibration ranges"
            )

    def digest(self) -> str:
        """sha256 of the canonical table."""
        return sha256_hex(canonical_json(self))


def spec_digest(spec: PreprocessSpec) -> str:
    """sha256 of the canonical preprocessing."""
    return sha256_hex(canonical_json(spec.document()))


def pictures_digest(pictures: Iterable[PictureEntry]) -> str:
    """sha256 over names and contents, in order."""
    return sha256_hex(canonical_json([[picture.name, picture.sha256] for picture in pictures]))


def table_of(
    histograms: Mapping[str, Histogram],
    *,
    graph: Graph,
    spec: PreprocessSpec,
    pictures: Iterable[PictureEntry],
    rule: Rule = "mse",
    factors: Mapping[str, tuple[float, ...]] | None = None,
) -> RangeTable:
    """Apply every rule to every histogram.

    Args:
        histograms: By tensor.
        graph: That the tensors are of.
        spec: What the pictures went through.
        pictures: That were looked at.
        rule: The one to use.
        factors: By tensor, of its channels; what they made has a histogram too.
    """
    listed = tuple(pictures)
    return RangeTable(
        graph_sha256=graph.digest,
        preprocess_sha256=spec_digest(spec),
        pictures_sha256=pictures_digest(listed),
        pictures=listed,
        n=len(listed),
        tensors={name: _row(histogram, rule) for name, histogram in histograms.items()},
        equalisation=Equalisation(factors=dict(factors)) if factors else None,
    )


def _row(histogram: Histogram, rule: Rule) -> TensorRange:
    return TensorRange(
        lo=histogram.lo,
        hi=histogram.hi,
        bin_width=histogram.width,
        first_bin=histogram.first,
        counts=tuple(int(count) for count in histogram.counts),
        amax={one: amax(histogram, one) for one in RULES},
        range={one: span(histogram, one) for one in RULES},
        chosen=rule,
    )


def read_ranges(path: Path) -> RangeTable:
    """Read ``ranges.json``.

    Raises:
        FormatError: The file is missing, no JSON, or not of ``ranges/1``.
    """
    return read_json(path, RangeTable)


def write_ranges(path: Path, table: RangeTable) -> None:
    """Write ``ranges.json``, whole or not at all."""
    write_atomic(path, canonical_json(table))
