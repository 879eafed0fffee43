"""From kept steps to the rows and bounds of a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.adaptation.protocol import Paired, Runs, averaged, best_of_others, by_seed, over_seeds, paired
from benchmarks.adaptation.rows import BESIDE, LABELLED
from benchmarks.adaptation.scored import MEASURES, Scored, balanced_accuracy
from benchmarks.adaptation.verdicts import Judgement, judge, summary_of
from edge_sdk.arrays import Array

__all__ = ["AUTO", "DEFAULT_NOTE", "FULL_WIDTH", "Block", "above_best", "blocks_of", "panel_rows",
           "verdict_rows", "worst"]  # fmt: skip

AUTO = "auto"
"""The trunk of the recommended default: what training takes where none is named."""


DEFAULT_NOTE = (
    "the recommended default is no method and no trunk named: the trunk with ImageNet weights, and "
    "what the label-free rules take; where they take nothing, or the health panel says not to ship "
    "it, the source model stays and counts; decided is what the rules took whatever the panel said"
)


FULL_WIDTH: dict[str, object] = {
    "name": "ResNet-18 at full width, from scratch",
    "skipped": "one seed of it is a result of its own, S4",
}
"""The row that the tables of five seeds go without."""


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
    """How often the rules took which method, and whether the panel refused it; of ``auto`` with the trunk before it."""
    judgements: Sequence[Judgement] = ()
    """Of every seed and fold: was the decision right?"""
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
        if self.trunk == AUTO:
            found[f"recommended_{measure}"] = found[f"default_{measure}"]
        return found

    def at_home(self) -> dict[str, object]:
        """The source model on the original line's test pictures."""
        found: dict[str, object] = {"name": f"{self.name}, {self.trunk}: source on its own line"}
        for measure in ("auroc", "balanced_accuracy"):
            found[f"home_{measure}"] = round(averaged(self.original["pictures"], MEASURES[measure]), 3)
        return found

    def taken(self) -> dict[str, object]:
        """What the rules took, and how often."""
        said = ", ".join(f"{name} {count}" for name, count in sorted(self.chosen.items()))
        return {"name": f"{self.name}, {self.trunk}", "taken": said}

    @property
    def ranked_by_pictures(self) -> bool:
        """Whether healthy and defective pictures are there to be told apart."""
        return all(one.both for folds in next(iter(self.pictures.values())) for one in folds)


def blocks_of(
    found: Sequence[Sequence[Mapping[str, Any]]], tasks: Sequence[str], trunks: Sequence[str], *, fresh: bool = False
) -> list[Block]:
    """Blocks of the steps of one set: of each task one a trunk, and one of the trunk ``auto``.

    Args:
        found: By seed, by fold: what ``step_of`` gave.
        tasks: Names, in order.
        trunks: Named ones.
        fresh: Whether each seed draws data of its own.
    """
    return [_block(found, task, trunk, fresh=fresh) for task in tasks for trunk in (*trunks, AUTO)]


def _block(found: Sequence[Sequence[Mapping[str, Any]]], task: str, trunk: str, *, fresh: bool) -> Block:
    taken = [[fold["auto"][task] if trunk == AUTO else trunk for fold in folds] for folds in found]
    steps = [
        [fold[name][task] for fold, name in zip(folds, names, strict=True)]
        for folds, names in zip(found, taken, strict=True)
    ]
    first = steps[0][0]
    rows = {
        kind: {
            row: [[Scored.read(one["rows"][row][kind]) for one in folds] for folds in steps] for row in first["rows"]
        }
        for kind in first["original"]
    }
    flat = [(name, one) for folds, names in zip(steps, taken, strict=True)
            for one, name in zip(folds, names, strict=True)]  # fmt: skip
    return Block(
        name=task,
        trunk=trunk,
        pictures=rows["pictures"],
        cells=rows.get("cells", {}),
        original={
            kind: [[Scored.read(one["original"][kind]) for one in folds] for folds in steps]
            for kind in first["original"]
        },
        chosen=Counter(
            _taken(one, name if trunk == AUTO else "") for name, one in flat
        ),
        judgements=tuple(_judgement(f"{task}, {trunk}", one) for _, one in flat),
        fresh=fresh,
    )


