"""Rows come from the product's own training, adapting and judging, on lines dealt as the loader deals them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.adaptation.drawn import LINES, drawn_lines
from benchmarks.adaptation.protocol import SHARES
from benchmarks.adaptation.rows import (
    Kept,
    Task,
    at_prior,
    cells_of,
    oracle_lines,
    pictures_of,
    rows_of,
)
from benchmarks.adaptation.scored import MEASURES, Scored
from benchmarks.adaptation.tables import blocks_of
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from tests.training.drawn import write_set
from training.evaluate import evaluate
from training.methods import METHODS
from training.recipe import Recipe
from training.train import train

TINY = Recipe(trunk="slim", width=0.125, side_px=32, iterations=2, batch=4)


def once(name: str, scored: Scored) -> float:
    return float(MEASURES[name](scored, np.ones((1, len(scored.scores))))[0])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return drawn_lines(tmp_path_factory.mktemp("drawn"), seed=100, prior=0.25, pictures=24, tested=12)


def both(dataset: Dataset, **roles: str) -> tuple[Lines, Lines]:
    return (
        lines_of(dataset, seed=0, shares=SHARES, gap=roles.get("gap")),
        lines_of(dataset, seed=0, shares=SHARES, gap=roles.get("gap"), evaluating=True),
    )


def test_drawn_lines_read_as_a_set_with_the_split_that_was_drawn(drawn: Dataset) -> None:
    lines, judging = both(drawn)
    assert (lines.original.domains, lines.new[0].domains) == ((LINES[0],), (LINES[1],))
    assert all(sample.image.startswith("cast/test_") for sample in judging.new[0].test)
    assert Counter(sample.healthy for sample in judging.new[0].test) == {True: 6, False: 6}
    learnt = [sample.healthy for part in ("train", "validate", "mentor") for sample in lines.new[0].part(part)]
    assert Counter(learnt) == {True: 18, False: 6}
    assert not lines.new[0].mentor


def test_another_seed_draws_other_pictures_and_the_same_seed_the_same(drawn: Dataset, tmp_path: Path) -> None:
    again, other = (
        drawn_lines(tmp_path / str(seed), seed=seed, prior=0.25, pictures=24, tested=12) for seed in (100, 101)
    )
    assert again.digest == drawn.digest != other.digest


@pytest.mark.parametrize(("prior", "expected"), [(0.5, 3), (0.05, 0), (0.9, 27), (0.0, 0)])
def test_defects_come_again_or_are_left_out_and_healthy_ones_stay(
    drawn: Dataset, prior: float, expected: int
) -> None:
    line = both(drawn)[0].new[0]
    healthy = [sample for sample in line.train if sample.healthy][:3]
    defective = [sample for sample in line.train if sample.healthy is False]
    changed = at_prior(replace(line, train=(*healthy, *defective)), prior, seed=1)
    assert Counter(sample.healthy for sample in changed.train) == Counter({True: 3, False: expected}) - Counter()
    assert [sample for sample in changed.train if sample.healthy] == healthy
    assert {sample for sample in changed.train if not sample.healthy} <= set(defective)


def test_the_oracle_learns_from_the_new_lines_labels_behind_its_gap(drawn: Dataset) -> None:
    lines, _ = both(drawn)
    own = oracle_lines(lines)
    assert [sample.image for sample in own.original.train] == [sample.image for sample in lines.new[0].train]
    assert own.original.name == "original"


def test_scores_give_the_figures_that_an_evaluation_gives(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates", pictures=24))
    lines, judging = both(dataset, gap="lamp")
    checkpoint = train(dataset, lines, TINY.model_copy(update={"iterations": 6, "side_px": 64}))
    found = evaluate(checkpoint, judging)
    for line in ("original", "new"):
        figures, judged = found.figures[line], found.judged[line]
        boundary = float(checkpoint.line("original").thresholds.boundary.min())
        pictures = pictures_of(judged, boundary=float(np.log(boundary / (1 - boundary))))
        assert round(once("auroc", pictures), 4) == figures["picture_auroc"]
        assert round(once("ap", pictures), 4) == figures["picture_ap"]
        assert round(once("balanced_accuracy", pictures), 4) == figures["balanced_accuracy"]
        cells = cells_of(judged)
        assert round(once("ap", cells), 4) == figures["ap"]
        assert set(cells.groups) <= set(judged.views.units)


def test_every_method_is_a_row_and_the_source_is_trained_once(drawn: Dataset) -> None:
    lines, judging = both(drawn)
    kept = Kept(drawn, TINY)
    first = rows_of(Task("half", lines, judging, prior=0.5), kept, TINY, plain=True)
    second = rows_of(Task("few", lines, judging, prior=0.05, oracle=False), kept, TINY)
    assert list(first["rows"]) == [*METHODS, "default", "plain", "oracle"]
    assert list(second["rows"]) == [*METHODS, "default"]
    assert len(kept.made) == 3  # with and without jitter, and the oracle
    assert first["rows"]["source"] == second["rows"]["source"]
    taken = first["decision"]["method"]
    assert first["rows"]["default"] == first["rows"][taken]
    blocks = blocks_of([[{"half": first, "few": second}]], ["half", "few"], trunk="slim")
    assert [block.name for block in blocks] == ["half", "few"]
    assert blocks[0].ranked_by_pictures
    assert blocks[0].chosen == {taken: 1}
    assert set(blocks[0].means("auroc")) == {"name", *(f"{row}_auroc" for row in first["rows"])}
