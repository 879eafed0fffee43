"""What each rule makes of a histogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.observers import Histogram, Observer
from calibration.scales import RULES, Rule, amax, rounding_db, span
from edge_sdk.arrays import Array

values = hnp.arrays(np.float32, st.integers(1, 80), elements=st.floats(-1e6, 1e6, width=32))


def histogram(of: Array) -> Histogram:
    observer = Observer()
    observer.see(np.asarray(of, np.float32))
    return observer.histogram()


def loss(of: Array, step: float, zero: int, least: int, *, clipped: int = 9) -> float:
    """The slow way: round every single value; nine errors that are clipped alike add in amplitude."""
    wanted = np.rint(of / step) + zero
    kept = np.clip(wanted, least, least + 255)
    alike = np.where(kept == wanted, 1, clipped)
    return float((alike * ((kept - zero) * step - of) ** 2).mean())


@given(values, st.sampled_from(RULES))
def test_a_range_stays_within_what_was_seen_and_holds_zero(of: Array, rule: Rule) -> None:
    found = histogram(of)
    most = amax(found, rule)
    lo, hi = span(found, rule)
    greatest = float(np.abs(of).max())
    assert 0 <= most <= greatest
    assert (most > 0) == (greatest > 0)
    assert min(0.0, float(of.min())) <= lo <= 0 <= hi <= max(0.0, float(of.max()))
    assert (hi > lo) == (greatest > 0)


@pytest.mark.parametrize("shape", ["gauss", "relu", "laplace", "skewed", "outlier"])
def test_the_mse_rule_is_as_good_as_trying_every_range(shape: str) -> None:
    random = np.random.default_rng(0)
    of = {
        "gauss": random.normal(size=20_000),
        "relu": np.maximum(random.normal(size=20_000), 0),
        "laplace": random.laplace(size=20_000),
        "skewed": random.gamma(2.0, size=20_000) - 0.5,
        "outlier": np.append(random.normal(size=20_000), [60.0]),
    }[shape].astype(np.float32)
    found = histogram(of)
    greatest = np.abs(of).max()
    best = min(loss(of, share * greatest / 127, 0, -128) for share in np.linspace(0.02, 1, 200))
    assert loss(of, amax(found, "mse") / 127, 0, -128) <= best * 1.02
    lo, hi = span(found, "mse")
    step = (hi - lo) / 255
    all_seen = (max(0, of.max()) - min(0, of.min())) / 255
    everything = loss(of, all_seen, round(-min(0.0, float(of.min())) / all_seen), 0)
    assert loss(of, step, round(-lo / step), 0) <= everything * 1.001


def test_minmax_keeps_all_and_percentile_drops_a_lone_outlier() -> None:
    of = np.append(np.random.default_rng(0).uniform(-1, 1, 1_000_000), [50.0]).astype(np.float32)
    found = histogram(of)
    assert amax(found, "minmax") == 50
    assert span(found, "minmax") == (float(of.min()), 50.0)
    assert amax(found, "percentile") == pytest.approx(1, abs=0.06)
    assert span(found, "percentile")[1] == pytest.approx(1, abs=0.06)


def test_the_zeros_of_a_relu_do_not_collapse_the_kl_range() -> None:
    random = np.random.default_rng(0)
    sparse = np.where(random.uniform(size=50_000) < 0.9, 0, np.abs(random.normal(size=50_000)) * 3)
    found = histogram(sparse)
    assert amax(found, "kl") > 0.5 * amax(found, "percentile")
    assert rounding_db(found, amax(found, "kl")) > 30


def test_values_far_from_zero_and_close_together_need_no_memory() -> None:
    found = histogram(np.linspace(3.0, 3.00001, 50, dtype=np.float32))
    for rule in RULES:
        assert amax(found, rule) == pytest.approx(3.0, rel=1e-3)


def test_rounding_costs_what_it_costs() -> None:
    of = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    most = 4.0
    step = most / 127
    noise = loss(of, step, 0, -128, clipped=1)
    assert rounding_db(histogram(of), most) == pytest.approx(10 * np.log10((of**2).mean() / noise), abs=0.2)
    assert rounding_db(histogram(np.zeros(4)), 0) == float("inf")
