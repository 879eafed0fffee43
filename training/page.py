"""``page.html``: what a command did, in one file that needs nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import jinja2

from edge_sdk.documents import write_atomic
from training.fitting import GRADIENT
from training.shots import Shot

__all__ = ["Page", "Table", "curve_svg", "render", "write_page"]

Points = Sequence[Sequence[float]]
"""``[step, value]`` in order."""
WIDTH, HEIGHT, EDGE = 640.0, 220.0, 34.0


@dataclass(frozen=True)
class Table:
    """Rows under heads; what is no text is shown with three figures."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Page:
    """What the page says."""

    title: str
    """A sentence: what came out."""
    command: str
    facts: Mapping[str, Any]
    """What was done with what, by name."""
    notes: tuple[str, ...] = ()
    """What was assumed, one sentence each."""
    curves: Mapping[str, Mapping[str, Points]] = field(default_factory=dict)
    """By what was trained and by term, ``training.progress.Curves.document()``."""
    tables: tuple[Table, ...] = ()
    shots: Mapping[str, Sequence[Shot]] = field(default_factory=dict)
    """By line."""
    shots_note: str = (
        "The surest false alarms and the defects missed. Orange: cells that the model reports; blue: cells that show a "
        "defect."
    )
    """What the shots show."""


def write_page(page: Page, path: Path) -> None:
    """Write it whole or not at all."""
    write_atomic(path, render(page).encode())


def render(page: Page) -> str:
    """The page as HTML, with every picture and figure inside; all text is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shown"] = _shown
    drawings = [
        (what, _losses(terms), _gradients(terms)) for what, terms in page.curves.items() if terms
    ]
    return environment.get_template("page.html.j2").render(page=page, drawings=drawings)


@dataclass(frozen=True)
class _Drawing:
    svg: str
    keys: tuple[tuple[str, float, float], ...]
    """Name, first and last value of each curve."""


def _losses(terms: Mapping[str, Points]) -> _Drawing:
    return _drawn({name: points for name, points in terms.items() if not name.startswith(GRADIENT)}, "loss")


def _gradients(terms: Mapping[str, Points]) -> _Drawing | None:
    found = {name.removeprefix(GRADIENT): points for name, points in terms.items() if name.startswith(GRADIENT)}
    return _drawn(found, "norm of the gradient") if any(len(points) > 1 for points in found.values()) else None


def _drawn(curves: Mapping[str, Points], title: str) -> _Drawing:
    keys = tuple((name, points[0][1], points[-1][1]) for name, points in curves.items())
    return _Drawing(curve_svg(list(curves.values()), title=title), keys)


def curve_svg(curves: Sequence[Points], *, title: str) -> str:
    """Curves over the steps as inline SVG, coloured by the page's classes ``c0``, ``c1``, ….

    Args:
        curves: Points in order; one point alone becomes a dot.
        title: What is drawn, for those who do not see it.
    """
    points = [point for curve in curves for point in curve]
    low_x, high_x = min((p[0] for p in points), default=0), max((p[0] for p in points), default=1)
    low, high = min(0.0, *(p[1] for p in points), 0.0), max((p[1] for p in points), default=1.0)
    wide, tall = high_x - low_x or 1, high - low or 1

    def at(point: Sequence[float]) -> str:
        x = EDGE + (point[0] - low_x) / wide * (WIDTH - 2 * EDGE)
        y = HEIGHT - EDGE - (point[1] - low) / tall * (HEIGHT - 2 * EDGE)
        return f"{x:.1f} {y:.1f}"

    parts = [
        f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(title)}">',
        f'<path class="axis" d="M{EDGE} {EDGE}V{HEIGHT - EDGE}H{WIDTH - EDGE}"/>',
    ]
    for number, curve in enumerate(curves):
        if len(curve) == 1:
            x, y = at(curve[0]).split()
            parts.append(f'<circle class="c{number % 5}" cx="{x}" cy="{y}" r="3"/>')
        elif curve:
            parts.append(f'<path class="curve c{number % 5}" d="M{"L".join(at(point) for point in curve)}"/>')
    parts += [
        f'<text x="{EDGE}" y="{HEIGHT - 12:.0f}">step {low_x:g}</text>',
        f'<text x="{WIDTH - EDGE}" y="{HEIGHT - 12:.0f}" text-anchor="end">{high_x:g}</text>',
        f'<text x="{EDGE}" y="{EDGE - 10:.0f}">{high:.3g}</text>',
    ]
    return "".join(parts) + "</svg>"


def _shown(value: Any) -> str:
    """A cell of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
