"""``report.html``: one file that stands for itself, for a phone and for a desk."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2

from examples.loop.charts import Point, histogram, scatter
from examples.loop.schema import DemoReport, Figures, OnBothLines
from examples.loop.words import LEFT, MATTERS, headline, named, not_good, shown, signed

__all__ = ["Compared", "PageExtras", "Plane", "QuestionShot", "Shot", "Strange", "render"]

MODELS = (
    ("source_only_plain", "Trained without jitter", "nothing done for the new line", "quiet"),
    ("source_only", "Trained as usual", "flips and photometric jitter", "main"),
    ("adapted", "Adapted", "without a label", "main"),
    ("retrained", "After mentoring", "answered cells, and those it was sure are healthy", "main"),
    ("retrained_unmasked", "Control: unmasked", "cells nobody judged called healthy", "quiet"),
    ("full_labels", "Control: full labels", "the same pictures, labelled completely", "quiet"),
)


@dataclass(frozen=True)
class Shot:
    """A test picture with what one model reports on it."""

    jpeg: bytes
    verdict: str
    """``passed``, ``uncertain`` or ``defective``."""


@dataclass(frozen=True)
class Compared:
    """A test picture of the new line as three models see it: before, adapted, after mentoring."""

    name: str
    defective: bool | None
    outlined: bool
    """Whether the truth is drawn."""
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class Strange:
    """A test picture as a model of good parts alone sees it, each picture a JPEG."""

    name: str
    defective: bool
    part: bytes
    """With the outline of the truth."""
    heat: bytes
    """Where it is strange."""
    cells: bytes
    """What of it is reported."""
    verdict: str


@dataclass(frozen=True)
class Plane:
    """The pictures of both lines in a model's feature space."""

    title: str
    points: tuple[Point, ...]
    distance: float | None
    """Proxy A-distance, 0 alike to 2 told apart."""


@dataclass(frozen=True)
class QuestionShot:
    """A question as the operator saw it."""

    jpeg: bytes
    text: str


@dataclass(frozen=True)
class PageExtras:
    """What the page shows beyond ``report.json``."""

    compared: tuple[Compared, ...] = ()
    strange: tuple[Strange, ...] = ()
    planes: tuple[Plane, ...] = ()
    latencies_ms: tuple[float, ...] = ()
    questions: tuple[QuestionShot, ...] = ()
    asked_of: int | None = None
    """Items at the hub when the operator answered."""
    command: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    attribution: str = ""


def render(report: DemoReport, extras: PageExtras) -> str:
    """The page as HTML, with every picture and figure inside."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters.update(
        ap=shown, named=named, signed=signed, percent=_percent, share=_share, jpeg=_data_uri, seconds=_seconds
    )
    station = report.station
    latency = None
    if extras.latencies_ms and station.p50_ms is not None and station.p99_ms is not None:
        latency = histogram(
            extras.latencies_ms, p50=station.p50_ms, p99=station.p99_ms, title="Latency of the frames"
        )
    return environment.get_template("page.html.j2").render(
        report=report,
        extras=extras,
        headline=headline(report),
        left=report.adapted.method in LEFT,
        better=(report.retrained.new.ap or 0) > (report.source_only.new.ap or 0) + MATTERS,
        complaints=not_good(report),
        models=_models(report),
        outcomes=_bars(
            (("passed", station.outcomes.passed), ("uncertain", station.outcomes.uncertain),
             ("defective", station.outcomes.defective), ("not inspected", station.outcomes.not_inspected))
        ),
        answers=_bars(
            (("confirm", report.answers.confirm), ("infirm", report.answers.infirm), ("unsure", report.answers.unsure))
        ),
        planes=[(plane, scatter(plane.points, title=plane.title)) for plane in extras.planes],
        latency=latency,
        facts=_facts(report),
        longest=max((stage.took_s for stage in report.stages), default=1.0) or 1.0,
    )  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One model of the dot figure."""

    title: str
    what: str
    kind: str
    original: Figures
    new: Figures


def _models(report: DemoReport) -> list[_Row]:
    rows = []
    for name, title, what, kind in MODELS:
        model: OnBothLines = getattr(report, name)
        if name == "adapted":
            method = report.adapted.method
            what = (
                "left as it was: the rules saw no need" if method in LEFT else f"by {named(method)}, {what}"
            )
        rows.append(_Row(title, what, kind, model.original, model.new))
    return rows


@dataclass(frozen=True)
class _Bar:
    """A piece of a stacked bar."""

    name: str
    count: int
    share: float
    """Percent of the whole."""


def _bars(counts: Sequence[tuple[str, int]]) -> list[_Bar]:
    whole = sum(count for _, count in counts) or 1
    return [_Bar(name, count, 100 * count / whole) for name, count in counts]


def _facts(report: DemoReport) -> list[str]:
    """The columns of the table of rules, in the order they first appear."""
    names: dict[str, None] = {}
    for rule in report.adapted.methods:
        names.update(dict.fromkeys(rule.facts))
    return list(names)


def _percent(value: float | None, digits: int = 0) -> str:
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def _share(value: float | None) -> str:
    """For CSS: a figure from 0 to 1 as percent of the track."""
    return "0" if value is None else f"{100 * min(1.0, max(0.0, value)):.2f}"


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 60 else f"{int(value // 60)} min {round(value % 60):02d} s"


def _data_uri(data: bytes, kind: Any = "image/jpeg") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
