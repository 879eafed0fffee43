"""``report.json``: the figures of an INT8 report, as the packer and the demo read them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict, Field

from calibration.layers import Layer
from calibration.ranges import RangeTable
from calibration.report import Cost, Judged, cpu_instructions, cpu_name
from edge_sdk.documents import Tolerant

__all__ = ["FlipRow", "GateRow", "LayerRow", "RenderingReport", "ReportFile", "most_moved", "report_file"]

WORST = 12
"""Pictures of the greatest disagreement that are listed."""


class FlipRow(Tolerant):
    """A picture that INT8 judges otherwise."""

    picture: str
    label: str = ""
    fp32: str
    int8: str
    confidence_fp32: float
    confidence_int8: float


class GateRow(Tolerant):
    """A gate, and whether it held."""

    gate: str
    value: float | None
    limit: float
    held: bool
    weak: bool
    sentence: str


class LayerRow(Tolerant):
    """A layer with weights."""

    node: str
    operation: str
    sqnr_db: float | None
    """Of its result, with all that was lost before it; none where no bit differs."""
    why_float: str | None = None
    gain_db: float | None = None
    """What the outputs gain where it alone is in float, as far as it was measured."""


class RecallRow(Tolerant):
    """Of the defective pictures of a class or a domain."""

    pictures: int
    fp32: int
    """Found by FP32."""
    int8: int


class DomainRow(Tolerant):
    """Of one domain."""

    pictures: int
    agreement: float
    recall: RecallRow


class MovedRow(Tolerant):
    """A picture whose confidence moved much."""

    picture: str
    label: str = ""
    confidence_fp32: float
    confidence_int8: float


class RenderingReport(Tolerant):
    """Of one INT8 graph."""

    rendering: str
    sha256: str
    accepted: bool
    agreement: float
    """Share of pictures with the verdict of FP32."""
    cells_agreement: float
    flips: tuple[FlipRow, ...]
    sqnr_db: float | None
    """Of the cells' logits; none where no bit differs."""
    feature_sqnr_db: float | None = None
    score_fp32: float | None = None
    """Average precision of pictures."""
    score_int8: float | None = None
    score_drop_points: float | None = None
    recall: dict[str, RecallRow] = Field(default_factory=dict)
    """By class."""
    domains: dict[str, DomainRow] = Field(default_factory=dict)
    layers: tuple[LayerRow, ...] = ()
    """In the order of the graph."""
    worst: tuple[MovedRow, ...] = ()
    """The pictures of the greatest disagreement, flipped or not."""
    tuned_on: int | None = None
    """Pictures that its weights were fine-tuned on; none where they are the graph's own."""
    speedup: float | None = None
    fp32_ms: float | None = None
    int8_ms: float | None = None
    gates: tuple[GateRow, ...]

    def refusal(self, cpu: str) -> str | None:
        """Why it may not be shipped: a broken gate, or FP32 is faster on the machine that compared them."""
        if not self.accepted:
            return next(gate.sentence for gate in self.gates if not gate.held)
        if self.speedup is not None and self.speedup < 1:
            return f"it is {self.speedup:.2f} times as fast as FP32 on {cpu}, so FP32 is shipped"
        return None


class ReportFile(RenderingReport):
    """``report.json``: the rendering that was asked about first, and all of them under ``renderings``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["int8-report/1"] = Field("int8-report/1", alias="schema")
    graph_sha256: str
    ranges_sha256: str | None
    line: str
    n: int
    """Pictures compared."""
    left_out: int
    """Pictures of the folder that were calibrated or fine-tuned on."""
    calibrated_on: int | None
    rule: str | None
    rules_db: dict[str, float | None] = Field(default_factory=dict)
    """By rule: SQNR of the TensorRT rendering's outputs, on the pictures by which the rule was chosen."""
    equalised: int = 0
    """Tensors whose channels TensorRT's rendering equalises."""
    chosen_on: int = 0
    strange: str | None = None
    """What is to be said where the pictures are of another kind than those that calibrated."""
    weak: bool
    """So few pictures are weak evidence."""
    cpu: str
    instructions: tuple[str, ...]
    renderings: dict[str, RenderingReport]


