"""The command ``transfer``: its flags, and what it says.  What it does is in ``training.normals_command``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibration.console import refusals
from training.options import (
    CheckpointArgument,
    Data,
    Device,
    Gap,
    Json,
    New,
    Original,
    Quick,
    RecipeFile,
    SeedOfTraining,
    Threads,
)

__all__ = ["transfer"]


def transfer(
    checkpoint: CheckpointArgument,
    out: Annotated[Path | None, typer.Option(help="Folder to write; may be left out with --moments.")] = None,
    normals: Annotated[
        Path | None,
        typer.Option(help="Folder of the new line's good parts; else the healthy pictures of --data's new line."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="statistics if not given, with a frozen trunk source; with --audit and --data several, or repeat it.",
        ),
    ] = None,
    audit: Annotated[
        str | None,
        typer.Option(metavar="DIR|N", help="At most 30 labelled pictures of the new line, or how many to draw."),
    ] = None,
    moments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the normals' statistics, to be pooled elsewhere.")
    ] = None,
    pool: Annotated[
        list[Path] | None,
        typer.Option("--pool", metavar="FILE", help="Statistics of one place; repeat. The line is made of them alone."),
    ] = None,
    under: Annotated[
        str | None, typer.Option(metavar="LINE", help="Measure --moments under this line's statistics.")
    ] = None,
    data: Data = None,
    recipe: RecipeFile = None,
    original: Original = None,
    new: New = None,
    gap: Gap = None,
    seed: SeedOfTraining = None,
    line: Annotated[str | None, typer.Option("--line", help="Name of the new line; new if not given.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Of what is trained; as in the training.")] = None,
    device: Device = None,
    threads: Threads = None,
    quick: Quick = False,
    json_: Json = False,
) -> None:
    """Take a new line from its good parts alone: by their statistics, or trained beside the original line's defects.

    \b
    Example:
      python -m training transfer build/source --normals good_parts --out build/press-4

    statistics, the method if none is named, takes seconds and no gradient; with a frozen pretrained trunk it is source,
    which takes the threshold alone. nrbn, contrastive, its variants and triplet train with --data, where the original
    line is. Several places that make one part each write --moments, and one pools them:
    transfer build/source --pool a.safetensors --pool b.safetensors --out build/press-4.
    """
    from training.commands import at_work, config_given, hand_over, resume_beside

    with refusals():
        config = config_given(
            recipe, data, original, new, gap, seed, device, threads, quick,
            line=line, methods=tuple(method) if method else None, iterations=iterations,
        )  # fmt: skip
        with at_work(config) as work:
            from training.normals_command import Asked, run

            resume = None if out is None else resume_beside(out)
            asked = Asked(checkpoint, out, normals, tuple(pool or ()), moments, audit, under, resume)
            said = run(asked, work)
    how = said.get("method", "statistics")
    words = [f"{out or moments}: {how} of {said['normals']} normals in {said['took_s']:g} s"]
    if said.get("audit"):
        words.append(said["audit"]["why"])
    if "guarantee" in said:
        words.append(f"thresholds: {said['thresholds']}; guarantee: {said['guarantee']}")
    hand_over(work, said, json_, "\n".join(words))
