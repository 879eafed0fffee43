"""``report.json``: the figures of an INT8 report, as the packer and the demo read them."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import ConfigDict, Field

from calibration.ranges import RangeTable
from calibration.report import Cost, Judged, cpu_instructions, cpu_name
from edge_sdk.documents import Tolerant

__all__ = ["FlipRow", "GateRow", "RenderingReport", "ReportFile", "report_file"]


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
    score_drop_points: float | None = None
    speedup: float | None = None
    fp32_ms: float | None = None
    int8_ms: float | None = None
    gates: tuple[GateRow, ...]


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
    """Pictures of the folder that were calibrated on."""
    calibrated_on: int | None
    rule: str | None
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
) -> ReportFile:
    """Put the figures together.

    Args:
        judged: Of all renderings.
        kinds: ``cpu`` or ``trt`` of each, in order; the first gives the figures at the top.
        graph_sha256: Of FP32.
        line: That the graph is for.
        ranges: The table that the renderings were written from, where it lies beside them.
        left_out: Pictures that were calibrated on.
    """
    rows = {kind: _row(cost) for kind, cost in zip(kinds, judged.costs, strict=True)}
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
        weak=any(finding.weak for cost in judged.costs for finding in cost.findings),
        cpu=cpu_name(),
        instructions=tuple(cpu_instructions()),
        renderings=rows,
    )


def _row(cost: Cost) -> RenderingReport:
    measured = cost.measured
    return RenderingReport(
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
        score_drop_points=_finite(measured.score_drop_points),
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


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
