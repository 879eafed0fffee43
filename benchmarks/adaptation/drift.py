"""E8: what the watch for drift sees of a line that changes, and how often it cries over one that does not.

Each seed trains the product's classifier on drawn sheets, makes the line's reference of as many pictures as packing
looks at, and streams pictures that are all changed the same way through the station's own watch.  Beside it stand
what else could be watched, each with a threshold from the same pictures by the same drawing.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.arrays import Array, Bools, Floats, Image
from edge_sdk.quality.drift import Watch
from edge_sdk.quality.drift_reference import FALSE_ALARMS, WINDOW, Reference, reference_of, statistic
from edge_sdk.quality.facts import facts_of
from edge_sdk.quality.measures import paired_t_interval

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "run"]

TITLE = "The watch for drift: false alarms, power and cost"
SUITE = "adaptation"
MINUTES = 5.0
NEEDS = ("torch", "cv2")

SEEDS = tuple(range(5))
TUNED_ON = (100, 101, 102)
SIDE_PX, PICTURES, REFERENCE, CLEAN, CHANGED = 64, 400, 256, 3200, 960
ROUNDS = 2000
CHANGES: Mapping[str, Mapping[str, float]] = {
    "none": {},
    "gain 0.98": {"gain": 0.98},
    "gain 0.90": {"gain": 0.90},
    "noise 0.01": {"noise": 0.01},
    "noise 0.03": {"noise": 0.03},
    "blur 0.6 px": {"blur": 0.6},
    "blur 1 px": {"blur": 1.0},
    "defects 5 to 15 %": {"p_defect": 0.15},
}
OTHERS = ("features_of_all_frames", "brightness", "detection_rate", "score_ks")


class _Seen:
    """What the model and the facts make of some pictures."""

    def __init__(self, features: Floats, scores: Floats, facts: Floats, truth: Array, pass_below: float) -> None:
        self.features, self.scores, self.facts, self.truth = features, scores, facts, truth
        self.detected: Bools = scores >= pass_below

    def others(self, which: Array) -> dict[str, Array]:
        """What else could be watched of some of the pictures."""
        return {
            "features_of_all_frames": self.features[which],
            "brightness": self.facts[which, 0],
            "detection_rate": self.detected[which].astype(float),
            "score_ks": self.scores[which],
        }


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import Recipe

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    counts = (CLEAN // 4, CHANGED // 4) if quick else (CLEAN, CHANGED)
    recipe = Recipe(trunk="slim", side_px=SIDE_PX)
    progress.expect(len(seeds))
    found = [
        progress.step(f"seed {seed}", partial(seed_of, recipe.model_copy(update={"seed": seed}), counts=counts))
        for seed in seeds
    ]
    rows = [_row(name, [one["changes"][name] for one in found]) for name in CHANGES]
    costs = [_cost(name, [one["costs"][name] for one in found]) for name in found[0]["costs"]]
    clean, blurred = ([one["changes"][name]["windows_over"] for one in found] for name in ("none", "blur 1 px"))
    return Result(
        rows=[*rows, *costs],
        musts={"E8.false_alarms": _value(clean), "E8.power_blur_1px": _value(blurred)},
        notes=[
            f"a window is {WINDOW} frames that pass; windows_over is the share of windows above the threshold, which "
            "the bounds are for; changed and alarm are shares of windows after which the station says so (3 of the "
            "last 5 above; for an alarm scores or the share of detections moved too)",
            f"the reference is of {REFERENCE} pictures as they come, as many as packing looks at; its threshold is set "
            f"for {FALSE_ALARMS:.0%} of an unchanged line's windows, what a reference of so few is wrong by included",
            "what else could be watched: windows of 32 frames in a row, thresholds for the same share from the "
            "same pictures; features_of_all_frames is the same statistic without leaving out frames with a "
            "detection, and is drowned by the chance number of defects in a window",
            "defects 5 to 15 % are no change of the input: the features' watch is to stay silent there, and the "
            "cumulative sum over the share of detections is what answers (column rate_alarm)",
            f"leaving out frames with a detection, the rule for an alarm and every number were chosen on seeds "
            f"{TUNED_ON[0]} to {TUNED_ON[-1]}; each reported seed draws its own pictures, so intervals are t-intervals "
            "over seeds",
            "drawn pictures at 64 x 64, the product's own training, FP32; not run: real pictures, INT8 (each rendering "
            "has its own reference), a station's camera",
        ],
        settings={
            "seeds": list(seeds),
            "pictures": PICTURES,
            "reference": REFERENCE,
            "frames_unchanged": counts[0],
            "frames_changed": counts[1],
            "window": WINDOW,
            "false_alarms": FALSE_ALARMS,
            "threads": 1,
            "recipe": recipe.model_dump(mode="json"),
        },
        packages=("torch", "safetensors"),
        chart=Chart("windows_over", "windows above the threshold"),
    )


def seed_of(recipe: Any, *, counts: tuple[int, int]) -> dict[str, Any]:
    """One seed: train, make the reference, stream every change.

    Args:
        recipe: With the seed, which draws every picture.
        counts: Frames of the unchanged line and of each change.
    """
    from benchmarks.adaptation.drawn import drawn_lines
    from edge_sdk.quality.datasets import lines_of
    from training.lines import confidence, predicted
    from training.train import train

    with tempfile.TemporaryDirectory() as folder:
        dataset = drawn_lines(Path(folder) / "lines", seed=recipe.seed, prior=0.05, pictures=PICTURES, tested=20)
        checkpoint = train(dataset, lines_of(dataset, seed=recipe.seed), recipe)
    line = checkpoint.line("original")

    def seen(number: int, count: int, **change: float) -> _Seen:
        images, truth = _streamed(count, 100_000 + 100 * recipe.seed + number, **change)
        logits, features = predicted(checkpoint.network, line.statistics, images, checkpoint.preprocess)
        scores = confidence(logits, line).reshape(count, -1).max(axis=1)
        facts = np.stack([facts_of(image) for image in images])
        return _Seen(features, scores, facts, truth, float(line.thresholds.pass_below[0]))

    home = seen(0, REFERENCE)
    began = time.perf_counter()
    reference = reference_of(home.features, home.scores, home.facts, home.detected, as_they_come=True)
    made_s = time.perf_counter() - began
    limits = _limits(home)
    changes, costs = {}, {"reference made once, s": made_s}
    for number, (name, change) in enumerate(CHANGES.items(), 1):
        stream = seen(number, counts[0 if name == "none" else 1], **change)
        changes[name], took_us = _watched(reference, stream)
        changes[name] |= {other: _share_over(other, home, stream, limits[other]) for other in OTHERS}
        if name == "none":
            costs["watch, us a frame"] = took_us
    costs["facts of a picture, us, one frame in 4"] = _timed_us(partial(facts_of, _streamed(1, recipe.seed)[0][0]))
    return {"changes": changes, "costs": costs}


def _streamed(count: int, seed: int, **change: float) -> tuple[Image, Array]:
    from training.data.synthetic import drift_stream

    images, truth = drift_stream(count, seed, **change)
    # drawn red green blue, judged blue green red, as the pictures that were trained on
    return np.ascontiguousarray(np.rint(255 * images[:, ::-1].transpose(0, 2, 3, 1)).astype(np.uint8)), truth


def _watched(reference: Reference, stream: _Seen) -> tuple[dict[str, Any], float]:
    """What the station's watch says of a stream, and what a frame of it costs."""
    watch, said, first = Watch(reference), [], None
    began = time.perf_counter()
    for n, (feature, score, detected) in enumerate(zip(stream.features, stream.scores, stream.detected, strict=True)):
        facts = stream.facts[n] if n % 4 == 0 else None
        drift = watch.see(feature, float(score), detected=bool(detected), facts=facts)
        if drift is not None:
            said.append(drift)
            if first is None and drift.state in ("input changed", "alarm"):
                first = n + 1
    took_us = (time.perf_counter() - began) / len(stream.features) * 1e6
    over = [one.statistic is None or one.statistic > one.threshold for one in said]
    named = [one.causes[0] for one in said if one.causes]
    defective = stream.truth > 0
    return {
        "windows_over": float(np.mean(over)),
        "changed": float(np.mean([one.state in ("input changed", "alarm") for one in said])),
        "alarm": float(np.mean([one.state == "alarm" for one in said])),
        "rate_alarm": float("the share of frames" in said[-1].sentence),
        "frames_until_said": first,
        "named": max(set(named), key=named.count) if named else "",
        "defects_found": float(stream.detected[defective].mean()),
        "healthy_disturbed": float(stream.detected[~defective].mean()),
    }, took_us


