"""Who is asked what: nothing twice at once, every stratum in its turn, nothing lost with a closed tab."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from mentoring.agenda import Asked
from mentoring.hub import Hub
from tests.mentoring.items import altered, answer, drawn_item
from tests.mentoring.items_in import bring

Item = tuple[str, bytes]
SMALL = drawn_item(0, width=80, height=60, side=96)[1]


def keys(questions: tuple[Asked, ...]) -> list[tuple[str, int | None]]:
    return [(asked.item, asked.question) for asked in questions]


def test_two_leases_never_hold_the_same_question(hub: Hub, drawn: list[Item]) -> None:
    for item in drawn:
        bring(hub, item)
    first = hub.agenda.next(6)
    second = hub.agenda.next(6)
    third = hub.agenda.next(20)
    asked = keys(first.questions) + keys(second.questions) + keys(third.questions)
    assert len(asked) == len(set(asked)) == 16
    assert hub.agenda.next(20).questions == ()


def test_many_who_ask_at_once_share_the_questions_out(hub: Hub, drawn: list[Item]) -> None:
    for item in drawn:
        bring(hub, item)
    found: list[tuple[str, int | None]] = []

    def ask() -> None:
        while questions := hub.agenda.next(2).questions:
            found.extend(keys(questions))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(found) == len(set(found)) == 16


def test_a_frame_is_asked_whole_and_in_order(hub: Hub, drawn: list[Item]) -> None:
    for item in drawn[:3]:
        bring(hub, item)
    lease = hub.agenda.next(3)
    assert [asked.question for asked in lease.questions] == [0, 1]
    assert len({asked.item for asked in lease.questions}) == 1
    assert hub.agenda.next(1).questions  # a frame with more questions than were asked for is not cut


def test_a_lease_that_runs_out_goes_to_the_next_who_asks(
    hub: Hub, clock: FakeClock, drawn: list[Item]
) -> None:
    bring(hub, drawn[0])
    held = hub.agenda.next(20, holder="a")
    clock.advance(hub.agenda.lease_s - 1)
    assert hub.agenda.next(20, holder="b").questions == ()
    clock.advance(1)
    assert hub.agenda.next(20, holder="b").questions == held.questions
    assert hub.agenda.next(20, holder="a").questions == ()


def test_asking_again_keeps_what_is_held(hub: Hub, clock: FakeClock, drawn: list[Item]) -> None:
    for item in drawn[:2]:
        bring(hub, item)
    held = hub.agenda.next(2, holder="a")
    for _ in range(5):
        clock.advance(hub.agenda.lease_s - 1)
        assert hub.agenda.next(2, holder="a").questions == held.questions
    assert hub.agenda.next(20, holder="b").elsewhere == 2


def test_a_clock_set_back_does_not_keep_a_lease_for_ever(
    hub: Hub, clock: FakeClock, drawn: list[Item]
) -> None:
    bring(hub, drawn[0])
    held = hub.agenda.next(20, holder="a")
    clock.step_wall_clock(-86400)
    assert hub.agenda.next(20, holder="b").questions == held.questions


def test_what_a_closed_tab_held_is_free_at_once(hub: Hub, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    held = hub.agenda.next(20, holder="a")
    assert hub.agenda.release("a") == 1
    assert hub.agenda.next(20, holder="b").questions == held.questions
    assert hub.agenda.release("a") == 0


def test_a_lease_survives_a_restart(tmp_path: Path, clock: FakeClock, drawn: list[Item]) -> None:
    with Hub(tmp_path / "hub", clock=clock) as hub:
        bring(hub, drawn[0])
        held = hub.agenda.next(20, holder="a")
    with Hub(tmp_path / "hub", clock=clock) as hub:
        assert hub.agenda.next(20, holder="b").questions == ()
        assert hub.agenda.next(20, holder="a").questions == held.questions


def test_within_a_stratum_the_highest_value_comes_first(hub: Hub) -> None:
    for number, value in enumerate([0.2, 0.9, 0.5]):
        bring(hub, drawn_item(number, peaks=1, value=value))
    assert [asked.seq for asked in hub.agenda.next(20).questions] == [1, 2, 0]


def test_the_control_sample_gets_its_turns_however_many_frames_fail(hub: Hub) -> None:
    for number in range(12):
        bring(hub, drawn_item(number, peaks=1, value=0.99))
    for number in range(12, 15):
        bring(hub, drawn_item(number, peaks=0, reason="control", value=0.0))
    first = hub.agenda.next(6).questions
    assert [asked.reason for asked in first].count("control") == 3


def test_a_frame_without_a_question_is_asked_as_a_whole_picture(hub: Hub) -> None:
    bring(hub, drawn_item(0, peaks=0, reason="control"))
    (asked,) = hub.agenda.next(20).questions
    assert (asked.question, asked.class_name, asked.box, asked.outline, asked.of) == (None, None, None, (), 0)
    assert asked.as_json()["picture"] == f"/v1/pictures/{asked.item}"


def test_a_question_says_where_it_is_on_the_frame(hub: Hub, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    asked = hub.agenda.next(20).questions[0]
    assert asked.box is not None
    assert len(asked.outline) == len(asked.cells) == 2
    lefts, tops, rights, bottoms = zip(*asked.outline, strict=True)
    assert (min(lefts), min(tops), max(rights), max(bottoms)) == pytest.approx(asked.box, abs=0.02)
    assert (asked.width, asked.height, asked.grid) == (400, 300, (12, 12))


def test_an_answered_question_is_asked_no_more(hub: Hub, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    hub.answers.record([answer(drawn[0][0], 0, "unsure")])
    lease = hub.agenda.next(20)
    assert keys(lease.questions) == [(drawn[0][0], 1)]
    assert (lease.open, lease.elsewhere) == (1, 0)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 5), st.integers(0, 40)), max_size=25))
def test_whoever_asks_when_no_question_is_ever_in_two_hands(calls: list[tuple[str, int, int]]) -> None:
    from tempfile import TemporaryDirectory

    clock = FakeClock()
    with TemporaryDirectory() as folder, Hub(Path(folder), clock=clock) as hub:
        for number in range(4):
            bring(hub, altered(SMALL, seq=number, stratum=f"s{number % 2}"))
        held: dict[tuple[str, int | None], tuple[str, float]] = {}
        now = 0.0
        for holder, count, passes in calls:
            clock.advance(passes)
            now += passes
            for key in keys(hub.agenda.next(count, holder=holder).questions):
                other, until = held.get(key, (holder, 0.0))
                assert other == holder or until <= now
                held[key] = (holder, now + hub.agenda.lease_s)
