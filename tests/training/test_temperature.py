"""Temperature scaling: the optimum, its guards, and what a line's document says of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.arrays import Array
from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data.views import Views
from training.lines import calibrated, confidence, predicted
from training.temperature import (
    FEWEST,
    RANGE,
    expected_calibration_error,
    fitted,
    negative_log_likelihood,
    tempered,
)
from training.train import train


def drawn(n: int, warmth: float, *, seed: int = 0) -> tuple[Array, Array]:
    """Logits ``warmth`` times too large for their truth."""
    chance = np.random.default_rng(seed)
    honest = chance.normal(-1, 2, n)
    return honest * warmth, (chance.random(n) < 1 / (1 + np.exp(-honest))).astype(float)


def views(truth: Array, known: Array, maximum: Array) -> Views:
    n, _, h, w = truth.shape
    return Views(
        images=np.zeros((n, 8 * h, 8 * w, 3), np.uint8),
        truth=truth.astype(np.float32),
        known=known.astype(np.float32),
        maximum=maximum.astype(np.float32),
        valid=np.ones((n, h, w), bool),
        defective=truth.any(axis=(1, 2, 3)) | maximum.any(axis=1),
        units=tuple(map(str, range(n))),
        names=tuple(map(str, range(n))),
    )


@pytest.mark.parametrize("warmth", [0.5, 1.0, 3.0])
def test_what_was_too_sure_by_a_factor_is_found_out(warmth: float) -> None:
    found, how = fitted(*drawn(20_000, warmth))
    assert found == pytest.approx(warmth, rel=0.05)
    assert how == "least negative log-likelihood on held-out pictures"


def test_no_temperature_on_a_fine_grid_does_better() -> None:
    scores, truth = drawn(300, 2.0, seed=4)

    def slow(warmth: float) -> float:
        p = 1 / (1 + np.exp(-scores / warmth))
        return float(-np.mean(np.log(np.where(truth == 1, p, 1 - p))))

    found, _ = fitted(scores, truth)
    grid = np.exp(np.linspace(np.log(0.5), np.log(RANGE[1]), 2000))
    assert slow(found) <= min(slow(float(one)) for one in grid) + 1e-9
    assert negative_log_likelihood(scores / found, truth) == pytest.approx(slow(found))


def test_kinds_that_are_told_apart_do_not_run_to_zero() -> None:
    scores = np.array([-3.0, -1.0, 2.0, 4.0])
    assert fitted(scores, np.array([0.0, 0, 1, 1])) == (
        1.0,
        "1: the held-out pictures are told apart without an error, so nothing says how sure is too sure",
    )


def test_the_range_is_bounded_at_both_ends_and_says_so() -> None:
    # one error in a thousand sure ones: nearly separable
    scores = np.concatenate([np.full(999, 0.1), [-0.1]])
    assert fitted(scores, np.ones(1000)) == (RANGE[0], "0.25: the least that is allowed")
    wrong = np.array([-50.0, 50.0, 40.0])
    assert fitted(wrong, np.array([1.0, 0, 1])) == (RANGE[1], "10: the most that is allowed")


def test_huge_logits_overflow_nothing() -> None:
    scores, truth = np.array([-1e4, 1e4, 1e4, -1e4]), np.array([0.0, 1, 0, 0])
    found, _ = fitted(scores, truth)
    assert np.isfinite(negative_log_likelihood(scores / found, truth))


def test_cells_are_used_where_they_are_known_and_each_class_has_its_own() -> None:
    chance = np.random.default_rng(2)
    honest = chance.normal(-1, 2, (40, 2, 8, 8))
    truth = chance.random(honest.shape) < 1 / (1 + np.exp(-honest))
    known = np.ones_like(truth)
    known[:, 0, :, 4:] = False
    lied = honest.copy()
    lied[:, 0, :, 4:] = 99  # nobody knows these cells, so they have no say
    found = tempered(lied * np.array([2, 0.5])[:, None, None], views(truth, known, np.zeros((40, 2))))
    assert found.temperature == pytest.approx([2, 0.5], rel=0.15)
    assert [row["unit"] for row in found.document] == ["cells", "cells"]
    assert found.document[0]["n"] == 40 * 32


def test_picture_maxima_are_used_where_no_cell_is_known_to_be_defective() -> None:
    chance = np.random.default_rng(3)
    top, truth = drawn(4000, 2.0, seed=3)
    logits = np.minimum(chance.normal(-30, 1, (4000, 1, 2, 2)), top.min() - 1)
    logits[np.arange(4000), 0, chance.integers(0, 2, 4000), chance.integers(0, 2, 4000)] = top
    known = np.repeat(truth == 0, 4).reshape(4000, 1, 2, 2)
    found = tempered(logits, views(np.zeros((4000, 1, 2, 2)), known, truth[:, None]))
    assert found.document[0]["unit"] == "pictures"
    assert found.temperature == pytest.approx([2.0], rel=0.1)


def test_with_too_few_defects_the_temperature_is_1_and_the_document_says_why() -> None:
    truth = np.zeros((30, 1, 2, 2))
    truth[: FEWEST - 1, 0, 0, 0] = 1
    found = tempered(np.zeros_like(truth), views(truth, np.ones_like(truth), np.zeros((30, 1))))
    assert found.temperature == pytest.approx([1.0])
    assert found.document[0]["how"] == (
        "1: 4 held-out pictures show the class and 116 cells do not, fitting needs 5 of each"
    )
    nothing = np.zeros((0, 1, 2, 2))
    assert tempered(nothing, views(nothing, nothing, np.zeros((0, 1)))).temperature == pytest.approx([1.0])


def test_reliability_is_stated_before_and_after_and_better_near_the_boundary() -> None:
    scores, truth = drawn(40_000, 4.0, seed=6)
    logits = scores.reshape(400, 1, 10, 10)
    (row,) = tempered(logits, views(truth.reshape(logits.shape), np.ones_like(logits), np.zeros((400, 1)))).document
    assert row["after"]["nll"] < row["before"]["nll"]
    assert row["after"]["ece"] < row["before"]["ece"] / 4
    near = row["after"]["near_boundary"]
    assert near["n"] > row["before"]["near_boundary"]["n"]
    assert near["confidence"] == pytest.approx(near["defective"], abs=0.03)


def test_the_calibration_error_is_that_of_a_slow_loop() -> None:
    chance = np.random.default_rng(8)
    sure, truth = chance.random(500), (chance.random(500) < 0.3).astype(float)
    sure[0] = 1.0
    total = 0.0
    for b in range(15):
        inside = [i for i in range(500) if b / 15 <= sure[i] < (b + 1) / 15 or (b == 14 and sure[i] == 1)]
        if inside:
            total += len(inside) / 500 * abs(np.mean([sure[i] for i in inside]) - np.mean([truth[i] for i in inside]))
    assert expected_calibration_error(sure, truth) == pytest.approx(total)


def test_a_trained_line_is_tempered_everywhere_alike(tmp_path: Path) -> None:
    """Thresholds are of tempered confidences, and the document survives the disk."""
    dataset = load_dataset(write_set(tmp_path / "set", pictures=120))
    lines = lines_of(dataset, seed=1, gap="lamp", shares=(0.3, 0.4, 0.1, 0.2))
    checkpoint = train(dataset, lines, SMALL)
    save_checkpoint(checkpoint, tmp_path / "checkpoint")
    state = load_checkpoint(tmp_path / "checkpoint").line("original")
    (row,) = state.reliability
    assert row["temperature"] == pytest.approx(float(state.temperature[0]), abs=1e-5)
    assert {"nll", "ece", "near_boundary"} == set(row["before"]) == set(row["after"])
    said = json.loads((tmp_path / "checkpoint" / "lines" / "original.json").read_text())
    assert said["thresholds"][0]["reliability"]["unit"] == "cells"

    from training.data.views import views_of

    held = views_of(lines.original, lines.original.validate, checkpoint.preprocess, grid=checkpoint.grid, labelled=True)
    logits, _ = predicted(checkpoint.network, state.statistics, held.images, checkpoint.preprocess)
    again = calibrated(checkpoint.network, state.statistics, held, checkpoint.preprocess)
    assert again.thresholds.pass_below == pytest.approx(state.thresholds.pass_below, abs=1e-5)
    if state.thresholds.guarantee.startswith("conformal"):
        top = confidence(logits, state).max(axis=(1, 2, 3))
        assert (top[~held.defective] > state.thresholds.defective_from[0] + 1e-5).mean() <= 0.1
        assert (top[held.defective] < state.thresholds.pass_below[0] - 1e-5).mean() <= 0.1
