"""A gap as a line shows it: the mask where the picture shows it, and either line behind the gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import lines_of, load_dataset, read_image
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.boxed import write_boxed_set
from tests.training.drawn import write_set
from training.config import Config
from training.data.boxes import box_views
from training.data.views import line_boxes, line_image, line_truth
from training.networks.anchornet import anchor_network
from training.pictures import write_pictures
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


def test_boxes_lie_where_the_line_shows_the_defect(tmp_path: Path) -> None:
    dataset = load_dataset(write_boxed_set(tmp_path / "plates"))
    line = lines_of(dataset, gap="viewpoint", seed=1).new[0]
    shapes = [[16.0, 16.0], [32.0, 8.0]]
    anchors = anchor_network(shapes=shapes, height=64, width_px=64, classes=2, width=0.125).anchors.numpy()
    spec = PreprocessSpec(width=64, height=64)
    views = box_views(line, line.train, spec, anchors=anchors, classes=2, labelled=True)
    found = 0
    for image, drawn in zip(views.images, views.drawn, strict=True):
        assert drawn is not None
        for (left, top, right, bottom), kind in zip(drawn.boxes.round().astype(int), drawn.classes, strict=True):
            inside = image[top + 2 : bottom - 2, left + 2 : right - 2]
            tone = float(np.median(inside))
            assert tone < 80 if kind == 0 else tone > 190
            found += 1
    assert found >= 8


@pytest.mark.parametrize("gap", ["lamp", "viewpoint"])
def test_boxes_are_written_with_their_pictures_and_read_back_the_same(tmp_path: Path, gap: str) -> None:
    line = lines_of(load_dataset(write_boxed_set(tmp_path / "plates")), gap=gap, seed=1).new[0]
    count = write_pictures(line, "mentor", tmp_path / "shown", labelled=True)
    again = load_dataset(tmp_path / "shown")
    assert len(again.samples) == count
    for n, sample in enumerate(line.mentor):
        before, after = line_boxes(line, sample) or (), again.boxes.get(f"images/{n:05d}.png", ())
        assert [one.label for one in after] == [one.label for one in before]
        for one, other in zip(before, after, strict=True):
            sides = (one.left, one.top, one.right, one.bottom)
            assert (other.left, other.top, other.right, other.bottom) == pytest.approx(sides, abs=1e-3)
    assert again.boxes
    write_pictures(line, "train", tmp_path / "bare", labelled=False)
    assert not (tmp_path / "bare" / "boxes.csv").exists()


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
