"""E3: a line that shows good parts alone: what carries another line's defects over to it?

Synthetic lines, drawn anew for every seed, and pairs of real lines named beforehand, with the methods among which
an audit of at most 30 labelled pictures of the part train chooses.  Of the new line normals alone are trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import machine
from benchmarks.adaptation.holm import holm
from benchmarks.adaptation.line_pairs import CELLS, PAIRS, TILES, Pair
from benchmarks.adaptation.protocol import Paired, Runs, averaged, by_seed, cross_folds, over_seeds, paired
from benchmarks.adaptation.scored import MEASURES, Scored
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.quality.datasets import Line, Lines, Sample, lines_of, load_dataset

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.recipe import Recipe

__all__ = ["ABLATIONS", "CANDIDATES", "MINUTES", "NEEDS", "SEEDS", "SUITE", "TITLE", "Work", "pair_step", "result_of",
           "run", "synthetic_step"]  # fmt: skip

TITLE = "Lines that show good parts alone: what carries another line's defects over"
SUITE = "adaptation"
MINUTES = 25.0
NEEDS = ("torch", "cv2", "../shared/data/elpv_solar", "../shared/data/magnetic_tile")

SEEDS = tuple(range(10, 20))
"""Of the synthetic lines."""
REAL_SEEDS = tuple(range(5, 10))
TUNED_ON = 100
"""Whatever was tuned was tuned on seeds from here on."""
BASELINE = "mixed"
METHODS = ("source", "statistics", BASELINE, "nrbn", "contrastive")
ABLATIONS = ("contrastive-cross", "contrastive-joint", "triplet")
ABLATED = 2
"""So many of the synthetic seeds show the ablations too."""
CANDIDATES = ("nrbn", "contrastive", "statistics", BASELINE)
"""Of the audit, which leaves the first for a good reason alone; on a frozen trunk that is mixed by another name."""
ORACLE = "oracle"
SCRATCH, PRETRAINED = "slim", "mobilenetv2"
"""The bounds are on the first, whose encoder the methods train; the second is frozen and stands beside it."""
AUDIT = 30
FALSE_ALARMS = 0.05
DRAWN = machine.ROOT / "build" / "adaptation" / "without_defects"


@dataclass(frozen=True)
class Work:
    """How much is done."""

    iterations: int
    """Of the source."""
    transfer: int
    """Of what is trained on both lines."""
    side_px: int
    batch: int = 32
    pictures: int = 0
    """Drawn ones of a line; 0 where they are photographs."""
    tested: int = 0


SYNTHETIC = Work(iterations=300, transfer=300, side_px=64, pictures=400, tested=300)
REAL = Work(iterations=100, transfer=100, side_px=64, batch=16)


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    import cv2
    import torch

    from training.recipe import pretrained_weights

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    seeds, real = (SEEDS[:2], REAL_SEEDS[:2]) if quick else (SEEDS, REAL_SEEDS)
    trunks = (SCRATCH, PRETRAINED) if pretrained_weights() and not quick else (SCRATCH,)
    drawn = replace(SYNTHETIC, iterations=4, transfer=3, batch=6, pictures=60, tested=40) if quick else SYNTHETIC
    work = replace(REAL, iterations=3, transfer=2, side_px=32, batch=6) if quick else REAL
    pairs = PAIRS[1:3] if quick else PAIRS
    progress.expect(len(seeds) + len(real) * len(pairs))
    synthetic = [
        progress.step(
            f"synthetic, seed {seed}",
            partial(synthetic_step, drawn, seed, (*METHODS, *ABLATIONS) if k < ABLATED else METHODS),
        )
        for k, seed in enumerate(seeds)
    ]
    found = {
        pair.name: [
            [
                progress.step(
                    f"{pair.name}, seed {seed}, fold {k % 2}", partial(pair_step, pair, work, trunks, seed, k % 2)
                )
            ]
            for k, seed in enumerate(real)
        ]
        for pair in pairs
    }
    settings = {"seeds": list(seeds), "real_seeds": list(real), "folds": "of each seed one of 2, by turns",
                "threads": 1, "trunks": list(trunks), "audit_pictures": AUDIT, "synthetic": vars(drawn),
                "real": vars(work)}  # fmt: skip
    return result_of(synthetic, found, settings)


def synthetic_step(work: Work, seed: int, methods: Sequence[str] = METHODS) -> dict[str, Any]:
    """Methods on one seed's lines, and a network that saw the new line's labels.

    Returns:
        ``rows``: by method a ``Scored`` document of the new line's test pictures.
    """
    from benchmarks.adaptation.drawn import drawn_lines
    from benchmarks.adaptation.rows import oracle_lines
    from training.train import train

    dataset = drawn_lines(DRAWN / str(seed), seed=seed, prior=0.5, pictures=work.pictures, tested=work.tested)
    lines, judging = (lines_of(dataset, seed=seed, evaluating=judge) for judge in (False, True))
    recipe = _recipe(work, seed, SCRATCH)
    source = train(dataset, lines, recipe)
    made = _transferred(source, lines, recipe, work, methods)
    rows = {method: _scored(one, "new", judging.new[0]) for method, one in made.items()}
    own = train(dataset, oracle_lines(lines), recipe)
    return {"rows": {**rows, ORACLE: _scored(own, "original", judging.new[0])}}


def pair_step(pair: Pair, work: Work, trunks: Sequence[str], seed: int, fold: int) -> dict[str, Any]:
    """The source and the candidates on one fold of a pair, and which of them the audit takes.

    Of what the audit shows nothing is trained on, under no lamp or exposure: of a new line's parts nothing would be.

    Returns:
        By trunk ``rows`` as of ``synthetic_step``, and the audit's ``choice``.
    """
    from training.data.views import views_of
    from training.normals_choice import audit_drawn, chosen_by_audit
    from training.train import train

    dataset = load_dataset(pair.folder)
    dealt = cross_folds(dataset, seed=seed, original=pair.original, new=pair.new and [",".join(pair.new)], gap=pair.gap)
    lines, judging = dealt[fold].lines, dealt[fold].judging
    drawn = audit_drawn(lines.new[0], seed=seed, most=AUDIT)
    apart = _without(lines, drawn)
    found: dict[str, Any] = {}
    for trunk in trunks:
        recipe = _recipe(work, seed, trunk)
        source = train(dataset, apart, recipe)
        made = _transferred(source, apart, recipe, work, ("source", *CANDIDATES))
        audit = views_of(lines.new[0], drawn, source.preprocess, grid=source.grid, labelled=True)
        choice = chosen_by_audit({method: made[method] for method in CANDIDATES}, audit)
        rows = {method: _scored(one, "new", judging.new[0]) for method, one in made.items()}
        found[trunk] = {"rows": rows, "choice": choice.document()}
    return found


def result_of(
    synthetic: Sequence[Mapping[str, Any]],
    real: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
    settings: Mapping[str, object],
) -> Result:
    """Tables and bounds.

    Args:
        synthetic: By seed, of ``synthetic_step``.
        real: By pair, by seed, by fold, of ``pair_step``.
        settings: Of the run.
    """
    drawn = {
        row: [[Scored.read(one["rows"][row])] for one in synthetic if row in one["rows"]]
        for row in (*METHODS, *ABLATIONS, ORACLE)
        if row in synthetic[0]["rows"]
    }
    aurocs = {row: by_seed(runs, MEASURES["auroc"]) for row, runs in drawn.items()}
    gains = {
        row: over_seeds(list(values), list(aurocs[BASELINE][: len(values)]))
        for row, values in aurocs.items()
        if row != BASELINE
    }
    natural = float(np.mean([_rates(one, 0.0)[0] for folds in drawn[BASELINE] for one in folds]))
    rows: list[dict[str, object]] = [_row(f"synthetic: {row}", runs) for row, runs in drawn.items()]
    rows += [gain.row(f"synthetic: {row} - mixed, AUROC") for row, gain in gains.items()]
    tables = {name: _chosen(found, SCRATCH) for name, found in real.items()}
    against = {name: paired(runs["chosen"], runs[BASELINE], MEASURES["auroc"]) for name, runs in tables.items()}
    significant = holm({name: (runs["chosen"], runs[BASELINE]) for name, runs in tables.items()})
    whole = _pooled(tables)
    mean = paired(whole["chosen"], whole[BASELINE], MEASURES["auroc"])
    for name, runs in tables.items():
        rows += [_row(f"{name}: {row}", one) for row, one in runs.items()]
        taken = Counter(fold[SCRATCH]["choice"]["method"] for folds in real[name] for fold in folds)
        rows += [{**against[name].row(f"{name}: chosen - mixed, AUROC"), "significant_after_holm": name in significant,
                  **{f"took_{method}": count for method, count in sorted(taken.items())}}]  # fmt: skip
        rows += [
            paired(runs[row], runs[BASELINE], MEASURES["auroc"]).row(f"{name}: {row} - mixed, AUROC")
            for row in CANDIDATES
            if row != BASELINE
        ]
    rows += [mean.row("all real pairs: chosen - mixed, AUROC"), *_pretrained_rows(real)]
    best = max((against[name].mean for name in significant), default=0.0)
    return Result(
        rows=rows,
        musts={
            "E3.adabn_minus_mixed": _value(gains["statistics"]),
            "E3.adabn_minus_mixed.low": _low(gains["statistics"]),
            "E3.mixed_tpr_natural": Value(round(natural, 4)),
            "E3.nrbn_minus_mixed": _value(gains["nrbn"]),
            "E3.nrbn_minus_mixed.low": _low(gains["nrbn"]),
            "E3.real_best_pair_gain": Value(round(max(best, 0.0), 4)),
            "E3.real_pairs_chosen_minus_mixed.low": _low(mean),
            "E3.supcon_minus_mixed": _value(gains["contrastive"]),
            "E3.supcon_worst_seed": Value(round(float(aurocs["contrastive"].min()), 4)),
        },
        notes=[
            "statistics is AdaBN on the new line's normals; contrastive is the cross-domain contrastive loss with each "
            "line whitened by its own normals, contrastive-joint the same with one normalisation for both; mixed is "
            "cross-entropy on both lines' pictures; the oracle alone saw the new line's defects; what is contrastive "
            "starts from a fresh encoder and takes as many steps as the source and the others' transfer together",
            f"the ablations {', '.join(ABLATIONS)} were run on the first {ABLATED} seeds alone, and compared on these",
            "the audit is drawn by lot from the new line's part train, at most 30 pictures and a third of it; none is "
            "a test picture or trained on (training/normals_choice.py refuses more, and any test picture); "
            f"it chooses among {', '.join(CANDIDATES)}, and leaves the first only for one that is better by more than "
            "a standard error",
            "pairs and the reasons for them stand in the module and were named before a figure of them was looked at: "
            + "; ".join(f"{pair.name}: {pair.why}" for pair in PAIRS),
            "after Holm: step-down over the pairs, each interval at the level that its rank leaves",
            "the bounds are on the slim trunk from scratch, whose encoder the methods train; with a frozen pretrained "
            f"one ({PRETRAINED}) normalisation has nothing to change and nrbn is mixed; its rows stand beside",
            "of a part that an audit shows nothing is trained on, under no lamp and no exposure",
            f"what was tuned was tuned on seeds from {TUNED_ON} on",
        ],
        settings=dict(settings),
        data={one.name: machine.data_digest(one) for one in (CELLS, TILES)},
        packages=("torch", "safetensors"),
        chart=Chart("auroc", "AUROC"),
    )


def _transferred(
    source: Checkpoint,
    lines: Lines,
    recipe: Recipe,
    work: Work,
    methods: Sequence[str],
) -> dict[str, Checkpoint]:
    """By method the checkpoint with the new line, of its healthy pictures of part train."""
    from training.data.views import views_of
    from training.normals import transfer

    spec, grid = source.preprocess, source.grid
    old, new = lines.original, lines.new[0]
    original = old, views_of(old, old.train, spec, grid=grid, labelled=True)
    good = [one for one in new.train if one.healthy]
    normals = views_of(new, good, spec, grid=grid, labelled=True)
    told = recipe.model_copy(update={"iterations": work.transfer})
    return {m: transfer(source, normals, told, methods=[m], original=original).chosen for m in methods}


def _without(lines: Lines, audited: Sequence[Sample]) -> Lines:
    """The lines without an audit's pictures in what is trained and calibrated on, and without others of the same parts.

    A group is a part where the new line has more of them than the audit has pictures; fewer and larger ones are blocks
    of parts, such as the cells of one module, and lose the audited pictures alone.
    """
    parts = len({one.unit for one in lines.new[0].train}) > len(audited)
    shown = {one.unit if parts else one.image for one in audited}

    def left(line: Line) -> Line:
        kept = {
            part: tuple(one for one in line.part(part) if (one.unit if parts else one.image) not in shown)
            for part in ("train", "validate")
        }
        return replace(line, **kept)  # type: ignore[arg-type]  # of samples both

    return replace(lines, original=left(lines.original), new=tuple(left(one) for one in lines.new))


def _scored(checkpoint: Checkpoint, line: str, judging: Line) -> dict[str, object]:
    """Of each test picture of the new line its surest cell; the boundary is the line's own."""
    from benchmarks.adaptation.rows import pictures_of
    from training.data.views import views_of
    from training.evaluate import judge

    views = views_of(judging, judging.test, checkpoint.preprocess, grid=checkpoint.grid, labelled=True)
    state = checkpoint.line(line)
    boundary = float(state.thresholds.boundary.min())
    at = float(np.asarray(state.temperature).min()) * float(np.log(boundary / (1 - boundary)))
    return pictures_of(judge(checkpoint, line, views), boundary=at).document()


