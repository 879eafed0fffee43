"""``python -m benchmarks list | run | peer | check | render``."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import machine, registry
from benchmarks.checking import check as findings_of
from benchmarks.checking import read_all
from benchmarks.musts import musts_from_csv
from benchmarks.peers import PEERS, make_peer
from benchmarks.render import render as written_from
from benchmarks.results import Benchmark, document, write_result
from benchmarks.steps import KeptSteps
from edge_sdk.errors import EdgeError, MissingPackage

__all__ = ["app", "main"]

RESULTS = machine.ROOT / "benchmarks" / "results"
QUICK = machine.ROOT / "build" / "results"
REFERENCE = machine.ROOT / "docs" / "reference"

talk = Console(stderr=True, highlight=False, soft_wrap=True)
app = typer.Typer(
    name="benchmarks",
    help="Measure what the project states, and check that it still holds.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """What ``python -m benchmarks`` runs."""
    app(prog_name="python -m benchmarks")


@contextmanager
def _said() -> Iterator[None]:
    """An error of ours ends the command with its sentence."""
    try:
        yield
    except EdgeError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; the same command goes on from here", err=True)
        raise typer.Exit(1) from error


AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]


@app.command("list", epilog="Example: python -m benchmarks list")
def list_(as_json: AsJson = False) -> None:
    """Every id: title, minutes, what it needs, its state here."""
    with _said():
        rows = [_listed(identifier) for identifier in sorted(registry.MODULES)]
    if as_json:
        typer.echo(json.dumps({"results": rows}))
        return
    table = Table("id", "title", "minutes", "needs", "state here", box=None)
    for row in rows:
        table.add_row(row["id"], row["title"], row["minutes"], row["needs"], row["state"])
    Console(width=120).print(table)


def _listed(identifier: str) -> dict[str, str]:
    try:
        benchmark = registry.benchmark(identifier)
    except ImportError as error:
        needs = error.name or str(error)
        return {"id": identifier, "title": "?", "minutes": "?", "needs": needs, "state": "cannot run"}
    missing = _missing(benchmark)
    bounds = musts_from_csv()
    result = read_all(RESULTS)[0].get(identifier)
    if result is None:
        state = "not measured"
    else:
        unmet = sum(not bounds[must.key].met_by(must.value) for must in result.musts if must.key in bounds)
        state = f"{result.finished_at:%Y-%m-%d}, {unmet} unmet" if unmet else f"{result.finished_at:%Y-%m-%d}, all met"
    return {
        "id": identifier,
        "title": benchmark.TITLE,
        "minutes": f"{benchmark.MINUTES:g}",
        "needs": ", ".join(benchmark.NEEDS) + (f" (missing: {', '.join(missing)})" if missing else ""),
        "state": state,
    }


def _missing(benchmark: Benchmark) -> list[str]:
    return [thing for thing in benchmark.NEEDS if not _is_here(thing)]


def _is_here(thing: str) -> bool:
    """A path of the checkout or beside it, a command, or a module."""
    if "/" in thing:
        return (machine.ROOT / thing).exists()
    return shutil.which(thing) is not None or importlib.util.find_spec(thing) is not None


@app.command(epilog="Example: python -m benchmarks run R4 Q5 --quick")
def run(
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Which results, e.g. R4 Q5.")],
    quick: Annotated[
        bool, typer.Option("--quick", help="The same code, smaller, at most 2 minutes each; into build/results.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write below this folder instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure, and write one file a result; an interrupted run goes on where it was."""
    written = {}
    with _said():
        for identifier in dict.fromkeys(ids):
            path = _run_one(identifier, quick=quick, folder=out or (QUICK if quick else RESULTS))
            written[identifier] = str(path)
    if as_json:
        typer.echo(json.dumps({"written": written}))


def _run_one(identifier: str, *, quick: bool, folder: Path) -> Path:
    benchmark = registry.benchmark(identifier)
    if missing := _missing(benchmark):
        wanted = ", ".join(missing)
        raise MissingPackage(f"{identifier} needs {wanted}, which is not here; `make install` brings packages")
    load_before = machine.load()
    memory = QUICK / f".{identifier}{'.quick' if quick else ''}.steps"
    # a file changed meanwhile is another measurement
    source = Path(inspect.getfile(benchmark.run)).read_bytes()
    same = f"{machine.commit()} {hashlib.sha256(source).hexdigest()}"
    with KeptSteps(memory, same=same, title=identifier) as steps:
        if steps.kept:
            talk.print(f"{identifier}: going on after {steps.kept} finished steps")
        result = benchmark.run(quick=quick, progress=steps)
    bounds = musts_from_csv()
    content = document(
        identifier,
        benchmark,
        result,
        bounds=bounds,
        took_s=steps.took_s,
        load_before=load_before,
        quick=quick,
    )
    path = write_result(folder, content)
    steps.forget()
    for key, found in sorted(result.musts.items()):
        bound = bounds[key]
        talk.print(f"{'met  ' if bound.met_by(found.value) else 'UNMET'} {key}: {found.value:g}, wanted {bound.words}")
    talk.print(f"{identifier} written to {path}")
    return path


@app.command(epilog="Example: python -m benchmarks peer anomalib")
def peer(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(sorted(PEERS))}.")],
    as_json: AsJson = False,
) -> None:
    """Make the environment that a peer is measured in, apart from ours; minutes, and gigabytes."""
    with _said():
        talk.print(f"installing {' '.join(PEERS.get(name, ()))}, apart from ours; this takes minutes")
        python = make_peer(name)
    if as_json:
        typer.echo(json.dumps({"python": str(python)}))
    else:
        talk.print(f"{name} is ready: {python}")


@app.command(epilog="Example: python -m benchmarks check --report")
def check(
    report: Annotated[bool, typer.Option("--report", help="Exit 0 unless a file is broken.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Check this folder instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Schema, missing ids, every bound recomputed; one line a key that is unmet or missing."""
    with _said():
        found = findings_of(out or RESULTS, bounds=musts_from_csv(), registered=registry.MODULES)
    if as_json:
        typer.echo(json.dumps({"findings": [vars(finding) for finding in found]}))
    else:
        for finding in found:
            typer.echo(f"{finding.kind:7} {finding.subject}: {finding.text}")
    counts = {kind: sum(finding.kind == kind for finding in found) for kind in ("broken", "missing", "unmet")}
    talk.print(", ".join(f"{count} {kind}" for kind, count in counts.items()))
    if counts["broken"] or (found and not report):
        raise typer.Exit(1)


@app.command(epilog="Example: python -m benchmarks render")
def render(
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Write there instead of docs/reference.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write docs/reference/results.md and its pictures from the result files."""
    with _said():
        results, broken = read_all(RESULTS)
        for finding in broken:
            talk.print(f"left out: {finding.text}")
        written = written_from(results, musts_from_csv(), out or REFERENCE)
    if as_json:
        typer.echo(json.dumps({"written": [str(path) for path in written]}))
    else:
        talk.print(f"{len(results)} results written to {written[0]}")
    if broken:
        raise typer.Exit(1)
