"""Which pictures show good parts, and which of them fit a scorer and which set its threshold."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from calibration.pictures import pictures_in
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import (
    DEFAULT_HEALTHY,
    Dataset,
    Sample,
    deal,
    load_dataset,
    picture_size,
    read_image,
)
from training.data.sides import check_sides

__all__ = [
    "FEWEST",
    "Normals",
    "check_no_defect",
    "check_not_blank",
    "held_back",
    "normals_in",
    "split_normals",
    "usual_size",
]

FEWEST = 8
"""Good parts below which nothing is fitted: a covariance of fewer says little of the next part."""
NEARLY = 0.1
"""Share by which a side may differ, as where parts were cut out by hand."""
ONE_SIZE = 0.9
"""Share of the pictures that make a set one of nearly one size: the others are then mistakes, not the line's nature."""
DARK = 64
"""Of 255: a set in which nothing is brighter is nearly black."""
LEAST_OF_16 = 16
"""What 12 of 16 bits stay below as 8 bits."""
SHOWN = 3
"""Folders, or pictures, that a sentence names."""
FITTED = 0.5
"""Share of the parts that fit; the others set the threshold."""


@dataclass(frozen=True)
class Normals:
    """Good parts of a line."""

    root: Path
    samples: tuple[Sample, ...]
    """Healthy, or of a folder that says nothing."""
    notes: tuple[str, ...]
    """What was left out, a sentence each."""
    defects: tuple[Sample, ...] = ()
    """Of the set's part train, for the scorer that learns from them too."""


def normals_in(folder: Path, *, seed: int = 0) -> Normals:
    """The good parts of a folder: of a data set those labelled healthy; of a plain folder those in folders named so, or
    all where there is none.

    Of a set that has defects too, its part test is left to whoever evaluates, see ``held_back``.

    Args:
        folder: A data set, or a plain folder of pictures.
        seed: Of the dealing, where the set itself does not say what is test.

    Raises:
        DatasetError: The folder is missing, empty, holds nothing healthy, is the folder of a defect, or holds fewer
            good parts than a fit needs.
    """
    check_no_defect(folder)
    samples = pictures_in(folder)
    notes = []
    defects: tuple[Sample, ...] = ()
    if any(one.healthy is not None or one.label for one in samples):
        healthy = tuple(one for one in samples if one.healthy)
        if not healthy:
            labels = ", ".join(sorted({one.label for one in samples if one.label}))
            raise DatasetError(
                f"{folder} has no picture of a good part (labels: {labels}); give good parts, or say in dataset.yaml "
                "which labels are healthy"
            )
        if len(healthy) < len(samples):
            others = len(samples) - len(healthy)
            notes.append(f"{others} pictures of {folder} are not labelled healthy and are left out")
            dataset = load_dataset(folder)
            back = held_back(dataset, seed=seed)
            parts = deal(dataset, seed=seed, honour_split=True)
            defects = tuple(one for one in dataset.samples if one.healthy is False and parts[one.image] == "train")
            given = tuple(one for one in healthy if one.image not in back)
            notes.append(f"{len(healthy) - len(given)} good parts belong to the set's part test and are left out")
            healthy = given
        samples = healthy
    else:
        samples, said = _of_good_folders(samples)
        notes += said
    once = {sha256_file(one.path): one for one in reversed(samples)}.values()
    copies = len(samples) - len(once)
    if copies:
        are = "picture is a copy" if copies == 1 else "pictures are copies"
        notes.append(f"{copies} {are} of others, to the byte, and would make them look more alike: left out")
        samples = tuple(reversed(once))
    units = len({one.unit for one in samples})
    if units < FEWEST:
        told = f" that differ ({copies} copies)" if copies else ""
        raise DatasetError(
            f"{folder} holds {units} good part{'' if units == 1 else 's'}{told}; a scorer needs {FEWEST} at least, "
            "and 200 for a threshold that means something"
        )
    return Normals(folder, samples, tuple(notes), defects)


def _of_good_folders(samples: tuple[Sample, ...]) -> tuple[tuple[Sample, ...], list[str]]:
    """Of a plain folder with others in it: where one is named ``good`` or alike its pictures alone, else all.

    ``good_parts`` and ``defect-free`` say so too where no folder is named by the word alone; ``not_good`` does not.
    """
    folders = {one.image: Path(one.image).parent.as_posix() for one in samples}
    named = {folder for folder in folders.values() if any(_is_good(part) for part in Path(folder).parts)}
    if not named:
        named = {folder for folder in folders.values() if any(_says_good(part) for part in Path(folder).parts)}
    others = sorted({folder for folder in folders.values() if folder not in named})
    if named and others:
        good = tuple(one for one in samples if folders[one.image] in named)
        told = ", ".join("the folder itself" if folder == "." else folder for folder in others[:SHOWN])
        more = ", …" if len(others) > SHOWN else ""
        taken, left = ", ".join(sorted(named)[:SHOWN]), len(samples) - len(good)
        return good, [
            f"{left} pictures lie elsewhere than in {taken} ({told}{more}) and are left out; give a folder of good "
            "parts alone if they are good"
        ]
    if len(others) > 1:
        return samples, [f"the pictures of {len(others)} folders are all taken for good parts"]
    return samples, []


