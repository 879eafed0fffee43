"""The commands of ``python -m training``: pretrain, train, commission, adapt, transfer, retrain, evaluate and others.

Data on stdout, talk on stderr.  0 it worked; 1 it did not, and why is the last line; 2 it was asked
wrongly.  What each command writes beside its checkpoint is in ``training.outcome``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibration.console import hand_out, refusals
from edge_sdk.folders import check_folder
from training.commands import at_work, config_given, hand_over, resume_beside, whole_cells
from training.drift_cli import drift
from training.normals_cli import transfer
from training.options import (
    CheckpointArgument,
    Data,
    Device,
    Gap,
    GapOn,
    Head,
    Json,
    LineName,
    New,
    Original,
    Out,
    Part,
    Quick,
    RecipeFile,
    Seed,
    SeedOfTraining,
    Shrink,
    SmallestDefect,
    Threads,
    TileOverlap,
    Trunk,
    TrunkFile,
    Whole,
)
from training.pretrain_cli import pretrain
from training.scorers.commands import (
    Scorer,
    ScorerAlpha,
    ScorerBackbone,
    ScorerCovariance,
    ScorerTrunk,
    ScorerWeights,
    check_flags,
    commission,
    scorer_settings,
    train_scorer,
)

__all__ = ["app", "main"]

app = typer.Typer(
    name="training",
    help="Train for a line, adapt to another without labels, retrain from operators' answers, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def train(
    out: Out,
    data: Data = None,
    recipe: RecipeFile = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    gap_on: GapOn = None,
    seed: Seed = None,
    trunk: Annotated[Trunk | None, typer.Option(help="What to start from; auto if not given.")] = None,
    head: Annotated[
        Head | None,
        typer.Option(help="A map of cells, one verdict a picture, or boxes of boxes.csv; auto: one of the first two."),
    ] = None,
    side_px: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Side of the network's input; 160 if not given.")
    ] = None,
    defect_px: SmallestDefect = None,
    tile_overlap_px: TileOverlap = None,
    shrink: Shrink = None,
    width: Annotated[
        float | None, typer.Option(min=0.05, max=2.0, help="Of the slim trunk; 0.25 if not given.")
    ] = None,
    start: TrunkFile = None,
    whole: Whole = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Steps; 250 if not given, of a scorer as many as it needs.")
    ] = None,
    method: Annotated[
        Scorer | None, typer.Option(help="Without a defect: fit an anomaly scorer on the good parts alone.")
    ] = None,
    covariance: ScorerCovariance = None,
    alpha: ScorerAlpha = None,
    lent: ScorerTrunk = None,
    backbone: ScorerBackbone = None,
    weights: ScorerWeights = None,
    no_jitter: Annotated[bool, typer.Option("--no-jitter", help="Without photometric jitter.")] = False,
    masks_required: Annotated[
        bool, typer.Option("--masks-required", help="Refuse defective pictures without a mask.")
    ] = False,
    device: Device = None,
    threads: Threads = None,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Train for the original line from labelled pictures.

    \b
    Example:
      python -m training train --data examples/data/hazelnut --gap stains+lamp --out build/source
      python -m training train --data examples/data/hazelnut --method patchcore --out build/scorer

    A training that was killed goes on where it was when the same command is given again.  Several processes
    train together: torchrun --nproc-per-node=2 -m training train …
    """
    side = whole_cells(side_px)
    cut = {"defect_px": defect_px, "tile_overlap_px": tile_overlap_px, "shrink": shrink}
    settings = {
        "gap_on": None if gap_on is None else gap_on.value,
        "trunk": None if trunk is None else trunk.value,
        "head": None if head is None else head.value,
        "side_px": side, **cut, "width": width, "iterations": iterations,
        "start": None if start is None else str(start),
        "frozen": None if whole is None else not whole,
        "jitter": False if no_jitter else None, "masks": "required" if masks_required else None,
    }  # fmt: skip
    with refusals():
        check_flags(
            method,
            scorers={"covariance": covariance, "alpha": alpha, "from": lent, "backbone": backbone, "weights": weights},
            others={"recipe": recipe, "original": original, "new": new, "gap": gap, **settings, "side_px": None,
                    **dict.fromkeys(cut), "device": device, "quick": quick or None},
        )  # fmt: skip
        told = {} if method is None else scorer_settings(
            method, covariance, alpha, side, seed, iterations, backbone, weights, **cut
        )
    if method is not None:
        train_scorer(list(data or ()), out, told, lent=lent, threads=threads or 1, json_=json_)
        return
    with refusals():
        config = config_given(recipe, data, original, new, gap, seed, device, threads, quick, **settings)
        with at_work(config) as work:
            from training import api
            from training.checkpoint import check_place
            from training.outcome import write_trained

            check_place(out)
            found = api.train(config, resume=resume_beside(out), progress=work.progress, tell=work.tell)
            if work.first:
                write_trained(found, out, work)
    facts = {"out": str(out), "classes": list(found.classes), **found.figures}
    hand_over(work, facts, json_, f"{out}: {', '.join(found.classes)}; loss {found.figures['loss_last']:g}")


