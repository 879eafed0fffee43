"""E9: the mentoring paper as a detector, on hot-rolled steel: does answering boxes help, and does INT8 change them.

Stated before any reported seed was run:

- **Data**: NEU hot-rolled steel with its boxes, six classes, 128 pixels, whole groups in two folds; a fold is once the
  test part of both lines.  Of the other groups a half trains (halved again between the lines by another hash), a tenth
  validates and four tenths are what the new line streams and its operators are asked about.
- **The new line** shows pictures of the same steel under another lamp (gap ``lamp`` at its fixed strength): the set has
  one domain.  It has no picture without a defect, so nothing is known to be healthy as a whole.
- **The detector**: anchors on a frozen MobileNetV2 with ImageNet weights, whose normalisation no line has of its own;
  300 steps of 16 at 3e-3, hard negatives 1:3.  Retraining takes half the steps at a quarter of the rate.
- **The operator** is asked up to three boxes a picture, from the line's ``pass_below`` up, confirms a box that overlaps
  a drawn one of its class by 0.5 or more, infirms one below 0.3, and is unsure between.
- **Primary**: average precision at an overlap of 0.5, all points, mean over classes, inside a fold and averaged; on the
  new line ``masked`` (eq. 4 over the answered anchors, no regression) against the deployed detector, paired, interval
  over groups.  ``longer`` is the same training without the answers, so that more steps are not taken for mentoring.
- **INT8**: the retrained detector of each seed's first fold, quantised with ranges of the new line's unlabelled
  training pictures, its detections at the line's own thresholds matched one to one with those of FP32.

Settings were chosen on seeds 100 and 101.
"""

from __future__ import annotations

import base64
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.arrays import Array
from edge_sdk.detections import Detections
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset

if TYPE_CHECKING:
    from training.box_precision import Hits
    from training.checkpoint import Checkpoint
    from training.data.boxes import BoxViews, MapCache
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "agreement", "run"]

TITLE = "The detector: answered boxes, and INT8"
SUITE = "adaptation"
MINUTES = 30.0
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "neu_steel"
NEEDS = ("torch", "onnxruntime", "../shared/data/neu_steel", "../shared/data/backbone_mobilenetv2")

