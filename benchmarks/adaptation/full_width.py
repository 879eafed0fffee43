"""S4: the tables E1 and E2 with a ResNet-18 of full width: what of it was the thin trunk's fault?

The tables stand on a thin trunk so that five seeds can be afforded.  Here the first seed of each is dealt, trained,
adapted and judged by the tables' own steps at their own sizes, once with the thin trunk and once with the paper's
channels, so that the two stand on the same pictures.  Of the methods there are those that the rules try, and the
learning one that did most in the table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from benchmarks import machine
from benchmarks.adaptation import domains, solar
from benchmarks.adaptation.protocol import paired
from benchmarks.adaptation.scored import MEASURES
from benchmarks.adaptation.tables import AUTO, Block, blocks_of
from benchmarks.adaptation.verdicts import summary_of
from benchmarks.results import Chart, Result, Steps

__all__ = ["MINUTES", "NEEDS", "NETWORKS", "SETS", "SUITE", "TITLE", "Network", "result_of", "run"]

TITLE = "The tables E1 and E2 with a ResNet-18 of full width, one seed"
SUITE = "adaptation"
MINUTES = 20.0
NEEDS = ("torch", "cv2", "../shared/data/elpv_solar", "../shared/data/magnetic_tile")


@dataclass(frozen=True)
class Network:
    """A trunk from scratch."""

    width: float
    """Times a ResNet-18's channels."""
    stages: int
    """Where a picture gets one verdict; where cells are judged it has the table's, so that the cells are the same."""


THIN, FULL = "slim", "full width"
NETWORKS = {THIN: Network(0.25, 3), FULL: Network(1.0, 4)}
"""By the name of a row; the thin one is the tables' own."""
PRIOR = domains.PRIORS[0]
WANTED = {"hazelnut": domains.LAMP, "tiles": "gamma+tint"}
"""By set the gap that is taken of it."""
SETS = tuple(
    replace(one, gaps=(WANTED[one.name],), priors=(PRIOR,), reversed=())
    for one in domains.PHOTOGRAPHS
    if one.name in WANTED
)
OTHERS = {"synthetic": ("adda",), "solar": ("dann",)}
"""Methods beside those that the rules try; on maps of cells these try DANN already."""
COMPARED = ("default", "decided", "adabn", "mmd", "dann", "adda", "oracle")


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    sets = [domains.smaller(one) for one in SETS] if quick else SETS
    progress.expect(len(NETWORKS) * (1 + 2 * len(sets) + 2))
    blocks = [
        block
        for trunk, network in NETWORKS.items()
        for block in (
            *_drawn(trunk, network, progress, quick=quick),
            *(block for one in sets for block in _photographs(one, trunk, network, progress)),
            *_solar(trunk, network, progress, quick=quick),
        )
    ]
    sizes = {one.name: vars(one.work) for one in sets} | {
        "synthetic": vars(domains.QUICK if quick else domains.SYNTHETIC),
        "solar": dict(zip(("iterations", "adapting", "side_px"), solar.QUICK if quick else solar.WORK, strict=True)),
    }
    return result_of(blocks, sizes)


def _drawn(trunk: str, network: Network, progress: Steps, *, quick: bool) -> list[Block]:
    work = replace(domains.QUICK if quick else domains.SYNTHETIC, width=network.width, stages=network.stages)
    seed = domains.SEEDS[0]
    step = partial(domains.synthetic_step, work, [THIN], seed, priors=(PRIOR,), others=OTHERS["synthetic"])
    return _named([[progress.step(f"synthetic, {trunk}", step)]], [domains.synthetic(PRIOR)], trunk, fresh=True)


def _photographs(one: domains.Photographs, trunk: str, network: Network, progress: Steps) -> list[Block]:
    wide = replace(one, work=replace(one.work, width=network.width))
    seed = domains.SEEDS[0]
    step = partial(domains.real_step, wide, [THIN], seed, others=())
    found = [progress.step(f"{one.name}, {trunk}, fold {fold}", partial(step, fold=fold)) for fold in (0, 1)]
    return _named([found], [one.task(*way) for way in one.ways], trunk)


def _solar(trunk: str, network: Network, progress: Steps, *, quick: bool) -> list[Block]:
    work = solar.QUICK if quick else solar.WORK
    step = partial(solar.step, [THIN], solar.SEEDS[0], work=work, network=vars(network), others=OTHERS["solar"])
    found = [progress.step(f"solar, {trunk}, fold {fold}", partial(step, fold=fold)) for fold in (0, 1)]
    return _named([found], list(solar.DIRECTIONS), trunk)


