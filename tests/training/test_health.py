"""The health panel of an adaptation of drawn pictures: what it says, and what it never looks at."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from tests.training.signs import signs
from training.adapt import Adaptation, adapt
from training.health import FEW, Health, _cautions, health_of, write_health
from training.health_page import health_page
from training.health_rules import LIMITS, checked, judged
from training.health_signs import gradients_of
from training.train import train


@pytest.fixture(scope="module")
def adaptation(tmp_path_factory: pytest.TempPathFactory) -> Adaptation:
    torch.set_num_threads(1)
    dataset = load_dataset(write_set(tmp_path_factory.mktemp("health") / "plates", pictures=60))
    lines = lines_of(dataset, gap="lamp", seed=1)
    recipe = SMALL.model_copy(update={"iterations": 40})
    return adapt(train(dataset, lines, recipe), dataset, lines, recipe, methods=("adabn",))


@pytest.fixture(scope="module")
def health(adaptation: Adaptation) -> Health:
    return health_of(adaptation)


def test_every_method_has_its_row(adaptation: Adaptation, health: Health) -> None:
    assert list(health.signs) == list(health.checks) == list(adaptation.methods)
    assert health.chosen == adaptation.decision.method and health.decision == adaptation.decision.why
    for signs_ in health.signs.values():
        assert signs_.pictures_new == len(adaptation.held)
        assert 0 <= signs_.facts.positive_rate_new <= 1
        assert signs_.prior is not None and 0 <= signs_.prior.low <= signs_.prior.share <= signs_.prior.high <= 1
        assert signs_.probe is not None and 0 <= signs_.probe.distance <= 2
    assert health.signs["adabn"].kept == health.signs["source"].kept, "AdaBN does not touch the original line"
    for method, facts in adaptation.decision.facts.items():
        assert facts.kept == pytest.approx(health.signs[method].kept.balanced_accuracy), "rules and panel count alike"


def test_no_label_of_the_new_line_is_looked_at(adaptation: Adaptation, health: Health) -> None:
    held = adaptation.held
    assert not held.known.any() and not held.defective.any()
    nonsense = replace(
        held,
        truth=np.full_like(held.truth, np.nan),
        known=np.full_like(held.known, np.nan),
        maximum=np.full_like(held.maximum, np.nan),
        defective=np.ones_like(held.defective),
    )
    assert health_of(replace(adaptation, held=nonsense)).document() == health.document()


def test_the_labels_of_the_original_line_are(adaptation: Adaptation, health: Health) -> None:
    reference = adaptation.reference
    turned = replace(adaptation, reference=replace(reference, defective=~reference.defective))
    found = health_of(turned).signs["source"].kept
    was = health.signs["source"].kept
    assert found.balanced_accuracy == pytest.approx(1 - (was.balanced_accuracy or 0))
    assert (found.defective, found.healthy) == (was.healthy, was.defective)


def test_positive_rates_are_counted_at_the_line_s_own_boundary(adaptation: Adaptation) -> None:
    source = adaptation.methods["source"]
    sure = replace(source.line("new").thresholds, boundary=np.array([0.9999], np.float32),
                   defective_from=np.array([1.0], np.float32))  # fmt: skip
    strict = source.with_line("new", replace(source.line("new"), thresholds=sure))
    facts = [
        health_of(replace(adaptation, methods={"source": one}, decision=replace(adaptation.decision, method="source")))
        .signs["source"].facts
        for one in (source, strict)
    ]  # fmt: skip
    assert facts[1].positive_rate_new < facts[0].positive_rate_new
    assert facts[1].unsure_new == facts[0].unsure_new, "how sure it is has nothing to do with the boundary"
    assert facts[1].score_distance == facts[0].score_distance


def test_a_decision_that_could_not_be_made_is_not_shipped(adaptation: Adaptation) -> None:
    open_ = replace(adaptation.decision, method="adabn", undecided=True, why="nothing is clearly better: undecided")
    found = health_of(replace(adaptation, decision=open_))
    broken = [check for check in found.checks["adabn"] if not check.held]
    assert not found.verdict.ship
    assert broken or found.verdict.why == "nothing is clearly better: undecided"
    decided = health_of(replace(adaptation, decision=replace(open_, undecided=False)))
    assert decided.verdict.ship is not bool(broken)


def test_gradients_are_the_median_of_the_steps_that_noted_them() -> None:
    history = [{"supervised": 1.0, "grad_supervised": 2.0}, {"mmd": 0.5}, {"grad_supervised": 4.0, "grad_mmd": 1.0}]
    assert gradients_of(history) == {"mmd": 1.0, "supervised": 3.0}
    assert gradients_of([{"supervised": 1.0}]) == {}


def test_the_panel_says_what_makes_it_less_sure() -> None:
    before = signs()
    assert _cautions(signs("adabn"), before, held_out=100) == []
    for changed, held_out, said in [
        ({"pictures_new": 8}, 100, "Only 8 unlabelled pictures of the new line were looked at, so one of them is 12%"),
        ({}, 5, "Only 5 labelled pictures of the original line were held out; they are judged together with those"),
        ({"defective": FEW - 1}, 100, "The original line is judged on 19 defective and 70 healthy pictures; one more"),
        ({"positive_rate_new": 0.09}, 100, "Alarms on 9% of the new line's pictures are few beside 30% on"),
        ({"probe": None}, 100, "Too few pictures or groups for a held-out probe"),
        ({"probe": replace(before.probe, error=0.1)}, 100, r"A probe still tells the two lines apart \(A-distance 1.6"),
        ({"prior": replace(before.prior, condition=14.0)}, 100, r"nearly singular \(condition number 14\)"),
        ({"prior": replace(before.prior, condition=1e6)}, 100, r"nearly singular \(condition number infinite\)"),
        (
            {"gradients": {"supervised": 0.1, "domain": 1.5}},
            100,
            "The loss term domain pulled 15 times as hard as the supervised one in the median step",
        ),
    ]:  # fmt: skip
        found = _cautions(signs("adabn", **changed), before, held_out=held_out)
        assert len(found) == 1 and re.search(said, found[0]), found


def test_the_panel_is_a_document_without_a_number_that_json_lacks(health: Health) -> None:
    said = json.loads(json.dumps(health.document(), allow_nan=False))
    assert said["verdict"] in ("ship", "do not ship") and said["why"]
    assert set(said["limits"]) == {limit.name for limit in LIMITS}
    assert set(said["methods"]["adabn"]["checks"]) == set(said["limits"])


def test_the_page_says_at_its_top_whether_to_ship_and_why_not(health: Health) -> None:
    page = health_page(health)
    heading = re.search(r"<h1>(.*?)</h1>", page, re.DOTALL)
    assert heading is not None
    assert health.verdict.word.capitalize() in heading[1]
    ill = {**health.signs, health.chosen: signs(health.chosen, unsure_new=0.9, balanced_accuracy=0.5)}
    checks = {name: checked(one, health.signs["source"]) for name, one in ill.items()}
    refused = replace(health, signs=ill, checks=checks, verdict=judged(health.chosen, ill))
    said = health_page(refused)
    assert "Do not ship:</span>" in said
    assert said.count("✗") >= 2


def test_the_page_stands_for_itself_and_escapes_what_it_is_told(health: Health) -> None:
    page = health_page(replace(health, decision="<script>alert(1)</script>"))
    assert "<script" not in page and "&lt;script&gt;" in page
    assert re.findall(r'(?:src|href)="(?!#)[^"]*"', page) == []
    outside = [link for link in re.findall(r"https?://[^\"'\s<)]+", page) if "www.w3.org" not in link]
    assert outside == []
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))
    assert "A-distance" in page and page == health_page(replace(health, decision="<script>alert(1)</script>"))


def test_both_files_are_written(adaptation: Adaptation, health: Health, tmp_path: Path) -> None:
    found = write_health(adaptation, tmp_path / "out")
    assert found.verdict == health.verdict
    assert json.loads((tmp_path / "out" / "health.json").read_text()) == json.loads(json.dumps(health.document()))
    assert (tmp_path / "out" / "health.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["health.html", "health.json"]
