"""S3: how many files a way needs, and what a line costs or gains, on lines whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import machine
from benchmarks.adaptation import several
from benchmarks.adaptation.scored import Scored
from benchmarks.adaptation.several import METHODS, WAYS, Work, drawn_step, files_of, result_of, several_of
from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training.jointly import adapt_jointly
from training.train import train

TINY = Work(iterations=2, adapting=2, side_px=32, batch=4, pictures=12, tested=8, prior=0.25)
LINES = ["plain", "one", "two"]
ROWS = ["source", *(f"{method}, {way}" for method in METHODS for way in WAYS)]


def said(right: int) -> dict[str, object]:
    truth = np.tile([0, 1], 6)
    scores = np.where(np.arange(12) < right, 1.0, -1.0) * (2 * truth - 1)
    return Scored(scores, truth, tuple(f"g{n // 2}" for n in range(12))).document()


def made(right: dict[str, tuple[int, int, int]], *, fresh: bool = False) -> several.Several:
    rows = {row: [said(n) for n in right.get(row, (12, 6, 6))] for row in ROWS}
    found = [[{"rows": rows, "files": dict.fromkeys(ROWS, (1, 2))}] for _ in range(3)]
    return several_of("made", LINES, found, fresh=fresh)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_way_is_the_mean_over_its_lines_and_a_difference_is_paired(fresh: bool) -> None:
    one = made({"adabn, a line each": (12, 12, 8), "adabn, one for all": (6, 12, 6)}, fresh=fresh)
    rows = {str(row["name"]): row for row in one.rows()}
    assert rows["made: adabn, a line each"]["new_balanced_accuracy"] == pytest.approx((1 + 8 / 12) / 2, abs=1e-3)
    assert rows["made: adabn, one for all"]["original_balanced_accuracy"] == 0.5
    assert rows["made: adabn, one for all"]["worst_new_auroc"] == 0.5
    assert (rows["made: source"]["weights"], rows["made: source"]["engines"]) == (1, 2)
    found = {str(row["name"]): row["difference"] for row in one.differences()}
    gap = found["made: adabn, one for all - adabn, a line each, new lines, balanced accuracy"]
    assert gap == pytest.approx((0 - 2 / 12) / 2, abs=1e-4)
    lost = found["made: adabn, one for all - source, original line, balanced accuracy"]
    assert lost == pytest.approx(-0.5)
    by_line = {str(row["name"]): row for row in one.by_line()}["made: adabn, a line each"]
    assert [by_line[f"{line}_bacc"] for line in LINES] == [1.0, 1.0, pytest.approx(8 / 12, abs=1e-3)]


def test_intervals_are_over_parts_that_all_lines_show_or_over_drawn_seeds() -> None:
    right = {"mmd, a line each": (12, 9, 6)}
    for fresh, kind in ((False, "groups"), (True, "seeds")):
        found = made(right, fresh=fresh).minus("mmd, a line each", "source", LINES[1:], "balanced_accuracy")
        assert found.kind == kind
        assert found.mean == pytest.approx(0.125)


def test_files_are_counted_by_what_differs(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    dataset = load_dataset(write_set(tmp_path / "plates"))
    lines = lines_of(dataset, gap="lamp", seed=1)
    lines = replace(lines, new=(lines.new[0], replace(lines.new[0], name="new2", gap="gamma")))
    recipe = SMALL.model_copy(update={"head": "classifier", "iterations": 4})
    source = train(dataset, lines, recipe)
    assert files_of([(source, "original")] * 3) == (1, 1)

    def needed(method: str) -> list[tuple[int, int]]:
        ways = several._engines(adapt_jointly, source, lines, recipe, method)
        assert list(ways) == [f"{method}, {way}" for way in WAYS]
        return [files_of(engines) for engines in ways.values()]

    assert needed("adabn") == [(1, 3), (1, 2), (1, 1)]
    assert needed("adda") == [(3, 3), (2, 2), (1, 1)]
    assert needed("mmd") == [(3, 3), (1, 2), (1, 1)]


def test_drawn_lines_are_five_and_share_no_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(folder: Path) -> dict[str, object]:
        return {"images": 0}

    monkeypatch.setattr(machine, "data_digest", digest)
    monkeypatch.setattr(several, "DRAWN", tmp_path)
    found = drawn_step(TINY, 100)
    assert list(found["rows"]) == ROWS
    names = [name for name, _, _ in several.DRAWN_LINES]
    dataset = load_dataset(tmp_path / "100")
    assert sorted(dataset.domains) == sorted(names)
    pictures = [sample.path.read_bytes() for sample in dataset.samples]
    assert len(pictures) == len(set(pictures)) == 5 * (TINY.pictures + TINY.tested)
    result = result_of([several_of("drawn", names, [[found], [found]], fresh=True)], {})
    assert {"weights", "engines", "new_auroc"} <= set(result.rows[0])
    assert all(len(documents) == 5 for documents in found["rows"].values())
