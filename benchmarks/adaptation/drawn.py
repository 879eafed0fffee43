"""The synthetic lines as data set folders: read, dealt and judged as anybody's pictures are."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_sdk.arrays import Floats, Image
from edge_sdk.quality.datasets import Dataset, Line, Lines, Sample, load_dataset
from training.data import gaps
from training.data.synthetic import classification_set

__all__ = ["LINES", "DrawnPart", "drawn_lines", "drawn_set", "lines_by_folder", "picture_of"]

LINES = ("brushed", "cast")
"""Names of the synthetic domains 0 and 1: the original line and the new one."""


def drawn_lines(folder: Path, *, seed: int, prior: float, pictures: int, tested: int) -> Dataset:
    """Draw both lines and read them.

    Args:
        folder: Written anew: pictures, ``labels.csv`` and ``dataset.yaml``.
        seed: Of every picture; another seed shares none.
        prior: Share of defective ones among the new line's pictures to adapt to, in (0, 1).
        pictures: Of each line to learn from; of the original line half are defective.
        tested: Of each line to test on, half of them defective.
    """
    defective = round(prior * pictures)
    half, tried = pictures // 2, tested // 2
    return drawn_set(
        folder,
        (
            DrawnPart(LINES[0], 0, "train", pictures - half, half),
            DrawnPart(LINES[0], 0, "test", tested - tried, tried),
            DrawnPart(LINES[1], 1, "train", pictures - defective, defective),
            DrawnPart(LINES[1], 1, "test", tested - tried, tried),
        ),
        seed=seed,
    )


@dataclass(frozen=True)
class DrawnPart:
    """Pictures of one line and part."""

    line: str
    domain: int
    """Of ``training.data.synthetic``."""
    split: str
    healthy: int
    defective: int
    gap: str | None = None
    """Behind which the pictures are drawn."""


def drawn_set(folder: Path, parts: Sequence[DrawnPart], *, seed: int) -> Dataset:
    """Draw lines and read them; the first is the original one, the others are one new line where none is named.

    Args:
        folder: Written anew: pictures, ``labels.csv`` and ``dataset.yaml``.
        parts: At most 10, so that no two seeds share a picture.
        seed: Of every picture.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, part in enumerate(parts):
        images, truth = classification_set(part.domain, part.healthy, part.defective, 10 * seed + number)
        (folder / part.line).mkdir(exist_ok=True)
        for n, (image, wrong) in enumerate(zip(images, truth, strict=True)):
            name = f"{part.line}/{part.split}_{n:04d}.png"
            pixels = picture_of(image)
            if part.gap is not None:
                pixels = gaps.apply(part.gap, pixels, key=name)
            cv2.imwrite(str(folder / name), pixels)
            group = f"{part.split}_{part.line}_{n:04d}"
            rows.append((name, "defect" if wrong else "good", part.line, group, part.split))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "domain", "group", "split"), *rows])
    original, *new = dict.fromkeys(part.line for part in parts)
    (folder / "dataset.yaml").write_text(
        "schema: dataset/1\ntitle: Drawn lines\nlicence: drawn by this program\n"
        f"domains: {{original: [{original}], new: [{', '.join(new)}]}}\n",
        encoding="utf-8",
    )
    return load_dataset(folder)


def picture_of(image: Floats) -> Image:
    """A drawn picture as a file holds it.

    Args:
        image: ``(3, H, W)`` in [0, 1]; the first channel is drawn as red.

    Returns:
        ``(H, W, 3)`` uint8, blue green red.
    """
    return np.asarray(np.rint(255 * image.transpose(1, 2, 0)[..., ::-1]), np.uint8)


def lines_by_folder(dataset: Dataset, *, judging: bool = False) -> Lines:
    """The lines ``original`` and ``new`` of a set whose folders ``<line>/<part>/`` are its parts: nothing is dealt.

    Args:
        dataset: As read.
        judging: Hand out the truth of the part test too.
    """
    hidden = frozenset() if judging else frozenset(one.image for one in dataset.samples if "/test/" in one.image)

    def line(name: str) -> Line:
        def part(which: str) -> tuple[Sample, ...]:
            return tuple(one for one in dataset.samples if one.image.startswith(f"{name}/{which}/"))

        return Line(
            name=name,
            gap=None,
            train=part("train"),
            validate=part("validate"),
            mentor=part("mentor"),
            test=part("test"),
            domains=(name,),
            classes=dataset.classes,
            withheld=hidden,
        )

    return Lines(original=line("original"), new=(line("new"),), notes=())
