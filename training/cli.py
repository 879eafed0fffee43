"""``python -m training train | adapt | retrain | evaluate | pictures``.

Data on stdout, talk on stderr.  0 it worked; 1 it did not, and why is the last line; 2 it was asked
wrongly.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from calibration.console import hand_out, refusals, say
from edge_sdk.documents import write_atomic
from edge_sdk.errors import ConfigError

__all__ = ["app", "main"]

app = typer.Typer(
    name="training",
    help="Train for a line, adapt to another without labels, retrain from operators' answers, evaluate.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Trunk(str, Enum):
    """What a training starts from."""

    auto = "auto"
    slim = "slim"
    mobilenetv2 = "mobilenetv2"


class Part(str, Enum):
    """A part of a line."""

    train = "train"
    validate = "validate"
    mentor = "mentor"
    test = "test"


class Way(str, Enum):
    """What is taken as known besides the answers."""

    masked = "masked"
    omnia = "masked+omnia"
    unmasked = "unmasked"
    full = "full-labels"


CheckpointArgument = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint folder.")]
Data = Annotated[list[Path], typer.Option(help="Folder of pictures; twice for a pair of folders, a line each.")]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Original = Annotated[str | None, typer.Option(help="Domains of the original line, separated by commas.")]
New = Annotated[list[str] | None, typer.Option(help="Domains of a new line; repeat for several lines.")]
Gap = Annotated[str | None, typer.Option(help="Make the new line of the original's pictures, e.g. stains+lamp.")]
Seed = Annotated[int, typer.Option(min=0, help="Of the parts and of everything random.")]
Threads = Annotated[int, typer.Option(min=1, max=256, help="Threads to compute with.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer iterations: to see that everything runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LineName = Annotated[str, typer.Option("--line", help="Name of the new line.")]


@app.command()
def train(
    data: Data,
    out: Out,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: Seed = 0,
    trunk: Annotated[Trunk, typer.Option(help="What to start from.")] = Trunk.auto,
    side_px: Annotated[int, typer.Option(min=32, max=2048, help="Side of the network's input.")] = 160,
    width: Annotated[float, typer.Option(min=0.05, max=2.0, help="Of the slim trunk.")] = 0.25,
    iterations: Annotated[int | None, typer.Option(min=1, help="Steps.")] = None,
    no_jitter: Annotated[bool, typer.Option("--no-jitter", help="Without photometric jitter.")] = False,
    masks_required: Annotated[
        bool, typer.Option("--masks-required", help="Refuse defective pictures without a mask.")
    ] = False,
    threads: Threads = 1,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Train for the original line from labelled pictures.

    \b
    Example:
      python -m training train --data examples/data/hazelnut --gap stains+lamp --out build/source

    A training that was killed goes on where it was when the same command is given again.
    """
    with refusals(), _progress() as progress:
        recipe = _recipe(
            trunk=trunk.value,
            side_px=16 * max(2, round(side_px / 16)),
            width=width,
            jitter=not no_jitter,
            masks="required" if masks_required else "optional",
            seed=seed,
            **({} if iterations is None else {"iterations": iterations}),
        )
        dataset, lines = _lines(data, original, new, gap, seed, threads)
        from training.checkpoint import check_place, save_checkpoint
        from training.train import train as trained

        check_place(out)
        found = trained(
            dataset, lines, recipe.quick() if quick else recipe, resume=_resume(out), progress=progress
        )
        save_checkpoint(found, out)
    facts = {"out": str(out), "classes": list(found.classes), **found.figures}
    hand_out(facts, as_json=json_, text=f"{out}: {', '.join(found.classes)}; loss {found.figures['loss_last']:g}")


