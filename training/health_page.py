"""``health.html``: whether to ship an adaptation and why, in one file for a phone and for a desk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from training.health import Health
from training.health_charts import edges_of, feature_spaces, histogram
from training.health_rules import Check

__all__ = ["health_page"]

MEANINGS = {
    "blind": "sees defects on the original line",
    "alarms": "not a crowd of alarms",
    "passes": "not next to nothing passed",
    "unsure": "not in doubt where it was sure",
    "unexplained": "no more alarms than defects could give",
    "source": "the original line kept",
}
"""What each limit is there for, in the words of the page."""


def health_page(health: Health, *, seed: int = 0) -> str:
    """The panel as one HTML file without anything from outside.

    Args:
        health: As ``health_of`` gives it.
        seed: Of the t-SNE pictures.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "number": _number}
    shown = ["source"] if health.chosen == "source" else ["source", health.chosen]
    if health.chosen == "source":  # what it might have been is worth a look too
        shown += [name for name in health.signs if name != "source"][:1]
    edges = edges_of([health.seen[name] for name in shown])
    charts = [
        {
            "title": _titled(name, health.chosen),
            "histogram": histogram(health.seen[name], edges, title=f"{name}: scores of both lines"),
        }
        for name in shown
    ]
    planes = feature_spaces(health.seen, health.units, shown, seed=seed)
    for chart, plane in zip(charts, planes, strict=True):
        chart["plane"] = plane
    return environment.get_template("health.html.j2").render(
        health=health,
        now=health.signs[health.chosen],
        before=health.signs["source"],
        checks=[{"check": check, "meaning": MEANINGS[check.limit], "value": _value(check)} for check in
                health.checks[health.chosen]],
        broken={name: [check.limit for check in checks if not check.held] for name, checks in health.checks.items()},
        charts=charts,
        gradients=any(signs.gradients for signs in health.signs.values()),
    )  # fmt: skip


def _titled(name: str, chosen: str) -> str:
    before = "source, as it was" if name == "source" else name
    return f"{before} (chosen)" if name == chosen else before


def _value(check: Check) -> str:
    if check.value is None:
        return "cannot be said"
    if check.limit == "blind":
        return f"{1 - check.value:.0%} balanced accuracy, at least {1 - check.most:.0%}"
    if check.limit in ("source", "unsure"):
        return f"{100 * check.value:+.1f} points, at most {100 * check.most:.0f}"
    if check.limit == "unexplained":
        return f"{check.value:+.1f} standard errors, at most {check.most:.1f}"
    return f"{check.value:.1f} times, at most {check.most:g}"


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{value:.{digits}%}"


def _number(value: Any, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
