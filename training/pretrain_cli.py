"""The command ``pretrain``: its flags, and what it reads and writes."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from calibration.console import refusals
from edge_sdk.folders import check_file
from training.commands import at_work, config_given, hand_over, resume_beside, whole_cells
from training.options import Device, Json, Original, Quick, RecipeFile, Seed, Threads, Trunk

__all__ = ["pretrain"]


class Objective(str, Enum):
    """What a trunk is pretrained by."""

    core = "core"
    contrastive = "contrastive"
    restorative = "restorative"
    simsiam = "simsiam"
    masked = "masked"


def pretrain(
    data: Annotated[list[Path], typer.Option(help="Folder of pictures; repeat for several. Labels are not looked at.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    objective: Annotated[
        Objective, typer.Option(help="What to learn by; on MobileNetV2 core was surely better than nothing.")
    ] = Objective.core,
    trunk: Annotated[
        Trunk | None,
        typer.Option(help="What to pretrain: slim if not given; mobilenetv2 begins with its ImageNet weights."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", metavar="FILE", help="Go on from what `pretrain` wrote.")
    ] = None,
    scratch: Annotated[
        bool, typer.Option("--scratch", help="Begin MobileNetV2 with nothing, where its weights may not be used.")
    ] = False,
    recipe: RecipeFile = None,
    seed: Seed = None,
    side_px: Annotated[
        int | None, typer.Option(min=32, max=2048, help="Side of the network's input; 160 if not given.")
    ] = None,
    width: Annotated[float | None, typer.Option(min=0.05, max=2.0, help="Of the slim trunk; 0.25 if none.")] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Pictures a step, each seen twice; 32 if not given.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Steps; 250 if not given.")] = None,
    original: Original = None,
    device: Device = None,
    threads: Threads = None,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Pretrain a trunk on pictures without labels, best of a related defect set, to start a training from.

    \b
    Example:
      python -m training pretrain --data related --out build/related.safetensors
      python -m training train --data pictures --start build/related.safetensors --out build/source
      python -m training pretrain --data related --trunk mobilenetv2 --out build/mobile.safetensors

    core is the default: on MobileNetV2 from nothing it was the one objective surely better than no pretraining, by
    little and over three seeds; ImageNet weights gained six times as much: docs/how-to/pretrain.md.
    Pictures of a set's part test are left out, as they are dealt with the same --seed.
    """
    with refusals():
        config = config_given(
            recipe, None, original, None, None, seed, device, threads, quick,
            trunk=None if trunk is None else trunk.value, start=None if start is None else str(start),
            width=width, iterations=iterations, batch=batch or 32,
            side_px=whole_cells(side_px),
        )  # fmt: skip
        with at_work(config) as work:
            from training.pretrain import pictures_of
            from training.pretrain import pretrain as learn

            check_file(out)
            began, told = time.monotonic(), config.recipe()
            images, spec = pictures_of(data, told)
            found = learn(
                images, spec, told, objective=objective.value, scratch=scratch, resume=resume_beside(out),
                progress=work.progress,
            )  # fmt: skip
            found.save(out)
    said = {
        "out": str(out), "objective": found.objective, "pictures": found.pictures,
        "first": dict(found.history[0]), "last": dict(found.history[-1]), "took_s": round(time.monotonic() - began, 1),
    }  # fmt: skip
    words = ", ".join(f"{name} {found.history[0][name]:.3g} → {value:.3g}" for name, value in found.history[-1].items())
    hand_over(work, said, json_, f"{out}: {found.objective} on {found.pictures} pictures: {words}")
