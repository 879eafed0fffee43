"""Result files and benchmarks as tests need them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.musts import Must

__all__ = ["BOUNDS", "Counted", "content", "write"]

T = TypeVar("T")

BOUNDS = {
    must.key: must
    for must in (
        Must("R4.import_s", "at_most", 0.3, "s", "time to import"),
        Must("R4.help_s", "at_most", 0.12, "s", "time to help"),
        Must("E1.gain.low", "at_least", 0.0, "AP", "a gain's lower end"),
    )
}


def content(**changed: Any) -> dict[str, Any]:
    """A whole result file of R4 that meets its bounds."""
    return {
        "schema": "edge-sdk/result/1",
        "id": "R4",
        "suite": "runtime",
        "title": "Start of a station",
        "command": "python -m benchmarks run R4",
        "commit": "0a1b2c3",
        "dirty": False,
        "finished_at": "2026-11-21T10:00:00Z",
        "took_s": 12.0,
        "machine": {"cpu": "a CPU", "cores": 2, "memory_gib": 23.5, "load_before": 0.2, "accelerator": None},
        "versions": {"python": "3.11.7"},
        "settings": {},
        "data": {},
        "rows": [{"name": "ours", "import_s": 0.2, "low": 0.19, "high": 0.22}],
        "musts": [
            {"key": "R4.help_s", "value": 0.12, "met": True},
            {"key": "R4.import_s", "value": 0.2, "low": 0.19, "high": 0.22, "met": True},
        ],
        "notes": [],
        **changed,
    }


def write(folder: Path, made: dict[str, Any]) -> Path:
    """The file where its suite and id say it belongs."""
    path = folder / str(made["suite"]) / f"{made['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(made), encoding="utf-8")
    return path


class Counted:
    """``Steps`` that keeps their names and what they found, as JSON gives it back."""

    def __init__(self) -> None:
        self.expected, self.names = 0, list[str]()
        self.found: dict[str, Any] = {}

    def expect(self, steps: int) -> None:
        self.expected = steps

    def step(self, name: str, compute: Callable[[], T]) -> T:
        self.names.append(name)
        found: T = json.loads(json.dumps(compute()))
        self.found[name] = found
        return found