def _measure(name: str, window: Array, home: Array) -> float:
    """What is compared with a threshold: larger is stranger."""
    if name == "features_of_all_frames":
        return statistic(window.mean(axis=0), home.mean(axis=0), home.std(axis=0), window=len(window))
    if name == "score_ks":
        grid = np.sort(home)
        return float(np.abs(_below(window, grid) - _below(home, grid)).max())
    return float(abs(window.mean() - home.mean()) / max(float(home.std()), 1e-6))


def _below(values: Array, grid: Array) -> Array:
    return np.asarray(np.searchsorted(np.sort(values), grid, side="right") / len(values))


def _limits(home: _Seen) -> dict[str, float]:
    """The threshold of each other watch: windows and a reference drawn anew from the reference's pictures."""
    chance = np.random.default_rng(0)
    n = len(home.scores)
    drawn: dict[str, list[float]] = {name: [] for name in OTHERS}
    for _ in range(ROUNDS):
        window, usual = home.others(chance.integers(0, n, WINDOW)), home.others(chance.integers(0, n, n))
        for name, values in drawn.items():
            values.append(_measure(name, window[name], usual[name]))
    return {name: float(np.quantile(values, 1 - FALSE_ALARMS, method="higher")) for name, values in drawn.items()}


def _share_over(name: str, home: _Seen, stream: _Seen, limit: float) -> float:
    usual = home.others(np.arange(len(home.scores)))[name]
    whole = len(stream.scores) // WINDOW * WINDOW
    windows = np.arange(whole).reshape(-1, WINDOW)
    return float(np.mean([_measure(name, stream.others(window)[name], usual) > limit for window in windows]))


def _timed_us(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(200):
        call()
    return (time.perf_counter() - began) / 200 * 1e6


def _value(each: Sequence[float]) -> Value:
    interval = paired_t_interval(np.array(each))
    return Value(round(float(np.mean(each)), 4), round(interval.low, 4), round(interval.high, 4))


def _row(name: str, each: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    over = _value([one["windows_over"] for one in each])
    row: dict[str, object] = {"name": name, "windows_over": over.value, "low": over.low, "high": over.high}
    for column in ("changed", "alarm", "rate_alarm", *OTHERS, "defects_found", "healthy_disturbed"):
        row[column] = round(float(np.mean([one[column] for one in each])), 3)
    frames = [one["frames_until_said"] for one in each if one["frames_until_said"] is not None]
    if frames:
        row["frames_until_said"] = int(np.median(frames))
    named = [one["named"].partition(":")[0] for one in each if one["named"]]
    if named:
        row["named"] = max(set(named), key=named.count)
        row["named_by"] = f"{named.count(row['named'])} of {len(each)} seeds"
    return row | {"each": [round(one["windows_over"], 3) for one in each]}


def _cost(name: str, each: Sequence[float]) -> dict[str, object]:
    return {"name": name, "median": round(float(np.median(each)), 2)}
