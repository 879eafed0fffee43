"""Do the result files say what they must?  Schema, missing ids, every bound recomputed from ``musts.csv``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.musts import Must
from benchmarks.results import ResultFile, read_result
from edge_sdk.errors import FormatError

__all__ = ["Finding", "check", "read_all"]


@dataclass(frozen=True)
class Finding:
    """One line of what is wrong."""

    kind: Literal["broken", "missing", "unmet"]
    """``broken``: a file nobody can trust; the other two are said, and are no fault of the format."""
    subject: str
    text: str


def read_all(folder: Path) -> tuple[dict[str, ResultFile], list[Finding]]:
    """Every result below a folder by its id, and what could not be read."""
    found: dict[str, ResultFile] = {}
    broken = []
    for path in sorted(folder.glob("*/*.json")):
        try:
            result = read_result(path)
        except FormatError as error:
            broken.append(Finding("broken", path.stem, str(error)))
            continue
        if (path.parent.name, path.stem) != (result.suite, result.id):
            wanted = f"{result.suite}/{result.id}.json"
            broken.append(Finding("broken", path.stem, f"{path} says it is {wanted}; run it again, do not rename it"))
            continue
        found[result.id] = result
    return found, broken


def check(folder: Path, *, bounds: Mapping[str, Must], registered: Iterable[str]) -> list[Finding]:
    """Everything that is broken, missing or unmet, in the order of the keys.

    Args:
        folder: ``benchmarks/results``.
        bounds: Of ``musts.csv``.
        registered: The ids that have a module here; each owes a file.
    """
    results, findings = read_all(folder)
    unreadable = {finding.subject for finding in findings}
    runnable = set(registered)
    owed = runnable | {must.identifier for must in bounds.values()}
    for identifier in sorted(owed - set(results) - unreadable):
        keys = sum(must.identifier == identifier for must in bounds.values())
        how = f"python -m benchmarks run {identifier}" if identifier in runnable else "no benchmark measures it yet"
        findings.append(Finding("missing", identifier, f"no result file, {keys} musts are open: {how}"))
    for identifier, result in sorted(results.items()):
        findings += _of_one(identifier, result, bounds)
    return findings


def _of_one(identifier: str, result: ResultFile, bounds: Mapping[str, Must]) -> list[Finding]:
    findings = []
    given = {must.key: must for must in result.musts}
    for key in sorted(set(given) - {key for key, must in bounds.items() if must.identifier == identifier}):
        findings.append(Finding("broken", key, f"{identifier}.json states a must that musts.csv does not list"))
    for key, bound in sorted(bounds.items()):
        if bound.identifier != identifier:
            continue
        if key not in given:
            findings.append(Finding("missing", key, f"not stated in {identifier}.json; wanted {bound.words}"))
            continue
        stated = given[key]
        met = bound.met_by(stated.value)
        if key.endswith(".low") and stated.low is not None and stated.low != stated.value:
            findings.append(Finding("broken", key, f"value {stated.value:g} is not the lower end {stated.low:g}"))
        if met and not stated.met:
            findings.append(Finding("broken", key, f"marked unmet, but {stated.value:g} is {bound.words}"))
        elif not met:
            marked = " (and is marked met)" if stated.met else ""
            findings.append(
                Finding("broken" if stated.met else "unmet", key, f"{stated.value:g}, wanted {bound.words}{marked}")
            )
    return findings
