"""What ``transfer`` does with folders and files: read normals and audit, run, write."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.documents import sha256_file
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.folders import check_file
from edge_sdk.quality.datasets import Line, Lines, Sample, load_dataset
from edge_sdk.quality.layouts import dataset_file
from edge_sdk.quality.pictures import SUFFIXES
from training.checkpoint import Checkpoint, check_place, load_checkpoint, save_checkpoint
from training.data.views import Views, batches_of, views_of
from training.moments import Moments, load_moments, moments_of, pooled, save_moments
from training.normals import (
    DEFAULT,
    UNTRAINED,
    Transfer,
    candidates_of,
    check_cells,
    default_of,
    transfer,
    transfer_moments,
)
from training.normals_choice import MOST, audit_drawn, shared_pictures
from training.outcome import Work, write_transferred
from training.scorers.normals import check_no_defect

__all__ = ["Asked", "run"]

ASPECT = 1.25
"""How much longer or flatter than the original line's pictures normals may be before it is said."""


@dataclass(frozen=True)
class Asked:
    """Of the command, besides the config."""

    checkpoint: Path
    out: Path | None
    normals: Path | None
    pool: tuple[Path, ...]
    moments: Path | None
    audit: str | None
    """A folder, or how many pictures to draw."""
    under: str | None
    """A line of the checkpoint, whose statistics are normalised by while others are measured."""
    resume: Path | None


def run(asked: Asked, work: Work) -> dict[str, Any]:
    """Measure, pool or transfer, and write what was asked for.

    Returns:
        What the command prints.

    Raises:
        ConfigError: The options contradict each other, or something is not there.
        DatasetError: The pictures do not allow it.
    """
    config = work.config
    if asked.out is None and asked.moments is None:
        raise ConfigError("there is nothing to write; give --out FOLDER, or --moments FILE to pool elsewhere")
    if asked.out is not None:
        check_place(asked.out)
    if asked.moments is not None:
        check_file(asked.moments)
    if asked.pool and (asked.normals is not None or asked.audit is not None or config.methods):
        raise ConfigError("--pool makes the line of statistics alone; leave out --normals, --audit and --method")
    base = load_checkpoint(asked.checkpoint)
    name = config.line or "new"
    check_cells(base, name)
    began = time.monotonic()
    if asked.pool:
        return _pooled(asked, base, name, work, began)
    if asked.under is not None and asked.moments is None:
        raise ConfigError("--under says how statistics for a file are measured; give --moments FILE too")
    lines = config.lines(base.data, seed=config.recipe(base.recipe).seed)[1] if config.data else None
    audit = None if asked.audit is None else _audit(asked.audit, base, lines, config.recipe(base.recipe).seed)
    normals = _normals(asked.normals, base, lines, audit, work)
    said: dict[str, Any] = {"normals": normals.count}
    if asked.moments is not None:
        if not normals.count:
            raise DatasetError(f"line {name} has no normal picture; give at least 2 pictures of good parts, better 30")
        under = None if asked.under is None else base.line(asked.under).statistics
        measured = moments_of(base.network, batches_of(normals.images, base.preprocess, flips=True), under=under)
        save_moments(replace(measured, pictures=normals.count), asked.moments)
        said |= {"moments": str(asked.moments), "under": asked.under or "own"}
    if asked.out is None:
        return {**said, "took_s": round(time.monotonic() - began, 2)}
    unnamed = (default_of(base),) if audit is None or lines is None else candidates_of(base)
    methods = config.methods or unnamed
    original = None
    if set(methods) - set(UNTRAINED) and lines is not None:
        line = lines.original
        original = line, views_of(line, line.train, base.preprocess, grid=base.grid, labelled=True)
    recipe = config.recipe(base.recipe)
    found = transfer(
        base, normals, recipe, methods=methods, original=original, audit=audit, name=name,
        resume=asked.resume, progress=work.progress,
    )  # fmt: skip
    for note in found.notes:
        work.tell(note)
    if found.odd:
        shown = ", ".join(found.odd[:5])
        work.tell(f"{len(found.odd)} of the normals look defective ({shown}); look at them, and take out what is")
    said |= _said(found, name)
    write_transferred(found, asked.out, name, said, work)
    return {"out": str(asked.out), **said, "took_s": round(time.monotonic() - began, 2)}


def _normals_of(folder: Path, base: Checkpoint) -> tuple[Views, tuple[str, ...]]:
    """The healthy pictures of a folder, and what is to be said of them.

    A folder of pictures alone holds normals; of a labelled set, as ``load_dataset`` reads it, the healthy ones are
    taken that are no test pictures.

    Raises:
        DatasetError: There is no such folder, no picture in it, none is healthy, or it is the folder of a defect.
    """
    if not folder.is_dir():
        raise DatasetError(f"there is no folder {folder}; give the folder with the new line's good parts")
    check_no_defect(folder)
    loose = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    notes: list[str] = []
    if loose and not (folder / "labels.csv").is_file():
        bits = dataset_file(folder).bit_depth
        samples = [
            Sample(path=path, image=path.name, label="good", domain="new", healthy=True, bits=bits) for path in loose
        ]
    else:
        if not (folder / "labels.csv").is_file() and not any(folder.iterdir()):
            raise DatasetError(f"{folder} holds no picture; give the folder with the new line's good parts")
        dataset = load_dataset(folder)
        samples = [one for one in dataset.samples if one.healthy and one.split != "test"]
        left = len(dataset.samples) - len(samples)
        if not samples:
            raise DatasetError(
                f"{folder} holds no picture that is labelled healthy; add some, or say in dataset.yaml which labels are"
            )
        if left:
            whole = left + len(samples)
            notes.append(f"{left} of {whole} pictures in {folder} are not healthy or to be tested on: left out")
    line = Line("new", None, tuple(samples), (), (), (), classes=base.classes)
    views = views_of(line, samples, base.preprocess, grid=base.grid, labelled=True)
    odd = _other_shape(samples, base)
    return views, (*notes, *odd)


