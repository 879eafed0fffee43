"""E7: what pretraining on surfaces without labels is worth where few labels are there.

A trunk is pretrained on the training groups of five surfaces, their labels not looked at, and then trained and judged
on each; a test group is seen by nothing before it is judged.  Rows of one trunk, the slim one or MobileNetV2, are the
same classifier with the same labels, steps and rate, and differ in what the trunk starts from.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
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
    from training.pretrain import Objective
    from training.recipe import Recipe

__all__ = ["MINUTES", "NEEDS", "ROWS", "SEEDS", "SUITE", "TITLE", "Way", "Work", "labelled", "result_of", "row_step",
           "run"]  # fmt: skip

TITLE = "Pretraining on surfaces without labels (CoRe)"
SUITE = "adaptation"
MINUTES = 60.0
NEEDS = ("torch", "cv2", *(f"../shared/data/{one.folder.name}" for one in SURFACES))

SEEDS = tuple(range(10, 15))
"""Seeds 0 to 9 were reported before, with at most 200 steps of pretraining."""
FEWER = 3
"""How many of them show the rows beside ``EVERYWHERE``."""
TUNED_ON = 100
"""Whatever was tuned was tuned on seeds from here on."""
SHARES = (0.05, 0.1, 0.5)
"""Of the training pictures, labelled."""
BOUND = 0.1
"""The share that the bound is on: labels are drawn ``DRAWS`` times for the slim trunk, and every row is run."""
DRAWS = 2
PROCESSES = 2


@dataclass(frozen=True)
class Way:
    """What a row's trunk starts from."""

    trunk: str = "slim"
    objective: Objective | None = None
    """Pretrained by, if at all."""
    imagenet: bool = False
    """Begun with ImageNet weights."""
    frozen: bool = False


SCRATCH, CORE, IMAGENET = "scratch", "core", "imagenet"
OBJECTIVES: tuple[Objective, ...] = ("core", "contrastive", "restorative", "simsiam", "masked")
"""Of ``training.pretrain``."""
MOBILE = "mobilenetv2: "
WHOLE, THEN = MOBILE + "imagenet, trained whole", MOBILE + "imagenet, then core"
ROWS: Mapping[str, Way] = {
    SCRATCH: Way(),
    **{one: Way(objective=one) for one in OBJECTIVES},
    IMAGENET: Way("mobilenetv2", imagenet=True, frozen=True),
    MOBILE + SCRATCH: Way("mobilenetv2"),
    **{MOBILE + one: Way("mobilenetv2", one) for one in OBJECTIVES},
    WHOLE: Way("mobilenetv2", imagenet=True),
    THEN: Way("mobilenetv2", "core", imagenet=True),
}
BETWEEN = ((WHOLE, IMAGENET), (THEN, WHOLE), (THEN, IMAGENET))
"""Differences that are stated beside those to scratch and to core."""
EVERYWHERE = (SCRATCH, CORE, IMAGENET)
"""Rows of every share and seed; the others are run at ``BOUND`` on ``FEWER`` seeds."""

