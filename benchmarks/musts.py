"""``musts.csv``: what each result must reach.  A bound may be raised, never lowered."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from edge_sdk.errors import FormatError

__all__ = ["MUSTS", "Must", "musts_from_csv"]

MUSTS = Path(__file__).with_name("musts.csv")


@dataclass(frozen=True)
class Must:
    """One line of ``musts.csv``."""

    key: str
    bound: str
    """``at_least`` or ``at_most``."""
    value: float
    unit: str
    what: str

    @property
    def identifier(self) -> str:
        """The result it belongs to: ``R1`` of ``R1.linear_640_over_floor``."""
        return self.key.partition(".")[0]

    @property
    def words(self) -> str:
        """``at most 1.5 ratio``."""
        return f"{self.bound.replace('_', ' ')} {self.value:g} {self.unit}"

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the bound; equal does."""
        return value >= self.value if self.bound == "at_least" else value <= self.value


def musts_from_csv(path: Path = MUSTS) -> dict[str, Must]:
    """Every must by its key.

    Raises:
        FormatError: A line is not ``key,at_least|at_most,number,unit,what``, or a key stands there twice.
    """
    found: dict[str, Must] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            where = f"{path.name}:{line}"
            try:
                must = Must(row["key"], row["bound"], float(row["value"]), row["unit"], row["what"])
            except (KeyError, TypeError, ValueError) as error:
                raise FormatError(f"{where}: not `key,bound,value,unit,what` with a number ({error})") from error
            if must.bound not in ("at_least", "at_most"):
                raise FormatError(f"{where}: bound is {must.bound!r}; give at_least or at_most")
            if must.key in found:
                raise FormatError(f"{where}: {must.key} stands there twice; keep one")
            found[must.key] = must
    return found
