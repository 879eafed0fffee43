"""The health page's small charts as inline SVG, coloured by the page so that they can turn dark."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from edge_sdk.arrays import Array
from training.figures import COLOURS, Cloud, alignment_picture
from training.health_signs import Seen

__all__ = ["VARIABLES", "edges_of", "feature_spaces", "histogram"]

WIDTH, HEIGHT, GROUND = 340.0, 150.0, 124.0
BINS = 24
VARIABLES = {COLOURS["original line"]: "original", COLOURS["new line"]: "new", "#1b1d22": "ink", "#5c616b": "soft",
             "#e2e0d8": "line"}  # fmt: skip
"""The page's colour for each of the house's."""


def edges_of(seen: Sequence[Seen]) -> Array:
    """The same bins for every method: 98 % of all scores, and the boundary 0 among them."""
    values = np.concatenate([scores.maxima for one in seen for scores in (one.original, one.new)])
    low, high = np.quantile(values, [0.01, 0.99])
    low, high = min(float(low), -1.0), max(float(high), 1.0)
    step = (high - low) / BINS
    below, above = int(np.ceil(-low / step)), int(np.ceil(high / step))
    return np.arange(-below, above + 1) * step


def histogram(seen: Seen, edges: Array, *, title: str) -> str:
    """Shares of pictures by the score of their strongest cell, both lines over each other.

    Args:
        seen: Of one method.
        edges: Of the bins, in logits from the decision boundary; what lies outside counts in the outermost.
        title: For those who cannot see it.
    """
    shares = {}
    for line, scores in (("original", seen.original), ("new", seen.new)):
        inside = np.clip(scores.maxima, edges[0] + 1e-9, edges[-1] - 1e-9)
        shares[line] = np.histogram(inside, edges)[0] / len(inside)
    top = max(float(one.max()) for one in shares.values())

    def across(value: float) -> float:
        return 4 + (value - float(edges[0])) / float(edges[-1] - edges[0]) * (WIDTH - 8)

    parts = [f'<svg viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" aria-label="{escape(title)}">']
    for line, share in shares.items():
        path = f"M{across(edges[0]):.1f} {GROUND}"
        for n, one in enumerate(share):
            y = GROUND - float(one) / top * (GROUND - 16)
            path += f"V{y:.1f}H{across(edges[n + 1]):.1f}"
        parts.append(f'<path class="{line}" d="{path}V{GROUND}Z"/>')
    zero = across(0)
    parts.append(f'<line class="ground" x1="0" x2="{WIDTH}" y1="{GROUND}" y2="{GROUND}"/>')
    parts.append(f'<line class="boundary" x1="{zero:.1f}" x2="{zero:.1f}" y1="6" y2="{GROUND}"/>')
    for at, anchor, said in ((4.0, "start", "passes"), (WIDTH - 4, "end", "alarm")):
        parts.append(f'<text x="{at:.0f}" y="{HEIGHT - 9:.0f}" text-anchor="{anchor}">{said}</text>')
    if 70 < zero < WIDTH - 70:
        parts.append(f'<text x="{zero:.1f}" y="{HEIGHT - 9:.0f}" text-anchor="middle">boundary</text>')
    return "".join(parts) + "</svg>"


def feature_spaces(
    seen: Mapping[str, Seen], units: tuple[Sequence[str], Sequence[str]], methods: Sequence[str], *, seed: int = 0
) -> list[str]:
    """The feature space of each of these methods by t-SNE, with its A-distance, coloured by line.

    Args:
        seen: By method.
        units: What may not be torn apart, of the original line's pictures and of the new one's.
        methods: Which to draw.
        seed: Of t-SNE.
    """
    drawn = []
    for method in methods:
        one = seen[method]
        lines = ["original line"] * len(one.original.features) + ["new line"] * len(one.new.features)
        features = np.concatenate([one.original.features, one.new.features])
        title = "before: source" if method == "source" else f"after: {method}"
        cloud = Cloud(title, features, lines, [*units[0], *units[1]])
        text = alignment_picture([cloud], seed=seed, transparent=True).decode()
        text = text[text.index("<svg") :]
        text = re.sub(r'(<svg[^>]*?) (width|height)="[^"]*"', r"\1", text)
        text = re.sub(r'(<svg[^>]*?) (width|height)="[^"]*"', r"\1", text)
        for colour, variable in VARIABLES.items():
            text = text.replace(colour, f"var(--{variable})")
        # one page holds several: an id is one picture's alone
        text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{method}-", text)
        drawn.append(text)
    return drawn