Found = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Of one seed: AUROC by row, surface and share."""


@dataclass(frozen=True)
class Work:
    """How much is done."""

    side_px: int = 64
    pictures: int = 600
    """Of each surface, about."""
    pretraining: int = 3000
    """Steps: on seeds from ``TUNED_ON`` on core came out below scratch after 200 and above it after 1000."""
    pretraining_batch: int = 16
    """Pictures a step, each seen twice."""
    pretraining_rate: float = 2e-3
    iterations: int = 60
    batch: int = 16
    rate: float = 2e-3
    mobile_pretraining: int = 400
    mobile_rate: float = 1e-3
    """Of MobileNetV2 trained whole, from whatever it starts, and pretrained."""


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    from training.recipe import pretrained_weights

    tiny = Work(pictures=300, pretraining=2, pretraining_batch=4, iterations=2, batch=4, mobile_pretraining=2)
    work, seeds = (tiny, (TUNED_ON, TUNED_ON + 1)) if quick else (Work(), SEEDS)
    here = pretrained_weights() is not None
    progress.expect(len(seeds))
    found = []
    with workers() as pool:
        for seed in seeds:
            rows = [row for row, way in ROWS.items() if (here or not way.imagenet)
                    and (seed in seeds[:FEWER] or row in EVERYWHERE)]  # fmt: skip
            found.append(progress.step(f"seed {seed}", partial(seed_step, pool, rows, work, seed)))
    settings = {"seeds": list(seeds), "fewer_seeds": list(seeds[:FEWER]),
                "threads": 1, "processes": PROCESSES, "shares": list(SHARES), "width": 0.25, "stages": 3,
                **vars(work)}  # fmt: skip
    return result_of(found, settings)


def workers() -> ProcessPoolExecutor:
    """Processes of one thread each; what a row comes to does not depend on how many."""
    return ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn"), initializer=_alone)


def seed_step(
    pool: Executor, rows: Sequence[str], work: Work, seed: int, surfaces: Sequence[Surface] = SURFACES
) -> dict[str, dict[str, Any]]:
    """All rows of a seed."""
    one = partial(row_step, work=work, seed=seed, surfaces=surfaces)
    return dict(zip(rows, pool.map(one, rows), strict=True))


def _alone() -> None:
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def row_step(row: str, work: Work, seed: int, surfaces: Sequence[Surface] = SURFACES) -> dict[str, Any]:
    """One row on every surface, at its shares of labels.

    Returns:
        By surface, by share as text: the AUROC on the test groups, of several defects the mean.
    """
    way = ROWS[row]
    read = _read(tuple(surfaces), work, seed)
    parts = {name: dealt(squares, seed=seed) for name, squares in read.items()}
    found: dict[str, Any] = {name: {} for name in read}
    with tempfile.TemporaryDirectory() as folder:
        start = None
        if way.objective is not None:
            unlabelled = np.concatenate([squares.images[parts[name].train] for name, squares in read.items()])
            start = _pretrained(unlabelled, way, work, seed, Path(folder))
        for name, squares in read.items():
            test = parts[name].test
            for share in SHARES if row in EVERYWHERE else (BOUND,):
                aurocs = []
                for draw in range(DRAWS if share == BOUND and not row.startswith(MOBILE) else 1):
                    few = squares.taken(labelled(squares, parts[name].train, share=share, seed=seed, draw=draw))
                    logits = _trained(few, squares.images[test], way, start, work, seed)
                    aurocs.append(_mean_auroc(logits, squares.truth[test]))
                found[name][f"{share:g}"] = float(np.mean(aurocs))
    return found


@lru_cache(maxsize=1)
def _read(surfaces: tuple[Surface, ...], work: Work, seed: int) -> Mapping[str, Squares]:
    """Every surface's pictures by its name; the next row of the same seed has them already."""
    return {one.name: squares_of(one, _spec(work), most=work.pictures, seed=seed) for one in surfaces}


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
    gains: dict[str, Paired] = {}
    for share in next(iter(found[0][SCRATCH].values())):
        for kind in ("", MOBILE):
            table, pairs = _block(found, share, kind)
            rows += [*table, *(one.row(name) for name, one in pairs.items())]
            gains |= pairs
    must = gains[f"{BOUND:g} of the labels: {CORE} - {SCRATCH}"]
    low, high = round(must.low, 4), round(must.high, 4)
    lacking = () if IMAGENET in found[0] else ("no row with ImageNet weights was run: they are not here",)
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
            "rows without mobilenetv2 in their name are the slim trunk, trained whole; imagenet is MobileNetV2 as the "
            "product uses it, frozen, with a neck and a head to train; the other rows of mobilenetv2 train all of it, "
            f"with labels drawn once, not {DRAWS} times, since a step costs four times as much",
            f"rows beside {', '.join(EVERYWHERE)} were run on the first {FEWER} seeds (column seeds); differences are "
            "over the seeds that both rows were run on",
            "pictures, side and steps are small so that the whole runs on a CPU; rows beside scratch, core and "
            f"imagenet were run at {BOUND:g} of the labels alone; the paper trains at full size",
            *lacking,
            f"what was tuned was tuned on seeds from {TUNED_ON} on",
        ],
        settings=dict(settings),
        data={one.folder.name: machine.data_digest(one.folder) for one in SURFACES if one.folder.is_dir()},
        packages=("torch", "safetensors"),
        chart=Chart("auroc", "AUROC"),
    )


