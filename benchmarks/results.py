"""One result: what a benchmark hands back, and the file it becomes.

A benchmark is a module with ``TITLE``, ``SUITE``, ``MINUTES``, ``NEEDS`` and ``run``.  It measures and returns a
``Result``; the machine, the versions, the commit and what each must came to are added here, so that no
benchmark states them for itself.

    TITLE = "Start of a station"
    SUITE = "runtime"
    MINUTES = 3.0
    NEEDS = ("onnxruntime",)

    def run(*, quick: bool, progress: Steps) -> Result:
        rounds = 3 if quick else 20
        progress.expect(rounds)
        times = [progress.step(f"round {k}", measure_once) for k in range(rounds)]
        return Result(rows=[{"name": "ours", "import_s": mean(times)}], musts={"R4.import_s": Value(mean(times))})
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

from pydantic import ConfigDict, Field

from benchmarks import machine
from benchmarks.musts import Must
from edge_sdk.documents import Document, Tolerant, parse_json, write_atomic
from edge_sdk.errors import FormatError

__all__ = ["Benchmark", "Chart", "Result", "ResultFile", "Steps", "Value", "document", "read_result", "write_result"]

LARGEST = 200_000
"""Bytes of a result file: people read it, and git keeps it for good."""

T = TypeVar("T")


class Value(NamedTuple):
    """What a must came to; of a key that ends in ``.low`` the value *is* the interval's lower end."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """How to draw the rows: one bar a row."""

    value: str
    """The column that is a bar's length; ``low`` and ``high`` of the row are its whiskers."""
    unit: str = ""


@dataclass(frozen=True)
class Result:
    """What a benchmark found out."""

    rows: Sequence[Mapping[str, object]]
    """Units in the names; a peer that could not run is a row with ``skipped: why``."""
    musts: Mapping[str, Value] = field(default_factory=dict)
    """Every key of ``musts.csv`` that begins with this result's id."""
    notes: Sequence[str] = ()
    """What was not run and why; what a failed must taught."""
    settings: Mapping[str, object] = field(default_factory=dict)
    data: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    """Per data set ``machine.data_digest(folder)``."""
    packages: Sequence[str] = ()
    """Distributions whose versions belong to the result, besides the usual ones."""
    chart: Chart | None = None


class Steps(Protocol):
    """The progress of one run, and its memory: a step that an interrupted run finished is not run again."""

    def expect(self, steps: int) -> None:
        """How many steps there will be."""
        ...

    def step(self, name: str, compute: Callable[[], T]) -> T:
        """Compute something that JSON can hold, or take it from the run that was interrupted.

        Args:
            name: Unique in this run; also what the progress bar shows.
            compute: Does the work.
        """
        ...


class Benchmark(Protocol):
    """What each module of the registry holds."""

    TITLE: str
    SUITE: str
    MINUTES: float
    """On two cores, of the full run."""
    NEEDS: Sequence[str]
    """Modules, commands or folders it cannot do without, e.g. ``torch``, ``../shared/data/neu_steel``."""

    def run(self, *, quick: bool, progress: Steps) -> Result:
        """Measure; ``quick``: the same code, smaller, in at most two minutes."""
        ...


class MachineFacts(Tolerant):
    """What it was measured on."""

    model_config = ConfigDict(frozen=True, extra="allow")

    cpu: str
    cores: int = Field(ge=1)
    memory_gib: float = Field(gt=0)
    load_before: float = Field(ge=0)
    accelerator: str | None


class MustFigure(Document):
    """One bound and what it came to."""

    key: str
    value: float
    low: float | None = None
    high: float | None = None
    met: bool


class ResultFile(Tolerant):
    """``edge-sdk/result/1`` on disk; more may stand in it than is named here."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_: Literal["edge-sdk/result/1"] = Field(alias="schema")
    id: str = Field(pattern=r"^[A-Z]\d{1,2}$")
    suite: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    title: str
    command: str
    commit: str
    dirty: bool
    finished_at: datetime
    took_s: float = Field(ge=0)
    machine: MachineFacts
    versions: dict[str, str]
    settings: dict[str, Any]
    data: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]] = Field(min_length=1)
    musts: list[MustFigure]
    notes: list[str]
    chart: dict[str, str] | None = None


def document(
    identifier: str,
    benchmark: Benchmark,
    result: Result,
    *,
    bounds: Mapping[str, Must],
    took_s: float,
    load_before: float,
    quick: bool,
) -> dict[str, object]:
    """The whole file's content.

    Raises:
        FormatError: A must is given that ``musts.csv`` does not list for this id.
    """
    for key in result.musts:
        if key not in bounds or bounds[key].identifier != identifier:
            raise FormatError(f"{key} is no must of {identifier} in musts.csv; mind the key's spelling")
    content: dict[str, object] = {
        "schema": "edge-sdk/result/1",
        "id": identifier,
        "suite": benchmark.SUITE,
        "title": benchmark.TITLE,
        "command": f"python -m benchmarks run {identifier}{' --quick' if quick else ''}",
        **machine.commit(),
        "finished_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "took_s": round(took_s, 1),
        "machine": machine.facts(load_before=load_before),
        "versions": machine.versions(result.packages),
        "settings": dict(result.settings),
        "data": {name: dict(facts) for name, facts in result.data.items()},
        "rows": [dict(row) for row in result.rows],
        "musts": [
            {
                "key": key,
                "value": found.value,
                "low": found.low,
                "high": found.high,
                "met": bounds[key].met_by(found.value),
            }
            for key, found in sorted(result.musts.items())
        ],
        "notes": list(result.notes),
    }
    if result.chart is not None:
        content["chart"] = {"value": result.chart.value, "unit": result.chart.unit}
    return content


def write_result(folder: Path, content: Mapping[str, object]) -> Path:
    """Write ``<folder>/<suite>/<id>.json`` and say where.

    Raises:
        FormatError: A number is NaN or infinite, a field is missing or wrong, or the file is too large.
    """
    try:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError as error:
        raise FormatError(f"result {content['id']} holds NaN or infinity; leave the row's field out instead") from error
    data = text.encode()
    parse_json(data, ResultFile, name=f"result {content['id']}")
    if len(data) > LARGEST:
        raise FormatError(
            f"result {content['id']} takes {len(data)} bytes, at most {LARGEST} are kept; "
            "put raw samples beside it as a .csv.gz"
        )
    path = folder / str(content["suite"]) / f"{content['id']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return path


def read_result(path: Path) -> ResultFile:
    """Read one result file.

    Raises:
        FormatError: It is not JSON, or a field is missing or wrong.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > LARGEST:
        raise FormatError(f"{path} takes {len(data)} bytes, at most {LARGEST} are kept")
    return parse_json(data, ResultFile, name=str(path))
