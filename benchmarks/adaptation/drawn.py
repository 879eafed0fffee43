"""The synthetic lines as data set folders: read, dealt and judged as anybody's pictures are."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np

from edge_sdk.quality.datasets import Dataset, Line, Lines, Sample, load_dataset
from training.data.synthetic import classification_set

__all__ = ["LINES", "drawn_lines", "lines_by_folder"]

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
    parts = (
        (0, "train", pictures - pictures // 2, pictures // 2),
        (0, "test", tested - tested // 2, tested // 2),
        (1, "train", pictures - defective, defective),
        (1, "test", tested - tested // 2, tested // 2),
    )
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (domain, split, healthy, faulty) in enumerate(parts):
        images, truth = classification_set(domain, healthy, faulty, 10 * seed + number)
        (folder / LINES[domain]).mkdir(exist_ok=True)
        for n, (image, wrong) in enumerate(zip(images, truth, strict=True)):
            name = f"{LINES[domain]}/{split}_{n:04d}.png"
            pixels = np.rint(255 * image.transpose(1, 2, 0)).astype(np.uint8)
            cv2.imwrite(str(folder / name), pixels)
            rows.append((name, "defect" if wrong else "good", LINES[domain], f"{split}_{LINES[domain]}_{n:04d}", split))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label", "domain", "group", "split"), *rows])
    (folder / "dataset.yaml").write_text(
        "schema: dataset/1\ntitle: Drawn lines\nlicence: drawn by this program\n"
        f"domains: {{original: [{LINES[0]}], new: [{LINES[1]}]}}\n",
        encoding="utf-8",
    )
    return load_dataset(folder)


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
