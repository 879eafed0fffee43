"""The budget of questions: never exceeded, nearly as good as hindsight, and not eaten by a burst."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.arrays import Array
from edge_sdk.clock import FakeClock
from edge_sdk.outbox.budget import Budget

SHIFT_S = 8 * 3600.0


def taken(budget: Budget, clock: FakeClock, at_s: Array, values: Array, asked: Array) -> Array:
    """The places of the frames that are queued; ``at_s`` from the clock's start."""
    found, now = [], 0.0
    for n, moment in enumerate(at_s):
        clock.advance(float(moment - now))
        now = float(moment)
        if budget.affords(int(asked[n]), float(values[n])):
            budget.spend(int(asked[n]))
            found.append(n)
    return np.array(found, int)


def best(values: Array, asked: Array, questions: int) -> float:
    """What somebody who knew the whole shift would get: the most valuable frames that fit."""
    total, left = 0.0, questions
    for n in np.argsort(-values):
        if asked[n] <= left:
            total, left = total + values[n] * asked[n], left - int(asked[n])
    return total


@pytest.mark.parametrize(("questions", "frames", "most"), [(20, 500, 1), (20, 20_000, 1), (200, 2_000, 3)])
def test_on_a_steady_stream_it_is_nearly_as_good_as_hindsight(questions: int, frames: int, most: int) -> None:
    got, first_come = [], []
    for seed in range(5):
        chance, clock = np.random.default_rng(seed), FakeClock()
        at_s, values = np.sort(chance.uniform(0, SHIFT_S, frames)), chance.random(frames)
        asked = chance.integers(1, most + 1, frames)
        which = taken(Budget(questions, shift_h=8, clock=clock), clock, at_s, values, asked)
        assert 0.9 * questions <= asked[which].sum() <= questions
        hindsight = best(values, asked, questions)
        got.append(float((values * asked)[which].sum()) / hindsight)
        early = np.cumsum(asked) <= questions
        first_come.append(float((values * asked)[early].sum()) / hindsight)
    assert np.mean(got) > 0.9
    assert np.mean(first_come) < 0.65, "who takes the first ones gets far less"


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    questions=st.integers(0, 60),
    burst=st.floats(0, 1),
    best_last=st.booleans(),
)
def test_no_span_as_long_as_a_shift_sees_more_than_the_budget(
    seed: int, questions: int, burst: float, best_last: bool
) -> None:
    chance, clock = np.random.default_rng(seed), FakeClock()
    many = int(400 * burst)
    usual, sudden = chance.uniform(0, 3, 400 - many), chance.uniform(1, 1.01, many)
    at_s = np.sort(np.concatenate([usual, sudden])) * SHIFT_S
    values = np.linspace(0, 1, 400) if best_last else chance.random(400)
    asked = chance.integers(1, 4, 400)
    budget = Budget(questions, shift_h=8, clock=clock)
    which = taken(budget, clock, at_s, values, asked)
    for n in which:
        within = (at_s[which] > at_s[n] - SHIFT_S) & (at_s[which] <= at_s[n])
        assert asked[which][within].sum() <= questions
    assert budget.left >= 0


def test_a_failing_lamp_cannot_eat_the_shift() -> None:
    """For an hour every frame, ten a second, ranks above nearly all others."""
    chance, clock = np.random.default_rng(1), FakeClock()
    usual, lamp = 2_000, 36_000
    at_s = np.concatenate([chance.uniform(0, SHIFT_S, usual), chance.uniform(3 * 3600, 4 * 3600, lamp)])
    values = np.concatenate([chance.random(usual), chance.uniform(0.9, 1, lamp)])
    order = np.argsort(at_s)
    which = taken(
        Budget(200, shift_h=8, clock=clock), clock, at_s[order], values[order], np.ones(usual + lamp, int)
    )
    of_lamp = order[which] >= usual
    assert of_lamp.sum() <= 200 * (0.25 + 1 / 8)
    after = at_s[order][which][~of_lamp] > 4 * 3600
    assert after.sum() >= 0.5 * 200 * 3 / 8, "questions go on after it"


def test_a_quiet_line_is_asked_about_everything() -> None:
    chance, clock = np.random.default_rng(2), FakeClock()
    at_s = np.linspace(0, SHIFT_S, 15)
    which = taken(Budget(20, shift_h=8, clock=clock), clock, at_s, chance.random(15), np.ones(15, int))
    assert len(which) == 15


def test_a_burst_at_the_start_takes_a_quarter() -> None:
    clock = FakeClock()
    budget = Budget(40, shift_h=8, clock=clock)
    which = taken(budget, clock, np.zeros(200), np.full(200, 0.5), np.ones(200, int))
    assert len(which) == 10
    assert budget.left == 30


def test_a_budget_of_0_asks_nothing_and_one_of_3_may_ask_three_at_once() -> None:
    assert not Budget(0, shift_h=8, clock=FakeClock()).affords(1, 1.0)
    budget = Budget(3, shift_h=8, clock=FakeClock())
    assert budget.affords(3, 0.5)
    budget.spend(3)
    assert not budget.affords(1, 1.0)
    assert budget.left == 0


def test_what_was_asked_comes_back_a_shift_later_by_the_monotonic_clock() -> None:
    clock = FakeClock()
    budget = Budget(3, shift_h=8, clock=clock)
    budget.spend(3)
    clock.step_wall_clock(1e6)
    clock.advance(SHIFT_S - 1)
    assert budget.left == 0, "the wall clock plays no part"
    clock.advance(1)
    assert budget.left == 3


def test_a_decision_costs_microseconds_however_much_was_seen() -> None:
    import time

    budget = Budget(200, shift_h=8, clock=FakeClock())
    began = time.perf_counter()
    for n in range(2_000):
        budget.affords(1, (n % 97) / 97)
    assert (time.perf_counter() - began) / 2_000 < 1e-3