@app.command()
def adapt(
    checkpoint: CheckpointArgument,
    data: Data,
    out: Out,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As in the training, if not given.")] = None,
    line: LineName = "new",
    threads: Threads = 1,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Adapt to a new line from its unlabelled pictures, if the label-free rules say so.

    \b
    Example:
      python -m training adapt build/source --data examples/data/hazelnut --gap stains+lamp --out build/adapted

    Every method is kept in OUT/methods, what was decided and why in OUT/figures.json.
    """
    with refusals(), _progress() as progress:
        from training.adapt import adapt as adapted
        from training.checkpoint import check_place, load_checkpoint, save_checkpoint

        check_place(out)
        base = load_checkpoint(checkpoint)
        recipe = _recipe_of(base.recipe, seed=seed, quick=quick)
        dataset, lines = _lines(data, original, new, gap, recipe.seed, threads, base.data)
        found = adapted(base, dataset, lines, recipe, name=line, resume=_resume(out), progress=progress)
        save_checkpoint(found.chosen, out)
        for method, one in found.methods.items():
            save_checkpoint(one, out / "methods" / method)
        decision = {"decision": found.decision.document()}
        write_atomic(out / "figures.json", json.dumps(decision, indent=1).encode() + b"\n")
    text = f"{out}: {found.decision.method}; {found.decision.why}"
    hand_out({"out": str(out), **decision}, as_json=json_, text=text)


@app.command()
def retrain(
    checkpoint: CheckpointArgument,
    data: Data,
    out: Out,
    mentored: Annotated[
        Path | None, typer.Option(help="What `python -m mentoring export` wrote.")
    ] = None,
    strategy: Annotated[Way, typer.Option(help="What is taken as known besides the answers.")] = Way.omnia,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As in the training, if not given.")] = None,
    line: LineName = "new",
    threads: Threads = 1,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Train on with operators' answers, from the deployed weights at a quarter of the rate.

    \b
    Example:
      python -m training retrain build/adapted --data examples/data/hazelnut --gap stains+lamp \\
          --mentored build/mentored --out build/retrained

    masked learns from the answered cells alone (eq. 4 of the mentoring paper); masked+omnia, the default,
    adds cells that the deployed model is sure are healthy and nobody answered.
    unmasked and full-labels are controls: the one takes the unanswered for healthy, the other uses the
    truth of the pictures that operators were asked about.
    """
    with refusals(), _progress() as progress:
        from training.checkpoint import check_place, load_checkpoint, save_checkpoint
        from training.retrain import read_mentored
        from training.retrain import retrain as retrained

        check_place(out)
        base = load_checkpoint(checkpoint)
        recipe = _recipe_of(base.recipe, seed=seed, quick=quick)
        _, lines = _lines(data, original, new, gap, recipe.seed, threads, base.data)
        answers = None if mentored is None else read_mentored(mentored)
        found = retrained(
            base,
            lines,
            recipe,
            mentored=answers,
            strategy=strategy.value,
            name=line,
            resume=_resume(out),
            progress=progress,
        )
        save_checkpoint(found, out)
    counts = {} if answers is None else answers.counts()
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    hand_out(
        {"out": str(out), "strategy": strategy.value, "answers": counts},
        as_json=json_,
        text=f"{out}: {strategy.value}{': ' if said else ''}{said}",
    )


@app.command()
def evaluate(
    checkpoint: CheckpointArgument,
    data: Data,
    out: Annotated[Path | None, typer.Option(help="Folder for evaluation.json and the arrays behind it.")] = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: Annotated[int | None, typer.Option(min=0, help="As in the training, if not given.")] = None,
    threads: Threads = 1,
    json_: Json = False,
) -> None:
    """Judge the test pictures of both lines, each with its own statistics.

    \b
    Example:
      python -m training evaluate build/adapted --data examples/data/hazelnut --gap stains+lamp --json
    """
    with refusals(), _progress() as progress:
        from training.checkpoint import load_checkpoint
        from training.evaluate import evaluate as evaluated
        from training.evaluate import save_arrays

        base = load_checkpoint(checkpoint)
        recipe = _recipe_of(base.recipe, seed=seed, quick=False)
        _, lines = _lines(data, original, new, gap, recipe.seed, threads, base.data, evaluating=True, tell=False)
        found = evaluated(base, lines, progress=progress)
        figures = {name: dict(figures) for name, figures in found.figures.items()}
        if out is not None:
            save_arrays(found, out)
            write_atomic(out / "evaluation.json", json.dumps(figures, indent=1).encode() + b"\n")
    hand_out(figures, as_json=json_, text="\n".join(_in_words(name, one) for name, one in figures.items()))


@app.command()
def pictures(
    data: Data,
    out: Out,
    part: Annotated[Part, typer.Option(help="Which part of the line.")],
    line: Annotated[str, typer.Option(help="original, new, …")] = "new",
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: Seed = 0,
    most: Annotated[int | None, typer.Option("--max", min=1, help="At most so many.")] = None,
    evaluating: Annotated[bool, typer.Option("--evaluating", help="Labels of the part test too.")] = False,
    json_: Json = False,
) -> None:
    """Write a part of a line as a folder of pictures, as its camera would have taken them.

    \b
    Example:
      python -m training pictures --data examples/data/hazelnut --gap stains+lamp --part train --out build/pictures
    """
    with refusals(), _progress() as progress:
        from training.pictures import write_pictures

        _, lines = _lines(data, original, new, gap, seed, 1, evaluating=evaluating, tell=False)
        labelled = evaluating or part is not Part.test
        count = write_pictures(
            lines.line(line), part.value, out, labelled=labelled, most=most, progress=progress
        )
    facts = {"out": str(out), "pictures": count, "line": line, "part": part.value}
    hand_out(facts, as_json=json_, text=f"{out}: {count} pictures")


def main() -> None:
    """Run the command line."""
    app()


def _lines(
    data: list[Path],
    original: str | None,
    new: list[str] | None,
    gap: str | None,
    seed: int,
    threads: int,
    remembered: Mapping[str, Any] | None = None,
    *,
    evaluating: bool = False,
    tell: bool = True,
) -> Any:
    """The data set and its lines; roles that are not named are those that the checkpoint remembers."""
    import cv2
    import torch

    from edge_sdk.quality.datasets import lines_of, load_dataset
    from training.data.gaps import names

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    if gap is not None and (strange := [part for part in gap.split("+") if part not in names()]):
        raise ConfigError(f"there is no gap named {strange[0]!r}; give one of {', '.join(names())}, or several with +")
    dataset = load_dataset(*data)
    if remembered and original is None and new is None and gap is None:
        gap = remembered.get("gap")
        original = ",".join(remembered.get("original", ())) or None
        new = None if gap else [",".join(one) for one in remembered.get("new", ())]
    lines = lines_of(dataset, original=original, new=new, gap=gap, seed=seed, evaluating=evaluating)
    for note in lines.notes if tell else ():
        say(note)
    return dataset, lines


def _recipe(**given: Any) -> Any:
    from pydantic import ValidationError

    from training.recipe import Recipe

    try:
        return Recipe(**given)
    except ValidationError as error:
        found = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, found['loc']))} is {found['input']}; {found['msg'].lower()}") from error


