"""From answers to truth and mentored areas."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from edge_sdk.answers import Answer
from edge_sdk.errors import DatasetError, RangeError
from edge_sdk.records import ItemHeader
from training.truth import standing_answers, truth_and_mentored

ITEM = "a" * 64
GRID = (4, 5)
START = datetime(2026, 11, 21, 10, tzinfo=timezone.utc)


def header() -> ItemHeader:
    """Two questions: a crack around (1, 1), a dent at (3, 4)."""
    box = [0, 0, 1, 1]
    return ItemHeader.model_validate(
        {
            "station": "press-3",
            "camera": "left",
            "boot_id": "b",
            "seq": 12,
            "captured_at": START,
            "model": "f" * 64,
            "reason": "uncertain",
            "stratum": "uncertain",
            "value": 0.5,
            "inclusion_probability": 1.0,
            "verdict": "uncertain",
            "thresholds": {},
            "questions": [
                {"class": "crack", "confidence": 0.8, "box": box, "cells": [[1, 1], [1, 2], [0, 1]]},
                {"class": "dent", "confidence": 0.6, "box": box, "cells": [[3, 4]]},
            ],
            "parts": [],
        }
    )


def said(answer: str, question: int | None = 0, *, minute: int = 0, **more: Any) -> Answer:
    fields = {
        "id": uuid4(),
        "item": ITEM,
        "question": question,
        "answer": answer,
        "operator": "ada",
        "answered_at": START + timedelta(minutes=minute),
        "after_ms": 900,
    }
    return Answer.model_validate(fields | more)


def taught(*answers: Answer, **more: Any) -> tuple[Any, Any, Any]:
    return truth_and_mentored(header(), answers, classes=("crack", "dent"), grid=GRID, **more)


def cells(plane: Any) -> list[list[int]]:
    found: list[list[int]] = np.argwhere(plane).tolist()
    return found


def test_confirm_teaches_the_questions_cells_for_its_class() -> None:
    truth, mentored, maximum = taught(said("confirm"))
    assert cells(truth) == cells(mentored) == [[0, 0, 1], [0, 1, 1], [0, 1, 2]]
    assert not maximum.any()


def test_infirm_teaches_that_they_are_healthy() -> None:
    truth, mentored, _ = taught(said("infirm", 1))
    assert not truth.any()
    assert cells(mentored) == [[1, 3, 4]]


def test_a_picture_infirmed_as_a_whole_is_healthy_everywhere_for_all_classes() -> None:
    truth, mentored, maximum = taught(said("infirm", None))
    assert not truth.any() and mentored.all() and not maximum.any()


def test_a_picture_confirmed_as_a_whole_teaches_its_maximum_alone() -> None:
    truth, mentored, maximum = taught(said("confirm", None, **{"class": "dent"}))
    assert not truth.any() and not mentored.any()
    assert maximum.tolist() == [0, 1]
    assert not taught(said("confirm", None))[2].any()  # of which class is not known
    one_class = truth_and_mentored(header(), [said("confirm", None)], classes=("crack",), grid=GRID)
    assert one_class[2].tolist() == [1]


def test_unsure_and_withdrawn_answers_train_nothing() -> None:
    first = said("confirm")
    undo = said("confirm", minute=1, withdraws=first.id)
    truth, mentored, _ = taught(said("unsure", 1), first, undo)
    assert not truth.any() and not mentored.any()


def test_the_last_answer_of_a_question_stands() -> None:
    truth, mentored, _ = taught(said("infirm", minute=5), said("confirm", minute=1))
    assert not truth.any() and mentored.sum() == 3
    assert [a.answer for a in standing_answers([said("confirm"), said("unsure", minute=1)])] == []


def test_another_class_is_a_defect_of_that_class_and_none_of_the_asked() -> None:
    truth, mentored, _ = taught(said("confirm", **{"class": "dent"}))
    assert cells(truth) == [[1, 0, 1], [1, 1, 1], [1, 1, 2]]
    assert mentored[0].sum() == mentored[1].sum() == 3


def test_omnia_adds_healthy_cells_and_never_overrides_an_answer() -> None:
    baseline = np.full((2, *GRID), 0.5, np.float32)
    baseline[0, 1, 1] = baseline[0, 2, :] = baseline[1, 0, 0] = 0.005
    truth, mentored, _ = taught(said("confirm"), strategy="masked+omnia", baseline=baseline)
    plain_truth, plain_mentored, _ = taught(said("confirm"))
    assert np.array_equal(truth, plain_truth)
    added = cells(mentored - plain_mentored)
    assert added == [[0, 2, column] for column in range(5)] + [[1, 0, 0]]


def test_the_unmasked_control_takes_the_unanswered_for_healthy() -> None:
    truth, mentored, _ = taught(said("confirm"), strategy="unmasked")
    assert mentored.all() and truth.sum() == 3


def test_a_cell_confirmed_by_one_question_stays_so_when_another_infirms_it() -> None:
    both = header().model_copy(update={"questions": (header().questions[0], header().questions[0])})
    for order in (("confirm", "infirm"), ("infirm", "confirm")):
        answers = [said(answer, number) for number, answer in enumerate(order)]
        truth, _, _ = truth_and_mentored(both, answers, classes=("crack", "dent"), grid=GRID)
        assert truth.sum() == 3


def test_what_contradicts_or_does_not_exist_is_told() -> None:
    with pytest.raises(DatasetError, match="press-3/left 12 is answered healthy as a whole and defective at a place"):
        taught(said("infirm", None), said("confirm", 0))
    with pytest.raises(DatasetError, match="an answer is on question 7 of item press-3/left 12, which has 2"):
        taught(said("confirm", 7))
    with pytest.raises(DatasetError, match="speaks of class 'hole', but the model knows crack, dent"):
        taught(said("confirm", 0, **{"class": "hole"}))
    with pytest.raises(DatasetError, match=r"asks about cell \(3, 4\), but the model has 2 x 2 cells"):
        truth_and_mentored(header(), [said("confirm", 1)], classes=("crack", "dent"), grid=(2, 2))
    with pytest.raises(DatasetError, match="has no confidence map; the strategy masked"):
        taught(said("confirm"), strategy="masked+omnia")
    with pytest.raises(RangeError, match="epsilon is 1; give a confidence above 0 and below 1"):
        taught(said("confirm"), epsilon=1)


def test_ids_are_compared_as_ids() -> None:
    first = said("confirm", id=UUID(int=1))
    undo = said("confirm", minute=1, withdraws=str(UUID(int=1)))
    assert standing_answers([undo, first]) == ()