def report_file(
    judged: Judged,
    kinds: tuple[str, ...],
    *,
    graph_sha256: str,
    line: str,
    ranges: RangeTable | None,
    left_out: int,
    layers: Mapping[str, tuple[Layer, ...]] | None = None,
    strange: str | None = None,
    tuned_on: Mapping[str, int] | None = None,
) -> ReportFile:
    """Put the figures together.

    Args:
        judged: Of all renderings.
        kinds: ``cpu`` or ``trt`` of each, in order; the first gives the figures at the top.
        graph_sha256: Of FP32.
        line: That the graph is for.
        ranges: The table that the renderings were written from, where it lies beside them.
        left_out: Pictures that were calibrated or fine-tuned on.
        layers: By kind, of those that were looked at layer by layer.
        strange: Where the pictures are of another kind than those that calibrated.
        tuned_on: By kind, of those with fine-tuned weights: pictures that these were trained on.
    """
    rows = {
        kind: _row(cost, judged, (layers or {}).get(kind, ()), (tuned_on or {}).get(kind))
        for kind, cost in zip(kinds, judged.costs, strict=True)
    }
    rules = sorted({row.chosen for row in ranges.tensors.values()}) if ranges else []
    first: dict[str, Any] = rows[kinds[0]].model_dump()
    return ReportFile(
        **first,
        graph_sha256=graph_sha256,
        ranges_sha256=ranges.digest() if ranges else None,
        line=line,
        n=len(judged.samples),
        left_out=left_out,
        calibrated_on=ranges.n if ranges else None,
        rule=", ".join(rules) or None,
        rules_db=dict(ranges.decibels) if ranges else {},
        equalised=len(ranges.factors) if ranges else 0,
        chosen_on=len(ranges.choosing) if ranges else 0,
        strange=strange,
        weak=any(finding.weak for cost in judged.costs for finding in cost.findings),
        cpu=cpu_name(),
        instructions=tuple(cpu_instructions()),
        renderings=rows,
    )


def _row(cost: Cost, judged: Judged, layers: tuple[Layer, ...], tuned_on: int | None) -> RenderingReport:
    measured = cost.measured
    return RenderingReport(
        tuned_on=tuned_on,
        rendering=cost.rendering,
        sha256=cost.sha256,
        accepted=cost.accepted,
        agreement=measured.agreement,
        cells_agreement=1.0 if measured.cells_agreement is None else measured.cells_agreement,
        flips=tuple(
            FlipRow(
                picture=flip.picture,
                label=flip.label,
                fp32=flip.before,
                int8=flip.after,
                confidence_fp32=_finite(flip.confidence_before) or 0.0,
                confidence_int8=_finite(flip.confidence_after) or 0.0,
            )
            for flip in cost.flips
        ),
        sqnr_db=_finite(measured.sqnr_db),
        feature_sqnr_db=_finite(cost.feature_sqnr_db),
        score_fp32=cost.scores[0] if cost.scores else None,
        score_int8=cost.scores[1] if cost.scores else None,
        score_drop_points=_finite(measured.score_drop_points),
        recall={
            name: RecallRow(pictures=seen.pictures, fp32=seen.found_before, int8=seen.found_after)
            for name, seen in measured.recall.items()
        },
        domains={
            name: DomainRow(
                pictures=one.pictures,
                agreement=1 - one.flips / one.pictures,
                recall=RecallRow(pictures=one.defective, fp32=one.found_before, int8=one.found_after),
            )
            for name, one in cost.domains.items()
        },
        layers=tuple(
            LayerRow(
                node=layer.node,
                operation=layer.operation,
                sqnr_db=_finite(layer.sqnr_db),
                why_float=layer.why_float,
                gain_db=_finite(layer.gain_db),
            )
            for layer in layers
        ),
        worst=tuple(
            MovedRow(
                picture=judged.samples[place].image,
                label=judged.samples[place].label,
                confidence_fp32=_finite(float(judged.confidence[place].max())) or 0.0,
                confidence_int8=_finite(float(cost.confidence[place].max())) or 0.0,
            )
            for place in most_moved(judged, cost)[:WORST]
        ),
        speedup=cost.speedup,
        fp32_ms=cost.fp32_ms,
        int8_ms=cost.int8_ms,
        gates=tuple(
            GateRow(
                gate=finding.gate,
                value=_finite(finding.value),
                limit=finding.limit,
                held=finding.held,
                weak=finding.weak,
                sentence=finding.sentence,
            )
            for finding in cost.findings
        ),
    )


def most_moved(judged: Judged, cost: Cost) -> list[int]:
    """Places of the pictures, those whose surest cell moved most first."""
    moved = np.abs(judged.confidence.max(axis=1) - cost.confidence.max(axis=1))
    return [int(place) for place in np.argsort(-np.nan_to_num(moved, nan=1.0), kind="stable")]


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
