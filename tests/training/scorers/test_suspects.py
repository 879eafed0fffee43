"""Defects among the good parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.normals import normals_in, split_normals
from training.scorers.suspects import suspicious


def test_the_few_far_ones_are_found_and_ordinary_spread_is_not() -> None:
    chance = np.random.default_rng(130)
    parts = np.exp(chance.normal(0.7, 0.1, 60))
    assert not suspicious(parts).any()
    parts[[3, 40]] = [9.0, 6.0]
    assert np.flatnonzero(suspicious(parts)).tolist() == [3, 40]


def test_equal_parts_and_a_second_kind_of_part_are_no_outliers() -> None:
    assert not suspicious(np.full(20, 1.5)).any()
    assert not suspicious(np.array([1.5])).any()
    assert not suspicious(np.r_[np.full(14, 1.0), np.full(6, 9.0)]).any()


def test_a_defect_among_the_good_parts_is_named_and_not_fitted(tmp_path: Path) -> None:
    folder = write_normals(tmp_path / "good", pictures=40)
    for number in (900, 901):
        cv2.imwrite(str(folder / f"{number}.png"), plate(number, dent=True))
    recipe = ScorerRecipe(side_px=96, rank=40, alpha=0.1)
    checkpoint, _, held = fit_scorer(normals_in(folder), recipe, lent=write_trunk(tmp_path / "trunk"))
    told = " ".join(checkpoint.data["notes"])
    held_names = {one.image for one in held}
    for name in ("900.png", "901.png"):
        assert name in told
    assert ("are not fitted; are they defective?" in told) == bool({"900.png", "901.png"} - held_names)
    assert ("raise the threshold; if they are defective" in told) == bool({"900.png", "901.png"} & held_names)


@pytest.mark.parametrize("method", ["gaussian", "patchcore", "stfpm"])
def test_what_would_learn_a_defect_by_heart_does_not_see_it(tmp_path: Path, method: str) -> None:
    """The coreset of a bank takes the farthest first, and the farthest is the defect."""
    folder = write_normals(tmp_path / "good", pictures=40)
    bad = split_normals(normals_in(folder).samples, seed=0)[0][0]
    cv2.imwrite(str(bad.path), plate(900, dent=True))
    steps = 5 if method == "stfpm" else None
    recipe = ScorerRecipe(method=method, iterations=steps, side_px=96, rank=40, bank=100, alpha=0.1)
    checkpoint, _, _ = fit_scorer(normals_in(folder), recipe, lent=write_trunk(tmp_path / "trunk"))
    said = f"{bad.image} lie far beyond the other good parts and are not fitted; are they defective?"
    assert said in checkpoint.data["notes"] and checkpoint.data["fitted_on"] == 19