@app.command()
def adapt(
    checkpoint: CheckpointArgument,
    out: Out,
    data: Data = None,
    recipe: RecipeFile = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", help="Take this one; repeat to let the rules choose among several."),
    ] = None,
    seed: SeedOfTraining = None,
    line: LineName = None,
    device: Device = None,
    threads: Threads = None,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Adapt to a new line from its unlabelled pictures, if the label-free rules say so.

    \b
    Example:
      python -m training adapt build/source --data examples/data/hazelnut --gap stains+lamp --out build/adapted

    Every method is kept in OUT/methods, what was decided and why in OUT/figures.json, whether to ship it in
    OUT/health.html.  Of several new lines each is adapted to from the same weights, and the checkpoint in OUT
    knows them all: new, new2, …
    """
    with refusals():
        methods = tuple(method) if method else None
        config = config_given(
            recipe, data, original, new, gap, seed, device, threads, quick, line=line, methods=methods
        )
        with at_work(config) as work:
            from training import api
            from training.checkpoint import check_place
            from training.outcome import write_adapted

            check_place(out)
            base = api.load_checkpoint(checkpoint)
            found = api.adapt_all(config, base, resume=resume_beside(out), progress=work.progress, tell=work.tell)
            said = write_adapted(base, found, out, work)
    words = [f"{out}: {name}: {one['method']}; {one['why']}" for name, one in said["lines"].items()]
    panels = [one["health"] for one in said["lines"].values() if "health" in one]
    words += [f"{panel['verdict']}: {panel['why']}" for panel in panels]
    hand_over(work, {"out": str(out), **said}, json_, "\n".join(words))


@app.command()
def retrain(
    checkpoint: CheckpointArgument,
    out: Out,
    data: Data = None,
    recipe: RecipeFile = None,
    mentored: Annotated[Path | None, typer.Option(help="What `python -m mentoring export` wrote.")] = None,
    strategy: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What is taken as known besides the answers; masked+omnia if not given."),
    ] = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: SeedOfTraining = None,
    line: LineName = None,
    device: Device = None,
    threads: Threads = None,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Train on with operators' answers, from the deployed weights at a quarter of the rate.

    \b
    Example:
      python -m training retrain build/adapted --data examples/data/hazelnut --gap stains+lamp \\
          --mentored build/mentored --out build/retrained

    masked learns from the answered cells alone (eq. 4 of the mentoring paper); masked+omnia, the default,
    adds cells that the deployed model is sure are healthy and nobody answered; where the line flagged
    pictures healthy, masked+omnia+healthy, the default then, adds all of their cells.
    unmasked and full-labels are controls: the one takes the unanswered for healthy, the other uses the
    truth of the pictures that operators were asked about.  A wrong name is answered with all there are.
    """
    with refusals():
        config = config_given(
            recipe, data, original, new, gap, seed, device, threads, quick,
            line=line, strategy=strategy, mentored=mentored,
        )  # fmt: skip
        with at_work(config) as work:
            from training import api
            from training.checkpoint import check_place
            from training.outcome import write_retrained
            from training.retrain import read_mentored
            from training.strategies import strategy_named

            base = api.load_checkpoint(checkpoint)
            check_place(out)
            answers = None if config.mentored is None else read_mentored(config.mentored)
            name, _ = strategy_named(config.strategy or api.shipped_for(base, answers))
            found = api.retrain(
                config, base, mentored=answers, resume=resume_beside(out), progress=work.progress, tell=work.tell
            )
            counts = {} if answers is None else answers.counts()
            if work.first:
                write_retrained(found, name, counts, out, work)
    words = ", ".join(f"{count} {kind}" for kind, count in counts.items())
    facts = {"out": str(out), "strategy": name, "answers": counts}
    hand_over(work, facts, json_, f"{out}: {name}{': ' if words else ''}{words}")


