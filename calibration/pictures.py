"""The pictures that calibration looks at: a data set's, or a plain folder's; a balanced choice of them."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Sample, load_dataset
from edge_sdk.quality.pictures import SUFFIXES

__all__ = ["MODEST", "balanced", "pictures_in"]

MODEST = 64
"""With fewer pictures than this ranges still move when more come."""


def pictures_in(folder: Path) -> tuple[Sample, ...]:
    """The pictures of a data set, or of a folder that says nothing about them, sorted by name.

    Raises:
        DatasetError: There is no such folder, or no picture in it, or its labels contradict themselves.
    """
    if folder.is_dir() and not _says_what_it_holds(folder):
        plain = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        named = sorted((path.relative_to(folder).as_posix(), path) for path in plain)
        samples = tuple(Sample(path=path, image=name, label="") for name, path in named)
    else:
        dataset: Dataset = load_dataset(folder)
        samples = dataset.samples
    if not samples:
        raise DatasetError(f"{folder} holds no picture; give a folder with PNG, JPEG, BMP or TIFF files")
    return samples


def _says_what_it_holds(folder: Path) -> bool:
    places = [folder, *(child for child in folder.iterdir() if child.is_dir())]
    return (folder / "labels.csv").is_file() or any(
        (place / part).is_dir() for place in places for part in ("train", "test")
    )


def balanced(samples: Sequence[Sample], most: int) -> tuple[Sample, ...]:
    """At most so many, as equal in number from each domain and label as there are, always the same ones.

    Args:
        samples: To choose from.
        most: How many, 1 or more.

    Returns:
        Sorted by name.
    """
    if len(samples) <= most:
        return tuple(samples)
    heaps: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for sample in sorted(samples, key=lambda one: hashlib.sha256(one.image.encode()).digest()):
        heaps[sample.domain, sample.label].append(sample)
    chosen: list[Sample] = []
    while len(chosen) < most:
        for key in sorted(heaps):
            if heaps[key] and len(chosen) < most:
                chosen.append(heaps[key].pop(0))
    return tuple(sorted(chosen, key=lambda one: one.image))
