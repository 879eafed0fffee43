"""What ``training evaluate`` left of each model: logits and features of the test pictures, for the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.arrays import Array, Floats
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.quality.datasets import Line, Sample
from edge_sdk.quality.measures import average_precision, bootstrap_over_groups
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import decode_cells
from edge_sdk.vision.preprocess import PreprocessSpec, geometry
from examples.loop.charts import Point
from examples.loop.drawing import reported
from examples.loop.page import Compared, Plane, Shot
from examples.loop.schema import Gain
from training.figures import plane_of
from training.probe import domain_probe

__all__ = ["Evaluated", "compared", "gain", "plane"]


@dataclass(frozen=True)
class Evaluated:
    """A checkpoint with its outputs on the test pictures."""

    checkpoint: Path
    folder: Path
    """That ``training evaluate`` wrote into."""

    def document(self) -> dict[str, Any]:
        """``checkpoint.json``."""
        found: dict[str, Any] = json.loads((self.checkpoint / "checkpoint.json").read_text(encoding="utf-8"))
        return found

    def spec(self) -> PreprocessSpec:
        """Of the network."""
        said: Any = {
            name: tuple(v) if isinstance(v, list) else v for name, v in self.document()["preprocess"].items()
        }
        return PreprocessSpec(**said)

    def bands(self) -> Thresholds:
        """Thresholds of the new line; of the original one where it knows no other."""
        path = self.checkpoint / "lines" / "new.json"
        if not path.exists():
            path = path.with_name("original.json")
        rows = json.loads(path.read_text(encoding="utf-8"))["thresholds"]

        def column(name: str) -> Floats:
            return np.array([row[name] for row in rows], np.float32)

        return Thresholds(column("boundary"), column("pass_below"), column("defective_from"))

    def confidence(self) -> dict[str, Floats]:
        """``(K, h, w)`` of each of the new line's test pictures, by name; the padding is healthy."""
        with np.load(self.folder / "cells.npz", allow_pickle=False) as found:
            maps = found["new_confidence"].astype(np.float32) * found["new_valid"][:, None]
            return dict(zip(found["new_names"].tolist(), maps, strict=True))

    def scores(self) -> dict[str, tuple[Array, Array]]:
        """Scores and truth of each of the new line's test pictures: its known cells, or the picture as one."""
        with np.load(self.folder / "cells.npz", allow_pickle=False) as found:
            maps = found["new_logits"].max(axis=1)
            truth, known = found["new_truth"].max(axis=1), found["new_known"].max(axis=1).astype(bool)
            shown = found["new_valid"].astype(bool)
            names, defective = found["new_names"].tolist(), found["new_defective"].astype(bool)
        where = known & shown
        if (truth * where).any():
            return {name: (maps[n][where[n]], truth[n][where[n]]) for n, name in enumerate(names)}
        maxima = np.where(shown, maps, -np.inf).max(axis=(1, 2))
        return {name: (maxima[n : n + 1], defective[n : n + 1].astype(int)) for n, name in enumerate(names)}


def gain(before: Evaluated, after: Evaluated, units: Mapping[str, str]) -> Gain | None:
    """How much better one model is than another on the same test pictures of the new line.

    Args:
        before: The one.
        after: The other.
        units: Of each picture what may not be torn apart: its group, or itself.

    Returns:
        ``None`` where there is nothing to measure it on, or one group alone and so no interval.
    """
    first, second = before.scores(), after.scores()
    names = [name for name in first if name in second]
    truth = {name: first[name][1] for name in names}
    if not any(one.any() for one in truth.values()) or len({units[name] for name in names}) < 2:
        return None

    def difference(rows: Array) -> float:
        chosen = [names[row] for row in rows]
        true = np.concatenate([truth[name] for name in chosen])
        return average_precision(
            np.concatenate([second[name][0] for name in chosen]), true
        ) - average_precision(np.concatenate([first[name][0] for name in chosen]), true)

    low, high = bootstrap_over_groups(difference, [units[name] for name in names], rounds=400)
    value = difference(np.arange(len(names)))
    return Gain(value=value, low=low, high=high) if np.isfinite([value, low, high]).all() else None


def compared(models: list[Evaluated], line: Line, shown: list[tuple[Sample, Any]]) -> list[Compared]:
    """Test pictures of the new line as each model sees them.

    Args:
        models: Before, adapted, after mentoring.
        line: The new one, evaluating.
        shown: Samples with their pictures behind the line's gap.
    """
    maps = [model.confidence() for model in models]
    found = []
    for sample, image in shown:
        if any(sample.image not in one for one in maps):
            continue
        truth = line.truth(sample)
        shots = tuple(
            _shot(model, one[sample.image], image, truth.mask)
            for model, one in zip(models, maps, strict=True)
        )
        defective = None if truth.healthy is None else not truth.healthy
        found.append(Compared(sample.image, defective, truth.known and bool(defective), shots))
    return found


def _shot(model: Evaluated, confidence: Floats, image: Any, mask: Array | None) -> Shot:
    document, spec = model.document(), model.spec()
    bands = model.bands()
    place = geometry(spec, image.shape[0], image.shape[1])
    detections = decode_cells(confidence, bands.pass_below, place=place, cell_px=int(document["cell_px"]))
    verdict, _ = decide(detections, bands, Labels(tuple(document["classes"])))
    marked = np.zeros(confidence.shape[1:], bool)
    marked[detections.cells[:, 1], detections.cells[:, 2]] = True
    return Shot(reported(image, mask, marked, spec), verdict.value)


def plane(title: str, folder: Path, *, seed: int) -> Plane | None:
    """The pictures of both lines in a model's feature space; ``None`` where there are too few.

    Args:
        title: Of the figure.
        folder: That ``training evaluate`` wrote into.
        seed: Of the t-SNE.
    """
    with np.load(folder / "features.npz", allow_pickle=False) as found:
        features = np.concatenate([found["original_feature"], found["new_feature"]])
        is_new = np.r_[
            np.zeros(len(found["original_feature"]), bool), np.ones(len(found["new_feature"]), bool)
        ]
        defective = np.concatenate([found["original_defective"], found["new_defective"]])
        names = [found["original_names"].tolist(), found["new_names"].tolist()]
    if len(features) < 4:
        return None
    spread = plane_of(features, seed=seed)
    points = tuple(
        Point(float(x), float(y), bool(new), bool(bad))
        for (x, y), new, bad in zip(spread, is_new, defective, strict=True)
    )
    # both lines show the same test pictures: the probe may not know one again
    probe = domain_probe(
        features[~is_new], features[is_new], original_units=names[0], new_units=names[1], seed=seed
    )
    return Plane(title, points, None if probe is None else probe.distance)
