"""S5: encoders pretrained on segmentation and on detection against classification, under a scorer of good parts.

The seed paper asks whether an anomaly segmenter should stand on a trunk that learned to segment or to detect.  Here one
small trunk learns each task from the same crops of another material's defects, is lent to the Gaussian and to
PatchCore, and is judged by the size of the defects it finds on sets that it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.crops import write_crops
from benchmarks.adaptation.protocol import over_seeds
from benchmarks.results import Chart, Result, Steps
from edge_sdk.arrays import Array, Bools
from edge_sdk.quality.datasets import lines_of, load_dataset, picture_size, read_mask
from edge_sdk.quality.measures import auroc

__all__ = ["CLASSES", "MINUTES", "NEEDS", "SUITE", "TASKS", "TITLE", "Work", "encoder_step", "found_by_size",
           "result_of", "run", "size_classes"]  # fmt: skip

TITLE = "Encoders pretrained on segmentation and detection against classification, by size of defect"
SUITE = "adaptation"
MINUTES = 15.0
SHARED = machine.ROOT.parent / "shared" / "data"
SOURCES = ("crack_asphalt_cfd", "neu_steel", "magnetic_tile")
TARGETS = ("cookies", "hazelnut_toy", "mvtec_screw")
"""Sets with masks and good parts, none of which an encoder learns from."""
FOLDERS = ("backbone_mobilenetv2", *SOURCES, *TARGETS)
NEEDS = ("torch", "cv2", *(f"../shared/data/{name}" for name in FOLDERS))
IMAGENET = "ImageNet"
"""Beside them: MobileNetV2 of a million photographs, a classification too, but another network."""
TASKS = {"segmentation": "cells", "detection": "anchors", "classification": "classifier"}
METHODS = ("gaussian", "patchcore")
CLASSES = ("small", "middle", "large")
ALARMS = 0.05
"""Share of held-back good parts that may be stopped where recall is counted."""
KEPT = machine.ROOT / "build" / "adaptation" / "encoders"


@dataclass(frozen=True)
class Work:
    """How much is done."""

    seeds: int = 5
    crops: int = 100
    """Pictures that are cropped, of each source."""
    crop_px: int = 96
    iterations: int = 120
    width: float = 0.25
    side_px: int = 160
    """Of the scorers' input."""
    tested: int = 60
    """Defective pictures of a target, at most; of its good parts all that are held back."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    work = Work(seeds=2, crops=12, iterations=4, side_px=96, tested=6) if quick else Work()
    sources, targets = (SOURCES[1:2], TARGETS[:2]) if quick else (SOURCES, TARGETS)
    jobs = [(s, task, seed) for s in sources for task in TASKS for seed in range(work.seeds)]
    jobs += [(IMAGENET, IMAGENET, seed) for seed in range(work.seeds)]
    progress.expect(len(jobs))
    found = [
        (*job, progress.step(f"{job[0]}, {job[1]}, seed {job[2]}", partial(encoder_step, work, *job, targets)))
        for job in jobs
    ]
    settings = {**vars(work), "threads": 1, "false_alarms": ALARMS, "tasks": dict(TASKS)}
    data = {name: machine.data_digest(SHARED / name) for name in sorted({*sources, *targets})}
    return replace(result_of(found, settings), data=data)


def encoder_step(work: Work, source: str, task: str, seed: int, targets: Sequence[str]) -> dict[str, Any]:
    """Pretrain one trunk, lend it to both scorers, judge them on every target; of ``ImageNet`` nothing is pretrained.

    Returns:
        By ``target/method`` the measures of ``found_by_size``.
    """
    lent = None if source == IMAGENET else _pretrained(work, source, task, seed)
    return {
        f"{target}/{method}": judged(work, lent, SHARED / target, method, seed)
        for target in targets
        for method in METHODS
    }


def _pretrained(work: Work, source: str, task: str, seed: int) -> Path:
    from training.checkpoint import save_checkpoint
    from training.detector import train_detector
    from training.recipe import Recipe
    from training.train import train

    place = KEPT / f"{source}-{task}-{seed}"
    pictures = [one for one in load_dataset(SHARED / source).samples if one.healthy is False and one.mask]
    crops = write_crops(pictures, place / "crops", count=work.crops, side_px=work.crop_px, seed=seed)
    dataset = load_dataset(crops)
    recipe = Recipe(
        trunk="slim", width=work.width, head=TASKS[task], side_px=work.crop_px, iterations=work.iterations,
        batch=8, seed=seed,
    )  # fmt: skip
    lines = lines_of(dataset, seed=seed)
    checkpoint = (train_detector if task == "detection" else train)(dataset, lines, recipe)
    save_checkpoint(checkpoint, place / "checkpoint")
    return place / "checkpoint"


def judged(work: Work, lent: Path | None, target: Path, method: str, seed: int) -> dict[str, float]:
    """Fit a scorer on the trunk of a checkpoint and measure it, see ``found_by_size``."""
    from training.scorers.distances import distances_of, scorer_of
    from training.scorers.evaluate import evaluated_samples, figures_of_maps
    from training.scorers.fitting import ScorerRecipe, fit_scorer
    from training.scorers.normals import normals_in

    recipe = ScorerRecipe(method=method, side_px=work.side_px, bank=500, seed=seed)
    scorer, _, _ = fit_scorer(normals_in(target, seed=seed), recipe, lent=lent)
    whole = evaluated_samples(load_dataset(target), seed=seed)
    bad = [one for one in whole if one.healthy is False and one.mask is not None]
    chosen = np.random.default_rng([seed, 52]).permutation(len(bad))[: work.tested]
    samples = [one for one in whole if one.healthy] + [bad[n] for n in sorted(chosen)]
    maps = distances_of(scorer_of(scorer), samples, scorer.preprocess).maps
    truth: list[Bools] = []
    for one, distances in zip(samples, maps, strict=True):
        mask = None if one.healthy else read_mask(one, picture_size(one.path))
        truth.append(np.zeros(distances.shape, bool) if mask is None else _on_cells(mask, distances.shape))
    overall = figures_of_maps(maps, samples, scorer.preprocess)
    return {
        "auroc": float(overall["auroc"]),
        "pixel_auroc": float(overall["pixel_auroc"]),
        "au_pro": float(overall["au_pro"]),
        **found_by_size(maps, truth, np.array([bool(one.healthy) for one in samples])),
    }


def found_by_size(maps: Array, truth: Sequence[Bools], healthy: Bools) -> dict[str, float]:
    """Recall of defects at 5 % false alarms, and AUROC of their places, a class of size.

    A defect, an 8-connected region of cells, is found where its highest distance lies above that of 95 % of the good
    pictures.

    Args:
        maps: ``(N, h, w)``.
        truth: N masks of cells.
        healthy: ``(N,)`` which pictures are good.
    """
    import cv2

    highest = maps.max(axis=(1, 2))
    bar = float(np.quantile(highest[healthy], 1 - ALARMS))
    ordinary = maps[healthy].ravel()
    peaks, areas, places = [], [], []
    for one, mask in zip(maps, truth, strict=True):
        count, labelled = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        for number in range(1, count):
            inside = one[labelled == number]
            peaks.append(float(inside.max()))
            areas.append(inside.size / mask.size)
            places.append(inside)
    classes = size_classes(areas)
    found: dict[str, float] = {}
    for number, name in enumerate(CLASSES):
        which = [n for n, own in enumerate(classes) if own == number]
        if not which:
            continue
        values = np.concatenate([places[n] for n in which])
        scores = np.concatenate([values, ordinary])
        found[f"recall_{name}"] = float(np.mean([peaks[n] > bar for n in which]))
        found[f"pixel_auroc_{name}"] = auroc(scores, np.arange(len(scores)) < len(values))
    return found


def size_classes(areas: Sequence[float]) -> list[int]:
    """Of each defect 0, 1 or 2: the third of a set's defects that it belongs to by its share of the picture."""
    if not len(areas):
        return []
    low, high = np.quantile(areas, [1 / 3, 2 / 3])
    return [0 if area <= low else 1 if area <= high else 2 for area in areas]


