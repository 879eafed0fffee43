"""From a folder of good parts to a verified bundle: fit, export, quantise, pack, and judge them as a station would.

Training, calibration and export meet in files, so each step is the command of its package, run as it stands.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import TypeAdapter, ValidationError

from edge_sdk.bundles import open_bundle, prove
from edge_sdk.errors import ConfigError, EdgeError
from edge_sdk.frames import Frame
from edge_sdk.inspections import Verdict
from edge_sdk.judge import Judge
from edge_sdk.manifest import BundleName, BundleVersion
from edge_sdk.quality.datasets import Sample, picture_size, read_image
from edge_sdk.runners import open_runner
from edge_sdk.vision.tiles import tiles_of
from training.checkpoint import Checkpoint, check_place, save_checkpoint
from training.commands import resume_beside
from training.scorers.distances import Distances
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.normals import Normals
from training.train import Progress, quiet

__all__ = ["RULE", "CommissionError", "Commissioned", "commission", "place_of"]

LINE = "original"
RULE: Final = "minmax"
"""Of the ranges: a rule that cuts off what is rare cuts off what a scorer looks for.  With ``mse`` good magnetic tiles
near the threshold lost a tenth of the inter-quartile range (seed 100), and 3 points fewer of them lay above it."""
INPUTS = 512
"""Tiles that INT8's ranges are taken from, at most; twice as many are judged by each graph at the end."""
STEPS = 6
"""Commands that are run after the fit."""


class CommissionError(EdgeError, RuntimeError):
    """A step after the fit did not work."""


@dataclass(frozen=True, eq=False)
class Commissioned:
    """A line's first model."""

    checkpoint: Checkpoint
    distances: Distances
    """Of the good parts that set the threshold."""
    held: tuple[Sample, ...]
    bundle: Path
    facts: dict[str, Any]
    """What ``--json`` prints and ``figures.json`` keeps."""


@dataclass(frozen=True)
class Place:
    """Where what is made goes."""

    folder: Path
    """Checkpoint, graphs, page."""
    bundles: Path
    """Folder of the bundle."""
    name: str
    version: str


def place_of(out: Path, normals: Path) -> Place:
    """Of ``--bundle``: a folder, or the bundle's own name.

    Raises:
        ConfigError: A name that ends in ``.bundle`` is not ``NAME-VERSION.bundle`` as a manifest takes it, or the
            folder holds other things, or cannot be written to.
    """
    if out.suffix == ".bundle":
        name, dash, version = out.stem.rpartition("-")
        if not (dash and name and version):
            raise ConfigError(
                f"{out.name} names no version; give NAME-VERSION.bundle, e.g. press-3-1.bundle, or a folder"
            )
        for what, text, kind in (("name", name, BundleName), ("version", version, BundleVersion)):
            try:
                TypeAdapter(kind).validate_python(text)
            except ValidationError as error:
                raise ConfigError(
                    f"{out.name}: no bundle can have the {what} {text!r}; give letters, digits, dots and dashes, "
                    "beginning with a letter or digit, e.g. press-3-1.bundle"
                ) from error
        folder, bundles = out.with_name(out.stem), out.parent
    else:
        folder, bundles = out, out
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", normals.resolve().name).strip("-._") or "line"
        version = "1"
    check_place(folder / "checkpoint")
    return Place(folder, bundles, name, version)


