"""The parts of E4 that can be wrong unnoticed: its measures, its lines, how the shipped strategy is chosen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.adaptation import (
    mentoring,
    mentoring_drawn,
    mentoring_lines,
    mentoring_picture,
    mentoring_real,
)
from benchmarks.adaptation.protocol import over_seeds
from benchmarks.adaptation.scored import Scored
from benchmarks.musts import musts_from_csv
from edge_sdk.errors import TruthWithheld
from edge_sdk.quality.measures import precision_recall_at
from training.strategies import STRATEGIES

TINY = mentoring_lines.Sizes(train=6, validate=3, test=4, new_train=3, new_mentor=5, new_test=4)


def test_recall_at_a_precision_is_that_of_the_best_boundary() -> None:
    chance = np.random.default_rng(0)
    for _ in range(20):
        truth = (chance.random(60) < 0.3).astype(float)
        scores = np.round(truth + chance.normal(0, 0.7, 60), 1)  # with ties
        best = 0.0
        for boundary in np.unique(scores):
            precision, recall = precision_recall_at(scores, truth, float(boundary))
            if precision >= 0.9:
                best = max(best, recall)
        assert mentoring_drawn.recall_at_precision(scores, truth, 0.9) == pytest.approx(best)
    assert mentoring_drawn.recall_at_precision(np.arange(4.0), np.zeros(4), 0.9) == 0


def test_drawn_lines_are_read_as_the_product_reads_a_set(tmp_path: Path) -> None:
    found = mentoring_lines.drawn(7, TINY, folder=tmp_path)
    original, new = found.lines.original, found.lines.new[0]
    assert [len(part) for part in (original.train, original.validate, original.mentor, original.test)] == [6, 3, 0, 4]
    assert [len(part) for part in (new.train, new.validate, new.mentor, new.test)] == [3, 0, 5, 4]
    with pytest.raises(TruthWithheld):
        found.lines.new[0].truth(new.test[0])
    for line in (found.judging.original, found.judging.new[0]):
        for sample in line.test:
            said = line.truth(sample)
            assert said.known and said.mask is not None and said.mask.any() == (not said.healthy)


def test_a_line_that_drifts_keeps_the_original_pictures(tmp_path: Path) -> None:
    one, later = (mentoring_lines.drawn(7, TINY, drift=drift, folder=tmp_path) for drift in (0.0, 1.0))

    def pixels(found: mentoring_lines.Drawn, domain: str) -> list[bytes]:
        samples = found.lines.original.train if domain == "original" else found.lines.new[0].mentor
        return [sample.path.read_bytes() for sample in samples]

    assert pixels(one, "original") == pixels(later, "original")
    assert pixels(one, "new") != pixels(later, "new")
    again = mentoring_lines.drawn(7, TINY, folder=tmp_path / "again")
    assert pixels(again, "new") == pixels(one, "new")
    assert pixels(mentoring_lines.drawn(8, TINY, folder=tmp_path), "new") != pixels(one, "new")


def test_what_is_shipped_is_said_by_the_mean_of_the_sets_and_for_a_seed_by_the_others() -> None:
    truth = np.array([1.0, 1.0, 0.0, 0.0])

    def runs(good: bool) -> list[list[Scored]]:
        scores = np.array([2.0, 1.0, 0.0, -1.0]) if good else np.array([0.0, -1.0, 2.0, 1.0])
        return [[Scored(scores, truth, ("a", "b", "c", "d"))]]

    def row(*good: bool) -> dict[str, list[list[Scored]]]:
        return {"new": [fold for one in good for fold in runs(one)]}

    bad = {name: row(False, False) for name in mentoring_real.CANDIDATES}
    sets = {"one": bad | {"masked": row(True, True)}, "two": bad | {"masked+omnia": row(True, False)}}
    shipped, others, means = mentoring_real.shipped_of(sets)
    assert shipped == "masked" and means["masked"] > means["masked+omnia"]
    assert others == ["masked", "masked"]


def test_a_share_of_wrong_answers_is_borne_only_if_all_smaller_ones_are() -> None:
    assert mentoring._unbroken([0.0, 0.05, 0.2]) == [0.0, 0.05]
    assert mentoring._unbroken([0.1]) == []
    assert mentoring._unbroken([0.0, 0.05, 0.1, 0.2]) == [0.0, 0.05, 0.1, 0.2]


def test_the_lower_end_is_the_value_and_a_loss_turns_the_interval_round() -> None:
    found = over_seeds([0.5, 0.6, 0.55], [0.4, 0.45, 0.5])
    low = mentoring._low(found)
    assert low.value == low.low == round(found.low, 4)
    lost = mentoring._mean(found, -1)
    assert lost.value == pytest.approx(-found.mean, abs=1e-4)
    assert (lost.low, lost.high) == (pytest.approx(-found.high, abs=1e-4), pytest.approx(-found.low, abs=1e-4))


def test_every_row_is_a_strategy_that_there_is_and_no_candidate_saw_labels() -> None:
    assert set(mentoring_real.CANDIDATES) | set(mentoring_real.CONTROLS) <= set(STRATEGIES)
    assert {f"{mentoring.SPARED}-free", f"{mentoring.SPARED}-shared"} <= set(STRATEGIES)
    assert not set(mentoring.SEEDS) & set(mentoring.SEEN) and max(mentoring.SEEDS) < mentoring.TUNED_ON
    assert all(STRATEGIES[name].asks and STRATEGIES[name].init == "baseline" for name in mentoring_real.CANDIDATES)
    assert len([key for key in musts_from_csv() if key.startswith("E4.")]) == 9


def test_the_picture_of_defective_areas_shows_before_and_after() -> None:
    sizes = mentoring_lines.Sizes(train=12, validate=4, test=12, new_train=4, new_mentor=12, new_test=12)
    found = mentoring_picture.areas_picture(seed=100, sizes=sizes, iterations=3, form="svg").decode()
    assert found.lstrip().startswith("<?xml") and all(said in found for said in ("before", "with DANN", "A-distance"))
