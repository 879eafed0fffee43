"""Whether to ship: each limit from both of its sides."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.signs import signs
from training.health_rules import LIMITS, checked, judged

BEFORE = signs()

SIDES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    (
        "blind",
        {"balanced_accuracy": 0.6},
        {"balanced_accuracy": 0.59, "hit_rate": 0.2, "alarm_rate": 0.02},
        "adabn finds 6 of the 30 defective pictures of the original line itself, with alarms on 1 of its 70 healthy "
        "ones, so its alarms say nothing of the new line",
    ),
    (
        "alarms",
        {"positive_rate_new": 0.9},
        {"positive_rate_new": 0.91},
        "adabn calls 91% of the new line's pictures defective, more than 3 times the original line's 30%",
    ),
    (
        "passes",
        {"positive_rate_new": 0.86},
        {"positive_rate_new": 0.87},
        "adabn passes 13 of the new line's 100 pictures, where the model passed 70 of the original line's 100",
    ),
    (
        "unsure",
        {"unsure_new": 0.29},
        {"unsure_new": 0.3},
        "adabn is unsure of 30% of the new line's cells, where the model was unsure of 4% of the original line's",
    ),
    (
        "unexplained",
        {"positive_rate_new": 0.8, "hit_rate": 0.7},
        {"positive_rate_new": 0.9, "hit_rate": 0.7},
        "adabn calls 90% of the new line's pictures defective but only 70% of the original line's defective ones, "
        "so more defects cannot be the reason",
    ),
    (
        "source",
        {"balanced_accuracy": 0.94},
        {"balanced_accuracy": 0.93},
        "adabn costs the original line 3.0% of balanced accuracy (96.0% to 93.0% on 100 labelled pictures; "
        "the limit is 2%)",
    ),
]


def test_a_model_that_finds_nothing_is_blind_where_no_healthy_picture_is_at_hand_too() -> None:
    def blind(**figures: Any) -> bool:
        only_defects = signs(balanced_accuracy=None, alarm_rate=None, **figures)
        return not next(check for check in checked(only_defects, BEFORE) if check.limit == "blind").held

    assert blind(hit_rate=0.0) and blind(hit_rate=0.59)
    assert not blind(hit_rate=0.6) and not blind(hit_rate=None)


@pytest.mark.parametrize(("limit", "held", "broken", "sentence"), SIDES, ids=[side[0] for side in SIDES])
def test_a_limit_holds_on_its_one_side_and_says_why_on_the_other(
    limit: str, held: dict[str, Any], broken: dict[str, Any], sentence: str
) -> None:
    within = {check.limit: check for check in checked(signs("adabn", **held), BEFORE)}
    beyond = {check.limit: check for check in checked(signs("adabn", **broken), BEFORE)}
    assert within[limit].held and within[limit].value is not None
    assert not beyond[limit].held and beyond[limit].sentence == sentence
    verdict = judged("adabn", {"source": BEFORE, "adabn": signs("adabn", **broken)})
    assert not verdict.ship and verdict.word == "do not ship"
    assert sentence in verdict.why or "more limit" in verdict.why


def test_every_limit_is_tried_here() -> None:
    assert [limit.name for limit in LIMITS] == [side[0] for side in SIDES]


def test_a_line_with_few_alarms_may_have_a_few_more() -> None:
    calm = signs(positive_rate_original=0.01)
    for rate, held in ((0.15, True), (0.16, False)):
        checks = {check.limit: check for check in checked(signs("dann", positive_rate_new=rate), calm)}
        assert checks["alarms"].held is held


def test_few_pictures_that_are_all_defective_are_not_yet_a_crowd() -> None:
    half = signs(positive_rate_original=0.5)
    for count, held in ((4, True), (5, False), (20, False)):
        now = signs("adabn", positive_rate_new=1.0, pictures_new=count, hit_rate=1.0)
        assert {check.limit: check.held for check in checked(now, half)}["passes"] is held


def test_a_healthy_model_ships_and_says_what_was_seen() -> None:
    verdict = judged("adabn", {"source": BEFORE, "adabn": signs("adabn", positive_rate_new=0.26)})
    assert verdict.ship
    assert verdict.why == (
        "adabn raises alarms on 26% of the new line's pictures and 30% of the original line's, which keeps its "
        "balanced accuracy of 96%"
    )
    same = judged("source", {"source": BEFORE})
    assert same.ship and same.why.startswith("the model as it was raises alarms on 30% of the new line's pictures")


def test_a_refusal_says_what_else_was_tried() -> None:
    ill = signs(positive_rate_new=1.0)
    alone = judged("source", {"source": ill})
    assert not alone.ship and alone.why.endswith(", and nothing else was tried")
    assert alone.why.startswith("the model as it was calls 100% of the new line's pictures defective")
    all_ill = judged("source", {"source": ill, "adabn": ill, "dann": ill})
    assert not all_ill.ship and all_ill.why.endswith(", and none of adabn, dann holds them all")
    sound = judged("adabn", {"source": ill, "adabn": ill, "dann": signs("dann")})
    assert not sound.ship and "dann" not in sound.why, "to break no limit is no reason to be taken"


def test_where_the_rules_could_not_choose_nothing_ships() -> None:
    why = "the scores are far from the original's, but no method brings them closer: undecided"
    verdict = judged("source", {"source": BEFORE, "adabn": signs("adabn")}, undecided=why)
    assert not verdict.ship and verdict.why == why
    ill = {"source": signs(positive_rate_new=1.0)}
    assert judged("source", ill, undecided=why).why.startswith("the model as it was calls 100%"), "what is seen first"


def test_several_broken_limits_are_counted() -> None:
    worse = signs("dann", positive_rate_new=1.0, balanced_accuracy=0.7, unsure_new=0.9)
    why = judged("dann", {"source": BEFORE, "dann": worse}).why
    assert why.startswith("dann calls 100% of the new line's pictures defective, more than 3 times")
    assert why.endswith("(and 3 more limits broken)"), why


def test_what_the_pictures_do_not_say_breaks_nothing() -> None:
    unknown = {"balanced_accuracy": None, "hit_rate": None, "alarm_rate": None}
    checks = {check.limit: check for check in checked(signs("adabn", **unknown), signs(**unknown))}
    assert all(check.held for check in checks.values())
    assert {name for name, check in checks.items() if check.value is None} == {"blind", "unexplained", "source"}
    assert judged("adabn", {"source": signs(**unknown), "adabn": signs("adabn", **unknown)}).ship
