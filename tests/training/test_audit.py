"""A new line's guarantee: which control items count, which half is kept from training, and what it promises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.documents import sha256_hex
from edge_sdk.quality.datasets import Lines, lines_of, load_dataset, read_image
from edge_sdk.records import Answer, ItemHeader, MentoredRow
from tests.training.drawn import SMALL, write_set
from training.answers import Mentored
from training.audit import audit_of, recalibrated
from training.checkpoint import Checkpoint
from training.retrain import retrain
from training.train import train

MOMENT = datetime(2026, 11, 21, 10, tzinfo=timezone.utc)


def row(number: int, *, classes: Sequence[str] = (), share: float = 0.1, stratum: str = "control") -> MentoredRow:
    """An item that asks about a place of each of ``classes``; without one, about the whole picture."""
    asked = [{"class": name, "confidence": 0.5, "box": [0, 0, 1, 1], "cells": [[0, 0]]} for name in classes]
    item = sha256_hex(str(number).encode())
    header = ItemHeader.model_validate(
        {
            "station": "press-3", "camera": "left", "boot_id": "b", "seq": number, "captured_at": MOMENT,
            "model": "f" * 64, "reason": "control", "stratum": stratum, "value": 0.5, "inclusion_probability": share,
            "verdict": "passed", "thresholds": {}, "questions": asked, "parts": [],
        }
    )  # fmt: skip
    return MentoredRow(item=item, picture=f"pictures/{item}.png", header=header)


def said(about: MentoredRow, answer: str, question: int | None = None, class_name: str | None = None) -> Answer:
    return Answer.model_validate(
        {
            "id": uuid4(), "item": about.item, "question": question, "answer": answer, "class": class_name,
            "operator": "ada", "answered_at": MOMENT, "after_ms": 900,
        }
    )  # fmt: skip


def audited(*pairs: tuple[MentoredRow, Sequence[Answer]], classes: Sequence[str] = ("crack", "dent")) -> Any:
    rows = tuple(one for one, _ in pairs)
    return audit_of(Mentored(Path(), rows, {one.item: tuple(given) for one, given in pairs}), classes)


def test_a_picture_counts_where_all_of_it_was_judged() -> None:
    bare, asked = row(1), row(2, classes=["crack", "dent"])
    assert audited((bare, [said(bare, "infirm")])).shows.tolist() == [[False, False]]
    assert audited((bare, [said(bare, "confirm", class_name="dent")])).shows.tolist() == [[False, True]]
    both = [said(asked, "infirm", 0), said(asked, "confirm", 1)]
    assert audited((asked, both)).shows.tolist() == [[False, True]]
    renamed = [said(asked, "infirm", 0), said(asked, "confirm", 1, "crack")]
    assert audited((asked, renamed)).shows.tolist() == [[True, False]]
    assert audited((asked, [said(asked, "infirm", 0), said(asked, "infirm", 1)])).shows.tolist() == [[False, False]]


def test_what_is_open_unsure_or_without_a_class_is_left_out() -> None:
    bare, asked = row(1), row(2, classes=["crack", "dent"])
    assert not len(audited((asked, [said(asked, "infirm", 0)])))
    assert not len(audited((asked, [said(asked, "infirm", 0), said(asked, "unsure", 1)])))
    assert not len(audited((bare, [said(bare, "confirm")]))), "of which of the two?"
    assert audited((bare, [said(bare, "confirm")]), classes=["crack"]).shows.tolist() == [[True]]
    assert not len(audited((bare, [])))
    assert not len(audited((asked, [said(asked, "confirm", 7)])))


def test_what_was_chosen_by_its_score_is_no_part_of_it() -> None:
    queued = row(3, stratum="uncertain", share=1.0)
    assert not len(audited((queued, [said(queued, "infirm")])))


def test_after_a_changed_share_all_that_count_were_as_likely() -> None:
    pairs = [(one, [said(one, "infirm")]) for n in range(600) if (one := row(n, share=0.1 if n % 2 else 0.4))]
    found = audited(*pairs)
    often = sum(one.header.inclusion_probability == 0.4 for one in found.rows)
    assert sum(one.header.inclusion_probability == 0.1 for one in found.rows) == 300
    assert abs(often - 75) < 3 * np.sqrt(300 * 0.25 * 0.75)


def test_the_half_that_is_kept_from_training_is_drawn_by_lot_and_always_the_same() -> None:
    pairs = [(one, [said(one, "infirm")]) for n in range(400) if (one := row(n))]
    first, again = audited(*pairs).held_out(), audited(*reversed(pairs)).held_out()
    assert {one.item for one in first.rows} == {one.item for one in again.rows}
    assert abs(len(first) - 200) < 3 * np.sqrt(400 * 0.25)


def test_what_a_guarantee_lacks_is_said() -> None:
    bare = row(1)
    assert audited((bare, [said(bare, "infirm")]), classes=["crack"]).missing() == (
        "the answered control sample holds 1 healthy pictures and at least 0 of each defect; "
        "conformal at alpha 0.1 needs 9 of each"
    )


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Lines, Path]:
    folder = write_set(tmp_path_factory.mktemp("plates") / "set", pictures=160)
    dataset = load_dataset(folder)
    lines = lines_of(dataset, gap="lamp", seed=1)
    source = train(dataset, lines, SMALL)
    return source.with_line("new", source.line("original")), lines, folder


def answered(plates: tuple[Checkpoint, Lines, Path], folder: Path, count: int) -> Mentored:
    """A hub's export of control items: the set's pictures, answered as they are."""
    (folder / "pictures").mkdir(parents=True)
    rows, answers = [], {}
    for n, sample in enumerate(load_dataset(plates[2]).samples[:count]):
        one = row(n)
        cv2.imwrite(str(folder / one.picture), read_image(sample))
        rows.append(one)
        answers[one.item] = (said(one, "infirm" if sample.healthy else "confirm"),)
    return Mentored(folder, tuple(rows), answers)


def test_enough_answers_give_the_retrained_line_its_guarantee_and_train_nothing(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source, lines, _ = plates
    export = answered(plates, tmp_path / "export", 80)
    held = audit_of(export, source.classes).held_out()
    found = retrain(source, lines, SMALL, mentored=export, strategy="masked")
    fewest = min(int((~held.shows).sum()), int(held.shows.sum()))
    assert fewest >= 9
    state = found.line("new")
    assert state.thresholds.guarantee == f"conformal alpha 0.1 n {fewest}"
    assert state.thresholds.how == (
        f"conformal quantiles of the strongest cell of {len(held)} pictures of the answered control sample"
    )
    # whatever the held-out pictures show, the weights are the same
    for one in held.rows:
        cv2.imwrite(str(export.root / one.picture), np.full((60, 64, 3), 255, np.uint8))
    blank = retrain(source, lines, SMALL, mentored=export, strategy="masked")
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, blank.network.state_dict()[name]), name
    assert blank.line("new").thresholds.pass_below[0] != state.thresholds.pass_below[0]


def test_too_few_answers_train_all_and_say_what_is_missing(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source, lines, _ = plates
    found = retrain(source, lines, SMALL, mentored=answered(plates, tmp_path / "export", 12), strategy="masked")
    said_why = found.line("new").thresholds.guarantee
    assert said_why.startswith("none: the answered control sample holds ")
    assert said_why.endswith(" of each defect; conformal at alpha 0.1 needs 9 of each")


def test_a_deployed_model_is_calibrated_on_all_answers_to_what_it_did_not_see(
    plates: tuple[Checkpoint, Lines, Path], tmp_path: Path
) -> None:
    source = plates[0]
    export = answered(plates, tmp_path / "export", 60)
    found = recalibrated(source, export)
    healthy = sum(given[0].answer == "infirm" for given in export.answers.values())
    assert found.line("new").thresholds.guarantee == f"conformal alpha 0.1 n {min(healthy, 60 - healthy)}"
    assert found.network is source.network
    assert found.line("original") is source.line("original")
    assert found.line("new").reliability[0]["unit"] == "pictures"
    few = recalibrated(source, replace(export, rows=()))
    assert few.line("new").thresholds.guarantee.startswith("none: the answered control sample holds 0 healthy")
