"""What a histogram holds follows from the values alone, not from how they came."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.observers import MOST_BINS, Observer
from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError

values = hnp.arrays(
    np.float32, st.integers(1, 60), elements=st.floats(-(2.0**100), 2.0**100, width=32, allow_nan=False)
)
cuts = st.lists(st.integers(0, 60), max_size=6)


def seen(batches: list[Array]) -> Observer:
    observer = Observer("t")
    for batch in batches:
        observer.see(batch)
    return observer


@given(values, cuts, st.randoms(use_true_random=False))
def test_order_and_batches_change_nothing(all_values: Array, at: list[int], random: object) -> None:
    whole = seen([all_values]).histogram()
    shuffled = np.random.default_rng(len(at)).permutation(all_values)
    parts = seen(np.split(shuffled, sorted(min(cut, len(all_values)) for cut in at))).histogram()
    assert (whole.lo, whole.hi, whole.width, whole.first) == (parts.lo, parts.hi, parts.width, parts.first)
    assert np.array_equal(whole.counts, parts.counts)


@given(values)
def test_every_value_is_counted_in_the_bin_it_lies_in(all_values: Array) -> None:
    found = seen([all_values]).histogram()
    assert found.counts.sum() == all_values.size
    assert len(found.counts) <= MOST_BINS
    # against exact arithmetic: Python's floats hold every float32 and every power of two
    expected = np.zeros(len(found.counts), np.int64)
    for value in all_values.tolist():
        expected[int(value / found.width // 1) - found.first] += 1
    assert np.array_equal(found.counts, expected)
    assert found.lo == all_values.min() and found.hi == all_values.max()


def test_a_bin_is_never_wider_than_need_be() -> None:
    found = seen([np.linspace(0, 1, 10_000, dtype=np.float32)]).histogram()
    assert MOST_BINS / 2 < len(found.counts) <= MOST_BINS


def test_memory_does_not_grow_with_what_is_seen() -> None:
    observer = Observer("t")
    rng = np.random.default_rng(0)
    for _ in range(20):
        observer.see(rng.normal(size=10_000).astype(np.float32) * 100)
    assert observer.seen == 200_000
    assert len(observer.histogram().counts) <= MOST_BINS


@pytest.mark.parametrize(("bad", "kind"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_a_value_without_a_place_is_refused(bad: float, kind: str) -> None:
    with pytest.raises(
        RangeError, match=f"^tensor relu has a value that is {kind}; a range needs finite values$"
    ):
        Observer("relu").see(np.array([1, bad, 2], np.float32))


def test_an_empty_array_changes_nothing_and_nothing_seen_is_refused() -> None:
    observer = Observer("relu")
    observer.see(np.zeros((0, 3), np.float32))
    with pytest.raises(
        RangeError, match="^tensor relu was never seen; run the graph on at least one picture$"
    ):
        observer.histogram()