def _named(
    found: Sequence[Sequence[Mapping[str, Any]]], tasks: Sequence[str], trunk: str, *, fresh: bool = False
) -> list[Block]:
    """The steps know one trunk from scratch; here it has its width's name."""
    return [
        replace(block, trunk=trunk) for block in blocks_of(found, tasks, [THIN], fresh=fresh) if block.trunk != AUTO
    ]


def result_of(blocks: Sequence[Block], sizes: Mapping[str, object]) -> Result:
    """Tables and differences; no bound hangs on one seed.

    Args:
        blocks: Of every new line one a network.
        sizes: Of the work, by set.
    """
    by = {(block.name, block.trunk): block for block in blocks}
    names = list(dict.fromkeys(block.name for block in blocks))
    inorder = [by[name, trunk] for name in names for trunk in NETWORKS]
    whole = [block for block in inorder if block.trunk == FULL]
    rows: list[dict[str, object]] = [block.means("auroc") for block in inorder]
    rows += [block.means("balanced_accuracy") for block in inorder]
    rows += [block.means("ap") for block in inorder if block.cells]
    rows += [block.at_home() for block in inorder]
    for block in whole:
        for measure in _measures(block):
            rows += [
                _difference(block, row, block, "source", measure) for row in COMPARED if row in block.pictures
            ]
    for block in whole:
        thin = by[block.name, THIN]
        for measure in _measures(block):
            rows += [_difference(block, row, thin, row, measure) for row in ("source", "default", "oracle")
                     if row in block.pictures]  # fmt: skip
    rows += [block.taken() for block in inorder]
    rows += [
        {"name": f"rules, all, {trunk}", **summary_of([one for name in names for one in by[name, trunk].judgements])}
        for trunk in NETWORKS
    ]
    return Result(
        rows=rows,
        notes=[
            "every step is the tables' own (E1, E2) at their own pictures, sides and iterations, on the first of their "
            "seeds, both folds; 'slim' is their thin trunk on the same pictures, 'full width' a ResNet-18 of the "
            "paper's channels, from scratch",
            "full width has all four stages where a picture gets one verdict (drawn lines, solar cells) and the "
            "tables' three where cells are judged (hazelnuts, tiles), since a fourth would make the cells twice as "
            "coarse",
            "one seed: the intervals are drawn over groups of its test pictures and say nothing of how another seed "
            "would train or deal; of drawn lines the interval is over seeds, so there is none",
            "of E1's new lines one a set, at one prior; methods are those that the rules try (cells: AdaBN, DANN; "
            "classifiers: MMD, AdaBN), ADDA on drawn lines and DANN on solar cells; iterations were fixed for the thin "
            "trunk and not raised for the wide one, and nothing was tuned here",
            "default is what reaches the line: what the rules take on this trunk, the source where the health panel "
            "refuses it; decided is the same without the panel",
        ],
        settings={
            "seeds": {"E1": domains.SEEDS[0], "E2": solar.SEEDS[0]},
            "folds": 2,
            "threads": 1,
            "jitter": True,
            "networks": {name: vars(network) for name, network in NETWORKS.items()},
            "work": dict(sizes),
        },
        data={one.name: machine.data_digest(one.folders[-1]) for one in SETS}
        | {"elpv_solar": machine.data_digest(solar.DATA)},
        packages=("torch",),
        chart=Chart("source_auroc", "AUROC"),
    )


def _measures(block: Block) -> list[str]:
    """Of solar cells E2's, else E1's; cells where they are judged."""
    measures = ["auroc"] if block.name in solar.DIRECTIONS else ["auroc", "balanced_accuracy"]
    return [*measures, "ap"] if block.cells else measures


def _difference(block: Block, row: str, other: Block, beside: str, measure: str) -> dict[str, object]:
    """A row against one of the same block or of the other network's; over groups where the pictures are real."""
    what = f"{row} - {beside}" if block is other else f"{row}, {block.trunk} - {other.trunk}"
    said = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy", "ap": "cell AP"}[measure]
    name = f"{block.name}{f', {block.trunk}' if block is other else ''}: {what}, {said}"
    if block.fresh:
        gained = float((block.seeds(row, measure) - other.seeds(beside, measure)).mean())
        return {"name": name, "difference": round(gained, 4)}
    runs, beneath = (one.cells if measure == "ap" else one.pictures for one in (block, other))
    found = paired(runs[row], beneath[beside], MEASURES[measure]).row(name)
    return {key: found[key] for key in ("name", "difference", "low", "high")}
