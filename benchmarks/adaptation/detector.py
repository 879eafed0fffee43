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
  training pictures, its detections at the line's own thresholds matched one to one with those of FP32.  Beside it
  stand what remains where scores within ``BORDER`` of the threshold are spared, and the average precision of both.

Settings were chosen on seeds 100 and 101.  Seeds 0 to 4 were run before with another share left in float, so 5 to 9 are
reported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.detector_hits import difference, f1, mean_classes, packed, unpacked
from benchmarks.adaptation.detector_int8 import BORDER, COMPARED_ON, INT8, KEPT_FLOAT, compared
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset

if TYPE_CHECKING:
    from training.box_precision import Hits
    from training.checkpoint import Checkpoint
    from training.data.boxes import MapCache
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "run"]

TITLE = "The detector: answered boxes, and INT8"
SUITE = "adaptation"
MINUTES = 30.0
DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "neu_steel"
NEEDS = ("torch", "onnxruntime", "../shared/data/neu_steel", "../shared/data/backbone_mobilenetv2")

SEEDS = tuple(range(5, 10))
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
            "what INT8 disagrees about is borderline: see the rows with scores near the threshold spared; an error of "
            "0.05 to 0.09 in a logit flips boxes where a sixth of those reported lie within 0.05 above the threshold, "
            "and leaves the average precision where it was",
            "tried on seeds 100 and 101 and not taken: a thin ResNet from scratch agrees better (F1 0.985 with all of "
            "it INT8) but finds less (deployed detector 0.08 AP on the new line against 0.24, 0.26 against 0.36 on the "
            "original one) at five to nine times the training; cross-layer equalisation over the ranges of activations "
            "made F1 0.953 or less of 0.961 (weights have a scale per channel already), over residual sums alone it "
            "changed nothing; the mean error of scores was mostly under a tenth of their spread, so there is little "
            "bias to correct; noise on the maps while the heads train lowers the error by a fifth and the F1 with it, "
            "since more boxes come to lie near the threshold",
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
        rows[name] = {line: packed(judged_views(model, states[line], judged[line]).hits) for line in judged}
    found = {
        "rows": rows,
        "units": {line: list(one.units) for line, one in views.items()},
        "answers": asked.counts,
        "asked": len(asked.answers),
        "pass_below": baseline.line("original").thresholds.pass_below.tolist(),
    }
    if fold == 0:
        found["int8"] = compared(models["masked"], lines, views["new"], most=60 if quick else COMPARED_ON)
    return found


def _summary(found: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[dict[str, Value], list[dict[str, object]]]:
    from training.box_precision import precision_recall

    hits = {
        name: {
            line: [[unpacked(one["rows"][name][line], len(one["units"][line])) for one in folds] for folds in found]
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
        mean, low, high, each = difference(hits[after][line], hits[before][line], units[line])
        rows.append({"name": words, "difference_ap": _round(mean), "low": _round(low), "high": _round(high),
                     "each": [_round(one) for one in each]})  # fmt: skip
        gain = gain or Value(_round(low), _round(low), _round(high))
    assert gain is not None
    musts = {"E9.detector_weak_gain.low": gain}
    int8 = [folds[0]["int8"] for folds in found]
    near = sum(one["borderline"] for one in int8) / max(1, sum(one["detections"] for one in int8))
    rows.append({"name": f"share of FP32's detections within {BORDER} above the threshold", "share": _round(near)})
    pictures = [[tuple(one["units"])] for one in int8]
    as_fp32 = [[unpacked(one["hits"], len(one["units"]))] for one in int8]
    for key, words in INT8.items():
        for counted, said in (("plain", ""), ("spared", f", scores within {BORDER} of the threshold spared")):
            value, low, high = f1([{"units": one["units"], "counts": one[key][counted]} for one in int8])
            rows.append(
                {"name": f"{words}: F1 with FP32{said}", "f1": _round(value), "low": _round(low), "high": _round(high)}
            )
            if (key, counted) == ("cpu", "plain"):
                musts["E9.detector_int8_agreement"] = Value(_round(value), _round(low), _round(high))
        as_int8 = [[unpacked(one[key]["hits"], len(one["units"]))] for one in int8]
        mean, low, high, each = difference(as_int8, as_fp32, pictures)
        rows.append({"name": f"{words} - FP32", "difference_ap": _round(mean), "low": _round(low), "high": _round(high),
                     "each": [_round(one) for one in each]})  # fmt: skip
    return musts, rows


def _each(seeds: Sequence[int], found: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for seed, folds in zip(seeds, found, strict=True):
        for fold, one in enumerate(folds):
            figures = {}
            for name in ROWS:
                hits = unpacked(one["rows"][name]["new"], len(one["units"]["new"]))
                figures[f"{name}_new_ap"] = _round(float(mean_classes(hits)))
            facts = {"answers": one["answers"], "pictures_streamed": one["asked"]}
            rows.append({"name": f"seed {seed}, fold {fold}", **facts, **figures})
    return rows


def _mean_ap(runs: Sequence[Sequence[Hits]]) -> float:
    return float(np.mean([[mean_classes(one) for one in folds] for folds in runs]))


def _round(value: float) -> float:
    return round(float(value), 4)
