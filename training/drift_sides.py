"""The two sets of pictures that ``python -m training drift`` compares, and what a model makes of them.

A set is a folder of pictures, with or without labels, or a hub's export with the records of a station.  A model is a
checkpoint's line or a bundle; either gives features, scores and verdicts as the station would.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, Image
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import read_image
from edge_sdk.quality.drift_reference import summary_of
from edge_sdk.quality.facts import facts_of_picture
from edge_sdk.vision.decode import area_logits, confidence_from_logits
from edge_sdk.vision.preprocess import Adjustment, PreprocessSpec, fitted, shown
from edge_sdk.vision.tiles import outputs_of_frame

__all__ = ["Model", "Picture", "Seen", "model_of", "pictures_of", "seen_of", "sets_of"]

CONTROL = "control"
ENOUGH = 20
"""Control records from which the others are left out: those were chosen for what the model said of them."""


@dataclass(frozen=True)
class Picture:
    """One picture, read when it is looked at."""

    name: str
    read: Callable[[], Image] = field(repr=False)
    unit: str
    """What may not be torn apart."""
    healthy: bool | None = None
    """``None``: nobody said."""
    taken_at: datetime | None = None
    note: str = ""
    """What the station's watch said when it was taken."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What a model makes of one set."""

    pictures: tuple[Picture, ...]
    features: Floats
    """``(n, F)``; of a model without a feature a summary of its confidence."""
    scores: Floats
    """``(n, K)`` strongest confidence of each class."""
    detected: Bools
    """``(n,)``."""
    facts: Floats
    """``(n, 6)``."""
    level: Array
    """``(n, 3)`` mean of blue, green and red where the network looks, grey levels."""
    square: Array
    """``(n, 3)`` mean of the squares."""

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def units(self) -> tuple[str, ...]:
        """What may not be torn apart, a picture each."""
        return tuple(picture.unit for picture in self.pictures)


class Model(Protocol):
    """From a picture to what the station would make of it."""

    classes: tuple[str, ...]
    preprocess: PreprocessSpec
    pass_below: Floats
    """``(K,)``."""

    def infer(self, image: Image, adjust: Adjustment | None) -> tuple[Floats, Floats]:
        """``(K, …)`` confidence of the areas, and the ``(F,)`` feature."""
        ...


def model_of(path: Path, *, line: str | None) -> Model:
    """A checkpoint's line, or a bundle.

    Args:
        path: A checkpoint folder, a ``.bundle`` file or a bundle's folder; a bundle's signature is not asked for.
        line: Of a checkpoint; ``None`` takes its only new line, else ``original``.

    Raises:
        ConfigError: It is none of these, or the checkpoint has no such line.
    """
    if (path / "checkpoint.json").is_file():
        return _CheckpointModel(path, line)
    if path.is_file() or (path / "manifest.json").is_file():
        if line is not None:
            raise ConfigError(f"--line is {line}, but {path} is a bundle, which is for one line; leave --line out")
        return _BundleModel(path)
    raise ConfigError(
        f"{path} holds neither a checkpoint nor a bundle; give the folder that training wrote, or a .bundle"
    )


class _CheckpointModel:
    def __init__(self, path: Path, line: str | None) -> None:
        from training.checkpoint import load_checkpoint
        from training.detector import FACTORY as DETECTOR
        from training.scorers.network import FACTORY as SCORER

        found = load_checkpoint(path)
        if found.factory in (DETECTOR, SCORER):
            what = "detector" if found.factory == DETECTOR else "scorer"
            raise ConfigError(f"{path} is a {what}'s checkpoint; pack it and give the bundle")
        new = [name for name in found.lines if name != "original"]
        self._line = found.line(line or (new[0] if len(new) == 1 else "original"))
        self._checkpoint = found
        self.classes, self.preprocess = found.classes, found.preprocess
        self.pass_below = self._line.thresholds.pass_below

    def infer(self, image: Image, adjust: Adjustment | None) -> tuple[Floats, Floats]:
        from training.lines import confidence, predicted

        seen = fitted(image, self.preprocess, adjust=adjust)[None]
        logits, features = predicted(self._checkpoint.network, self._line.statistics, seen, self.preprocess)
        return confidence(logits, self._line)[0], features[0]


class _BundleModel:
    def __init__(self, path: Path) -> None:
        from edge_sdk.bundles.archive import open_bundle
        from edge_sdk.manifest import thresholds_of
        from edge_sdk.runners import open_runner

        self._bundle = open_bundle(path, trust="unsigned")
        manifest = self._bundle.manifest
        graph, role = self._bundle.model()
        self._runner = open_runner(graph)
        self._temperature = np.array([band.temperature for band in manifest.thresholds], np.float32)
        self.classes, self.preprocess = manifest.classes, manifest.preprocess
        self.pass_below = thresholds_of(manifest, role).pass_below
        self._normals = manifest.postprocess.normals

    def infer(self, image: Image, adjust: Adjustment | None) -> tuple[Floats, Floats]:
        name = self._runner.inputs[0].name
        outputs = outputs_of_frame(
            image, self.preprocess, lambda frame: self._runner.infer({name: frame}), adjust=adjust
        )
        logits = area_logits(outputs, normals=self._normals)
        if logits is None:
            raise ConfigError(f"{self._bundle.title} gives no cells, scores or novelty; there is nothing to compare")
        sure = confidence_from_logits(logits, self._temperature)[0]
        feature = outputs.get("feature")
        return sure, summary_of(sure) if feature is None else np.asarray(feature[0], np.float32)