@app.command()
def evaluate(
    checkpoint: CheckpointArgument,
    data: Data = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for page.html, figures.json and the arrays behind them.")
    ] = None,
    recipe: RecipeFile = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: SeedOfTraining = None,
    device: Device = None,
    threads: Threads = None,
    json_: Json = False,
) -> None:
    """Judge the test pictures of all lines, each with its own statistics.

    \b
    Example:
      python -m training evaluate build/adapted --data examples/data/hazelnut --gap stains+lamp --json
    """
    with refusals():
        config = config_given(recipe, data, original, new, gap, seed, device, threads, False)
        with at_work(config) as work:
            from training import api
            from training.outcome import figures_in_words, write_evaluated

            if out is not None:
                check_folder(out)
            model = api.load_checkpoint(checkpoint)
            found = api.evaluate(model, config, progress=work.progress)
            figures = {name: dict(figures) for name, figures in found.figures.items()}
            if out is not None and work.first:
                write_evaluated(found, model, out, work)
    words = "\n".join(figures_in_words(name, one) for name, one in figures.items())
    hand_over(work, figures, json_, words)


@app.command()
def audit(
    checkpoint: CheckpointArgument,
    out: Out,
    mentored: Annotated[Path, typer.Option(help="What `python -m mentoring export` wrote.")],
    line: Annotated[str, typer.Option(help="The line whose control sample was answered.")] = "new",
    json_: Json = False,
) -> None:
    """Write the answered control sample as labelled pictures, from which a line's guarantee is calibrated.

    \b
    Example:
      python -m training audit build/adapted --mentored build/mentored --out build/audit

    Written are the pictures that operators judged whole and that the checkpoint's line was not trained on.
    Give them to `python -m calibration thresholds`, with the graphs that the station runs, and pack a bundle.
    """
    with refusals():
        from edge_sdk.quality.thresholds import ALPHA
        from training.api import load_checkpoint
        from training.audit import audit_of, unseen, write_audit
        from training.retrain import read_mentored

        model, answers = load_checkpoint(checkpoint), read_mentored(mentored)
        found = unseen(model, answers, name=line)
        write_audit(found, answers, model.classes, out)
        whole = audit_of(answers, model.classes)
        healthy = int((~found.shows.any(axis=1)).sum())
        shows = {name: int(count) for name, count in zip(model.classes, found.shows.sum(axis=0), strict=True)}
        lacks = found.missing()
    counts = ", ".join(f"{count} {name}" for name, count in (("healthy", healthy), *shows.items()))
    facts = {
        "out": str(out), "line": line, "pictures": len(found), "healthy": healthy, "shows": shows,
        "trained_on": len(whole) - len(found),
        "guarantee": f"none: {lacks}" if lacks else f"enough for alpha {ALPHA:g}",
    }  # fmt: skip
    hand_out(facts, as_json=json_, text=f"{out}: {counts}; guarantee: {facts['guarantee']}")


@app.command()
def pictures(
    out: Out,
    part: Annotated[Part, typer.Option(help="Which part of the line.")],
    data: Data = None,
    recipe: RecipeFile = None,
    line: Annotated[str, typer.Option(help="original, new, …")] = "new",
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    gap_on: GapOn = None,
    seed: Seed = None,
    most: Annotated[int | None, typer.Option("--max", min=1, help="At most so many.")] = None,
    evaluating: Annotated[bool, typer.Option("--evaluating", help="Labels of the part test too.")] = False,
    json_: Json = False,
) -> None:
    """Write a part of a line as a folder of pictures, as its camera would have taken them.

    \b
    Example:
      python -m training pictures --data examples/data/hazelnut --gap stains+lamp --part train --out build/pictures
    """
    with refusals():
        side = None if gap_on is None else gap_on.value
        config = config_given(recipe, data, original, new, gap, seed, None, None, False, gap_on=side)
        with at_work(config) as work:
            from training.pictures import write_pictures

            _, lines = config.lines(evaluating=evaluating)
            labelled = evaluating or part is not Part.test
            count = write_pictures(
                lines.line(line), part.value, out, labelled=labelled, most=most, progress=work.progress
            )
    facts = {"out": str(out), "pictures": count, "line": line, "part": part.value}
    hand_over(work, facts, json_, f"{out}: {count} pictures")


app.command(name="pretrain")(pretrain)
app.command(name="transfer")(transfer)
app.command(name="drift")(drift)
app.command(name="commission")(commission)


def main() -> None:
    """Run the command line."""
    app()
