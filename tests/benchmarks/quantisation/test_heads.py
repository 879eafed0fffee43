"""Q4's arithmetic: who sets whose threshold, and what is counted as a shift."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quantisation.heads import Judged, Shift, halves, moved, shift_of, worst_of
from edge_sdk.quality.datasets import Sample

GOOD = np.arange(40, dtype=np.float64)
FIRST = np.arange(40) % 2 == 0
"""The even ones, up to 38, and the odd ones, up to 39: the 95 % quantiles are 36.1 and 37.1."""


def judged() -> Judged:
    return Judged(tuple(f"part {n // 2}" for n in range(40)), FIRST)


def test_each_half_is_held_against_the_other_ones_threshold() -> None:
    stopped, same = moved(GOOD, GOOD, FIRST)
    # of the even ones 38 is above 37.1, of the odd ones 37 and 39 are above 36.1
    assert np.flatnonzero(stopped).tolist() == [37, 38, 39] and (same == stopped).all()
    raised = GOOD.copy()
    raised[FIRST] += 100
    # a half that INT8 scores higher is stopped, and moves nobody's threshold
    assert np.flatnonzero(moved(GOOD, raised, FIRST)[1]).tolist() == sorted([*range(0, 40, 2), 37, 39])


def test_the_shift_is_signed_and_says_who_crossed() -> None:
    higher = shift_of([{"onnx": [*GOOD, 99.0], "int8": [*(GOOD + 2), 99.0]}], [judged()], "int8")
    # of the even ones 36 crosses 37.1, of the odd ones 35 crosses 36.1
    assert (higher.up, higher.down, higher.judged) == (2, 0, 40)
    assert higher.points == pytest.approx(5) and higher.low <= 5 <= higher.high and higher.low >= 0
    assert higher.fp32_percent == pytest.approx(7.5)
    lower = shift_of([{"onnx": list(GOOD), "int8": list(GOOD - 2)}], [judged()], "int8")
    assert (lower.up, lower.down) == (0, 2) and lower.points == pytest.approx(-5)


def test_seeds_are_pooled_and_a_part_counts_as_one() -> None:
    same = {"onnx": list(GOOD), "int8": list(GOOD)}
    up = {"onnx": list(GOOD), "int8": list(GOOD + 2)}
    both = shift_of([same, up], [judged(), judged()], "int8")
    assert both.judged == 80 and both.points == pytest.approx(2.5)
    # all that crosses is one group, so draws without it see no shift
    one = Judged(tuple("moving" if n in (35, 36) else f"part {n}" for n in range(40)), FIRST)
    assert shift_of([up], [one], "int8").low == 0


def test_of_two_that_are_level_the_less_certain_one_is_stated() -> None:
    up, down = Shift(0.4, 0.0, 1.0, 5.0, 2, 0, 500), Shift(-0.4, -1.3, 0.5, 5.0, 2, 4, 500)
    for shifts in ((up, down), (down, up)):
        assert worst_of(shifts) == (0.4, -0.5, 1.3)
    assert worst_of((up, down, Shift(0.6, 0.2, 0.9, 5.0, 3, 0, 500))) == (0.6, 0.2, 0.9)


def test_no_group_is_torn_apart(tmp_path: Path) -> None:
    held = [Sample(tmp_path / f"{n}.png", f"{n}.png", "good", group=f"g{n // 3}", healthy=True) for n in range(30)]
    dealt = halves("set", held, seed=100)
    assert dealt.groups[0].startswith("set/")
    of = {group: set(dealt.first[np.array(dealt.groups) == group]) for group in dealt.groups}
    assert all(len(sides) == 1 for sides in of.values()) and dealt.first.sum() == 15