def pictures_of(folder: Path) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    """The pictures of a folder, a data set, or a hub's export, in the order they were taken as far as that is known.

    Returns:
        The pictures, and what was left out or assumed, a sentence each.

    Raises:
        DatasetError: There is no picture.
    """
    if (folder / "export.json").is_file():
        return _records(folder)
    from calibration.pictures import pictures_in

    samples = pictures_in(folder)
    found = tuple(
        Picture(sample.image, lambda sample=sample: read_image(sample), sample.unit, sample.healthy)  # type: ignore[misc]
        for sample in samples
    )
    return found, ()


def sets_of(
    was: Path | None, now: Path, *, since: str | None = None
) -> tuple[tuple[Picture, ...], tuple[Picture, ...], tuple[str, ...]]:
    """The two sets, and what was left out or assumed.

    Args:
        was: Folder of the reference; ``None`` parts the records of ``now`` by time.
        now: Folder of what the line shows now.
        since: Records before this moment are the reference; ``None``: the older half.

    Raises:
        ConfigError: ``now`` cannot be parted, or ``since`` is no time.
        DatasetError: A set holds no picture.
    """
    new, notes = pictures_of(now)
    if was is not None:
        if since is not None:
            raise ConfigError("--since parts the records of --now; leave it out, as --was is given")
        old, more = pictures_of(was)
        return old, new, (*more, *notes)
    if any(picture.taken_at is None for picture in new):
        raise ConfigError(f"{now} does not say when its pictures were taken; give what was before as --was")
    moment = _moment(since) if since is not None else new[len(new) // 2].taken_at
    assert moment is not None
    old = tuple(one for one in new if one.taken_at is not None and one.taken_at < moment)
    new = new[len(old) :]
    if not old or not new:
        when = since or f"{moment:%Y-%m-%d %H:%M} UTC"
        raise DatasetError(f"{len(old)} records are before {when} and {len(new)} after; give a time between them")
    parted = f"records before {moment:%Y-%m-%d %H:%M} UTC ({len(old)}) are compared with those after ({len(new)})"
    return old, new, (*notes, parted)


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigError(f"--since is {text!r}; give a time, e.g. 2026-11-21T10:00Z") from error
    return found if found.tzinfo is not None else found.replace(tzinfo=timezone.utc)


def _records(folder: Path) -> tuple[tuple[Picture, ...], tuple[str, ...]]:
    from training.answers import read_mentored

    rows = read_mentored(folder).rows
    control = [row for row in rows if row.header.stratum == CONTROL]
    notes = []
    if len(control) >= ENOUGH:
        notes.append(
            f"{folder}: the {len(control)} records of the control sample are looked at; the other "
            f"{len(rows) - len(control)} were chosen for what the model said of them"
        )
    elif rows:
        notes.append(
            f"{folder}: only {len(control)} records are of the control sample, so all {len(rows)} are looked at, "
            "though most were chosen for what the model said of them; a change of the scores may be the choice's"
        )
    kept = sorted(control if len(control) >= ENOUGH else rows, key=lambda row: row.header.captured_at)
    if not kept:
        raise DatasetError(f"{folder} holds no record; export the hub when records have come in")

    def read(path: Path) -> Image:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise DatasetError(f"{path} cannot be read as a picture; export the hub again")
        return np.asarray(image, np.uint8)

    found = tuple(
        Picture(
            name=row.picture,
            read=lambda path=folder / row.picture: read(path),  # type: ignore[misc]
            unit=row.item,
            taken_at=row.header.captured_at,
            note="" if row.header.drift is None else row.header.drift.sentence,
        )
        for row in kept
    )
    return found, tuple(notes)


def seen_of(
    model: Model,
    pictures: Sequence[Picture],
    *,
    adjust: Adjustment | None = None,
    step: Callable[[int, int], None] = lambda done, all_: None,
) -> Seen:
    """Have a model look at a set.

    Args:
        model: As ``model_of`` opens it.
        pictures: At least one.
        adjust: A gain and an offset before the graph.
        step: Told how many of how many are done.

    Raises:
        DatasetError: A picture cannot be read.
    """
    features, scores, facts, level, square = [], [], [], [], []
    spec = model.preprocess
    for n, picture in enumerate(pictures, 1):
        image = picture.read()
        sure, feature = model.infer(image, adjust)
        features.append(feature)
        scores.append(sure.reshape(len(sure), -1).max(axis=1))
        facts.append(facts_of_picture(image, spec, adjust=adjust))
        inner = shown(image, spec, adjust=adjust).astype(np.float64)
        level.append(inner.mean(axis=(0, 1)))
        square.append((inner**2).mean(axis=(0, 1)))
        step(n, len(pictures))
    strongest = np.stack(scores)
    return Seen(
        pictures=tuple(pictures),
        features=np.stack(features).astype(np.float32),
        scores=strongest,
        detected=np.asarray((strongest >= model.pass_below).any(axis=1)),
        facts=np.stack(facts),
        level=np.stack(level),
        square=np.stack(square),
    )
