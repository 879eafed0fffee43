"""A simulated operator: who answers when there is nobody, for figures and for trying a strategy out.

It sees what a station would ask (``edge_sdk.vision.decode.questions``), looks at the truth of part mentor and
answers as a person would, with a person's faults where one asks for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from uuid import UUID

import numpy as np

from edge_sdk.answers import Answer
from edge_sdk.arrays import Array, Floats
from edge_sdk.detections import Question
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import RangeError
from edge_sdk.quality.datasets import Line
from edge_sdk.records import ItemHeader
from edge_sdk.vision.decode import questions
from edge_sdk.vision.preprocess import Geometry, PreprocessSpec, geometry
from training.checkpoint import Checkpoint
from training.data.views import Views, views_of
from training.lines import confidence, predicted
from training.strategies import Strategy
from training.truth import truth_and_mentored

__all__ = ["CONFIRM_FROM", "CONTROL_SHARE", "Asked", "Mentor", "answer_of", "ask", "header_of", "mentored", "said"]

CONFIRM_FROM = 0.25
"""Share of a question's cells that are defective from which the operator confirms; none: infirms; else unsure."""
CONTROL_SHARE = 0.1
"""Of the pictures that the model passes; the operator answers for the whole picture."""
SECONDS = 2.0
"""An answer: assumed.  The paper's 12,000 pictures in half a day are 1.2 s a picture."""

OTHER = {"confirm": "infirm", "infirm": "confirm"}


@dataclass(frozen=True)
class Mentor:
    """How the simulated operator answers, and what they are asked."""

    confirm_from: float = CONFIRM_FROM
    """In (0, 1]."""
    control_share: float = CONTROL_SHARE
    """In [0, 1], of the pictures that pass."""
    wrong: float = 0.0
    """Share of the confirms and infirms that are the opposite, in [0, 1]."""
    shift_cells: int = 0
    """Each question lies up to so many cells beside the place that was judged."""
    dilate_cells: int = 0
    """Each question reaches so many cells further than the place that was judged."""
    budget: int | None = None
    """Answers, unsure ones too, after which the operator goes; ``None``: they stay."""
    ask_from: float | None = None
    """Confidence from which they are asked, in (0, 1); ``None``: the line's ``pass_below``."""
    flagged: float = 0.0
    """Share of the healthy pictures that the line flags healthy as they are taken, in [0, 1]."""
    seconds: float = SECONDS
    """An answer."""

    def __post_init__(self) -> None:
        for name in ("confirm_from", "control_share", "wrong", "flagged"):
            if not 0 <= getattr(self, name) <= 1:
                raise RangeError(f"{name} is {getattr(self, name):g}; give a share from 0 to 1")
        for name in ("shift_cells", "dilate_cells"):
            if getattr(self, name) < 0:
                raise RangeError(f"{name} is {getattr(self, name)}; give 0 cells or more")
        if self.budget is not None and self.budget < 1:
            raise RangeError(f"budget is {self.budget}; give at least 1 answer, or none for no limit")
        if self.ask_from is not None and not 0 < self.ask_from < 1:
            raise RangeError(f"ask_from is {self.ask_from:g}; give a confidence above 0 and below 1")


@dataclass(frozen=True, eq=False)
class Asked:
    """A line's mentor pictures with what was asked and answered of each."""

    views: Views
    """With their truth: the operator's eye.  ``taught`` hands on none of it."""
    confidence: Sequence[Floats]
    """By picture ``(K, h, w)`` of all its cells, of the model that asked, tempered."""
    headers: tuple[ItemHeader, ...]
    answers: tuple[tuple[Answer, ...], ...]
    """By picture; none where nothing was asked."""
    classes: tuple[str, ...]
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """Answers by kind."""
        found = Counter({"confirm": 0, "infirm": 0, "unsure": 0})
        found.update(answer.answer for given in self.answers for answer in given)
        return dict(found)

    @property
    def minutes(self) -> float:
        """The operator's time."""
        return sum(self.counts.values()) * self.seconds / 60

    def taught(self, strategy: str | Strategy) -> Views:
        """The pictures on which an answer says something, with what it says under a strategy."""
        kept = [n for n, given in enumerate(self.answers) if any(answer.answer != "unsure" for answer in given)]
        found = [
            truth_and_mentored(
                self.headers[n], self.answers[n], classes=self.classes, grid=self.confidence[n].shape[1:],
                strategy=strategy, baseline=self.confidence[n],
            )
            for n in kept
        ]  # fmt: skip
        views = self.views.taken(np.isin(self.views.pictures, kept))
        if not found:
            return views
        truths, knowns, maxima = zip(*found, strict=True)
        return views.told(truths, knowns, maxima)


