"""E7: what pretraining on surfaces without labels is worth where few labels are there.

A trunk is pretrained on the training groups of five surfaces, their labels not looked at, and then trained and judged
on each; a test group is seen by nothing before it is judged.  Each row is the same small classifier with the same
labels, steps and rate, and differs in what its trunk starts from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.protocol import Paired, over_seeds
from benchmarks.adaptation.surfaces import SURFACES, Squares, Surface, dealt, squares_of
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.arrays import Array, Image
from edge_sdk.quality.measures import auroc
from edge_sdk.vision.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "ROWS", "SEEDS", "SUITE", "TITLE", "Work", "labelled", "result_of", "row_step",
           "run"]  # fmt: skip

TITLE = "Pretraining on surfaces without labels (CoRe)"
SUITE = "adaptation"
MINUTES = 16.0
NEEDS = ("torch", "cv2", *(f"../shared/data/{one.folder.name}" for one in SURFACES))

SEEDS = tuple(range(5))
TUNED_ON = 100
"""Whatever was tuned was tuned on seeds from here on."""
SHARES = (0.05, 0.1, 0.5)
"""Of the training pictures, labelled."""
BOUND = 0.1
"""The share that the bound is on: labels are drawn ``DRAWS`` times, and every row is run."""
DRAWS = 2
SCRATCH, CORE, IMAGENET = "scratch", "core", "imagenet"
OBJECTIVES = (CORE, "contrastive", "restorative", "simsiam", "masked")
"""Of ``training.pretrain``, all on the slim trunk."""
ROWS = (SCRATCH, *OBJECTIVES, IMAGENET)
EVERYWHERE = (SCRATCH, CORE, IMAGENET)
"""Rows of every share; the other objectives are run at ``BOUND`` alone."""

Found = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Of one seed: AUROC by row, surface and share."""


@dataclass(frozen=True)
class Work:
    """How much is done."""

    side_px: int = 64
    pictures: int = 600
    """Of each surface, about."""
    pretraining: int = 200
    pretraining_batch: int = 16
    """Pictures a step, each seen twice."""
    pretraining_rate: float = 2e-3
    iterations: int = 60
    batch: int = 16
    rate: float = 2e-3


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import pretrained_weights

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    work = Work(pictures=300, pretraining=2, pretraining_batch=4, iterations=2, batch=4) if quick else Work()
    seeds = SEEDS[:2] if quick else SEEDS
    rows = ROWS if pretrained_weights() is not None else ROWS[:-1]
    progress.expect(len(seeds) * len(rows))
    found = [
        {row: progress.step(f"{row}, seed {seed}", partial(row_step, row, work, seed)) for row in rows}
        for seed in seeds
    ]
    settings = {"seeds": list(seeds), "threads": 1, "shares": list(SHARES), "width": 0.25, "stages": 3, **vars(work)}
    return result_of(found, settings)


def row_step(row: str, work: Work, seed: int, surfaces: Sequence[Surface] = SURFACES) -> dict[str, Any]:
    """One row on every surface, at its shares of labels.

    Returns:
        By surface, by share as text: the AUROC on the test groups, of several defects the mean.
    """
    spec = _spec(work)
    read = {one.name: squares_of(one, spec, most=work.pictures, seed=seed) for one in surfaces}
    parts = {name: dealt(squares, seed=seed) for name, squares in read.items()}
    found: dict[str, Any] = {name: {} for name in read}
    with tempfile.TemporaryDirectory() as folder:
        start = None
        if row in OBJECTIVES:
            unlabelled = np.concatenate([squares.images[parts[name].train] for name, squares in read.items()])
            start = _pretrained(unlabelled, row, work, seed, Path(folder))
        for name, squares in read.items():
            test = parts[name].test
            for share in SHARES if row in EVERYWHERE else (BOUND,):
                aurocs = []
                for draw in range(DRAWS if share == BOUND else 1):
                    few = squares.taken(labelled(squares, parts[name].train, share=share, seed=seed, draw=draw))
                    logits = _trained(few, squares.images[test], row, start, work, seed)
                    aurocs.append(_mean_auroc(logits, squares.truth[test]))
                found[name][f"{share:g}"] = float(np.mean(aurocs))
    return found


def labelled(squares: Squares, train: Array, *, share: float, seed: int, draw: int = 0) -> Array:
    """A share of the training pictures by lot, and of every defect, and of what shows none, at least two.

    The lot of a larger share begins as that of a smaller one of the same draw.
    """
    order = np.random.default_rng([seed, 23, draw]).permutation(train)
    kept = list(order[: max(2, round(share * len(order)))])
    truth = squares.truth[order]
    kinds = [truth[:, k] > 0 for k in range(truth.shape[1])] + [truth.max(axis=1) == 0]
    for kind in kinds:
        own = order[kind]
        lacking = max(0, min(2, len(own)) - len(set(own) & set(kept)))
        kept += [n for n in own if n not in kept][:lacking]
    return np.array(kept)


