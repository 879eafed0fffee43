"""From what operators answered to what a network is taught: truth, and where it is known.

``retrain`` and its tests build the truth ``y`` and the mentored areas ``M`` of eq. 4 here, for every
strategy, so that a strategy is data and not a class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_sdk.answers import Answer
from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import ConfigError, DatasetError, RangeError
from edge_sdk.records import ItemHeader
from training.strategies import Strategy, strategy_named

__all__ = ["standing_answers", "truth_and_mentored"]


def standing_answers(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """The answers that train: neither withdrawn, nor withdrawing, nor unsure.

    Of several on the same question the last given stands: an operator may change their mind.
    """
    withdrawn = {answer.withdraws for answer in answers if answer.withdraws is not None}
    last: dict[tuple[str, int | None], Answer] = {}
    for answer in sorted(answers, key=lambda given: (given.answered_at, str(given.id))):
        if answer.id not in withdrawn and answer.withdraws is None:
            last[answer.item, answer.question] = answer
    return tuple(answer for answer in last.values() if answer.answer != "unsure")


def truth_and_mentored(
    header: ItemHeader,
    answers: Sequence[Answer],
    *,
    classes: Sequence[str],
    grid: tuple[int, int],
    strategy: str | Strategy = "masked",
    baseline: Array | None = None,
    epsilon: float | None = None,
) -> tuple[Floats, Floats, Floats]:
    """Truth, mentored areas and known maxima of one picture.

    - *confirm* of a question: its cells are defects of its class.  Where the operator gave another
      class they are defects of that one and healthy for the class that was asked about.
    - *infirm* of a question: its cells are healthy, for its class.
    - *infirm* of the whole picture: every cell is healthy, for all classes.
    - *confirm* of the whole picture: only the picture's maximum is known.

    With OMNIA-like knowledge the cells that the baseline gives less than ``epsilon`` join M as healthy, with
    healthy knowledge all cells of a picture that the line flagged healthy (the record's reason); neither
    overrides an answer.  With ``unmasked``, a control, everything unanswered is healthy.

    Args:
        header: Of the item that was asked about.
        answers: All on this item; withdrawn and unsure ones are passed over.
        classes: Of the model that is trained, K names.
        grid: ``(h, w)`` cells.
        strategy: Name or data of a strategy that asks; its ``known`` and ``epsilon`` count here.
        baseline: ``(K, h, w)`` tempered confidence of the model that asked; needed for OMNIA-like knowledge.
        epsilon: In (0, 1); without it the strategy's.

    Returns:
        ``truth`` and ``mentored``, each ``(K, h, w)`` float32 in {0, 1}, and ``maximum``, ``(K,)``: 1
        where a defect is known to be somewhere, for a picture confirmed as a whole.

    Raises:
        DatasetError: Two answers contradict each other or the healthy flag, or one names a question, a cell
            or a class that there is not.
        RangeError: ``epsilon`` lies outside (0, 1).
        ConfigError: There is no such strategy, or it takes no answers.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), sections 3.3, 3.4.2 and 3.4.3.
    """
    called, way = strategy_named(strategy)
    if not way.asks:
        raise ConfigError(f"strategy {called} takes no answers; retrain with it without any")
    epsilon = way.epsilon if epsilon is None else epsilon
    if not 0 < epsilon < 1:
        raise RangeError(f"epsilon is {epsilon:g}; give a confidence above 0 and below 1")
    shape = (len(classes), *grid)
    truth = np.zeros(shape, np.float32)
    mentored = np.zeros(shape, np.float32)
    maximum = np.zeros(len(classes), np.float32)
    standing = standing_answers(answers)
    confirmed_whole: list[Answer] = []
    for answer in standing:
        if answer.question is None:
            if answer.answer == "infirm":
                mentored[:] = 1
            else:
                confirmed_whole.append(answer)
    whole_is_healthy = bool(mentored.any())
    places = [answer for answer in standing if answer.question is not None]
    if whole_is_healthy and (confirmed_whole or any(answer.answer == "confirm" for answer in places)):
        raise DatasetError(
            f"item {_name_of(header)} is answered healthy as a whole and defective at a place; withdraw one answer"
        )
    for answer in places:
        if answer.question is None or answer.question >= len(header.questions):
            raise DatasetError(
                f"an answer is on question {answer.question} of item {_name_of(header)}, which has "
                f"{len(header.questions)}; export the hub again"
            )
        asked = header.questions[answer.question]
        k = _class_id(asked.class_name, classes, header)
        rows = np.array([row for row, _ in asked.cells], int)
        columns = np.array([column for _, column in asked.cells], int)
        if rows.size and (rows.max() >= grid[0] or columns.max() >= grid[1]):
            raise DatasetError(
                f"item {_name_of(header)} asks about cell ({rows.max()}, {columns.max()}), but the model has "
                f"{grid[0]} x {grid[1]} cells; retrain from the model that asked"
            )
        defect = answer.answer == "confirm"
        other = answer.class_name if defect and answer.class_name not in (None, asked.class_name) else None
        _teach(truth, mentored, k, rows, columns, defect=defect and other is None)
        if other is not None:
            _teach(truth, mentored, _class_id(other, classes, header), rows, columns, defect=True)
    for answer in confirmed_whole:
        named = [answer.class_name] if answer.class_name is not None else list(classes if len(classes) == 1 else ())
        for name in named:
            maximum[_class_id(name, classes, header)] = 1
    if way.omnia:
        if baseline is None:
            raise DatasetError(
                f"item {_name_of(header)} has no confidence map; the strategy {called} needs one, choose masked"
            )
        mentored[(np.asarray(baseline, np.float32) < epsilon) & (mentored == 0)] = 1
    if way.healthy and header.reason == "healthy":
        if truth.any() or confirmed_whole:
            raise DatasetError(
                f"item {_name_of(header)} is flagged healthy by its line and answered defective; withdraw the answer, "
                f"or choose a strategy without healthy knowledge instead of {called}"
            )
        mentored[:] = 1
    if way.known == "unmasked":
        mentored[:] = 1
    return truth, mentored, maximum


def _name_of(header: ItemHeader) -> str:
    """An item as a person would name it: station, camera and number."""
    return f"{header.station}/{header.camera} {header.seq}"


def _class_id(name: str, classes: Sequence[str], header: ItemHeader) -> int:
    if name not in classes:
        raise DatasetError(
            f"item {_name_of(header)} speaks of class {name!r}, but the model knows {', '.join(classes)}; "
            "retrain from the model that asked, or train one with that class"
        )
    return list(classes).index(name)


def _teach(truth: Floats, mentored: Floats, k: int, rows: Array, columns: Array, *, defect: bool) -> None:
    """Mark cells; where two questions overlap, a confirmed cell stays confirmed."""
    if defect:
        truth[k, rows, columns] = 1
    mentored[k, rows, columns] = 1