def _taken(one: Mapping[str, Any], trunk: str) -> str:
    words = [trunk, str(one["decision"]["method"]), "" if one["ship"] else "(refused)"]
    return " ".join(word for word in words if word)


def _judgement(case: str, one: Mapping[str, Any]) -> Judgement:
    """By AUROC of pictures where both kinds are there, else by AP of cells."""

    def figure(documents: Mapping[str, Any]) -> float:
        pictures = Scored.read(documents["pictures"])
        kind, measure = ("pictures", "auroc") if pictures.both else ("cells", "ap")
        scored = Scored.read(documents[kind])
        return float(MEASURES[measure](scored, np.ones((1, len(scored.scores))))[0])

    figures = {
        row: figure(documents) for row, documents in one["rows"].items()
        if row not in (*LABELLED, *BESIDE)
    }  # fmt: skip
    pictures = Scored.read(one["original"]["pictures"])
    accuracy = float(balanced_accuracy(pictures, np.ones((1, len(pictures.scores))))[0]) if pictures.both else None
    home = figure(one["original"])
    return judge(case, one["decision"]["method"], figures, shipped=one["ship"], home=home, home_accuracy=accuracy)


def verdict_rows(blocks: Sequence[Block]) -> list[dict[str, object]]:
    """How often the label-free rules were right: of each block of the trunk ``auto``, and over all."""
    mine = [block for block in blocks if block.trunk == AUTO]
    everything = [one for block in mine for one in block.judgements]
    pairs = [(f"rules, {block.name}", block.judgements) for block in mine] + [("rules, all", everything)]
    return [{"name": name, **summary_of(list(judgements))} for name, judgements in pairs]


def above_best(block: Block, beside: Sequence[Block], measure: str, *, row: str = "default") -> dict[str, object]:
    """The default of a block against the best row of all trunks, which the other seeds choose.

    Args:
        block: Of the recommended default.
        beside: The same new line with every named trunk.
        measure: Name.
        row: ``default``, or ``decided`` for what the health panel had no say in.
    """
    rows = {
        f"{other}, {one.trunk}": one.seeds(other, measure)
        for one in beside
        for other in one.pictures
        if other not in BESIDE
    }
    excluded = [name for name in rows if name.partition(",")[0] in LABELLED]
    best = best_of_others(rows, excluded=excluded)
    mine = block.seeds(row, measure)
    each = mine - np.array([value for _, value in best])
    names = Counter(name for name, _ in best)
    return {
        "name": f"{block.name}: {row} ({block.trunk}) - best row",
        "difference": round(float(each.mean()), 4),
        "each": [round(float(value), 4) for value in each],
        "best_row": ", ".join(f"{name} ({count})" for name, count in names.most_common()),
    }


def panel_rows(blocks: Mapping[str, Block], named: Sequence[Block]) -> list[dict[str, object]]:
    """What the rules would have gained had the health panel no say: of every block against the source and the best row.

    Args:
        blocks: Of the recommended default, by new line.
        named: Of every named trunk.
    """
    found = []
    for name, block in blocks.items():
        pair = block.minus("decided", "default", "balanced_accuracy")
        found.append(pair.row(f"{name}: without the panel - recommended default, balanced accuracy"))
        found.append(above_best(block, [one for one in named if one.name == name], "auroc", row="decided"))
    return found


def worst(pairs: Mapping[str, Paired]) -> tuple[str, Paired]:
    """The one with the lowest lower end."""
    name = min(pairs, key=lambda one: pairs[one].low)
    return name, pairs[name]
