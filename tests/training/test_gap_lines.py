"""A gap as a line shows it: the mask where the picture shows it, and either line behind the gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import lines_of, load_dataset, read_image
from tests.training.drawn import write_set
from training.config import Config
from training.data.views import line_image, line_truth
from training.train import data_of


def test_either_line_stands_behind_the_gap(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates"))
    usual = lines_of(dataset, gap="grey", seed=1)
    turned = lines_of(dataset, gap="grey", gap_on="original", seed=1)
    assert (usual.original.gap, usual.new[0].gap) == (None, "grey")
    assert (turned.original.gap, turned.new[0].gap) == ("grey", None)
    assert turned.original.train == usual.original.train and turned.new[0].train == usual.new[0].train
    assert "behind the gap grey; new line: the same pictures as they are" in turned.notes[0]
    sample = turned.new[0].train[0]
    assert np.array_equal(line_image(turned.new[0], sample), read_image(sample))
    with pytest.raises(ConfigError, match="gap_on is 'both'; give new or original"):
        lines_of(dataset, gap="grey", gap_on="both")


def test_truth_lies_where_the_line_shows_the_defect(tmp_path: Path) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates"))
    line = lines_of(dataset, gap="viewpoint", seed=1).new[0]
    defective = [sample for sample in line.train if sample.healthy is False]
    assert defective
    for sample in defective:
        image, mask = line_image(line, sample), line_truth(line, sample).mask
        assert mask is not None
        assert image[mask > 0].mean() < 60 < 120 < image[mask == 0].mean()


def test_a_recipe_says_which_line_stands_behind_the_gap_and_a_checkpoint_remembers(tmp_path: Path) -> None:
    root = write_set(tmp_path / "plates")
    _, turned = Config(data=root, gap="grey", gap_on="original").lines()
    assert (turned.original.gap, turned.new[0].gap) == ("grey", None)
    told = data_of(load_dataset(root), turned)
    assert (told["gap"], told["gap_on"]) == ("grey", "original")
    _, again = Config(data=root).lines(told)
    assert (again.original.gap, again.new[0].gap) == ("grey", None)


def test_a_gap_that_is_named_again_stays_on_the_side_it_was_trained_on(tmp_path: Path) -> None:
    config = Config(data=write_set(tmp_path / "plates"), gap="grey")
    for remembered, side in (({"gap": "grey", "gap_on": "original"}, "original"), ({"gap": "tint"}, "new")):
        _, lines = config.lines(remembered)
        assert ("original" if lines.original.gap else "new") == side
