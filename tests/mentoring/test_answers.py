"""Answers: taken in once each, never changed, taken back only by a new one."""

from __future__ import annotations

import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from mentoring.hub import DATABASE, Hub
from mentoring.problems import NotAcceptable
from tests.mentoring.items import answer, drawn_item
from tests.mentoring.items_in import bring

Item = tuple[str, bytes]


@pytest.fixture
def item(hub: Hub, drawn: list[Item]) -> str:
    """An item of two questions at the hub."""
    bring(hub, drawn[0])
    return drawn[0][0]


def refusal(hub: Hub, given: Any) -> str:
    (outcome,) = hub.answers.record([given])
    assert (outcome.status, bool(outcome.error)) == (422, True)
    return str(outcome.error)


def asked(hub: Hub) -> list[int | None]:
    return [question.question for question in hub.agenda.next(20, holder="web-1").questions]


def test_an_answer_is_taken_in_once_however_often_it_comes(hub: Hub, item: str) -> None:
    said = answer(item)
    assert [hub.answers.record([said])[0].status for _ in range(3)] == [201, 200, 200]
    assert hub.answers.record([said, said])[1].status == 200
    assert hub.answers.counts() == {"confirm": 1, "infirm": 0, "unsure": 0, "withdrawn": 0}


def test_each_of_a_list_is_taken_or_refused_by_itself(hub: Hub, item: str) -> None:
    done = hub.answers.record([answer(item, 0), answer("0" * 64), answer(item, 1, "infirm")])
    assert [outcome.status for outcome in done] == [201, 422, 201]
    assert asked(hub) == []


def test_an_unknown_item_or_question_is_refused_with_a_sentence(hub: Hub, item: str) -> None:
    gone = answer("0" * 64)
    assert refusal(hub, gone) == f"answer {gone['id']} is about item {'0' * 64}, which is not here"
    third = answer(item, 2)
    assert refusal(hub, third) == (
        f"answer {third['id']} is about question 2 of item {item}, which has 2; "
        "give 0 to 1, or null for the whole picture"
    )


def test_a_question_of_a_picture_without_questions_is_refused(hub: Hub) -> None:
    digest, data = drawn_item(5, peaks=0, reason="control")
    bring(hub, (digest, data))
    said = answer(digest, 0)
    assert refusal(hub, said).endswith("which has 0; give null for the whole picture")
    assert hub.answers.record([answer(digest, None, "infirm")])[0].status == 201


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"answer": "maybe"}, "answer is \"maybe\"; give 'confirm', 'infirm' or 'unsure'"),
        ({"id": "seven"}, 'id is "seven"; input should be a valid UUID'),
        ({"operator": ""}, 'operator is ""; '),
        ({"item": "../../etc/passwd"}, 'item is "../../etc/passwd"; '),
        ({"after_ms": -1}, "after_ms is -1; give at least 0"),
        ({"after_ms": 2**70}, "answer 0 of the list holds a number that no page writes; give smaller ones"),
        ({"answered_at": "2026-11-21T10:00:00"}, "give the time with its zone, e.g. 2026-11-21T10:00:00Z"),
        ({"operator": "\ud800"}, "surrogates not allowed"),
        ({"page": float("nan")}, "a number is NaN or infinite"),
    ],
)
def test_an_answer_that_says_it_wrongly_is_refused_with_a_sentence(
    hub: Hub, item: str, change: dict[str, Any], sentence: str
) -> None:
    assert sentence in refusal(hub, {**answer(item), **change})


@pytest.mark.parametrize("given", [None, 7, "confirm", [], {}])
def test_what_is_no_answer_at_all_is_refused(hub: Hub, given: Any) -> None:
    assert refusal(hub, given).startswith("answer 0 of the list: ")


def test_a_list_beyond_the_limit_is_refused_whole(hub: Hub, item: str) -> None:
    with pytest.raises(NotAcceptable) as refused:
        hub.answers.record([answer(item)] * 501)
    assert str(refused.value) == "501 answers were sent at once; send at most 500"


def test_an_answer_is_never_changed(hub: Hub, item: str) -> None:
    said = answer(item)
    hub.answers.record([said])
    assert refusal(hub, {**said, "answer": "infirm"}) == (
        f"answer {said['id']} is known and says something else; an answer is never changed: withdraw it by a new one"
    )
    database = sqlite3.connect(hub.database.path)
    for deed in ("UPDATE answers SET answer = 'infirm'", "DELETE FROM answers"):
        with pytest.raises(
            sqlite3.IntegrityError, match="an answer is never changed; withdraw it by a new one"
        ):
            database.execute(deed)
    database.close()