def _recipe(work: Work, seed: int, trunk: str) -> Recipe:
    from training.recipe import Recipe

    told = {"trunk": trunk, "side_px": work.side_px, "iterations": work.iterations, "batch": work.batch}
    return Recipe.model_validate({**told, "rate": 2e-3, "seed": seed})


def _chosen(found: Sequence[Sequence[Mapping[str, Any]]], trunk: str) -> dict[str, list[list[Scored]]]:
    """By row, with what the audit chose as ``chosen``."""
    runs = {
        row: [[Scored.read(fold[trunk]["rows"][row]) for fold in folds] for folds in found]
        for row in ("source", *CANDIDATES)
    }
    taken = [
        [Scored.read(fold[trunk]["rows"][fold[trunk]["choice"]["method"]]) for fold in folds] for folds in found
    ]
    return {**runs, "chosen": taken}


def _pretrained_rows(real: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]) -> list[dict[str, object]]:
    """The pairs with the frozen pretrained trunk, where it was run."""
    if any(PRETRAINED not in fold for found in real.values() for folds in found for fold in folds):
        return [{"name": f"real pairs, {PRETRAINED}", "skipped": "its weights are not here, or the run was quick"}]
    tables = {name: _chosen(found, PRETRAINED) for name, found in real.items()}
    rows = [_row(f"{name}, {PRETRAINED}: {row}", one) for name, runs in tables.items() for row, one in runs.items()]
    whole = _pooled(tables)
    mean = paired(whole["chosen"], whole[BASELINE], MEASURES["auroc"])
    return [*rows, mean.row(f"all real pairs, {PRETRAINED}: chosen - mixed, AUROC")]


