"""E2: solar cells, mono to poly and back: does the default do as well as the best row, and never worse than nothing?

Each seed deals the blocks of cells into two folds anew.  A cell has no mask, so pictures are what is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from benchmarks import machine
from benchmarks.adaptation.protocol import best_of_others, cross_folds
from benchmarks.adaptation.tables import Block, above_best, blocks_of, worst
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.quality.datasets import load_dataset

__all__ = ["MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "result_of", "run"]

TITLE = "Solar cells, mono to poly and back: adapting without labels"
SUITE = "adaptation"
MINUTES = 15.0
NEEDS = ("torch", "cv2", "../shared/data/elpv_solar")

DATA = machine.ROOT.parent / "shared" / "data" / "elpv_solar"
SEEDS = tuple(range(5))
TUNED_ON = 100
"""Whatever was tuned was tuned on seeds from here on."""
SIDE_PX = 128
ITERATIONS = 150
ADAPTING = 80
DIRECTIONS = {"mono to poly": ("mono", "poly"), "poly to mono": ("poly", "mono")}


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from benchmarks.adaptation.rows import TRUNKS, auto_trunk

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds = SEEDS[:2] if quick else SEEDS
    trunks = TRUNKS if auto_trunk() == TRUNKS[1] else TRUNKS[:1]
    iterations, adapting, side = (8, 4, 64) if quick else (ITERATIONS, ADAPTING, SIDE_PX)
    progress.expect(len(trunks) * len(seeds) * 2)
    blocks: dict[str, list[Block]] = {direction: [] for direction in DIRECTIONS}
    for trunk in trunks:
        found = [
            [
                progress.step(
                    f"{trunk}, seed {seed}, fold {fold}",
                    partial(step, trunk, seed, fold, (side, iterations, adapting)),
                )
                for fold in (0, 1)
            ]
            for seed in seeds
        ]
        for block in blocks_of(found, list(DIRECTIONS), trunk=trunk):
            blocks[block.name].append(block)
    return result_of(blocks, seeds, auto_trunk(), {"side_px": side, "iterations": iterations, "adapting": adapting})


def step(trunk: Any, seed: int, fold: int, work: tuple[int, int, int]) -> dict[str, Any]:
    """Both directions of one fold.

    Args:
        trunk: Of ``TRUNKS``.
        seed: Deals the folds and starts the weights.
        fold: 0 or 1.
        work: Pixels of a side, iterations of the source and of the adaptation's recipe.
    """
    from benchmarks.adaptation.rows import Kept, Task, rows_of
    from training.recipe import Recipe

    side, iterations, adapting = work
    dataset = load_dataset(DATA)
    recipe = Recipe(trunk=trunk, side_px=side, iterations=iterations, seed=seed)
    kept = Kept(dataset, recipe)
    found = {}
    for direction, (original, new) in DIRECTIONS.items():
        dealt = cross_folds(dataset, seed=seed, original=[original], new=[new])[fold]
        task = Task(direction, dealt.lines, dealt.judging)
        found[direction] = rows_of(task, kept, recipe.model_copy(update={"iterations": adapting}))
    return found


def result_of(
    blocks: Mapping[str, Sequence[Block]], seeds: Sequence[int], auto: str, work: Mapping[str, int]
) -> Result:
    """Tables and bounds.

    Args:
        blocks: By direction, one a trunk.
        seeds: Run.
        auto: Trunk of the recommended default.
        work: Iterations and sizes.
    """
    recommended = {way: next(b for b in both if b.trunk == auto) for way, both in blocks.items()}
    scratch = next(block for block in blocks["mono to poly"] if block.trunk == "slim")
    against = {way: block.minus("default", "source", "auroc") for way, block in recommended.items()}
    best = [above_best(recommended[way], both, "auroc") for way, both in blocks.items()]
    joint = best_of_others({row: scratch.seeds(row, "auroc") for row in ("mmd", "dann")})
    gain = float((sum(value for _, value in joint) / len(joint)) - scratch.seeds("source", "auroc").mean())
    mmd, dann = (scratch.minus(row, "source", "auroc") for row in ("mmd", "dann"))
    lowest, lower = worst(against)
    both = [block for pair in blocks.values() for block in pair]
    rows: list[dict[str, object]] = [block.means("auroc") for block in both]
    rows += [block.means("balanced_accuracy") for block in both]
    rows += [_home(block) for block in both]
    rows += [pair.row(f"{way}: default ({auto}) - source, AUROC") for way, pair in against.items()]
    rows += [
        block.minus("default", "source", "auroc").row(f"{way}: default (slim) - source, AUROC")
        for way, two in blocks.items()
        for block in two
        if block.trunk == "slim" and auto != "slim"
    ]
    rows += [mmd.row("mono to poly, slim: MMD - source, AUROC"), dann.row("mono to poly, slim: DANN - source, AUROC")]
    rows += best
    rows += [{"name": f"{block.name}, {block.trunk}", "taken": _counts(block)} for block in both]
    gaps = [float(str(row["difference"])) for row in best]
    return Result(
        rows=rows,
        musts={
            "E2.default_minus_source.low": Value(lower.low, lower.low, lower.high),
            "E2.default_minus_best_row": Value(min(gaps)),
            "E2.mono_poly_joint_gain": Value(round(gain, 4)),
        },
        notes=[
            f"the recommended default is no method and no trunk named: here the trunk {auto}, and what the label-free "
            "rules take; where they take none it is the source model, and counts as such",
            f"worst direction of default - source: {lowest}",
            "the best row is chosen on the other seeds, over both trunks, the oracle left out; MMD or DANN likewise",
            "8 blocks a domain are few: the interval over groups is wide, and the blocks are listed one by one",
            f"iterations, sizes and weights were fixed beforehand on seeds from {TUNED_ON} on; no target label chose "
            "anything",
        ],
        settings={"seeds": list(seeds), "folds": 2, "threads": 1, "jitter": True, **work},
        data={"elpv_solar": machine.data_digest(DATA)},
        packages=("torch", "safetensors"),
        chart=Chart("default_auroc", "AUROC"),
    )


def _home(block: Block) -> dict[str, object]:
    from benchmarks.adaptation.protocol import averaged
    from benchmarks.adaptation.scored import MEASURES

    found: dict[str, object] = {"name": f"{block.name}, {block.trunk}: source on its own line"}
    for measure in ("auroc", "balanced_accuracy"):
        found[f"home_{measure}"] = round(averaged(block.original["pictures"], MEASURES[measure]), 3)
    return found


def _counts(block: Block) -> str:
    return ", ".join(f"{name} {count}" for name, count in block.chosen.items())
