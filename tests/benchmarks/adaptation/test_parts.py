"""S2: accuracies as the colour-gap paper states them, and no picture on both sides of anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import machine
from benchmarks.adaptation import parts
from benchmarks.adaptation.parts import METHODS, Part, Table, Work, accuracy, models_of, step, table_of
from benchmarks.adaptation.parts_picture import colour_gap_picture
from benchmarks.adaptation.scored import Scored
from edge_sdk.errors import RangeError
from tests.requirements import need
from tests.training.drawn import write_set

TINY = Work(iterations=4, adapting=4, side_px=32, width=0.125)
TRUTH = np.tile([0, 1], 6)


def said(right: int) -> dict[str, object]:
    """Of 12 pictures of 6 groups so many are called what they are, the first ones."""
    scores = np.where(np.arange(12) < right, 1.0, -1.0) * (2 * TRUTH - 1) + 0.5
    return Scored(scores, TRUTH, tuple(f"g{n // 2}" for n in range(12)), boundary=0.5).document()


def fold(*, source: int, gap: int, kept: int, single: int, adapted: int) -> Mapping[str, Any]:
    of = {"kept": kept, "single": single, "adapted": adapted}
    return {
        "source": said(source), "gap": said(gap), "taken": "mmd",
        **{kind: {method: said(right) for method in METHODS} for kind, right in of.items()},
    }  # fmt: skip


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Part:
    torch.set_num_threads(1)
    return Part("plates", write_set(tmp_path_factory.mktemp("parts") / "plates", pictures=40), "gamma+tint")


def test_accuracy_is_the_share_called_right_and_a_weight_counts_a_picture_again() -> None:
    chance = np.random.default_rng(1)
    scored = Scored(chance.normal(size=20), chance.integers(0, 2, 20), tuple(map(str, range(20))), boundary=0.3)
    weights = chance.integers(0, 4, (5, 20)).astype(float)
    weights[4] = 0
    for row, found in zip(weights, accuracy(scored, weights), strict=True):
        again = [n for n in range(20) for _ in range(int(row[n]))]
        right = [(scored.scores[n] >= 0.3) == bool(scored.truth[n]) for n in again]
        assert found == pytest.approx(np.mean(right)) if again else np.isnan(found)
    with pytest.raises(RangeError, match="no picture to be right about; give at least one"):
        accuracy(Scored(np.zeros(0), np.zeros(0), ()), np.ones((1, 0)))


def test_the_table_keeps_apart_what_the_source_keeps_and_what_one_set_of_weights_makes_of_it() -> None:
    first = fold(source=12, gap=3, kept=12, single=6, adapted=9)
    second = fold(source=9, gap=6, kept=12, single=6, adapted=9)
    table = table_of("nuts", [[first, second], [first, second]])
    baseline, *methods = table.rows()
    assert baseline["source_accuracy"] == pytest.approx(10.5 / 12, abs=1e-3)
    assert baseline["gap_accuracy"] == pytest.approx(4.5 / 12, abs=1e-3)
    assert baseline["larger_class"] == 0.5
    for row in methods:
        assert row["source_accuracy"] == 1.0
        assert row["single_weights_source_accuracy"] == 0.5
        assert row["gap_accuracy"] == 0.75
    assert table.took()["taken"] == "mmd 4"
    found = {str(row["name"]): row for row in table.differences()}
    assert len(found) == 3 * len(METHODS)
    gain = found["nuts: ADDA, gap, adapted - baseline"]
    assert gain["difference"] == pytest.approx(4.5 / 12, abs=1e-4)
    assert gain["each"] == [pytest.approx(4.5 / 12, abs=1e-4)] * 2
    assert found["nuts: ADDA, source, single weights - baseline"]["difference"] == pytest.approx(-4.5 / 12, abs=1e-4)
    assert found["nuts: ADDA, source, kept engine - baseline"]["difference"] == pytest.approx(1.5 / 12, abs=1e-4)


def test_over_all_tables_only_intervals_without_0_count(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(folder: Path) -> dict[str, object]:
        return {"images": 0}

    monkeypatch.setattr(machine, "data_digest", digest)
    up, same = (
        table_of(name, [[fold(source=12, gap=0, kept=12, single=0, adapted=adapted)]])
        for name, adapted in (("up", 12), ("same", 0))
    )
    rows = {str(row["name"]): row for row in parts.result_of([up, same], same, {}).rows}
    counted = rows["all parts, both readings: DANN, gap, adapted - baseline"]
    assert (counted["mean_difference"], counted["tables"]) == (0.5, 2)
    assert (counted["surely_better"], counted["surely_worse"]) == (1, 0)
    lost = rows["all parts, both readings: DANN, source, single weights - baseline"]
    assert (lost["surely_better"], lost["surely_worse"]) == (0, 2)


@pytest.mark.parametrize("gap_on", ["new", "original"])
def test_no_picture_is_learnt_from_on_both_lines_nor_tested(plates: Part, gap_on: str) -> None:
    made = models_of(plates, gap_on, 100, 1, TINY)
    lines = made.fold.lines
    first = {sample.image for part in ("train", "validate") for sample in lines.original.part(part)}
    second = {sample.image for sample in lines.new[0].train}
    tested = {sample.image for line in (lines.original, lines.new[0]) for sample in line.test}
    assert first and second and tested
    assert not {sample.image for sample in lines.original.train} & second
    assert not tested & (first | second)
    gaps = {"original": lines.original.gap, "new": lines.new[0].gap}
    assert gaps.pop(gap_on) == "gamma+tint" and set(gaps.values()) == {None}
    assert set(made.adapted) == set(METHODS)


def test_what_the_panel_refuses_does_not_reach_the_line(plates: Part) -> None:
    made = models_of(plates, "new", 100, 0, TINY)
    refused = made.taken.endswith(" (refused)")
    assert made.taken.removesuffix(" (refused)") in ("source", "mmd", "adabn")
    method = made.adapted["default"].line("new").method
    assert method == ("source" if refused else made.taken)


def test_adda_keeps_the_source_with_its_own_engine_and_the_new_engine_is_another(plates: Part) -> None:
    found = step(plates, "new", 100, 0, TINY)
    assert found["kept"]["adda"] == found["source"]
    assert found["single"]["adda"] != found["source"]
    assert found["adapted"]["adda"] != found["gap"]
    assert isinstance(table_of("plates", [[found]]), Table)
    again = step(plates, "new", 100, 0, TINY)
    assert again == found


def test_the_picture_shows_every_model_by_line_and_by_class(plates: Part) -> None:
    text = colour_gap_picture(plates, seed=100, work=TINY).decode()
    assert text.count("A-distance") == 3
    for words in ("before", "after ADDA", "after DANN", "by class", "dent", "new line"):
        assert words in text


def test_the_real_sets_have_what_the_table_needs() -> None:
    for part in parts.PARTS:
        need(f"../shared/data for {part.name}", found=part.folder.exists())
        dealt = parts.cross_folds(
            parts.load_dataset(part.folder), seed=100, gap=part.gap, gap_on="original",
            original=list(parts.load_dataset(part.folder).domains),
        )  # fmt: skip
        for one in dealt:
            kinds = {sample.healthy for sample in one.lines.original.train}
            assert kinds == {True, False}, part.name
            assert not {s.unit for s in one.judging.new[0].test} & {s.unit for s in one.lines.new[0].train}
