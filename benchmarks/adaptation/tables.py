"""From kept steps to the rows and bounds of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.adaptation.protocol import Paired, Runs, best_of_others, by_seed, over_seeds, paired
from benchmarks.adaptation.rows import LABELLED
from benchmarks.adaptation.scored import MEASURES, Scored
from edge_sdk.arrays import Array

__all__ = ["Block", "above_best", "blocks_of", "worst"]


@dataclass(frozen=True, eq=False)
class Block:
    """One new line with one trunk: all rows on the same areas."""

    name: str
    trunk: str
    pictures: Mapping[str, Runs]
    """By row."""
    cells: Mapping[str, Runs]
    """By row; empty where no cell has a truth."""
    original: Mapping[str, Runs]
    """The source model on its own line: ``pictures``, and ``cells`` where these have a truth."""
    chosen: Mapping[str, int]
    """How often the rules took which method."""
    fresh: bool = False
    """Whether each seed draws data of its own, so that seeds are independent."""

    def seeds(self, row: str, measure: str) -> Array:
        """``(S,)`` of a row."""
        runs = self.cells if measure == "ap" else self.pictures
        return by_seed(runs[row], MEASURES[measure])

    def minus(self, row: str, other: str, measure: str) -> Paired:
        """A row against another of this block."""
        if self.fresh:
            return over_seeds(list(self.seeds(row, measure)), list(self.seeds(other, measure)))
        runs = self.cells if measure == "ap" else self.pictures
        return paired(runs[row], runs[other], MEASURES[measure])

    def means(self, measure: str) -> dict[str, object]:
        """All rows side by side, one column each."""
        runs = self.cells if measure == "ap" else self.pictures
        found: dict[str, object] = {"name": f"{self.name}, {self.trunk}"}
        for row in runs:
            found[f"{row}_{measure}"] = round(float(self.seeds(row, measure).mean()), 3)
        return found

    @property
    def ranked_by_pictures(self) -> bool:
        """Whether healthy and defective pictures are there to be told apart."""
        return all(one.both for folds in next(iter(self.pictures.values())) for one in folds)


def blocks_of(
    found: Sequence[Sequence[Mapping[str, Any]]], tasks: Sequence[str], *, trunk: str, fresh: bool = False
) -> list[Block]:
    """Blocks of the steps of one set with one trunk.

    Args:
        found: By seed, by fold: task name to what ``rows_of`` gave.
        tasks: Names, in order.
        trunk: Which.
        fresh: Whether each seed draws data of its own.
    """
    blocks = []
    for task in tasks:
        steps = [[fold[task] for fold in folds] for folds in found]
        rows = list(steps[0][0]["rows"])
        kinds = list(steps[0][0]["original"])

        def runs(row: str, kind: str, steps: list[list[Mapping[str, Any]]] = steps) -> list[list[Scored]]:
            return [[Scored.read(one["rows"][row][kind]) for one in folds] for folds in steps]

        def home(kind: str, steps: list[list[Mapping[str, Any]]] = steps) -> list[list[Scored]]:
            return [[Scored.read(one["original"][kind]) for one in folds] for folds in steps]

        blocks.append(
            Block(
                name=task,
                trunk=trunk,
                pictures={row: runs(row, "pictures") for row in rows},
                cells={row: runs(row, "cells") for row in rows} if "cells" in kinds else {},
                original={kind: home(kind) for kind in kinds},
                chosen=Counter(one["decision"]["method"] for folds in steps for one in folds),
                fresh=fresh,
            )
        )
    return blocks


def above_best(block: Block, beside: Sequence[Block], measure: str) -> dict[str, object]:
    """The default of a block against the best row of all trunks, which the other seeds choose.

    Args:
        block: Of the recommended default.
        beside: The same new line with every trunk, the block's own among them.
        measure: Name.
    """
    rows = {
        f"{row}, {one.trunk}": one.seeds(row, measure)
        for one in beside
        for row in one.pictures
        if row not in ("default", "plain")
    }
    excluded = [name for name in rows if name.partition(",")[0] in LABELLED]
    best = best_of_others(rows, excluded=excluded)
    mine = block.seeds("default", measure)
    each = mine - np.array([value for _, value in best])
    names = Counter(name for name, _ in best)
    return {
        "name": f"{block.name}: default ({block.trunk}) - best row",
        "difference": round(float(each.mean()), 4),
        "each": [round(float(value), 4) for value in each],
        "best_row": ", ".join(f"{name} ({count})" for name, count in names.most_common()),
    }


def worst(pairs: Mapping[str, Paired]) -> tuple[str, Paired]:
    """The one with the lowest lower end."""
    name = min(pairs, key=lambda one: pairs[one].low)
    return name, pairs[name]
