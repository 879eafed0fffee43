"""S4: the tables' own steps, with another network, on the same pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import machine, registry
from benchmarks.adaptation import domains, full_width, rows, solar
from benchmarks.adaptation.full_width import FULL, NETWORKS, THIN
from benchmarks.adaptation.scored import Scored
from benchmarks.adaptation.tables import FULL_WIDTH
from benchmarks.results import Result
from tests.requirements import need

TRUTH = np.tile([0, 1], 12)
GROUPS = tuple(f"g{n // 2}" for n in range(24))


def said(right: int) -> dict[str, object]:
    """Of 24 pictures of 12 groups so many lie on their side of the boundary, the first ones."""
    scores = np.where(np.arange(24) < right, 1.0, -1.0) * (2 * TRUTH - 1) + np.arange(24) * 1e-4
    return Scored(scores, TRUTH, GROUPS, boundary=0.5).document()


class Steps:
    """Computes every step and keeps nothing."""

    def __init__(self) -> None:
        self.expected = 0
        self.names: list[str] = []

    def expect(self, steps: int) -> None:
        self.expected = steps

    def step(self, name: str, compute: Callable[[], Any]) -> Any:
        self.names.append(name)
        return compute()


class Planted:
    """Stands for training: the wide network is right more often, and adapts as well as the thin one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float, int, Any]] = []

    def __call__(
        self, tasks: Sequence[rows.Task], kept: rows.Kept, adapting: Any, trunks: Sequence[str]
    ) -> dict[str, Any]:
        wide = kept.recipe.width == 1.0
        self.asked += [(task.name, kept.recipe.width, kept.recipe.stages, task.others) for task in tasks]
        assert list(trunks) == [THIN]
        assert adapting.width == kept.recipe.width
        return {THIN: {task.name: self.rows(task, 18 if wide else 12) for task in tasks},
                "auto": {task.name: THIN for task in tasks}}  # fmt: skip

    def rows(self, task: rows.Task, right: int) -> Mapping[str, Any]:
        figures = {"source": right, "adabn": 20, "default": 20, "decided": 20} | ({"oracle": 24} if task.oracle else {})
        kinds = ("pictures", "cells") if task.cells else ("pictures",)
        return {
            "rows": {name: {kind: said(n) for kind in kinds} for name, n in figures.items()},
            "original": {kind: said(22) for kind in kinds},
            "decision": {"method": "adabn"},
            "ship": True,
        }


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> tuple[Planted, Steps, Result]:
    here = all((machine.ROOT / folder).is_dir() for folder in full_width.NEEDS if "/" in folder)
    need("../shared/data/elpv_solar and magnetic_tile", found=here)

    def digest(folder: Path) -> dict[str, object]:
        return {"images": 0}

    found, steps = Planted(), Steps()
    monkeypatch.setattr(machine, "data_digest", digest)
    monkeypatch.setattr(rows, "step_of", found)
    return found, steps, full_width.run(quick=True, progress=steps)


def test_each_new_line_is_asked_once_a_fold_of_either_network(planted: tuple[Planted, Steps, Result]) -> None:
    found, steps, _ = planted
    assert len(steps.names) == len(set(steps.names)) == steps.expected == 14
    thin, wide = ([one for one in found.asked if one[1] == network.width] for network in NETWORKS.values())
    assert [(name, others) for name, _, _, others in thin] == [(name, others) for name, _, _, others in wide]
    assert {name for name, *_ in thin} == {
        "synthetic, 50 %", "hazelnut, lamp, 50 %", "tiles, gamma+tint, 50 %", *solar.DIRECTIONS
    }  # fmt: skip
    stages = {name: stages for name, _, stages, _ in wide}
    assert stages["hazelnut, lamp, 50 %"] == domains.NUTS.stages, "the table's own cells"
    assert stages["mono to poly"] == stages["synthetic, 50 %"] == 4


def test_the_networks_are_compared_on_the_same_pictures(planted: tuple[Planted, Steps, Result]) -> None:
    said_of = {str(row["name"]): row for row in planted[2].rows}
    gained = said_of["hazelnut, lamp, 50 %: source, full width - slim, balanced accuracy"]
    assert gained["difference"] == pytest.approx(6 / 24, abs=1e-4)
    assert float(str(gained["low"])) < 6 / 24 < float(str(gained["high"]))
    adapted = said_of["tiles, gamma+tint, 50 %, full width: default - source, balanced accuracy"]
    assert adapted["difference"] == pytest.approx(2 / 24, abs=1e-4)
    assert said_of["poly to mono: default, full width - slim, AUROC"]["difference"] == 0
    assert "hazelnut, lamp, 50 %, full width: oracle - source, cell AP" in said_of
    assert said_of[f"rules, all, {FULL}"]["cases"] == 9


def test_one_seed_of_drawn_lines_has_no_interval(planted: tuple[Planted, Steps, Result]) -> None:
    drawn = [row for row in planted[2].rows if str(row["name"]).startswith("synthetic") and "difference" in row]
    assert drawn
    assert all("low" not in row for row in drawn)


def test_the_tables_row_of_full_width_names_this_result() -> None:
    assert registry.MODULES["S4"] == full_width.__name__
    assert str(FULL_WIDTH["skipped"]).endswith("S4")
