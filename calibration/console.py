"""How the workstation's commands talk: data on stdout, everything else on stderr, errors in one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edge_sdk.errors import DefectErased, EdgeError

__all__ = ["MostFloat", "bar", "bars", "hand_out", "refusals", "say"]

MostFloat = Annotated[
    int | None,
    typer.Option(
        "--max-fp16-layers",
        min=0,
        help="Of the layers that the ranges found worth FP16, leave at most so many in float for TensorRT.",
        show_default=False,
    ),
]
"""What is rendered and what is fine-tuned for it must agree."""


def say(text: str) -> None:
    """A line of talk."""
    typer.echo(text, err=True)


def hand_out(value: Any, *, as_json: bool, text: str) -> None:
    """The result: one JSON object, or a line for people."""
    typer.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


@contextmanager
def refusals() -> Iterator[None]:
    """End the command with the sentence of the error and its exit code, without a traceback."""
    try:
        yield
    except EdgeError as error:
        say(error.priced() if isinstance(error, DefectErased) else str(error))
        raise typer.Exit(error.exit_code) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(f"{where}{error.strerror or error}; nothing half-written is left, mend it and run again")
        raise typer.Exit(1) from error


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar on stderr for each thing that is done; say what, how much is done, and of how much."""
    with _bars() as progress:
        tasks: dict[str, TaskID] = {}

        def step(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=of)
            progress.update(tasks[what], completed=done, total=of)

        yield step


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr; call what it gives once a step."""
    with _bars() as progress:
        task = progress.add_task(title, total=total)
        yield lambda: progress.advance(task)


def _bars() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    return Progress(*columns, console=Console(stderr=True))