def _recipe_of(said: Mapping[str, Any], *, seed: int | None, quick: bool) -> Any:
    """The recipe that a checkpoint was made by; a quick one stays quick."""
    recipe = _recipe(**said) if seed is None else _recipe(**{**said, "seed": seed})
    return recipe.quick() if quick and recipe.iterations > 100 else recipe


def _resume(out: Path) -> Path:
    return out.with_name(f".{out.name}.resume.safetensors")


def _in_words(line: str, figures: Mapping[str, Any]) -> str:
    if figures["ap"] is None:
        return f"{line}: {figures['n']} pictures, nothing to measure on them"
    low, high = figures["ap_low"], figures["ap_high"]
    interval = "" if low is None else f" [{low:.3f}, {high:.3f}]"
    return (
        f"{line}: AP {figures['ap']:.3f}{interval}, precision {figures['precision']:.2f}, "
        f"recall {figures['recall']:.2f} ({figures['unit']} of {figures['n']} pictures)"
    )


@contextmanager
def _progress() -> Iterator[Any]:
    """Bars on stderr, one for each thing that is done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[loss]}"),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, step: int, steps: int, terms: Mapping[str, float]) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=steps, loss="")
            told = " ".join(f"{name} {value:.3f}" for name, value in terms.items())
            bars.update(tasks[what], completed=step, loss=told)

        yield progress