SEEDS = tuple(range(5))
TUNED_ON = (100, 101)
FOLDS = 2
SHARES = (0.5, 0.1, 0.4, 0.0)
GAP = "lamp"
ROWS = {
    "baseline": "deployed detector",
    "longer": "trained on, no answers (control)",
    "masked": "retrained, masked",
    "unmasked": "retrained, unmasked (control)",
    "full-labels": "full labels (ceiling)",
}
AT_HOME = ("baseline", "masked")
"""Rows that are judged on the original line too."""
ROUNDS = 1000
CALIBRATED_ON = 96
COMPARED_ON = 150
"""Test pictures of a seed, evenly chosen, on which INT8 is compared with FP32."""
KEPT_FLOAT = 8
"""Of the trunk's convolutions, counted from the picture, and the two heads: what stays float."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import Recipe

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds, folds = (SEEDS[:1], 1) if quick else (SEEDS, FOLDS)
    recipe = Recipe(
        trunk="mobilenetv2", side_px=128, iterations=60 if quick else 300, rate=3e-3, batch=16, head="anchors"
    )
    dataset = load_dataset(DATA)
    cache: MapCache = {}
    progress.expect(len(seeds) * folds)
    found = [
        [
            progress.step(
                f"seed {seed}, fold {fold}",
                partial(
                    fold_of, dataset, recipe.model_copy(update={"seed": seed}), fold=fold, quick=quick, cache=cache
                ),
            )
            for fold in range(folds)
        ]
        for seed in seeds
    ]
    musts, rows = _summary(found)
    return Result(
        rows=[*rows, *_each(seeds, found)],
        musts=musts,
        notes=[
            "settings were chosen on seeds 100 and 101, which are not reported; there masked + OMNIA, which the map of "
            "cells ships, gained nothing, since thousands of background anchors leave the few answered ones no weight "
            "in eq. 4's mean; so detectors ship masked alone",
            "the operator is simulated by the drawn boxes; NEU's boxes of crazing and rolled-in scale are loose, so "
            "some infirms are a matter of taste",
            "one set, 90 groups: the interval holds for other groups of this steel, not for other steel",
            "TensorRT was not run: its layout is interpreted by ONNX Runtime's reference kernels",
        ],
        settings={
            "seeds": list(seeds),
            "folds": folds,
            "shares": list(SHARES),
            "gap": GAP,
            "threads": 1,
            "recipe": recipe.model_dump(mode="json"),
            "kept_float": KEPT_FLOAT,
        },
        data={"neu_steel": machine.data_digest(DATA)},
        packages=("torch", "onnxruntime"),
        chart=Chart("new_ap", "box AP at IoU 0.5"),
    )


def fold_of(dataset: Dataset, recipe: Recipe, *, fold: int, quick: bool, cache: MapCache) -> dict[str, Any]:
    """Every row of one fold of one seed, as what JSON can hold."""
    from training.detector import read_boxes, train_detector
    from training.detector_evaluate import judged_views
    from training.detector_mentors import ask_boxes
    from training.detector_retrain import retrain_detector

    def roles(*, evaluating: bool) -> Lines:
        return lines_of(
            dataset, gap=GAP, seed=recipe.seed, fold=(fold, FOLDS), shares=SHARES, evaluating=evaluating
        )

    lines, judging = roles(evaluating=False), roles(evaluating=True)
    baseline = train_detector(dataset, lines, recipe, cache=cache)
    asked = ask_boxes(baseline, lines.new[0], recipe, cache=cache)
    models: dict[str, Checkpoint] = {"baseline": baseline}
    for name in list(ROWS)[1:]:
        strategy_asks = name not in ("longer", "full-labels")
        taught = asked.taught(name) if strategy_asks else None
        models[name] = retrain_detector(baseline, lines, recipe, mentored=taught, strategy=name, cache=cache)
    from training.detector import detector_of

    views = {
        line.name: read_boxes(
            detector_of(baseline),
            line,
            line.test,
            baseline.preprocess,
            recipe,
            labelled=True,
            cache=cache,
            flips=False,
        )
        for line in (judging.original, *judging.new)
    }
    rows: dict[str, Any] = {}
    for name, model in models.items():
        judged = views if name in AT_HOME else {"new": views["new"]}
        states = {line: model.lines.get(line, model.line("original")) for line in judged}
        rows[name] = {line: _packed(judged_views(model, states[line], judged[line]).hits) for line in judged}
    found = {
        "rows": rows,
        "units": {line: list(one.units) for line, one in views.items()},
        "answers": asked.counts,
        "asked": len(asked.answers),
        "pass_below": baseline.line("original").thresholds.pass_below.tolist(),
    }
    if fold == 0:
        found["int8"] = _int8(models["masked"], lines, views["new"], most=60 if quick else COMPARED_ON)
    return found


def agreement(before: Sequence[Detections], after: Sequence[Detections]) -> Array:
    """``(N, 2)``: detections that are matched one to one, and the mean number of both, of each picture.

    Two match where they are of one class and overlap by 0.5 or more; F1 is the sum of the first over that of the
    second.
    """
    from edge_sdk.vision.boxes import overlaps

    counts = np.zeros((len(before), 2))
    for n, (one, other) in enumerate(zip(before, after, strict=True)):
        shared = overlaps(one.boxes, other.boxes)
        shared[one.classes[:, None] != other.classes[None]] = 0
        for row in shared:
            if len(row) and row.max() >= 0.5:
                counts[n, 0] += 1
                shared[:, int(row.argmax())] = 0
        counts[n, 1] = (len(one) + len(other)) / 2
    return counts


def _int8(model: Checkpoint, lines: Lines, views: BoxViews, *, most: int) -> dict[str, Any]:
    """F1 of each rendering's detections with those of FP32 on the new line's test pictures, picture by picture."""
    from calibration.collect import ranges_from_pictures
    from calibration.exported import read_exported
    from calibration.graphs import load_graph
    from calibration.pictures import pictures_in
    from calibration.qdq import host_architecture, qdq_from_onnx
    from calibration.sessions import open_session
    from export.exporting import export_checkpoint
    from training.checkpoint import save_checkpoint
    from training.data.views import normalised
    from training.detector_evaluate import reported
    from training.pictures import write_pictures

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(model, folder / "ckpt")
        export_checkpoint(folder / "ckpt", line="new", out=folder / "out")
        write_pictures(lines.new[0], "train", folder / "pictures", labelled=False, most=CALIBRATED_ON)
        graph = load_graph(folder / "out" / "model.onnx")
        exported = read_exported(folder / "out" / "export.json")
        table = ranges_from_pictures(graph, pictures_in(folder / "pictures"), model.preprocess)
    least, warmth = exported.bands().pass_below, exported.temperature()
    some = views[np.arange(most) * len(views) // most]
    convolutions = [node.name for node in graph.nodes if node.op_type == "Conv"]
    careful = [*convolutions[:KEPT_FLOAT], *convolutions[-2:]]

    def detections(rendering: Any, *, reference: bool = False) -> list[Detections]:
        session = open_session(rendering, reference=reference)
        boxes, scores = [], []
        for image in some.images:
            given = session.run(normalised(image[None], model.preprocess).numpy())
            boxes.append(given["boxes"])
            scores.append(given["scores"])
        return reported(np.concatenate(boxes), np.concatenate(scores), some, warmth, least=least)

    architecture = host_architecture()
    fp32 = detections(graph.model)
    found: dict[str, Any] = {"units": list(some.units), "detections": sum(len(one) for one in fp32)}
    for key, layout, keep in (
        ("cpu", "onnxruntime", careful),
        ("cpu, all of it INT8", "onnxruntime", []),
        ("trt", "tensorrt", careful),
    ):
        made = qdq_from_onnx(graph, table, layout=layout, architecture=architecture, keep_float=keep)  # type: ignore[arg-type]
        found[key] = agreement(fp32, detections(made, reference=key == "trt")).tolist()
    return found


def _summary(found: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[dict[str, Value], list[dict[str, object]]]:
    from training.box_precision import precision_recall

    hits = {
        name: {
            line: [[_unpacked(one["rows"][name][line], one) for one in folds] for folds in found]
            for line in (("original", "new") if name in AT_HOME else ("new",))
        }
        for name in ROWS
    }
    units = {
        line: [[tuple(one["units"][line]) for one in folds] for folds in found] for line in ("original", "new")
    }
    rows: list[dict[str, object]] = []
    for name, words in ROWS.items():
        at_half = np.array([precision_recall(one, 0.5) for folds in hits[name]["new"] for one in folds])
        home = {"original_ap": _round(_mean_ap(hits[name]["original"]))} if name in AT_HOME else {}
        rows.append(
            {
                "name": words,
                **home,
                "new_ap": _round(_mean_ap(hits[name]["new"])),
                "new_precision": _round(float(at_half[:, 0].mean())),
                "new_recall": _round(float(at_half[:, 1].mean())),
            }
        )
    gain: Value | None = None
    for words, line, after, before in (
        ("masked - deployed, new line", "new", "masked", "baseline"),
        ("masked - trained on without answers, new line", "new", "masked", "longer"),
        ("masked - unmasked, new line", "new", "masked", "unmasked"),
        ("full labels - masked, new line", "new", "full-labels", "masked"),
        ("masked - deployed, original line", "original", "masked", "baseline"),
    ):
        mean, low, high, each = _difference(hits[after][line], hits[before][line], units[line])
        rows.append({"name": words, "difference_ap": _round(mean), "low": _round(low), "high": _round(high),
                     "each": [_round(one) for one in each]})  # fmt: skip
        gain = gain or Value(_round(low), _round(low), _round(high))
    assert gain is not None
    musts = {"E9.detector_weak_gain.low": gain}
    int8 = [folds[0]["int8"] for folds in found]
    for key in ("cpu", "cpu, all of it INT8", "trt"):
        value, low, high = _f1(int8, key)
        kept = f", {KEPT_FLOAT} first convolutions and heads in float" if "all" not in key else ""
        words = f"INT8 {key}{kept}: F1 with FP32"
        rows.append({"name": words, "f1": _round(value), "low": _round(low), "high": _round(high)})
        if key == "cpu":
            musts["E9.detector_int8_agreement"] = Value(_round(value), _round(low), _round(high))
    return musts, rows


def _difference(
    after: Sequence[Sequence[Hits]], before: Sequence[Sequence[Hits]], units: Sequence[Sequence[tuple[str, ...]]]
) -> tuple[float, float, float, list[float]]:
    """Mean over seeds of the paired difference, its interval over groups, and each seed's."""
    names = sorted({unit for folds in units for one in folds for unit in one})
    place = {name: k for k, name in enumerate(names)}
    chance = np.random.default_rng(0)
    counts = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    drawn, each = [], []
    for mine, others, folds in zip(after, before, units, strict=True):
        of_seed, of_draws = [], []
        for one, other, groups in zip(mine, others, folds, strict=True):
            weights = counts[:, [place[group] for group in groups]]
            of_seed.append(_mean_classes(one) - _mean_classes(other))
            of_draws.append(_mean_classes(one, weights) - _mean_classes(other, weights))
        each.append(float(np.mean(of_seed)))
        drawn.append(np.mean(of_draws, axis=0))
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return float(np.mean(each)), float(low), float(high), each


