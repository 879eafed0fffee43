"""The report's figures as inline SVG: no script, no font, coloured by the page so that it can turn dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from edge_sdk.arrays import Array

__all__ = ["Point", "histogram", "scatter"]

WIDTH = 340.0


@dataclass(frozen=True)
class Point:
    """A picture in the plane."""

    x: float
    y: float
    new: bool
    """Of the new line, else of the original one."""
    defective: bool | None


def scatter(points: Sequence[Point], *, title: str) -> str:
    """Pictures as marks: the colour is the line, a filled mark is defective, a ring is healthy."""
    height = 250.0
    margin = 12.0
    xs, ys = np.array([p.x for p in points]), np.array([p.y for p in points])

    def place(values: Array, value: float, length: float) -> float:
        low, high = float(values.min()), float(values.max())
        share = 0.5 if high == low else (value - low) / (high - low)
        return margin + share * (length - 2 * margin)

    marks = []
    for point in points:
        x, y = place(xs, point.x, WIDTH), place(ys, point.y, height)
        kind = f"{'new' if point.new else 'original'} {'filled' if point.defective else 'ring'}"
        if point.new:  # a lozenge, so that the lines are told apart without colour too
            r = 5.2
            shape = f"M{x:.1f} {y - r:.1f}l{r} {r}l-{r} {r}l-{r} -{r}z"
            marks.append(f'<path class="mark {kind}" d="{shape}"/>')
        else:
            marks.append(f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="4.1"/>')
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f'<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1:.0f}" height="{height - 1:.0f}" rx="8"/>'
        f"{''.join(marks)}</svg>"
    )


def histogram(values_ms: Sequence[float], *, p50: float, p99: float, title: str) -> str:
    """How many frames took how long, with the median and the 99th percentile marked."""
    width, height, left, right, bottom, top = 480.0, 210.0, 4.0, 4.0, 26.0, 40.0
    values = np.asarray(values_ms, np.float64)
    most = max(float(np.quantile(values, 0.995)), p99) * 1.12
    count = 40
    edges = np.linspace(0, most, count + 1)
    bars = np.histogram(np.minimum(values, most * 0.999), edges)[0]
    step = (width - left - right) / count
    tall = height - top - bottom
    parts = [f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">']
    for number, bar in enumerate(bars):
        if bar:
            length = max(1.5, tall * float(bar) / float(bars.max()))
            x, y = left + number * step, height - bottom - length
            parts.append(
                f'<rect class="bar" x="{x + 0.6:.1f}" y="{y:.1f}" width="{step - 1.2:.1f}" '
                f'height="{length:.1f}" rx="1.5"/>'
            )
    ground = height - bottom
    parts.append(f'<line class="axis" x1="{left}" x2="{width - right}" y1="{ground}" y2="{ground}"/>')
    for tick in _ticks(most):
        x = left + tick / most * (width - left - right)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 8:.0f}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(
        f'<text class="tick" x="{width - right:.0f}" y="{height - 8:.0f}" text-anchor="end">ms</text>'
    )
    for name, value, line in (("p50", p50, 15), ("p99", p99, 33)):
        x = left + value / most * (width - left - right)
        after = x < width * 0.75
        parts.append(f'<line class="rule {name}" x1="{x:.1f}" x2="{x:.1f}" y1="{line - 10}" y2="{ground}"/>')
        parts.append(
            f'<text class="value {name}" x="{x + (6 if after else -6):.1f}" y="{line}" '
            f'text-anchor="{"start" if after else "end"}">{name} {value:.1f} ms</text>'
        )
    return "".join(parts) + "</svg>"


def _ticks(most: float) -> list[float]:
    """Round numbers from 0, five or so, none at the very end."""
    rough = most / 5
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(float(power * factor) for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [tick for tick in np.arange(0, most, step).tolist() if 0 < tick < most * 0.94]