def ask(checkpoint: Checkpoint, line: Line, mentor: Mentor = Mentor(), *, seed: int, name: str = "new") -> Asked:
    """Stream a line's mentor pictures past a model, and let the operator answer what it asks.

    Args:
        checkpoint: The model that asks, with the line ``name`` or else the original line's statistics.
        line: Whose part ``mentor`` is streamed; its truth is the operator's eye.
        mentor: How they answer.
        seed: Of the control sample and of the operator's faults.
        name: Of the line.
    """
    spec, grid = checkpoint.preprocess, checkpoint.grid
    state = checkpoint.lines.get(name, checkpoint.line("original"))
    views = views_of(line, line.mentor, spec, grid=grid, labelled=True)
    logits, _ = predicted(checkpoint.network, state.statistics, views.images, spec)
    maps = views.whole(confidence(logits, state))
    truths, knowns, shows = views.whole(views.truth), views.whole(views.known), views.whole(views.valid[:, None])
    defective = views.shown_defective
    below = state.thresholds.pass_below
    if mentor.ask_from is not None:
        below = np.full_like(below, mentor.ask_from)
    chance, faults = np.random.default_rng([seed, 4]), np.random.default_rng([seed, 5])
    headers: list[ItemHeader] = []
    answers: list[tuple[Answer, ...]] = []
    left = mentor.budget
    for n in range(views.count):
        seen: tuple[int, int] = (maps[n].shape[1], maps[n].shape[2])
        drawn = chance.random() < mentor.control_share
        asked = questions(
            maps[n], below, place=_place(spec, seen, grid), cell_px=checkpoint.cell_px, valid=shows[n][0]
        )
        words: list[tuple[int | None, str]] = [
            (k, said(truths[n][one.class_id], one.cells, confirm_from=mentor.confirm_from))
            for k, one in enumerate(asked)
        ]
        if not knowns[n].any():
            # without a mask only the whole picture can be told
            words = [(None, "confirm")] if asked or drawn else []
        elif not asked and drawn:
            words = [(None, "confirm" if defective[n] else "infirm")]
        words = words[:left]
        left = None if left is None else left - len(words)
        places = [_misplaced(one, seen, mentor, faults) for one in asked]
        flagged = bool(faults.random() < mentor.flagged and not defective[n])
        # who sees the flag does not confirm a defect
        wrong = (faults.random(len(words)) < mentor.wrong) & (not flagged)
        told = [(k, OTHER.get(word, word) if bad else word) for (k, word), bad in zip(words, wrong, strict=True)]
        headers.append(header_of(n, checkpoint.classes, asked, places, mentor.control_share, flagged=flagged))
        answers.append(tuple(answer_of(n, number, word) for number, word in told))
    return Asked(views, maps, tuple(headers), tuple(answers), checkpoint.classes, mentor.seconds)


def mentored(
    checkpoint: Checkpoint,
    line: Line,
    strategy: str | Strategy,
    mentor: Mentor = Mentor(),
    *,
    seed: int,
    name: str = "new",
) -> tuple[Views, dict[str, int]]:
    """``ask``, and what is taught under one strategy.

    Returns:
        The pictures that an answer says something about, and how many answers of each kind were given.
    """
    asked = ask(checkpoint, line, mentor, seed=seed, name=name)
    return asked.taught(strategy), asked.counts


def _place(spec: PreprocessSpec, seen: tuple[int, int], grid: tuple[int, int]) -> Geometry:
    """Of a picture as the network sees it, whatever its own size."""
    height, width = spec.height * seen[0] // grid[0], spec.width * seen[1] // grid[1]
    return geometry(replace(spec, shrink=None), height, width)


def said(truth: Array, cells: Sequence[tuple[int, int]], *, confirm_from: float = CONFIRM_FROM) -> str:
    """What an honest operator says of a question.

    Args:
        truth: ``(h, w)`` of the class asked about, in {0, 1}.
        cells: The question's, rows and columns.
        confirm_from: Share of defective cells.
    """
    share = float(np.mean([truth[row, column] for row, column in cells]))
    return "confirm" if share >= confirm_from else "infirm" if share == 0 else "unsure"


def _misplaced(
    asked: Question, grid: tuple[int, int], mentor: Mentor, faults: np.random.Generator
) -> Sequence[tuple[int, int]]:
    """The cells that the answer is filed under: the paper's imprecise areas (figure 1b)."""
    cells: Sequence[tuple[int, int]] = asked.cells
    if mentor.shift_cells:
        down, across = faults.integers(-mentor.shift_cells, mentor.shift_cells + 1, 2)
        cells = [(row + int(down), column + int(across)) for row, column in cells]
    if mentor.dilate_cells:
        reach = range(-mentor.dilate_cells, mentor.dilate_cells + 1)
        cells = sorted({(row + r, column + c) for row, column in cells for r in reach for c in reach})
    return [(row, column) for row, column in cells if 0 <= row < grid[0] and 0 <= column < grid[1]]


MOMENT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def answer_of(item: int, question: int | None, word: str) -> Answer:
    """The simulated operator's answer as a hub would keep it."""
    return Answer.model_validate(
        {
            "id": UUID(sha256_hex(f"{item}/{question}".encode())[:32]),
            "item": sha256_hex(str(item).encode()),
            "question": question,
            "answer": word,
            "operator": "simulated",
            "answered_at": MOMENT,
            "after_ms": 0,
        }
    )


def header_of(
    item: int,
    classes: Sequence[str],
    asked: Sequence[Question],
    places: Sequence[Sequence[tuple[int, int]]],
    control_share: float,
    *,
    flagged: bool,
) -> ItemHeader:
    """What a station would have said of the picture that is asked about."""
    entries: list[Mapping[str, object]] = [
        {"class": classes[one.class_id], "confidence": one.confidence, "box": [0, 0, 1, 1], "cells": list(cells)}
        for one, cells in zip(asked, places, strict=True)
    ]
    return ItemHeader.model_validate(
        {
            "station": "simulated",
            "camera": "simulated",
            "boot_id": "simulated",
            "seq": item,
            "captured_at": MOMENT,
            "model": "0" * 64,
            "reason": "healthy" if flagged else "uncertain" if asked else "control",
            "stratum": "questions" if asked else "control",
            "value": 0.5,
            "inclusion_probability": 1.0 if asked else control_share or 1.0,
            "verdict": "uncertain" if asked else "passed",
            "thresholds": {},
            "questions": entries,
            "parts": [],
        }
    )
