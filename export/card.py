"""``card.md``: what people should know of a bundle before they trust it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from calibration.report_file import ReportFile
from edge_sdk.manifest import Manifest
from export.checkpoint import Checkpoint
from export.golden import FEWEST, GoldenSet

__all__ = ["card"]


def card(
    manifest: Manifest,
    checkpoint: Checkpoint,
    golden: GoldenSet,
    *,
    report: ReportFile | None,
    left_out: Mapping[str, str],
) -> str:
    """The card as Markdown.

    Args:
        manifest: Of the bundle, its files aside.
        checkpoint: That the bundle is made of.
        golden: Its golden frames.
        report: What INT8 costs, where that was measured.
        left_out: Role of a graph that is not in the bundle to the reason.
    """
    file = checkpoint.file
    pieces = [
        f"# {manifest.name} {manifest.version}",
        f"For the line **{manifest.line}**. Finds {_and(manifest.classes)}.",
        "## Model",
        _rows(
            [
                ("network", f"`{file.factory}`"),
                (
                    "input",
                    f"{file.preprocess.width} x {file.preprocess.height} pixels, {file.preprocess.resize}",
                ),
                ("cell", f"{file.cell_px} pixels of the input"),
                ("adapted by", checkpoint.said.method or "not stated"),
            ]
        ),
        "## Thresholds",
        "\n".join(
            f"- {band.class_name}: passes below {band.pass_below:.3f}, defective from {band.defective_from:.3f}"
            for band in manifest.thresholds
        ),
        f"Chosen by: {manifest.postprocess.how}. Guarantee: {manifest.postprocess.guarantee}.",
        "## Data",
        _outline(file.data),
        "## Figures",
        _outline(file.figures),
        "## INT8",
        _int8(report, left_out),
        "## Golden frames",
        _golden(golden),
        "## Limits",
        "- Valid for the line, camera and light it was made for; a change shows in the drift of the features.\n"
        "- A verdict is one of passed, uncertain, defective; uncertain frames are for a person to decide.\n"
        "- Defects smaller than a cell may be missed.",
        "## Licence",
        _licence(file.data),
    ]
    return "\n\n".join(piece for piece in pieces if piece) + "\n"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _rows(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in rows)


def _outline(value: Any, depth: int = 0) -> str:
    """Any JSON as a nested list; long lists are counted."""
    if not value:
        return "not stated"
    if not isinstance(value, Mapping):
        return _shown(value)
    lines = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and depth < 2:
            lines.append(f"{'  ' * depth}- {name}:\n{_outline(inner, depth + 1)}")
        else:
            lines.append(f"{'  ' * depth}- {name}: {_shown(inner)}")
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_shown(one) for one in value) if len(value) <= 8 else f"{len(value)} entries"
    if isinstance(value, Mapping):
        return f"{len(value)} entries"
    text = str(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _int8(report: ReportFile | None, left_out: Mapping[str, str]) -> str:
    lines = []
    if report is not None:
        for row in report.renderings.values():
            speed = f", {row.speedup:.2f} times as fast as FP32 on {report.cpu}" if row.speedup else ""
            sqnr = f", {row.sqnr_db:.1f} dB" if row.sqnr_db is not None else ""
            tuned = f"; weights fine-tuned for INT8 on {row.tuned_on} pictures" if row.tuned_on else ""
            lines.append(
                f"- {row.rendering}: {100 * row.agreement:.1f} % of {report.n} held-out verdicts and "
                f"{100 * row.cells_agreement:.2f} % of cells as FP32{sqnr}{speed}{tuned}"
            )
    lines += [f"- {role} is left out: {why}" for role, why in left_out.items()]
    return "\n".join(lines) or "- not measured on held-out pictures"


def _golden(golden: GoldenSet) -> str:
    few = "" if len(golden.frames) >= FEWEST else f" Fewer than {FEWEST}: weak evidence."
    if golden.crowded:
        few = f" A bundle holds no more of such large frames.{few}"
    return (
        f"{len(golden.frames)} of the {golden.looked_at} pictures looked at; {golden.unclear} were too close to "
        f"their uncertain band.{few}"
    )


def _licence(data: Any) -> str:
    if isinstance(data, Mapping) and data.get("licence"):
        return f"Pictures: {_shown(data['licence'])}."
    return "Of the pictures: not stated."