def _is_good(name: str) -> bool:
    return name.casefold() in DEFAULT_HEALTHY


def _says_good(name: str) -> bool:
    words = re.findall(r"[a-z]+", name.casefold())
    return any(map(_is_good, words)) and not {"not", "no", "non"} & set(words)


def check_not_blank(samples: Sequence[Sample], root: Path) -> tuple[str, ...]:
    """Whether some picture shows anything at all; what to say where all are nearly black.

    Raises:
        DatasetError: Each is of one colour.
    """
    brightest, blank = 0, True
    for one in samples:
        image = read_image(one)
        brightest, blank = max(brightest, int(image.max())), blank and bool((image == image[:1, :1]).all())
        if brightest >= DARK and not blank:
            return ()
    hint = ""
    if brightest < LEAST_OF_16 and all(one.bits == 16 for one in samples):
        hint = (
            "; where a file has 16 bits and the camera fills 12 of them, write `schema: dataset/1` and `bit_depth: 12` "
            f"into {root / 'dataset.yaml'}: a station's frames must then come as 8 bits, or fill 16"
        )
    if blank:
        raise DatasetError(
            f"the {len(samples)} pictures of {root} that were looked at are each of one colour; is the lens covered, "
            f"or the lamp off? Give pictures of good parts{hint}"
        )
    return (
        f"nothing in the {len(samples)} pictures that were looked at is brighter than {brightest} of 255; give more "
        f"light or a longer exposure{hint}",
    )


def held_back(dataset: Dataset, *, seed: int) -> frozenset[str]:
    """Names of the healthy pictures that no scorer is fitted on: the set's part test, its own or dealt."""
    parts = deal(dataset, seed=seed, honour_split=True)
    return frozenset(one.image for one in dataset.samples if one.healthy and parts[one.image] == "test")


def usual_size(samples: Sequence[Sample], *, several: bool | None) -> tuple[tuple[int, int], bool]:
    """Height and width of most pictures, or where they differ the middle ones, and whether all are of nearly one size.

    Args:
        samples: At least one.
        several: Whether they may be of several sizes; ``None``: where fewer than ``ONE_SIZE`` of them share one.

    Raises:
        DatasetError: A side of some picture is off by more than ``NEARLY``, and may not be; names a few such and the
            size of the others.  Or one is smaller than a cell.
    """
    check_sides(samples)
    sizes = {one.image: picture_size(one.path) for one in samples}
    counts = Counter(sizes.values())
    near = _near(counts)
    height, width = max(counts, key=lambda size: (near[size], counts[size]))
    other = [one for one in samples if not _alike(sizes[one.image], (height, width))]
    share = 1 - len(other) / len(samples)
    if other and not (share < ONE_SIZE if several is None else several):
        named = ", ".join(
            f"{one.path} is {wide} x {tall}" for one, (tall, wide) in ((one, sizes[one.image]) for one in other[:SHOWN])
        )
        more = f" and {len(other) - SHOWN} more differ" if len(other) > SHOWN else ""
        raise DatasetError(
            f"{named}{more}, but {len(samples) - len(other)} of {len(samples)} pictures are {width} x {height} or "
            "nearly; most cameras give one size, so leave out what differs, or stretch all to one: --stretch"
        )
    if other:
        # the size that most have may be that of a few in a hundred, and nothing like the others
        height, width = (round(median(side)) for side in zip(*sizes.values(), strict=True))
    return (height, width), not other


def _alike(size: tuple[int, int], other: tuple[int, int]) -> bool:
    return all(abs(side / usual - 1) <= NEARLY for side, usual in zip(size, other, strict=True))


def _near(counts: Mapping[tuple[int, int], int]) -> dict[tuple[int, int], int]:
    """By size the pictures of nearly this size; there may be as many sizes as pictures."""
    sizes, of = np.array(list(counts), np.float64), np.array(list(counts.values()))
    return {size: int(of[(np.abs(sizes / size - 1) <= NEARLY).all(axis=1)].sum()) for size in counts}


def split_normals(samples: Sequence[Sample], *, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Those that fit and those that set the threshold; no group is torn apart.

    Units, in order of the sha256 of seed and name, are dealt by turns, so both halves hold each half of the parts.
    """
    units = sorted({one.unit for one in samples}, key=lambda unit: hashlib.sha256(f"{seed}:{unit}".encode()).digest())
    fitted = set(units[: round(len(units) * FITTED)])
    return (
        tuple(one for one in samples if one.unit in fitted),
        tuple(one for one in samples if one.unit not in fitted),
    )


def check_no_defect(folder: Path) -> None:
    """Refuse ``…/test/scratch`` of a set in MVTec's layout, which is easily mistaken for good parts.

    Raises:
        DatasetError: It is such a folder.
    """
    whole = folder.resolve()
    if whole.parent.name not in ("test", "ground_truth") or whole.name.lower() in DEFAULT_HEALTHY:
        return
    beside = [other for other in whole.parent.parent.iterdir() if other.name == "train"]
    if beside:
        raise DatasetError(
            f"{folder} holds the defect {whole.name!r} of a data set, not good parts; give {beside[0] / 'good'}, or "
            "the whole set"
        )
