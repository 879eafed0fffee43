"""A line's pictures as a folder, for those who must not know about gaps and roles: calibration and packing."""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import yaml

from edge_sdk.documents import write_atomic
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Box, Line
from training.data.views import line_boxes, line_image, line_truth
from training.train import Progress, quiet

__all__ = ["MARK", "check_replaceable", "write_pictures"]

MARK = ".written-by-training-pictures"
"""Stands in each folder of pictures that a command wrote: one without it is somebody's data and never replaced."""


def check_replaceable(folder: Path) -> None:
    """Whether pictures may be written there.

    Raises:
        DatasetError: It holds something else, which is not replaced.
    """
    if folder.is_file() or (folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists()):
        raise DatasetError(f"{folder} holds something else; give an empty folder, or a new name")


def write_pictures(
    line: Line, part: str, folder: Path, *, labelled: bool, most: int | None = None, progress: Progress = quiet
) -> int:
    """Write a part of a line as a data set folder (``dataset/1``), behind the line's gap.

    Args:
        line: Whose pictures.
        part: ``train``, ``validate``, ``mentor`` or ``test``.
        folder: Written anew; must not hold anything else.
        labelled: With labels, masks and boxes; the new line's ``train`` is for adapting without.
        most: At most so many pictures, spread evenly over the part.
        progress: Told of every picture.

    Returns:
        How many were written.

    Raises:
        DatasetError: The part is empty, or the folder holds something else.
        TruthWithheld: Labels of the part test were asked for outside an evaluation.
    """
    samples = line.part(part)
    if not samples:
        raise DatasetError(f"line {line.name} has no pictures in part {part}; add pictures, or choose another part")
    check_replaceable(folder)
    if most is not None and len(samples) > most:
        samples = tuple(samples[n * len(samples) // most] for n in range(most))
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    (folder / MARK).touch()
    rows: list[Mapping[str, object]] = []
    drawn: list[Mapping[str, object]] = []
    for number, sample in enumerate(samples):
        name = f"images/{number:05d}.png"
        cv2.imwrite(str(folder / name), line_image(line, sample), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        row = {"image": name, "label": "", "mask": "", "domain": line.name, "group": sample.unit}
        if labelled:
            truth = line_truth(line, sample)
            row["label"] = sample.label
            if truth.mask is not None and truth.mask.any():
                (folder / "masks").mkdir(exist_ok=True)
                row["mask"] = f"masks/{number:05d}.png"
                values = truth.mask if len(line.classes) > 1 else (truth.mask > 0).astype("uint8") * 255
                cv2.imwrite(str(folder / row["mask"]), values)
            drawn += [_box_row(name, box) for box in line_boxes(line, sample) or ()]
        rows.append(row)
        progress(f"write {part} of {line.name}", number + 1, len(samples), {})
    _write_table(folder / "labels.csv", rows)
    if drawn:
        _write_table(folder / "boxes.csv", drawn)
    if labelled:
        healthy = sorted({sample.label for sample in samples if sample.healthy})
        ignored = sorted({sample.label for sample in samples if sample.healthy is None and sample.label})
        said = {"schema": "dataset/1", "healthy": healthy, "ignore": ignored, "empty_mask": line.empty_mask}
        write_atomic(folder / "dataset.yaml", yaml.safe_dump(said, sort_keys=False).encode())
    return len(samples)


def _box_row(image: str, box: Box) -> dict[str, object]:
    sides = (round(edge, 3) for edge in (box.left, box.top, box.right, box.bottom))
    return {"image": image, "class": box.label, **dict(zip(("xmin", "ymin", "xmax", "ymax"), sides, strict=True))}


def _write_table(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, table.getvalue().encode())
