"""Labelled pictures on disk, read the same way by replay, calibration, export and training.

A set is a folder with ``labels.csv``, or folders as MVTec's sets have them, or a pair of such folders
whose names then are its domains.  This module is the door; the work is done beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edge_sdk.errors import DatasetError
from edge_sdk.quality.layouts import DatasetFile, read_folder
from edge_sdk.quality.lines import DEFAULT_GAP, Line, Lines, Truth, lines_of
from edge_sdk.quality.parts import PARTS, SHARES, deal, folds
from edge_sdk.quality.pictures import picture_size, read_image, read_mask, read_picture
from edge_sdk.quality.samples import DEFAULT_HEALTHY, Box, Dataset, Sample, require_masks

__all__ = [
    "DEFAULT_GAP",
    "DEFAULT_HEALTHY",
    "PARTS",
    "SHARES",
    "Box",
    "Dataset",
    "DatasetFile",
    "Line",
    "Lines",
    "Sample",
    "Truth",
    "deal",
    "folds",
    "lines_of",
    "load_dataset",
    "picture_size",
    "read_image",
    "read_mask",
    "read_picture",
    "require_masks",
]


def load_dataset(*roots: Path | str) -> Dataset:
    """Read one folder of pictures, or several as the domains of one set.

    Args:
        roots: Folders.  Of several, each is one domain named as its folder; the first is the original
            line, every other a new one, which may be pictures and nothing else.

    Raises:
        DatasetError: A folder does not exist, holds no set, or contradicts itself.
        ConfigError: A ``dataset.yaml`` is wrong.
    """
    folders = [Path(root) for root in roots]
    if not folders:
        raise DatasetError("no folder of pictures is given; give at least one")
    if len(folders) == 1:
        return read_folder(folders[0])
    names = _names_of(folders)
    sets = [
        read_folder(root, domain=name, prefix=f"{name}/", unlabelled=n > 0)
        for n, (root, name) in enumerate(zip(folders, names, strict=True))
    ]
    _check_same_words(sets)
    return Dataset(
        root=folders[0],
        title=" and ".join(one.title for one in sets),
        licence="; ".join(dict.fromkeys(one.licence for one in sets)),
        samples=tuple(
            sorted((sample for one in sets for sample in one.samples), key=lambda sample: sample.image)
        ),
        classes=tuple(sorted({name for one in sets for name in one.classes})),
        healthy_labels=tuple(sorted({name for one in sets for name in one.healthy_labels})),
        empty_mask="healthy" if all(one.empty_mask == "healthy" for one in sets) else "unknown",
        roles={"original": ((names[0],),), "new": tuple((name,) for name in names[1:])},
        notes=(
            f"{folders[0]} is the original line, since it is given first",
            *(n for one in sets for n in one.notes),
        ),
        boxes={image: boxes for one in sets for image, boxes in one.boxes.items()},
    )


def _names_of(folders: Sequence[Path]) -> list[str]:
    """A name a folder; the parent's before it where two are called the same."""
    whole = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, whole, strict=True):
        if whole.count(path) > 1:
            raise DatasetError(f"{folder} is given twice; give two different folders")
    names = [path.name for path in whole]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}-{path.name}" for path in whole]
    if len(set(names)) < len(names):
        raise DatasetError(f"the folders {', '.join(map(str, folders))} are named alike; rename one")
    return [name.replace(",", "_") for name in names]


def _check_same_words(sets: Sequence[Dataset]) -> None:
    """One label must mean the same in all sets, and be spelled the same."""
    seen: dict[str, tuple[str, Dataset]] = {}
    for one in sets:
        for label in one.classes + one.healthy_labels:
            other, first = seen.setdefault(label.casefold(), (label, one))
            if other != label:
                raise DatasetError(
                    f"{first.root} has the class {other!r} and {one.root} has {label!r}; spell them the same"
                )
            if (label in one.classes) != (label in first.classes):
                raise DatasetError(
                    f"{label!r} is a defect in one of {first.root} and {one.root} and healthy in the other; "
                    "say in their dataset.yaml which it is"
                )
