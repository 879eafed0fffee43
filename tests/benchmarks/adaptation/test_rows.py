"""Rows come from the product's own training, adapting and judging, on lines dealt as the loader deals them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

from benchmarks.adaptation.drawn import LINES, drawn_lines, picture_of
from benchmarks.adaptation.protocol import SHARES
from benchmarks.adaptation.rows import (
    Kept,
    Task,
    at_prior,
    auto_trunk,
    cells_of,
    oracle_lines,
    pictures_of,
    step_of,
)
from benchmarks.adaptation.scored import MEASURES, Scored
from benchmarks.adaptation.tables import AUTO, blocks_of
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from tests.training.drawn import write_set
from training import trunks
from training.adapt import Adaptation, adapt
from training.evaluate import evaluate
from training.health_rules import Verdict
from training.methods import METHODS
from training.networks.mobilenet import MobileNetV2
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


def test_every_method_is_a_row_and_each_model_of_a_fold_is_trained_once(drawn: Dataset) -> None:
    lines, judging = both(drawn)
    kept = Kept(drawn, TINY)
    tasks = [
        Task("half", lines, judging, prior=0.5, plain=True),
        Task("few", lines, judging, prior=0.05, oracle=False),
    ]
    step = step_of(tasks, kept, TINY, ["slim"])
    first, second = step["slim"]["half"], step["slim"]["few"]
    assert list(first["rows"]) == [*METHODS, "default", "decided", "plain", "oracle"]
    assert list(second["rows"]) == [*METHODS, "default", "decided"]
    assert len(kept.made) == 3  # with and without jitter, and the oracle
    assert first["rows"]["source"] == second["rows"]["source"]
    taken = first["decision"]["method"]
    assert first["rows"]["decided"] == first["rows"][taken]
    assert first["rows"]["default"] == first["rows"][taken if first["ship"] else "source"]
    assert step["auto"] == {"half": "slim", "few": "slim"}
    blocks = blocks_of([[step]], ["half", "few"], ["slim"])
    assert [(block.name, block.trunk) for block in blocks] == [
        ("half", "slim"), ("half", AUTO), ("few", "slim"), ("few", AUTO)
    ]  # fmt: skip
    assert blocks[0].ranked_by_pictures
    refused = "" if first["ship"] else " (refused)"
    assert (blocks[0].chosen, blocks[1].chosen) == ({taken + refused: 1}, {f"slim {taken}{refused}": 1})
    assert set(blocks[0].means("auroc")) == {"name", *(f"{row}_auroc" for row in first["rows"])}
    (judgement,) = blocks[1].judgements
    assert (judgement.decided, judgement.shipped) == (taken, first["ship"])
    assert judgement.figure == pytest.approx(float(blocks[1].seeds("decided", "auroc")[0]))


def test_with_some_methods_named_these_alone_stand_beside_what_the_rules_try(drawn: Dataset) -> None:
    kept = Kept(drawn, TINY)
    for others, wanted in (((), []), (("adda",), ["adda"])):
        task = Task("half", *both(drawn), oracle=False, others=others)
        found = list(step_of([task], kept, TINY, ["slim"])["slim"]["half"]["rows"])
        assert found == ["source", "adabn", "mmd", *wanted, "default", "decided"]


@pytest.mark.parametrize("ship", [True, False])
def test_what_the_panel_refuses_leaves_the_source_model_on_the_line(
    drawn: Dataset, ship: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.adaptation import rows

    def takes_adabn(*given: Any, methods: Sequence[str] | None = None, **named: Any) -> Adaptation:
        found = adapt(*given, methods=methods, **named)
        return found if methods else replace(
            found, chosen=found.methods["adabn"], decision=replace(found.decision, method="adabn")
        )  # fmt: skip

    def panel(adaptation: Adaptation) -> Any:
        return SimpleNamespace(verdict=Verdict(ship, "as told"))

    monkeypatch.setattr(rows, "adapt", takes_adabn)
    monkeypatch.setattr(rows, "health_of", panel)
    found = rows.rows_of(Task("half", *both(drawn), oracle=False), Kept(drawn, TINY), TINY, "slim")["rows"]
    assert found["adabn"]["pictures"] != found["source"]["pictures"]
    assert found["decided"] == found["adabn"]
    assert found["default"] == found["adabn" if ship else "source"]


def test_a_drawn_picture_is_written_red_last() -> None:
    image = np.zeros((3, 2, 2), np.float32)
    image[0] = 1.0
    np.testing.assert_array_equal(picture_of(image)[0, 0], [0, 0, 255])


def test_the_default_stands_on_the_trunk_that_training_takes_where_none_is_named(
    drawn: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines, judging = both(drawn)
    weights = tmp_path / "weights.safetensors"
    save_file(MobileNetV2(stages=5).state_dict(), weights)
    for file, wanted in ((str(weights), "mobilenetv2"), ("", "slim")):
        monkeypatch.setenv("EDGE_SDK_MOBILENETV2", file)
        if not file:
            monkeypatch.setattr(trunks, "pretrained_weights", lambda: None)
        found = train(drawn, lines, TINY.model_copy(update={"trunk": "auto"}))
        assert found.arguments["trunk"] == ("resnet18" if wanted == "slim" else wanted)
        assert auto_trunk(TINY) == wanted
        step = step_of([Task("half", lines, judging, oracle=False)], Kept(drawn, TINY), TINY, ["slim"])
        assert step["auto"] == {"half": "slim"}, "of one trunk there is nothing to choose"
