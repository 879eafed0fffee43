"""The command ``drift``: its flags, and what it says.  What it does is in ``training.drift``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from calibration.console import hand_out, refusals, say
from edge_sdk.folders import check_folder
from training.options import Json, Out

__all__ = ["drift"]


def drift(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A checkpoint folder, or a bundle.")],
    now: Annotated[Path, typer.Option(help="What the line shows now: pictures, or a hub's export.")],
    out: Out,
    was: Annotated[
        Path | None, typer.Option(
            help="What it showed before, in pictures that the model was not made of; without it the older half of the "
            "export's records."
        ),
    ] = None,
    line: Annotated[str | None, typer.Option(help="Of a checkpoint; its only new line if not given.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Records before it are what was, e.g. 2026-11-21T10:00Z.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the tests that draw.")] = 0,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads to compute with.")] = 1,
    json_: Json = False,
) -> None:
    """Say what changed between two sets of pictures of one line, and what to do about it.

    \b
    Example:
      python -m training drift build/press-3-1.bundle --was pictures/june --now pictures/today --out build/drift

    Tests scores and features, names what changed in the pictures, estimates the share of defects where --was is
    labelled, and computes camera.adjust where the light changed. Writes drift.json and drift.html.
    """
    with refusals():
        check_folder(out)
        import cv2
        import torch

        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        from training.drift import compare, write_comparison
        from training.drift_sides import model_of, sets_of
        from training.progress import shown

        opened = model_of(model, line=line)
        before, after, notes = sets_of(was, now, since=since)
        for note in notes:
            say(note)
        with shown() as (progress, _):
            found = compare(
                opened, before, after, notes=notes, seed=seed,
                step=lambda what, done, all_: progress(what, done, all_, {}),
            )  # fmt: skip
        facts = {"model": model.name, "was": "older records" if was is None else was.name, "now": now.name}
        write_comparison(found, out, facts)
    text = f"{found.sentence}\n{found.advice}\n{out / 'drift.html'}"
    hand_out({"out": str(out), **found.document()}, as_json=json_, text=text)
