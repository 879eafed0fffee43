"""Whether a decision that was made without labels was right."""

from __future__ import annotations

import pytest

from benchmarks.adaptation.verdicts import judge, rows_of, summary_of
from edge_sdk.errors import RangeError

FIGURES = {"source": 0.60, "adabn": 0.80, "dann": 0.81, "mmd": 0.55}


@pytest.mark.parametrize(
    ("decided", "close", "safe"),
    [("dann", True, True), ("adabn", True, True), ("source", False, True), ("mmd", False, False)],
)
def test_a_decision_is_right_near_the_best_and_not_under_the_source(decided: str, close: bool, safe: bool) -> None:
    found = judge("plates, lamp, 3", decided, FIGURES)
    assert (found.close, found.safe, found.right) == (close, safe, close and safe)
    assert found.best == "dann"


def test_two_points_are_the_limit_on_both_sides() -> None:
    assert judge("a", "adabn", {"source": 0.5, "adabn": 0.48}).safe
    assert not judge("a", "adabn", {"source": 0.5, "adabn": 0.479}).safe
    assert judge("a", "source", {"source": 0.48, "adabn": 0.5}).close
    assert not judge("a", "source", {"source": 0.479, "adabn": 0.5}).close


def test_leaving_the_model_as_it_was_is_the_best_of_equals() -> None:
    assert judge("a", "source", {"adabn": 0.5, "source": 0.5}).best == "source"


@pytest.mark.parametrize(
    ("home", "accuracy", "right"),
    [
        (0.95, None, True),
        (0.82, None, False),
        (0.82, 0.7, False),
        (0.82, 0.55, True),
        (None, 0.7, False),
        (None, None, True),
    ],
)
def test_a_refusal_is_right_where_the_model_had_fallen_or_was_worthless_at_home(
    home: float | None, accuracy: float | None, right: bool
) -> None:
    found = judge("a", "dann", FIGURES, shipped=False, home=home, home_accuracy=accuracy)
    assert found.right is right
    assert judge("a", "dann", FIGURES, home=home, home_accuracy=accuracy).right


def test_the_table_counts_in_which_way_the_rules_were_wrong() -> None:
    judgements = [
        judge("right", "dann", FIGURES, home=0.85),
        judge("unsafe", "mmd", FIGURES, home=0.9),
        judge("missed", "source", FIGURES, home=0.62),
        judge("refused rightly", "source", FIGURES, shipped=False, home=0.9),
        judge("refused needlessly", "dann", FIGURES, shipped=False, home=0.85),
    ]
    assert summary_of(judgements) == {
        "cases": 5,
        "right": 2,
        "right_share": 0.4,
        "shipped": 3,
        "close": 1,
        "safe": 2,
        "fallen_shipped": 1,
        "refused": 2,
        "refused_rightly": 1,
        "refused_needlessly": 1,
        "worst_gain": -0.05,
    }
    rows = rows_of(judgements)
    assert [row["right"] for row in rows] == [True, False, False, True, False]
    assert rows[1]["gain"] == -0.05 and rows[1]["behind"] == 0.26 and rows[1]["best"] == "dann"


def test_what_cannot_be_judged_is_told() -> None:
    with pytest.raises(RangeError, match="plates: no figure of coral; give one for each of source, adabn, dann, mmd"):
        judge("plates", "coral", FIGURES)
    with pytest.raises(RangeError, match="plates: no figure of source; give one for each of adabn"):
        judge("plates", "adabn", {"adabn": 0.5})
    with pytest.raises(RangeError, match="no decision to judge; give at least one"):
        summary_of([])
