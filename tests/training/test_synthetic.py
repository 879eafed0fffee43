"""The drawn lines are the ones that the published figures were measured on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.requirements import need
from training.data import synthetic

EXPECTED = Path(__file__).parents[3] / "shared" / "tools" / "synthetic" / "expected.json"


def test_the_drawn_lines_are_those_of_their_definition() -> None:
    need("../shared/tools/synthetic", found=EXPECTED.is_file())
    wanted = json.loads(EXPECTED.read_text())
    del wanted["versions"]
    assert len(wanted) >= 4
    for call, arrays in wanted.items():
        found = re.fullmatch(r"(\w+)\((.*)\)", call)
        assert found, call
        name, arguments = found.groups()
        given = [piece.strip() for piece in arguments.split(",")]
        plain = [json.loads(piece) for piece in given if "=" not in piece]
        named = {key.strip(): json.loads(value) for key, _, value in (p.partition("=") for p in given if "=" in p)}
        images, truth = getattr(synthetic, name)(*plain, **named)
        for key, array in (("x", images), ("y", truth)):
            assert list(array.shape) == arrays[key]["shape"], call
            assert np.mean(array) == pytest.approx(arrays[key]["mean"], abs=1e-4), call
            assert np.std(array) == pytest.approx(arrays[key]["std"], abs=1e-4), call


def test_the_same_seed_draws_the_same_pictures() -> None:
    one, other = synthetic.mentoring_new(3, 5, 0.5), synthetic.mentoring_new(3, 5, 0.5)
    assert np.array_equal(one[0], other[0]) and np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0], synthetic.mentoring_new(3, 6, 0.5)[0])


def test_defective_cells_follow_the_share_asked_for() -> None:
    _, healthy = synthetic.mentoring_new(20, 1, 0.0)
    _, defective = synthetic.mentoring_new(20, 1, 1.0)
    assert not healthy.any()
    assert defective.reshape(20, -1).any(axis=1).mean() > 0.9