def _mean_ap(runs: Sequence[Sequence[Hits]]) -> float:
    return float(np.mean([[_mean_classes(one) for one in folds] for folds in runs]))


def _mean_classes(hits: Hits, weights: Array | None = None) -> Any:
    """Over the classes that are drawn at all, which a draw of groups may leave fewer."""
    from training.box_precision import average_precisions

    each = average_precisions(hits, weights)
    there = np.isfinite(each)
    return np.where(there, each, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


def _f1(int8: Sequence[Mapping[str, Any]], key: str) -> tuple[float, float, float]:
    """Mean over seeds, and its interval over groups."""
    names = sorted({unit for one in int8 for unit in one["units"]})
    place = {name: k for k, name in enumerate(names)}
    chance = np.random.default_rng(0)
    draws = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    values, drawn = [], []
    for one in int8:
        counts = np.array(one[key])
        values.append(counts[:, 0].sum() / max(counts[:, 1].sum(), 1e-12))
        weights = draws[:, [place[unit] for unit in one["units"]]]
        total = weights @ counts
        drawn.append(total[:, 0] / np.maximum(total[:, 1], 1e-12))
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return float(np.mean(values)), float(low), float(high)


def _each(seeds: Sequence[int], found: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed, folds in zip(seeds, found, strict=True):
        for fold, one in enumerate(folds):
            figures = {}
            for name in ROWS:
                hits = _unpacked(one["rows"][name]["new"], one)
                figures[f"{name}_new_ap"] = _round(float(_mean_classes(hits)))
            facts = {"answers": one["answers"], "pictures_streamed": one["asked"]}
            rows.append({"name": f"seed {seed}, fold {fold}", **facts, **figures})
    return rows


_KINDS = {"confidence": "<f4", "true": "<u1", "classes": "<u1", "picture": "<u2", "drawn": "<u1"}


def _packed(hits: Hits) -> dict[str, str]:
    return {
        name: base64.b64encode(zlib.compress(np.asarray(getattr(hits, name)).astype(kind).tobytes())).decode()
        for name, kind in _KINDS.items()
    }


def _unpacked(packed: Mapping[str, str], one: Mapping[str, Any]) -> Hits:
    from training.box_precision import Hits

    found = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(packed[name])), kind) for name, kind in _KINDS.items()
    }
    pictures = len(next(iter(one["units"].values())))
    return Hits(
        confidence=found["confidence"],
        true=found["true"].astype(bool),
        classes=found["classes"].astype(np.int32),
        picture=found["picture"].astype(np.int32),
        drawn=found["drawn"].astype(np.int32).reshape(pictures, -1),
    )


def _round(value: float) -> float:
    return round(float(value), 4)
