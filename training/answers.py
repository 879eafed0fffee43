"""What a hub exported (``mentored/1``), read: pictures, records and the answers to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from edge_sdk.answers import Answer, MentoredExport, MentoredRow
from edge_sdk.documents import parse_json
from edge_sdk.errors import DatasetError
from edge_sdk.folders import settle
from training.truth import standing_answers

__all__ = ["Mentored", "read_mentored"]


@dataclass(frozen=True, eq=False)
class Mentored:
    """A hub's export (``mentored/1``), read."""

    root: Path
    rows: tuple[MentoredRow, ...]
    answers: dict[str, tuple[Answer, ...]]
    """By item."""

    def without(self, items: Collection[str]) -> Mentored:
        """The same export with some items left out."""
        return replace(self, rows=tuple(row for row in self.rows if row.item not in items))

    def counts(self) -> dict[str, int]:
        """Standing answers by kind, and the records that have any."""
        standing = [answer for given in self.answers.values() for answer in standing_answers(given)]
        return {
            "records": len(self.rows),
            "confirm": sum(answer.answer == "confirm" for answer in standing),
            "infirm": sum(answer.answer == "infirm" for answer in standing),
        }


def read_mentored(folder: Path) -> Mentored:
    """Read what a hub exported.

    Raises:
        DatasetError: A file is missing, or an answer is on a picture that is gone.
        FormatError: A line is damaged.
    """
    settle(folder)
    for name in ("export.json", "records.jsonl", "answers.jsonl"):
        if not (folder / name).is_file():
            raise DatasetError(f"{folder} holds no {name}; give a folder that `python -m mentoring export` wrote")
    parse_json((folder / "export.json").read_bytes(), MentoredExport, name=str(folder / "export.json"))

    def lines(name: str) -> list[bytes]:
        return [line for line in (folder / name).read_bytes().splitlines() if line.strip()]

    rows = tuple(
        parse_json(line, MentoredRow, name=f"{folder / 'records.jsonl'}:{n}")
        for n, line in enumerate(lines("records.jsonl"), 1)
    )
    known = {row.item for row in rows}
    by_item: dict[str, list[Answer]] = defaultdict(list)
    for n, line in enumerate(lines("answers.jsonl"), 1):
        answer = parse_json(line, Answer, name=f"{folder / 'answers.jsonl'}:{n}")
        if answer.item not in known:
            raise DatasetError(
                f"{folder / 'answers.jsonl'}:{n} answers item {answer.item[:12]}, whose record is gone; export again"
            )
        by_item[answer.item].append(answer)
    for row in rows:
        if not (folder / row.picture).is_file():
            raise DatasetError(f"{folder / row.picture} is gone; export the hub again")
    return Mentored(folder, rows, {item: tuple(given) for item, given in by_item.items()})