def _normals(folder: Path | None, base: Checkpoint, lines: Lines | None, audit: Views | None, work: Work) -> Views:
    if folder is not None:
        views, notes = _normals_of(folder, base)
        for note in notes:
            work.tell(note)
        return views
    if lines is None:
        raise ConfigError("the new line's normals are missing; give --normals FOLDER, or --data with that line in it")
    line = lines.line(work.config.line or "new")
    samples = [one for one in line.train if one.healthy]
    views = views_of(line, samples, base.preprocess, grid=base.grid, labelled=True)
    if audit is not None:
        audited = shared_pictures(views, audit)
        views = views.taken(np.array([name not in audited for name in views.names], bool))
    work.tell(f"normals are the {views.count} healthy pictures of line {line.name}, part train, that no audit shows")
    return views


def _audit(asked: str, base: Checkpoint, lines: Lines | None, seed: int) -> Views:
    if asked.isdecimal():
        if lines is None:
            raise ConfigError(f"an audit of {asked} pictures is to be drawn, but from what; give --data FOLDER")
        line = lines.new[0]
        samples: Sequence[Sample] = audit_drawn(line, seed=seed, most=int(asked))
    else:
        dataset = load_dataset(Path(asked))
        samples = [one for one in dataset.samples if one.healthy is not None]
        if len(samples) > MOST:
            raise DatasetError(f"the audit in {asked} holds {len(samples)} pictures; give at most {MOST}, drawn by lot")
        _check_not_tested(samples, lines, asked)
        line = Line("new", None, tuple(samples), (), (), (), classes=base.classes, empty_mask=dataset.empty_mask)
    views = views_of(line, samples, base.preprocess, grid=base.grid, labelled=False)
    defective = {one.image for one in samples if not one.healthy}  # of an audit's picture no more is asked
    return replace(views, defective=np.array([name in defective for name in views.names], bool))


def _check_not_tested(samples: Sequence[Sample], lines: Lines | None, where: str) -> None:
    """By content: a copy under another name is the same picture."""
    if lines is None:
        return
    tested = {sha256_file(one.path) for line in (lines.original, *lines.new) for one in line.test}
    for sample in samples:
        if sha256_file(sample.path) in tested:
            raise DatasetError(f"{sample.image} in {where} is in part test, which no audit may see; take it out")


def _other_shape(samples: Sequence[Sample], base: Checkpoint) -> tuple[str, ...]:
    from edge_sdk.quality.datasets import picture_size

    if base.preprocess.tile_overlap_px is not None:  # tiles cover any shape
        return ()
    wanted = base.preprocess.width / base.preprocess.height
    far = []
    for sample in samples:
        height, width = picture_size(sample.path)
        ratio = width / height / wanted
        if max(ratio, 1 / ratio) > ASPECT:
            far.append(f"{sample.image} is {width} x {height}")
    if not far:
        return ()
    return (
        f"{len(far)} of {len(samples)} normals have another shape than the original line's pictures ({far[0]}, the "
        f"network's input is {base.preprocess.width} x {base.preprocess.height}); they are padded; is it this part?",
    )


def _pooled(asked: Asked, base: Checkpoint, name: str, work: Work, began: float) -> dict[str, Any]:
    places = [(path, load_moments(path)) for path in asked.pool]
    for (first, one), (second, other) in combinations(places, 2):
        if _same(one, other):
            raise ConfigError(
                f"{second} holds the same statistics as {first}, whose pictures would count twice; leave one out"
            )
    whole = pooled([moments for _, moments in places])
    said: dict[str, Any] = {"pooled": len(asked.pool), "normals": whole.pictures}
    if asked.moments is not None:
        save_moments(whole, asked.moments)
        said["moments"] = str(asked.moments)
    if asked.out is not None:
        if base.network.frozen:
            work.tell(
                "the trunk is frozen: normalised by another line's normals it ranked pictures worse than as it was "
                "pretrained; try the model as it is beside it, with a threshold of normals: transfer --method source"
            )
        save_checkpoint(transfer_moments(base, whole, name=name), asked.out)
        said |= {"out": str(asked.out), "line": name, "method": DEFAULT}
    return {**said, "took_s": round(time.monotonic() - began, 2)}


def _same(one: Moments, other: Moments) -> bool:
    return one.of.keys() == other.of.keys() and all(
        moment.count == other.of[name].count
        and moment.mean.equal(other.of[name].mean)
        and moment.variance.equal(other.of[name].variance)
        for name, moment in one.of.items()
    )


def _said(found: Transfer, name: str) -> dict[str, Any]:
    bands = found.chosen.line(name).thresholds
    return {
        "line": name,
        "method": found.method,
        "audit": None if found.choice is None else found.choice.document(),
        "thresholds": bands.how,
        "guarantee": bands.guarantee,
        "odd_normals": list(found.odd),
    }
