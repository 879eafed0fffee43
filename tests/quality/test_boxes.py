"""Boxes of a set: read, held to their pictures, and withheld where truth is."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.errors import DatasetError, TruthWithheld
from edge_sdk.quality.datasets import Box, lines_of, load_dataset


def boxed(root: Path, *, rows: str = "", pictures: int = 16) -> Path:
    """Pictures of 20 x 12 pixels: every fourth good, the others with a dent, boxed but for the last."""
    root.mkdir(parents=True)
    table, boxes = ["image,label"], ["image,class,xmin,ymin,xmax,ymax"]
    for n in range(pictures):
        cv2.imwrite(str(root / f"{n:02d}.png"), np.full((12, 20, 3), 7 * n, np.uint8))
        table.append(f"{n:02d}.png,{'good' if n % 4 == 0 else 'dent'}")
        if n % 4 and n < pictures - 1:
            boxes.append(f"{n:02d}.png,dent,1,2,20,12")
    (root / "labels.csv").write_text("\n".join(table) + "\n")
    (root / "boxes.csv").write_text("\n".join(boxes) + f"\n{rows}")
    return root


def test_a_line_says_what_is_drawn_on_its_pictures(tmp_path: Path) -> None:
    lines = lines_of(load_dataset(boxed(tmp_path / "s")), gap="lamp", evaluating=True)
    said = {s.image: lines.original.boxes(s) for p in ("train", "validate", "test") for s in lines.original.part(p)}
    for image, found in said.items():
        n = int(image[:2])
        wanted = () if n % 4 == 0 else None if n == 15 else (Box("dent", 1, 2, 20, 12),)
        assert found == wanted


def test_boxes_of_test_pictures_are_withheld_from_training(tmp_path: Path) -> None:
    line = lines_of(load_dataset(boxed(tmp_path / "s")), gap="lamp").original
    assert line.test
    for sample in line.test:
        assert sample.image not in line.drawn
        with pytest.raises(TruthWithheld, match="is withheld, since the picture is in the part test"):
            line.boxes(sample)


def test_a_box_outside_its_picture_names_both_sizes(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        load_dataset(boxed(tmp_path / "s", rows="01.png,dent,3,3,21,12\n"))
    assert str(caught.value).endswith(
        "boxes.csv:13: the box is 3, 3, 21, 12, but 01.png is 20 x 12 pixels; "
        "give a box inside the picture, right and bottom outside"
    )


def test_a_box_of_no_class_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="boxes.csv:13: the field class is empty; name the defect"):
        load_dataset(boxed(tmp_path / "s", rows="01.png,,3,3,9,9\n"))


def test_a_box_of_a_class_without_a_picture_is_refused_where_boxes_are_asked_for(tmp_path: Path) -> None:
    dataset = load_dataset(boxed(tmp_path / "s", rows="01.png,Dent,3,3,9,9\n"))
    line = lines_of(dataset, gap="lamp", evaluating=True).original
    (odd,) = (sample for sample in dataset.samples if sample.image == "01.png")
    with pytest.raises(DatasetError) as caught:
        line.boxes(odd)
    assert str(caught.value) == (
        "01.png has a box of class 'Dent', but no picture is labelled so (dent); "
        "spell it the same in labels.csv and boxes.csv"
    )


def test_another_box_is_another_set(tmp_path: Path) -> None:
    one = load_dataset(boxed(tmp_path / "a" / "s")).digest
    assert load_dataset(boxed(tmp_path / "b" / "s", rows="01.png,dent,3,3,9,9\n")).digest != one
    assert load_dataset(boxed(tmp_path / "c" / "s")).digest == one


def test_boxes_alone_show_what_is_healthy_around_them(tmp_path: Path) -> None:
    root = boxed(tmp_path / "s")
    table = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(line for line in table if "good" not in line) + "\n")
    assert lines_of(load_dataset(root), gap="lamp").original.train
    (root / "boxes.csv").unlink()
    with pytest.raises(DatasetError, match="has neither a healthy picture nor a mask"):
        lines_of(load_dataset(root), gap="lamp")
