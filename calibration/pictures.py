"""The pictures that calibration looks at: a data set's, or a plain folder's; a balanced choice of them.

What calibrates, what chooses and what reports are three disjoint lists.  Pictures of one part lie in one of them
alone, and a picture that is there under two names counts once.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Sample, load_dataset, picture_size
from edge_sdk.quality.layouts import dataset_file
from edge_sdk.quality.pictures import SUFFIXES

__all__ = ["MODEST", "Dealt", "balanced", "dealt", "odd_sizes", "pictures_in"]

_CHOOSING_SHARE = 5
"""One picture in so many chooses, at most ``_CHOOSING`` of them."""
_CHOOSING = 32

MODEST = 64
"""With fewer pictures than this ranges still move when more come."""


def pictures_in(folder: Path) -> tuple[Sample, ...]:
    """The pictures of a data set, or of a folder that says nothing about them, sorted by name.

    Of such a folder, too, ``dataset.yaml`` may say how many of their bits are used.

    Raises:
        DatasetError: There is no such folder, or no picture in it, or its labels contradict themselves.
        ConfigError: ``dataset.yaml`` is wrong; the message begins with file and line.
    """
    if folder.is_dir() and not _says_what_it_holds(folder):
        plain = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
        named = sorted((path.relative_to(folder).as_posix(), path) for path in plain)
        # what systems and viewers hide is theirs: macOS' ._001.png is no picture
        named = [(name, path) for name, path in named if not any(part.startswith(".") for part in Path(name).parts)]
        bits = dataset_file(folder).bit_depth
        samples = tuple(Sample(path=path, image=name, label="", bits=bits) for name, path in named)
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


@dataclass(frozen=True)
class Dealt:
    """Who does what."""

    calibrating: tuple[Sample, ...]
    choosing: tuple[Sample, ...]
    """Of which no part and no content is among those that calibrate; may be empty."""
    twins: int
    """Pictures left out since another one has the same bytes."""


def dealt(samples: Sequence[Sample], most: int) -> Dealt:
    """Deal pictures to those that calibrate and those that choose, always the same way.

    A fifth chooses, at most 32, as whole parts and as evenly over domains and labels as the calibrating ones; of what
    is left at most ``most`` calibrate.  Where no part is small enough to be spared, none chooses.
    """
    seen: dict[str, Sample] = {}
    for sample in samples:
        seen.setdefault(sha256_file(sample.path), sample)
    distinct = list(seen.values())
    wanted = min(_CHOOSING, len(distinct) // _CHOOSING_SHARE)
    parts: dict[str, list[Sample]] = defaultdict(list)
    for sample in distinct:
        parts[sample.unit].append(sample)
    heaps: dict[tuple[str, str], list[str]] = defaultdict(list)
    for unit in sorted(parts, key=lambda one: hashlib.sha256(f"choosing {one}".encode()).digest()):
        heaps[min((sample.domain, sample.label) for sample in parts[unit])].append(unit)
    choosing: list[Sample] = []
    while any(heaps.values()):
        for key in sorted(heaps):
            while heaps[key]:
                unit = heaps[key].pop(0)
                if len(choosing) + len(parts[unit]) <= wanted:
                    choosing += parts[unit]
                    break
    taken = {sample.image for sample in choosing}
    rest = [sample for sample in distinct if sample.image not in taken]
    return Dealt(
        balanced(rest, most),
        tuple(sorted(choosing, key=lambda one: one.image)),
        len(samples) - len(distinct),
    )


def odd_sizes(samples: Sequence[Sample]) -> str | None:
    """A sentence where the pictures are not all of one size, as those of one camera are."""
    sizes = [picture_size(sample.path) for sample in samples]
    counts = Counter(sizes).most_common()
    if len(counts) < 2:
        return None
    (usual, _), (other, _) = counts[:2]
    odd = sum(count for size, count in counts if size != usual)
    first = samples[sizes.index(other)].image
    are = "is" if odd == 1 else "are"
    return (
        f"{odd} of {len(sizes)} pictures {are} not {usual[1]} x {usual[0]} as most are: {first} is "
        f"{other[1]} x {other[0]}; is it of another camera?"
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