def result_of(found: Sequence[Found], settings: Mapping[str, object]) -> Result:
    """Tables and bounds.

    Args:
        found: By seed and row, of ``row_step``.
        settings: Of the run.
    """
    rows: list[dict[str, object]] = []
    gains: dict[tuple[str, str], Paired] = {}
    names = list(found[0][SCRATCH])
    for share in found[0][SCRATCH][names[0]]:
        table = {row: _by_seed(found, share, row) for row in found[0] if share in found[0][row][names[0]]}
        for row, values in table.items():
            each = {name: round(float(np.mean([one[row][name][share] for one in found])), 4) for name in names}
            rows.append({"name": f"{share} of the labels: {row}", "auroc": round(float(values.mean()), 4), **each})
        for row in table:
            if row != SCRATCH:
                gains[share, row] = over_seeds(list(table[row]), list(table[SCRATCH]))
                rows.append(gains[share, row].row(f"{share} of the labels: {row} - scratch"))
        for row in (one for one in OBJECTIVES[1:] if one in table):
            beside = over_seeds(list(table[CORE]), list(table[row]))
            rows.append(beside.row(f"{share} of the labels: core - {row}"))
    must = gains[f"{BOUND:g}", CORE]
    low, high = round(must.low, 4), round(must.high, 4)
    lacking = () if IMAGENET in found[0] else ("imagenet was not run: its weights are not here",)
    return Result(
        rows=rows,
        musts={
            "E7.core_minus_scratch_10": Value(round(must.mean, 4), low, high),
            "E7.core_minus_scratch_10.low": Value(low, low, high),
        },
        notes=[
            "auroc is the mean over the five surfaces, of hot-rolled steel the mean over its six defects, each against "
            "the others; cracks are judged on squares, where masks say which show one; intervals: paired t over seeds, "
            "each with its own groups, labels and pretraining",
            "pretrained on the training groups of all five surfaces together, no label looked at, no test group shown",
            "all rows but imagenet are the slim trunk, trained whole; imagenet is MobileNetV2 as the product uses it, "
            "frozen, with a neck and a head to train, so it stands beside and is no ablation; pretraining MobileNetV2 "
            "itself here would take hours on a CPU",
            "pictures, side and steps are small so that the whole runs on a CPU; objectives beside core were run at "
            f"{BOUND:g} of the labels alone, where labels were drawn {DRAWS} times; the paper trains at full size",
            *lacking,
            f"what was tuned was tuned on seeds from {TUNED_ON} on",
        ],
        settings=dict(settings),
        data={one.folder.name: machine.data_digest(one.folder) for one in SURFACES if one.folder.is_dir()},
        packages=("torch", "safetensors"),
        chart=Chart("auroc", "AUROC"),
    )


def _by_seed(found: Sequence[Found], share: str, row: str) -> Array:
    """``(S,)``: of each seed the mean over surfaces."""
    return np.array([np.mean([one[share] for one in by_row[row].values()]) for by_row in found])


def _pretrained(images: Image, objective: str, work: Work, seed: int, folder: Path) -> Path:
    """A trunk's file, pretrained on these pictures."""
    from training.pretrain import pretrain
    from training.trunk_file import save_trunk

    told = _recipe(work, seed).model_copy(
        update={"iterations": work.pretraining, "batch": work.pretraining_batch, "rate": work.pretraining_rate}
    )
    made = pretrain(images, _spec(work), told, objective=objective)  # type: ignore[arg-type]  # one of them
    path = folder / f"{objective}.safetensors"
    save_trunk(made.trunk, path, width=told.width, stages=told.stages, told={"objective": objective})
    return path


def _trained(few: Squares, tested: Array, row: str, start: Path | None, work: Work, seed: int) -> Array:
    """``(N, K)`` logits of the test pictures, by a classifier trained on the labelled ones."""
    import torch

    from training.data.frozen import Feed
    from training.data.views import Views, batches_of
    from training.fitting import Terms, fit
    from training.losses.supervised import supervised_loss
    from training.statistics import estimated, with_statistics
    from training.trunks import start_of

    told = _recipe(work, seed).model_copy(
        update={"trunk": "mobilenetv2" if row == IMAGENET else "slim", "start": None if start is None else str(start)}
    )
    count, classes = few.truth.shape
    network = start_of(told, classes=classes, pooled=True).network(seed)
    views = Views(
        images=few.images,
        truth=few.truth[:, :, None, None],
        known=np.ones((count, classes, 1, 1), np.float32),
        maximum=np.zeros((count, classes), np.float32),
        valid=np.ones((count, 1, 1), bool),
        defective=few.truth.max(axis=1) > 0,
        units=few.units,
        names=few.units,
    )
    spec, chance = _spec(work), np.random.default_rng([seed, 24])
    feed = Feed(network, views, spec, told, chance)

    def losses(_: float) -> Terms:
        batch, last = feed.next()
        logits = network.head(last)
        return {"supervised": supervised_loss(logits, batch.truth, batch.known, batch.maximum, shown=batch.shown)}

    fit(
        {"network": network}, losses, iterations=work.iterations, rate=work.rate, weight_decay=told.weight_decay,
        averaging=told.averaging, chance=chance, measure_every=0,
    )  # fmt: skip
    with torch.no_grad():
        own = {} if network.frozen else estimated(network, batches_of(few.images, spec, flips=True))
        with with_statistics(network, own):
            cells = torch.cat([network(batch).cells for batch in batches_of(tested, spec)])
    return cells[: len(tested), :, 0, 0].numpy()


def _mean_auroc(logits: Array, truth: Array) -> float:
    return float(np.mean([auroc(logits[:, k], truth[:, k] > 0) for k in range(truth.shape[1])]))


def _spec(work: Work) -> PreprocessSpec:
    half = (0.5, 0.5, 0.5)
    return PreprocessSpec(width=work.side_px, height=work.side_px, mean=half, std=half)


def _recipe(work: Work, seed: int) -> Recipe:
    from training.recipe import Recipe

    told = {"side_px": work.side_px, "iterations": work.iterations, "batch": work.batch, "rate": work.rate}
    return Recipe.model_validate({**told, "seed": seed})

