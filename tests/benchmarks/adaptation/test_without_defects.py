"""E3's steps, its correction for many pairs, and that no audit sees what is tested on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.adaptation import without_defects
from benchmarks.adaptation.holm import holm
from benchmarks.adaptation.line_pairs import PAIRS, Pair
from benchmarks.adaptation.protocol import Runs, cross_folds
from benchmarks.adaptation.scored import Scored
from benchmarks.adaptation.without_defects import (
    ABLATIONS,
    CANDIDATES,
    METHODS,
    Work,
    pair_step,
    result_of,
    synthetic_step,
)
from benchmarks.musts import musts_from_csv
from edge_sdk.quality.datasets import Line, load_dataset
from tests.requirements import need
from tests.training.drawn import write_set
from training.normals_choice import MOST, audit_drawn

TINY = Work(iterations=2, transfer=2, side_px=32, batch=4, pictures=24, tested=16)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(without_defects, "DRAWN", tmp_path_factory.mktemp("drawn"))
        return synthetic_step(TINY, 100, (*METHODS, *ABLATIONS))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_set(tmp_path_factory.mktemp("plates") / "plates", pictures=96)
    return pair_step(Pair("plates", folder, "a test", gap="lamp"), TINY, ("slim",), 100, 0)


def runs(shift: float, *, seed: int) -> Runs:
    """Three seeds of two folds: 40 pictures in 20 groups, defects so much above the healthy ones."""
    chance = np.random.default_rng(seed)
    truth = np.arange(40) % 2
    groups = tuple(f"g{n // 2}" for n in range(40))
    noise = chance.normal(size=(3, 2, 40))
    scores = (noise + shift * truth).astype(np.float32)
    return [[Scored(scores[s, f], truth, groups) for f in range(2)] for s in range(3)]


def test_every_method_and_the_oracle_is_judged_on_the_same_pictures(synthetic: Mapping[str, Any]) -> None:
    rows = {name: Scored.read(one) for name, one in synthetic["rows"].items()}
    assert set(rows) == {*METHODS, *ABLATIONS, "oracle"}
    first = rows["source"]
    assert all(np.array_equal(one.truth, first.truth) and one.groups == first.groups for one in rows.values())
    assert int(first.truth.sum()) == 8


def test_the_audit_chooses_among_the_candidates(real: Mapping[str, Any]) -> None:
    choice = real["slim"]["choice"]
    assert choice["method"] in CANDIDATES
    assert set(choice["auroc"]) == set(CANDIDATES)
    assert 0 < choice["pictures"] <= MOST
    assert set(real["slim"]["rows"]) == {"source", *CANDIDATES}


def test_the_result_answers_every_must(synthetic: Mapping[str, Any], real: Mapping[str, Any]) -> None:
    without = {"rows": {row: one for row, one in synthetic["rows"].items() if row not in ABLATIONS}}
    found = result_of([synthetic, synthetic, without], {"plates": [[real], [real]]}, {})
    assert set(found.musts) == {key for key in musts_from_csv() if key.startswith("E3.")}
    names = [row["name"] for row in found.rows]
    assert len(names) == len(set(names))
    assert {"synthetic: contrastive", "plates: chosen", "plates: chosen - mixed, AUROC"} <= set(names)
    compared = {row["name"]: row for row in found.rows}
    assert len(compared["synthetic: nrbn - mixed, AUROC"]["each"]) == 3
    assert len(compared["synthetic: triplet - mixed, AUROC"]["each"]) == 2
    assert found.musts["E3.nrbn_minus_mixed"].low == pytest.approx(found.musts["E3.nrbn_minus_mixed"].value, abs=1e-4)


def test_of_a_part_that_the_audit_shows_nothing_is_trained_on(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates"))
    lines = cross_folds(dataset, seed=100, gap="lamp")[0].lines
    both = replace(lines, original=replace(lines.original, train=lines.new[0].train))  # the same parts under two lamps
    shown = lines.new[0].train[:2]
    left = without_defects._without(both, shown)
    names = {one.image for one in shown}
    assert not {one.image for one in (*left.original.train, *left.new[0].train)} & names
    assert len(left.original.train) == len(both.original.train) - 2
    assert left.original.test == lines.original.test


def test_of_a_block_of_parts_the_audited_pictures_alone_are_left_out(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates"))
    lines = cross_folds(dataset, seed=100, gap="lamp")[0].lines

    def in_blocks(line: Line) -> Line:
        return replace(line, train=tuple(replace(one, group=f"block {n % 2}") for n, one in enumerate(line.train)))

    lines = replace(lines, original=in_blocks(lines.original), new=tuple(map(in_blocks, lines.new)))
    shown = lines.new[0].train[:4]  # of both blocks
    left = without_defects._without(lines, shown)
    assert len(left.new[0].train) == len(lines.new[0].train) - 4
    assert not {one.image for one in left.new[0].train} & {one.image for one in shown}


def test_of_many_equal_pairs_only_the_better_one_is_significant() -> None:
    pairs = {f"equal {n}": (runs(1.0, seed=n), runs(1.0, seed=n + 50)) for n in range(4)}
    assert holm({**pairs, "better": (runs(4.0, seed=9), runs(0.3, seed=9))}, rounds=1000) == ["better"]
    assert holm({"worse": (runs(0.3, seed=9), runs(4.0, seed=9))}, rounds=400) == ["worse"]  # it differs, whatever way


def test_at_least_four_pairs_are_of_real_lines_each_with_a_reason() -> None:
    assert sum(pair.gap is None for pair in PAIRS) >= 4
    assert all(pair.why for pair in PAIRS)
    assert len({pair.name for pair in PAIRS}) == len(PAIRS)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: str(pair.name))
def test_no_audit_of_a_pair_sees_a_test_picture(pair: Pair) -> None:
    need(f"../shared/data/{pair.folder.name}", found=Path(pair.folder).is_dir())
    dataset = load_dataset(pair.folder)
    new = pair.new and [",".join(pair.new)]
    for fold in cross_folds(dataset, seed=100, original=pair.original, new=new, gap=pair.gap):
        drawn = audit_drawn(fold.lines.new[0], seed=100)
        tested = {one.image for line in (fold.judging.original, *fold.judging.new) for one in line.test}
        assert len(drawn) <= MOST
        assert not {one.image for one in drawn} & tested