def _on_cells(mask: Array, grid: tuple[int, int]) -> Bools:
    """Cells that a mask touches by a twelfth or more, or its most covered ones where it touches none so much."""
    import cv2

    share = cv2.resize((mask != 0).astype(np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(share >= min(1 / 12, float(share.max())) if share.max() > 0 else np.zeros(grid, bool))


def result_of(
    found: Sequence[tuple[str, str, int, Mapping[str, Mapping[str, float]]]], settings: Mapping[str, Any]
) -> Result:
    """Means over seeds, and segmentation and detection against classification, paired by seed.

    Args:
        found: Source, task, seed and what ``encoder_step`` gave, each task with the same sources and seeds.
        settings: Of the run.
    """
    by: dict[tuple[str, str], dict[int, list[float]]] = {}
    measures: dict[str, None] = {}
    for _, task, seed, judgements in found:
        for where, figures in judgements.items():
            for measure, value in figures.items():
                key = f"{where.split('/')[1]}: {measure}"
                measures[key] = None
                by.setdefault((task, key), {}).setdefault(seed, []).append(value)
    means = {pair: [float(np.mean(seeds[s])) for s in sorted(seeds)] for pair, seeds in by.items()}
    rows: list[dict[str, object]] = [
        {"name": task, **{key: round(float(np.mean(means[task, key])), 4) for key in measures}}
        for task in (*TASKS, IMAGENET)
    ]
    for task in ("segmentation", "detection"):
        for key in measures:
            difference = over_seeds(means[task, key], means["classification", key])
            rows.append(difference.row(f"{task} - classification, {key}"))
    notes = [
        "One trunk and the same crops of the same pictures; the task alone differs.  Means are over sources, targets "
        "and seeds; intervals are paired t-intervals over seeds, the sets being what they are.",
    ]
    return Result(rows=rows, notes=notes, settings=settings, chart=Chart("difference"))
