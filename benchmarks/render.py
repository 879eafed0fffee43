"""From the result files to the page people read: ``docs/reference/results.md`` and one picture a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from benchmarks.musts import Must
from benchmarks.results import ResultFile

__all__ = ["bars", "page", "render"]

TOP = """# Results

Written by `python -m benchmarks render` from the files in `benchmarks/results/`; edit neither by hand.
Bounds come from `benchmarks/musts.csv`. **UNMET** means what it says: the figure misses its bound, and the
notes tell what is known about why. Intervals are 95 %.
"""


def render(results: Mapping[str, ResultFile], bounds: Mapping[str, Must], folder: Path) -> list[Path]:
    """Write ``results.md`` and its pictures; say which files were written.

    Args:
        results: By id.
        bounds: Of ``musts.csv``.
        folder: ``docs/reference``.
    """
    pictures = folder / "results"
    pictures.mkdir(parents=True, exist_ok=True)
    written = []
    for identifier, result in sorted(results.items()):
        drawn = bars(result)
        if drawn:
            path = pictures / f"{identifier}.svg"
            path.write_text(drawn, encoding="utf-8")
            written.append(path)
    path = folder / "results.md"
    path.write_text(page(results, bounds), encoding="utf-8")
    return [path, *written]


def page(results: Mapping[str, ResultFile], bounds: Mapping[str, Must]) -> str:
    """The whole page as Markdown."""
    parts = [TOP]
    met = sum(bounds[must.key].met_by(must.value) for r in results.values() for must in r.musts if must.key in bounds)
    stated = sum(len(result.musts) for result in results.values())
    parts.append(f"Of {len(bounds)} bounds {stated} are measured so far, {met} of them met.\n")
    for identifier, result in sorted(results.items()):
        parts.append(_section(identifier, result, bounds))
    return "\n".join(parts)


def _section(identifier: str, result: ResultFile, bounds: Mapping[str, Must]) -> str:
    lines = [f"## {identifier} · {result.title}", ""]
    if result.musts:
        lines += ["| what | wanted | found | |", "|---|---|---|---|"]
        for must in result.musts:
            bound = bounds.get(must.key)
            if bound is None:
                continue
            interval = ""
            if must.low is not None and must.high is not None:
                interval = f" ({_number(must.low)} to {_number(must.high)})"
            said = "met" if bound.met_by(must.value) else "**UNMET**"
            lines.append(f"| {_cell(bound.what)} | {bound.words} | {_number(must.value)}{interval} | {said} |")
        lines.append("")
    if result.chart is not None:
        lines += [f"![{identifier}: {result.title}](results/{identifier}.svg)", ""]
    lines += _tables(result.rows)
    lines += [f"- {note}" for note in result.notes] + ([""] if result.notes else [])
    machine = result.machine
    on = f"{machine.cpu}, {machine.cores} cores" + (f", {machine.accelerator}" if machine.accelerator else "")
    said = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines.append(
        f"<sub>`{result.command}` at {result.commit}{' with changes' if result.dirty else ''}, "
        f"{result.finished_at:%Y-%m-%d}, {result.took_s:g} s, {on}, load before {machine.load_before:g}; {said}</sub>\n"
    )
    return "\n".join(lines)


WIDE = 12
"""Columns from which on a table is folded away."""


def _tables(rows: Sequence[Mapping[str, object]]) -> list[str]:
    """One table for each run of rows that say the same kind of thing; wide ones are folded away."""
    runs: list[list[Mapping[str, object]]] = []
    columns: set[str] = set()
    for row in rows:
        said = set(row) - {"name", "skipped"}
        if not runs or (said and columns and not said & columns):
            runs.append([])
            columns = set()
        runs[-1].append(row)
        columns |= said
    lines: list[str] = []
    for run in runs:
        table = _table(run)
        if table[0].count("|") - 1 >= WIDE:
            table = [f"<details><summary>{len(run)} rows in full</summary>", "", *table, "", "</details>"]
        lines += [*table, ""]
    return lines


def _table(rows: Sequence[Mapping[str, object]]) -> list[str]:
    columns: list[str] = []
    for row in rows:
        columns += [name for name in row if name not in columns]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(name)) for name in columns) + " |")
    return lines


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return _number(value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    """Three digits that matter; whole numbers whole."""
    return f"{value:g}" if value == int(value) else f"{value:.3g}"


def bars(result: ResultFile) -> str:
    """The rows as horizontal bars with their intervals, or nothing where the result asks for no picture."""
    if result.chart is None:
        return ""
    column, unit = result.chart["value"], result.chart.get("unit", "")
    rows = [row for row in result.rows if isinstance(row.get(column), (int, float))]
    if not rows:
        return ""
    most = max(max(float(row[column]), float(row.get("high") or 0)) for row in rows) or 1.0
    # about 7 pixels a letter, so that no name is cut off
    names = max(190, 7 * max(len(str(row["name"])) for row in rows) + 12)
    width, step = 450 + names, 30
    scale = (width - names - 90) / most
    height = step * len(rows) + 34
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="system-ui, sans-serif" font-size="13" role="img">',
        f"<title>{escape(result.title)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
    ]
    for number, row in enumerate(rows):
        top = 10 + number * step
        length = float(row[column]) * scale
        colour = "#1f6f8b" if number == 0 else "#9fb8c2"
        name, long = escape(str(row["name"])), max(length, 1)
        lines.append(f'<text x="{names - 8}" y="{top + 15}" text-anchor="end" fill="#222">{name}</text>')
        lines.append(f'<rect x="{names}" y="{top + 2}" width="{long:.1f}" height="18" rx="2" fill="{colour}"/>')
        low, high = row.get("low"), row.get("high")
        end = length
        if isinstance(low, (int, float)) and isinstance(high, (int, float)):
            left, right = names + low * scale, names + high * scale
            lines.append(f'<path d="M{left:.1f} {top + 11}H{right:.1f}" stroke="#222" stroke-width="1.5"/>')
            end = max(end, high * scale)
        shown = f"{_number(float(row[column]))} {unit}".strip()
        lines.append(f'<text x="{names + end + 6:.1f}" y="{top + 15}" fill="#222">{escape(shown)}</text>')
    lines.append(f'<text x="{names}" y="{height - 8}" fill="#666">{escape(column)}</text>')
    return "\n".join([*lines, "</svg>", ""])