def _block(found: Sequence[Found], share: str, kind: str) -> tuple[list[dict[str, object]], dict[str, Paired]]:
    """Of one trunk at one share of labels: its rows, and differences by their names."""
    names = list(found[0][SCRATCH])
    own = [row for row in found[0] if row.startswith(MOBILE) == bool(kind) and share in found[0][row][names[0]]]
    table: list[dict[str, object]] = []
    for row in own:
        shown = [one for one in found if row in one]
        each = {name: round(float(np.mean([one[row][name][share] for one in shown])), 4) for name in names}
        mean = round(float(_by_seed(shown, share, row).mean()), 4)
        table.append({"name": f"{share} of the labels: {row}", "auroc": mean, **each, "seeds": len(shown)})
    pairs = [(row, kind + SCRATCH) for row in own if row != kind + SCRATCH]
    pairs += [(kind + CORE, kind + one) for one in OBJECTIVES[1:] if kind + one in own]
    pairs += [pair for pair in BETWEEN if pair[0] in own and pair[1] in found[0]]
    differences = {}
    for after, before in pairs:
        both = [one for one in found if after in one and before in one]
        each_seed = [list(_by_seed(both, share, row)) for row in (after, before)]
        differences[f"{share} of the labels: {after} - {before}"] = over_seeds(*each_seed)
    return table, differences


def _by_seed(found: Sequence[Found], share: str, row: str) -> Array:
    """``(S,)``: of each seed the mean over surfaces."""
    return np.array([np.mean([one[share] for one in by_row[row].values()]) for by_row in found])


def _pretrained(images: Image, way: Way, work: Work, seed: int, folder: Path) -> Path:
    """A trunk's file, pretrained on these pictures."""
    from training.pretrain import pretrain

    assert way.objective is not None
    told = _recipe(way, work, seed).model_copy(
        update={"iterations": work.pretraining if way.trunk == "slim" else work.mobile_pretraining,
                "batch": work.pretraining_batch,
                "rate": work.pretraining_rate if way.trunk == "slim" else work.mobile_rate}
    )  # fmt: skip
    path = folder / "trunk.safetensors"
    pretrain(images, _spec(work), told, objective=way.objective, scratch=not way.imagenet).save(path)
    return path


def _trained(few: Squares, tested: Array, way: Way, start: Path | None, work: Work, seed: int) -> Array:
    """``(N, K)`` logits of the test pictures, by a classifier trained on the labelled ones."""
    import torch

    from training.data.frozen import Feed
    from training.data.views import Views, batches_of
    from training.fitting import Terms, fit
    from training.losses.supervised import supervised_loss
    from training.statistics import estimated, with_statistics
    from training.trunks import Start, start_of

    told = _recipe(way, work, seed).model_copy(update={"start": None if start is None else str(start)})
    count, classes = few.truth.shape
    if way.trunk == "slim" or way.imagenet or start is not None:
        begun = start_of(told, classes=classes, pooled=True)
    else:
        begun = Start({"trunk": way.trunk, "classes": classes, "pooled": True}, None)
    network = begun.network(seed)
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
        {"network": network}, losses, iterations=work.iterations, rate=told.rate, weight_decay=told.weight_decay,
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


def _recipe(way: Way, work: Work, seed: int) -> Recipe:
    from training.recipe import Recipe

    rate = work.mobile_rate if way.trunk != "slim" and not way.frozen else work.rate
    told = {"side_px": work.side_px, "iterations": work.iterations, "batch": work.batch, "rate": rate}
    return Recipe.model_validate({**told, "trunk": way.trunk, "frozen": way.frozen, "seed": seed})
