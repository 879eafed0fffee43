"""A station's status as Prometheus reads it, for the text-file collector of a node exporter.

    edge-sdk status station.yaml --metrics > /var/lib/node_exporter/edge.prom.tmp && mv … edge.prom
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["DRIFT_STATES", "metrics_text"]

DRIFT_STATES = ("off", "starting", "unchanged", "input changed", "detections changed", "alarm")

Sample = tuple[str, Mapping[str, str], float]


def metrics_text(name: str, health: str, found: Mapping[str, Any]) -> str:
    """The text format, a family after the other.

    Args:
        name: Of the station.
        health: ``running``, ``stale``, ``starting`` or ``not running``.
        found: As ``edge-sdk status --json`` prints it.
    """
    lines: list[str] = []
    told: set[str] = set()
    for family, kind, what, samples in _families(health, found):
        for suffix, labels, value in samples:
            if family not in told:
                told.add(family)
                lines += [f"# HELP {family} {what}", f"# TYPE {family} {kind}"]
            pairs = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"station": name, **labels}.items())
            lines.append(f"{family}{suffix}{{{pairs}}} {value:g}")
    return "\n".join(lines)


def _families(health: str, found: Mapping[str, Any]) -> Iterator[tuple[str, str, str, list[Sample]]]:
    yield "edge_station_up", "gauge", "1 while the station runs and writes its status", [
        ("", {}, float(health == "running"))
    ]
    station = found.get("station") or {}
    if station:
        outcomes = station["outcomes"].items()
        yield "edge_frames_total", "counter", "Frames by outcome", [
            ("", {"verdict": verdict}, count) for verdict, count in outcomes
        ]
        yield "edge_frames_late_total", "counter", "Verdicts after the deadline", [("", {}, station.get("late", 0))]
        for name in ("p50_ms", "p99_ms"):
            if station.get(name) is not None:
                what = f"Capture to verdict, {name[:3]} of the last frames, milliseconds"
                yield f"edge_latency_{name}", "gauge", what, [("", {}, station[name])]
    outbox = found.get("outbox") or {}
    for name in ("waiting", "bytes"):
        if name in outbox:
            yield f"edge_outbox_{name}", "gauge", f"Items that wait for the hub: {name}", [("", {}, outbox[name])]
    drift = found.get("drift")
    if drift:
        yield "edge_drift_state", "gauge", "1 for what the watch for drift says", [
            ("", {"state": state}, float(drift["state"] == state)) for state in DRIFT_STATES
        ]
        figures = {
            "statistic": (drift.get("statistic"), "Statistic of the last window, about 1 while nothing changed"),
            "threshold": ((drift.get("reference") or {}).get("threshold"), "Above it a window counts as changed"),
            "score_shift": (drift.get("score_shift"), "Share of frames that crossed a quantile of the scores"),
            "detected": (drift.get("detected"), "Share of frames with a detection over the last windows"),
        }
        for name, (value, what) in figures.items():
            if value is not None:
                yield f"edge_drift_{name}", "gauge", what, [("", {}, value)]
        for name, what in (("windows", "Windows seen"), ("skipped", "Frames the watch had no time for")):
            if name in drift:
                yield f"edge_drift_{name}_total", "counter", what, [("", {}, drift[name])]


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