def _pooled(tables: Mapping[str, Mapping[str, Runs]]) -> dict[str, list[list[Scored]]]:
    """All pairs' folds of a seed beside each other; a group belongs to its pair."""

    def named(name: str, one: Scored) -> Scored:
        return replace(one, groups=tuple(f"{name}: {group}" for group in one.groups))

    seeds = range(len(next(iter(next(iter(tables.values())).values()))))
    return {
        row: [[named(name, one) for name, runs in tables.items() for one in runs[row][seed]] for seed in seeds]
        for row in ("chosen", BASELINE)
    }


def _row(name: str, runs: Runs) -> dict[str, object]:
    """AUROC, the share of defects found where 5 % of healthy pictures are stopped, at logit 0, and at the threshold."""
    flat = [one for folds in runs for one in folds]
    each = by_seed(runs, MEASURES["auroc"])
    at_rate = np.mean([_rates(one, _healthy_quantile(one))[0] for one in flat])
    at_zero = np.mean([_rates(one, 0.0) for one in flat], axis=0)
    at_own = np.mean([_rates(one, one.boundary) for one in flat], axis=0)
    return {
        "name": name,
        "auroc": round(averaged(runs, MEASURES["auroc"]), 4),
        "worst_seed": round(float(each.min()), 4),
        "tpr_at_5_fpr": round(float(at_rate), 4),
        "natural_tpr": round(float(at_zero[0]), 4),
        "natural_fpr": round(float(at_zero[1]), 4),
        "threshold_tpr": round(float(at_own[0]), 4),
        "threshold_fpr": round(float(at_own[1]), 4),
    }


def _rates(scored: Scored, boundary: float) -> tuple[float, float]:
    """Shares of defective and of healthy pictures that reach a boundary."""
    called, true = scored.scores >= boundary, scored.truth > 0
    return float(called[true].mean()), float(called[~true].mean())


def _healthy_quantile(scored: Scored) -> float:
    return float(np.nextafter(np.quantile(scored.scores[scored.truth == 0], 1 - FALSE_ALARMS, method="higher"), np.inf))


def _value(pair: Paired) -> Value:
    return Value(round(pair.mean, 4), round(pair.low, 4), round(pair.high, 4))


def _low(pair: Paired) -> Value:
    return Value(round(pair.low, 4), round(pair.low, 4), round(pair.high, 4))
