"""What the bounds of E1 and E2 are computed from, on rows whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine
from benchmarks.adaptation import domains, solar
from benchmarks.adaptation.scored import Scored
from benchmarks.adaptation.tables import AUTO, Block, above_best, worst
from benchmarks.adaptation.verdicts import judge
from benchmarks.musts import musts_from_csv
from benchmarks.results import Result
from training.methods import METHODS

SEEDS = 3
TRUNKS = ("slim", "mobilenetv2", AUTO)


def run_of(share: float, *, groups: int = 12) -> list[list[Scored]]:
    """``SEEDS`` seeds of two folds in which so large a share of the pictures is on its right side of the boundary."""
    truth = np.tile([0, 1], groups)
    found = []
    for seed in range(SEEDS):
        folds = []
        for fold in range(2):
            chance = np.random.default_rng([seed, fold])
            wrong = chance.permutation(len(truth)) >= round(share * len(truth))
            scores = np.where(wrong, -1.0, 1.0) * (2 * truth - 1) + np.arange(len(truth)) * 1e-4
            folds.append(Scored(scores, truth, tuple(f"{fold}{n // 2}" for n in range(len(truth)))))
        found.append(folds)
    return found


def block(name: str, trunk: str, skill: Mapping[str, float], *, cells: bool = False, fresh: bool = False) -> Block:
    whole = {**dict.fromkeys((*METHODS, "oracle"), 0.6), "decided": skill.get("default", 0.6), **skill}
    rows = {row: run_of(share) for row, share in whole.items()}
    home = {"pictures": run_of(0.95), "cells": run_of(1.0)}
    right = judge(name, "adabn", {"source": 0.5, "adabn": 0.8}, home=0.9)
    return Block(name, trunk, rows, rows if cells else {}, home, {"adabn": 2 * SEEDS}, (right,), fresh)


def musts_of(identifier: str) -> set[str]:
    return {key for key, must in musts_from_csv().items() if must.identifier == identifier}


@pytest.fixture(autouse=True)
def _no_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(folder: Path) -> dict[str, object]:
        return {"images": 0}

    monkeypatch.setattr(machine, "data_digest", digest)


def all_blocks(skill: Mapping[str, float]) -> list[Block]:
    real = [one.task(*way) for one in domains.PHOTOGRAPHS for way in one.ways]
    return [
        block(name, trunk, skill, cells="lamp" in name or "cracks" in name, fresh=name.startswith("synthetic"))
        for trunk in TRUNKS
        for name in ("synthetic, 50 %", "synthetic, 5 %", *real)
    ]


def value(result: Result, key: str) -> float:
    return result.musts[key].value


def test_e1_states_every_bound_and_finds_what_was_planted() -> None:
    skill = {"default": 0.8, "adabn": 0.8, "adda": 0.9, "oracle": 1.0, "source": 0.6}
    result = domains.result_of(all_blocks(skill), {})
    assert set(result.musts) == musts_of("E1")
    blocks = {(one.name, one.trunk): one for one in all_blocks(skill)}
    slim = blocks["synthetic, 50 %", "slim"]
    wanted = (slim.seeds("adda", "balanced_accuracy") - slim.seeds("source", "balanced_accuracy")).mean()
    assert value(result, "E1.adda_minus_source_50") == pytest.approx(wanted, abs=1e-4)
    assert value(result, "E1.default_minus_adabn_5") == 0
    # ADDA is the best row that saw no label, on every seed, so the default is behind it and not behind the oracle
    some = blocks["cookies, chromaticity, 5 %", AUTO]
    behind = (some.seeds("default", "auroc") - some.seeds("adda", "auroc")).mean()
    assert value(result, "E1.default_minus_best_row") == pytest.approx(behind, abs=1e-4)
    for key in ("E1.default_minus_source_50.low", "E1.default_minus_source_5.low"):
        assert 0 < value(result, key) == result.musts[key].low < 0.25
    drop = value(result, "E1.source_drop_points")
    low, high = result.musts["E1.source_drop_points"].low, result.musts["E1.source_drop_points"].high
    assert low is not None
    assert high is not None
    assert 20 < low < drop < high


def test_what_the_panel_costs_stands_beside_what_reaches_the_line() -> None:
    result = domains.result_of(all_blocks({"default": 0.6, "source": 0.6, "decided": 0.9, "adda": 0.9}), {})
    said = {str(row["name"]): row for row in result.rows}
    cost = said["cookies, chromaticity, 50 %: without the panel - recommended default, balanced accuracy"]
    assert float(str(cost["difference"])) == pytest.approx(0.3, abs=0.05)
    assert said["cookies, chromaticity, 50 %: decided (auto) - best row"]["difference"] == 0
    # the bounds are of what reaches the line, and a row that stands for another is never the best one
    assert value(result, "E1.default_minus_source_50.low") == 0
    assert value(result, "E1.default_minus_best_row") < -0.1


def test_a_default_that_adapts_nothing_is_never_worse_than_the_source() -> None:
    result = domains.result_of(all_blocks({"default": 0.6, "source": 0.6}), {})
    assert value(result, "E1.default_minus_source_50.low") == 0
    assert value(result, "E1.default_minus_source_5.low") == 0


def test_the_worst_gap_counts() -> None:
    blocks = all_blocks({"default": 0.9})
    bad = [
        block(one.name, one.trunk, {"default": 0.5}) if one.name == "tiles, gamma+tint, 5 %" else one for one in blocks
    ]
    result = domains.result_of(bad, {})
    assert value(result, "E1.default_minus_source_5.low") < -0.02 < value(result, "E1.default_minus_source_50.low")
    assert any("tiles, gamma+tint, 5 %" in note for note in result.notes)


def test_cracks_without_healthy_pictures_are_judged_by_cells_alone() -> None:
    names = [str(row["name"]) for row in domains.result_of(all_blocks({"default": 0.8}), {}).rows]
    assert any(name.startswith("cracks") and name.endswith("cell AP") for name in names)


def test_e2_states_every_bound_and_finds_what_was_planted() -> None:
    thin = {"source": 0.55, "mmd": 0.7, "dann": 0.65, "default": 0.55}
    pretrained = {"source": 0.7, "coral": 0.8, "default": 0.7}
    blocks = [
        block(way, trunk, thin if trunk == "slim" else pretrained) for way in solar.DIRECTIONS for trunk in TRUNKS
    ]
    result = solar.result_of(blocks, (0, 1, 2), {})
    assert set(result.musts) == musts_of("E2")
    assert value(result, "E2.default_minus_source.low") == 0
    scratch, _, auto = blocks[:3]
    gain = (scratch.seeds("mmd", "auroc") - scratch.seeds("source", "auroc")).mean()
    assert value(result, "E2.mono_poly_joint_gain") == pytest.approx(gain, abs=1e-4)
    behind = (auto.seeds("default", "auroc") - auto.seeds("coral", "auroc")).mean()
    assert value(result, "E2.default_minus_best_row") == pytest.approx(behind, abs=1e-4)
    said = {str(row["name"]): row for row in result.rows}
    assert said["rules, all"]["right_share"] == 1.0
    assert said["mono to poly, auto"]["taken"] == "adabn 6"


def test_the_best_row_may_stand_on_another_trunk_and_is_never_the_oracle() -> None:
    mine = block("poly to mono", "mobilenetv2", {"default": 0.7, "oracle": 1.0})
    other = block("poly to mono", "slim", {"adabn": 0.9, "oracle": 1.0})
    found = above_best(mine, [mine, other], "auroc")
    assert found["best_row"] == f"adabn, slim ({SEEDS})"
    assert float(str(found["difference"])) < 0


def test_the_lowest_lower_end_is_the_worst() -> None:
    one = block("a", "slim", {"default": 0.9})
    other = block("b", "slim", {"default": 0.5})
    pairs = {each.name: each.minus("default", "source", "balanced_accuracy") for each in (one, other)}
    assert worst(pairs)[0] == "b"