def test_taking_back_opens_the_question_again_for_the_same_tab(hub: Hub, item: str) -> None:
    said = answer(item, 0)
    hub.answers.record([said, answer(item, 1)])
    assert asked(hub) == []
    hub.answers.record([answer(item, 0, "unsure", withdraws=said["id"])])
    assert hub.agenda.next(20, holder="another").questions == ()
    assert asked(hub) == [0]
    assert hub.answers.counts() == {"confirm": 1, "infirm": 0, "unsure": 0, "withdrawn": 1}
    hub.answers.record([answer(item, 0, "infirm")])
    assert hub.answers.counts() == {"confirm": 1, "infirm": 1, "unsure": 0, "withdrawn": 1}
    assert asked(hub) == []


def test_what_withdraws_says_nothing_else_whatever_it_says(hub: Hub, item: str) -> None:
    said = answer(item, 0)
    hub.answers.record([said, answer(item, 0, "infirm", withdraws=said["id"])])
    assert hub.answers.counts() == {"confirm": 0, "infirm": 0, "unsure": 0, "withdrawn": 1}
    assert asked(hub) == [0, 1]


def test_an_answer_that_two_take_back_is_taken_back_once(hub: Hub, item: str) -> None:
    said = answer(item, 0)
    hub.answers.record([said, *(answer(item, 0, "unsure", withdraws=said["id"]) for _ in range(2))])
    assert hub.answers.counts() == {"confirm": 0, "infirm": 0, "unsure": 0, "withdrawn": 1}


def test_an_answer_nested_without_end_is_refused(hub: Hub) -> None:
    deep: Any = "x"
    for _ in range(5000):
        deep = [deep]
    assert refusal(hub, {"id": deep}) == "answer 0 of the list is nested too deeply to be one"


def test_a_withdrawal_names_an_answer_to_the_same_question(hub: Hub, item: str) -> None:
    said = answer(item, 0)
    hub.answers.record([said])
    unknown = answer(item, 0, withdraws=uuid4())
    assert refusal(hub, unknown).endswith(
        f"withdraws {unknown['withdraws']}, which is not here; send that one first"
    )
    other = answer(item, 1, withdraws=said["id"])
    assert refusal(hub, other).endswith("which is about another question; name the same item and question")


def test_a_whole_picture_without_a_defect_answers_all_its_questions(hub: Hub, item: str) -> None:
    said = answer(item, None, "infirm")
    hub.answers.record([said])
    assert asked(hub) == []
    hub.answers.record([answer(item, None, "unsure", withdraws=said["id"])])
    assert asked(hub) == [0, 1]


def test_a_whole_picture_with_a_defect_leaves_its_questions_open(hub: Hub, item: str) -> None:
    hub.answers.record([answer(item, None, "confirm")])
    assert asked(hub) == [0, 1]


def test_an_answer_after_its_lease_ran_out_still_counts(hub: Hub, clock: FakeClock, item: str) -> None:
    hub.agenda.next(20, holder="a")
    clock.advance(3600)
    hub.agenda.next(20, holder="b")
    assert hub.answers.record([answer(item, device="a")])[0].status == 201


def test_answers_outlive_the_process(tmp_path: Path, clock: FakeClock, drawn: list[Item]) -> None:
    with Hub(tmp_path / "hub", clock=clock) as hub:
        bring(hub, drawn[0])
        hub.answers.record([answer(drawn[0][0])])
    assert (tmp_path / "hub" / DATABASE).is_file()
    with Hub(tmp_path / "hub", clock=clock) as hub:
        assert hub.answers.counts()["confirm"] == 1


Step = tuple[str, int, int]


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["confirm", "infirm", "unsure", "undo", "again"]),
            st.integers(0, 2),
            st.integers(0, 9),
        ),
        max_size=20,
    )
)
def test_counts_and_open_questions_agree_with_a_slow_reckoning(steps: list[Step]) -> None:
    from tempfile import TemporaryDirectory

    digest, data = drawn_item(0)
    with TemporaryDirectory() as folder, Hub(Path(folder), clock=FakeClock()) as hub:
        bring(hub, (digest, data))
        sent: list[dict[str, Any]] = []
        for says, question, which in steps:
            place = None if question == 2 else question
            if says in ("undo", "again"):
                if not sent:
                    continue
                old = sent[which % len(sent)]
                if says == "again":
                    assert hub.answers.record([old])[0].status == 200
                    continue
                sent.append(answer(digest, old["question"], "unsure", withdraws=old["id"]))
            else:
                sent.append(answer(digest, place, says))
            assert hub.answers.record([sent[-1]])[0].status == 201
        withdrawn = {said["withdraws"] for said in sent}
        stand = [one for one in sent if one["id"] not in withdrawn and not one["withdraws"]]
        tally = Counter(said["answer"] for said in stand)
        counts = {name: tally.get(name, 0) for name in ("confirm", "infirm", "unsure")}
        assert hub.answers.counts() == {
            **counts,
            "withdrawn": sum(one["id"] in withdrawn and not one["withdraws"] for one in sent),
        }
        nothing = any(s["question"] is None and s["answer"] == "infirm" for s in stand)
        answered = {s["question"] for s in stand}
        assert asked(hub) == [q for q in (0, 1) if not nothing and q not in answered]
