"""R4 times what it says it times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks import startup
from edge_sdk.errors import EdgeError

T = TypeVar("T")

pytestmark = pytest.mark.system


class Plain:
    """Steps without a memory."""

    def expect(self, steps: int) -> None: ...

    def step(self, name: str, compute: Callable[[], T]) -> T:
        return compute()


def test_the_first_verdict_comes_with_and_without_a_remembered_proof(tmp_path: Path) -> None:
    station = startup._station(tmp_path)
    assert startup._first_verdict_s(station) > 0
    [proof] = tmp_path.glob("bundle/engines/*/proof.json")
    before = proof.stat().st_mtime_ns
    startup._first_verdict_s(station)
    assert proof.stat().st_mtime_ns == before
    startup._first_verdict_s(station, forget=True)
    assert proof.stat().st_mtime_ns > before


def test_a_station_that_fails_is_no_figure(tmp_path: Path) -> None:
    with pytest.raises(EdgeError, match="edge-sdk run ended with 2"):
        startup._first_verdict_s(tmp_path / "station.yaml")


def test_every_must_of_the_result_gets_a_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(startup, "_station", lambda folder: tmp_path / "station.yaml")
    monkeypatch.setattr(startup, "_first_verdict_s", lambda station, forget=False: 0.5)
    monkeypatch.setattr(startup, "_output", lambda *words: "0.25")
    result = startup.run(quick=True, progress=Plain())
    assert result.musts.keys() == {"R4.import_s", "R4.help_s", "R4.first_verdict_s"}
    assert result.musts["R4.import_s"].value == 0.25
    assert result.musts["R4.first_verdict_s"].value == 0.5
    assert {row["name"] for row in result.rows if "skipped" in row} <= {"ultralytics", "anomalib"}