def commission(
    normals: Normals,
    recipe: ScorerRecipe,
    place: Place,
    *,
    lent: Path | None = None,
    key: Path | None = None,
    stretch: bool | None = None,
    progress: Progress = quiet,
) -> Commissioned:
    """Make a line's first model out of good parts.

    Args:
        normals: Good parts.
        recipe: Method, rate of false alarms, seed.
        place: Where to write.
        lent: A checkpoint that lends its trunk.
        key: To sign with; without it the bundle is unsigned.
        stretch: Whether pictures may have several sizes, as a line-scan camera's, each stretched to one; if not given,
            they may where no size is that of nearly all.
        progress: Told of every step.

    Raises:
        DatasetError: Too few good parts for the rate asked for, or of sizes that may not be.
        CommissionError: Export, calibration or packing refused; its sentence is passed on.
    """
    began = time.monotonic()
    checkpoint, said, held = fit_scorer(
        normals, recipe, lent=lent, strict=True, stretch=stretch, resume=resume_beside(place.folder), progress=progress
    )
    kept, work = place.folder / "checkpoint", place.folder / "graphs"
    place.folder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(checkpoint, kept)
    done = 0

    def step(*words: object) -> dict[str, Any]:
        nonlocal done
        found = _run(*words)
        done += 1
        progress("export, quantise, pack", done, STEPS, {})
        return found

    tiles = len(tiles_of(checkpoint.preprocess, *picture_size(held[0].path)))
    watched = held[:: -(-len(held) * tiles // (2 * INPUTS))]
    model = work / "model.onnx"
    names = {one.image for one in held}
    with _folder([one for one in normals.samples if one.image not in names]) as typical, _folder(held) as apart:
        exported = step("export", "onnx", kept, "--line", LINE, "--out", work)
        most = max(8, min(64, INPUTS // tiles))
        step("calibration", "ranges", model, "--pictures", typical, "--out", work, "--max", most, "--rule", RULE)
        step("calibration", "render", model, "--ranges", work / "ranges.json", "--out", work)
        int8 = ("--int8", work / "model.cpu.onnx")
        report = step("calibration", "report", model, *int8, "--pictures", apart, "--out", work)
        bands = step(
            "calibration", "thresholds", model, *int8, "--pictures", apart, "--out", work, "--alpha", recipe.alpha
        )
        words = ["--name", place.name, "--version", place.version, "--out", place.bundles]
        signed = ["--key", key] if key else []
        packed = step("export", "pack", work, "--ckpt", kept, "--line", LINE, "--golden", apart, *words, *signed)
    bundle = Path(packed["bundle"])
    judged = {role: _judged(bundle, role, watched, progress) for role in packed["graphs"] if role != "int8-trt"}
    state = checkpoint.line(LINE)
    facts = {
        "bundle": str(bundle),
        "id": packed["id"],
        "method": recipe.method,
        "pictures": len(normals.samples),
        "tiles": tiles,
        "fitted_on": checkpoint.data["fitted_on"],
        "threshold_from": checkpoint.data["threshold_from"],
        "guarantee": state.thresholds.guarantee,
        "guarantees": {role: row["guarantee"] for role, row in bands.items()},
        "signed": packed["signed"],
        "golden_frames": packed["golden_frames"],
        "graphs": packed["graphs"],
        "left_out": packed["left_out"],
        "unwatched": packed["unwatched"],
        "parity": max(row["greatest_difference"] for row in exported["parity"]),
        "int8": {"agreement": report["agreement"], "sqnr_db": report["sqnr_db"], "speedup": report["speedup"]},
        "judged": len(watched),
        "station": judged,
        "mb": {file.name: round(file.stat().st_size / 1e6, 2) for file in sorted(work.glob("*.onnx"))},
        "notes": [*checkpoint.data["notes"], *([exported["note"]] if exported.get("note") else [])],
        "took_s": round(time.monotonic() - began, 1),
    }
    return Commissioned(checkpoint, said, held, bundle, facts)


def _judged(bundle: Path, role: str, samples: Sequence[Sample], progress: Progress) -> dict[str, Any]:
    """What a station makes of the parts that set the threshold: which share it would stop, and its pace.

    Raises:
        CommissionError: The bundle fails on its own golden frames.
    """
    opened = open_bundle(bundle, trust="unsigned")
    path = opened.file(role)
    assert path is not None  # packed just now
    runner = open_runner(path)
    findings = prove(opened, runner, against="graph" if role == "fp32" else "fp32")
    if findings:
        runner.close()
        raise CommissionError(f"{bundle.name} fails on its golden frames as {role}: {findings[0].sentence}")
    judge = Judge(opened.manifest, runner, model=opened.id, rendering=role)
    frozen = float(opened.thresholds.pass_below[0])
    stopped, at_frozen, took = 0, 0, []
    now = datetime.now(timezone.utc)
    try:
        judge.warm_up()
        for number, sample in enumerate(samples):
            frame = Frame(read_image(sample), "commission", number, now)
            start = time.perf_counter()
            found = judge.inspect(frame, taken_ns=0)
            took.append(time.perf_counter() - start)
            stopped += found.verdict is not Verdict.PASSED
            at_frozen += found.confidence is not None and bool(found.confidence.max() >= frozen)
            progress(f"judge with {role}", number + 1, len(samples), {})
    finally:
        judge.close()
    n = len(samples)
    return {
        "stopped": round(stopped / n, 4),
        "stopped_at_fp32_threshold": round(at_frozen / n, 4),
        "ms": round(1e3 * float(np.median(took)), 2),
    }


def _run(package: object, *words: object) -> dict[str, Any]:
    """A command of another package, its JSON.

    Raises:
        CommissionError: It refused; the last line of what it said.
    """
    asked = [sys.executable, "-m", str(package), *(str(word) for word in words), "--json"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise CommissionError(f"{package} {words[0]}: {said[-1] if said else f'ended with {done.returncode}'}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@contextmanager
def _folder(samples: Sequence[Sample]) -> Iterator[Path]:
    """A folder that shows these pictures, with their groups and used bits, to commands that take one."""
    with tempfile.TemporaryDirectory(prefix="normals-") as name:
        folder = Path(name)
        (folder / "dataset.yaml").write_text(f"schema: dataset/1\nbit_depth: {max(one.bits for one in samples)}\n")
        with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["image", "label", "group"])
            writer.writeheader()
            for number, one in enumerate(samples):
                link = folder / f"{number:05d}{one.path.suffix.lower()}"
                link.symlink_to(one.path.resolve())
                writer.writerow({"image": link.name, "label": "good", "group": one.unit})
        yield folder
