"""The original line once more, as if it had shown good parts alone: commissioned from them by one command."""

from __future__ import annotations

import csv
import math
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.bundles import open_bundle
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.judge import Judge
from edge_sdk.quality.datasets import Line, Sample, read_image
from edge_sdk.runners import open_runner
from examples.loop.demo import Demo
from examples.loop.drawing import reported, warmed
from examples.loop.page import Strange
from examples.loop.processes import ChildFailedError

__all__ = ["commissioned", "strange_parts"]

FEWEST, MOST = 8, 40
"""Good parts: what a scorer needs at least, and what the demo takes at most; 40 promise a rate of 0.05."""
LEAST_ALPHA = 0.05
DEFECTIVE, GOOD = 3, 2
"""Test pictures on the page, of each kind."""


def commissioned(demo: Demo) -> dict[str, Any]:
    """Commission the line from its good parts with the trunk of the model that was trained; judge its test pictures.

    Returns:
        ``GoodParts`` of the report, with the ``bundle``; with a reason and no bundle where the parts are too few or the
        command refuses them.
    """
    _, lines = demo.lines(evaluating=True)
    good = _good_parts(lines.original)
    units = len({sample.unit for sample in good})
    if units < FEWEST:
        return {"left_out": f"the original line has {units} good parts to commission from; {FEWEST} are needed"}
    folder = demo.out / "good-parts"
    shutil.rmtree(folder, ignore_errors=True)
    _write(good, folder / "pictures")
    held = units - round(units / 2)
    alpha = max(LEAST_ALPHA, math.ceil(1000 / (held + 1)) / 1000)
    words = ["commission", folder / "pictures", "--bundle", folder / f"{demo.name}-good-1.bundle"]
    words += ["--from", demo.out / "source", "--alpha", alpha, "--seed", demo.settings.seed]
    try:
        told = demo.run.run(demo.training("commission", *words))
    except ChildFailedError as error:
        return {"left_out": error.tail[-1] if error.tail else str(error)}
    counts = dict.fromkeys(("good", "stopped", "defective", "found"), 0)
    for sample, one in _judged(Path(told["bundle"]), lines.original.test):
        if sample.healthy is not None:
            counts["good" if sample.healthy else "defective"] += 1
            counts["stopped" if sample.healthy else "found"] += one.verdict is not Verdict.PASSED
    return {"bundle": told["bundle"], "parts": units, "alpha": alpha, **counts}


def strange_parts(demo: Demo, found: dict[str, Any]) -> tuple[Strange, ...]:
    """Defective and good test pictures: where they are strange, what of it is reported, and the verdict.

    Args:
        demo: That ran.
        found: Of ``commissioned``.
    """
    if "bundle" not in found:
        return ()
    _, lines = demo.lines(evaluating=True)
    line = lines.original
    bad = [sample for sample in line.test if sample.healthy is False][:DEFECTIVE]
    good = [sample for sample in line.test if sample.healthy][:GOOD]
    bundle = Path(found["bundle"])
    spec = open_bundle(bundle, trust="unsigned").manifest.preprocess
    rows = []
    for sample, one in _judged(bundle, (*bad, *good)):
        assert one.confidence is not None  # it was inspected
        image, truth = one.frame.pixels, line.truth(sample)
        none = np.zeros(one.confidence.shape[1:], bool)
        marked = none.copy()
        marked[one.detections.cells[:, 1], one.detections.cells[:, 2]] = True
        rows.append(
            Strange(
                sample.image,
                truth.healthy is False,
                reported(image, truth.mask, none, spec),
                warmed(image, one.confidence[0], spec),
                reported(image, None, marked, spec),
                one.verdict.value,
            )
        )
    return tuple(rows)


def _good_parts(line: Line) -> list[Sample]:
    """Of all parts but test, spread evenly."""
    found = [one for part in ("train", "validate", "mentor") for one in line.part(part) if one.healthy]
    return found if len(found) <= MOST else [found[n * len(found) // MOST] for n in range(MOST)]


def _write(samples: Sequence[Sample], folder: Path) -> None:
    """A folder that shows them under their groups."""
    folder.mkdir(parents=True)
    (folder / "dataset.yaml").write_text(f"schema: dataset/1\nbit_depth: {max(one.bits for one in samples)}\n")
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("image", "label", "group"))
        for number, sample in enumerate(samples):
            name = f"{number:04d}{sample.path.suffix.lower()}"
            shutil.copy2(sample.path, folder / name)
            table.writerow((name, "good", sample.unit))


def _judged(bundle: Path, samples: Sequence[Sample]) -> Iterator[tuple[Sample, Inspection]]:
    """What the station's own code makes of pictures."""
    opened = open_bundle(bundle, trust="unsigned")
    path, role = opened.model()
    judge = Judge(opened.manifest, open_runner(path), model=opened.id, rendering=role)
    now = datetime.now(timezone.utc)
    try:
        for number, sample in enumerate(samples):
            yield sample, judge.inspect(Frame(read_image(sample), "demo", number, now), taken_ns=0)
    finally:
        judge.close()
