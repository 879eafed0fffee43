"""A hub's export as retraining reads it, whole and damaged."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from uuid import uuid4

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.quality.datasets import Lines, lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training.answers import read_mentored
from training.api import shipped_for
from training.checkpoint import Checkpoint, digest_of
from training.retrain import retrain
from training.train import train

MOMENT = datetime(2026, 11, 21, 10, tzinfo=timezone.utc).isoformat()
ITEM = "a" * 64
FEW = SMALL.model_copy(update={"iterations": 4})


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return lines_of(load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates")), gap="lamp", seed=1)


@pytest.fixture(scope="module")
def baseline(lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(load_dataset(lines.original.train[0].path.parents[1]), lines, FEW)


def answer(word: str = "confirm", question: int | None = 0, *, item: str = ITEM, **more: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "item": item, "question": question, "answer": word, "operator": "ada",
            "answered_at": MOMENT, "after_ms": 900, **more}  # fmt: skip


def exported(
    folder: Path, *answers: dict[str, Any], asked: str = "dent", cell: int = 1, reason: str = "uncertain"
) -> Path:
    """One record with one question and a confidence map, as a hub exports it."""
    (folder / "pictures").mkdir(parents=True)
    cv2.imwrite(str(folder / "pictures" / "one.png"), np.full((60, 64, 3), 150, np.uint8))
    np.save(folder / "one.npy", np.full((1, 4, 4), 0.001, np.float16))
    header = {
        "station": "press-3", "camera": "left", "boot_id": "b", "seq": 12, "captured_at": MOMENT, "model": "f" * 64,
        "reason": reason, "stratum": "uncertain", "value": 0.5, "inclusion_probability": 1.0, "verdict": "uncertain",
        "thresholds": {}, "parts": [],
        "questions": [{"class": asked, "confidence": 0.6, "box": [0, 0, 1, 1], "cells": [[cell, 1]]}],
    }  # fmt: skip
    row = {"item": ITEM, "picture": "pictures/one.png", "confidence": "one.npy", "header": header}
    (folder / "records.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    said = {"schema": "mentored/1", "mark": len(answers), "counts": {"records": 1}, "files": {}}
    (folder / "export.json").write_text(json.dumps(said))
    return folder


def test_an_export_trains_by_every_way_of_knowing(tmp_path: Path, baseline: Checkpoint, lines: Lines) -> None:
    found = read_mentored(exported(tmp_path / "hub", answer()))
    assert found.counts() == {"records": 1, "confirm": 1, "infirm": 0}
    digests = {
        name: digest_of(retrain(baseline, lines, FEW, mentored=found, strategy=name))
        for name in ("masked", "masked+omnia", "masked+distil", "unmasked")
    }
    assert digests["masked"] != digests["masked+omnia"] and digests["masked"] != digests["masked+distil"]


def test_a_flag_of_the_line_counts_where_the_strategy_reads_it(
    tmp_path: Path, baseline: Checkpoint, lines: Lines
) -> None:
    flagged = read_mentored(exported(tmp_path / "hub", answer("infirm"), reason="healthy"))
    masked, healthy = (
        digest_of(retrain(baseline, lines, FEW, mentored=flagged, strategy=name))
        for name in ("masked", "masked+healthy")
    )
    assert masked != healthy
    against = read_mentored(exported(tmp_path / "against", answer("confirm"), reason="healthy"))
    with pytest.raises(DatasetError, match="press-3/left 12 is flagged healthy by its line and answered defective"):
        retrain(baseline, lines, FEW, mentored=against, strategy="masked+healthy")


def test_a_flag_alone_teaches_and_makes_healthy_knowledge_the_default(
    tmp_path: Path, baseline: Checkpoint, lines: Lines
) -> None:
    flagged = read_mentored(exported(tmp_path / "flagged", answer("unsure"), reason="healthy"))
    plain = read_mentored(exported(tmp_path / "plain", answer("unsure")))
    assert shipped_for(baseline, flagged) == "masked+omnia+healthy"
    assert shipped_for(baseline, plain) == shipped_for(baseline) == "masked+omnia"
    with pytest.raises(DatasetError, match=r"no answer in .*flagged says anything"):
        retrain(baseline, lines, FEW, mentored=flagged, strategy="masked+omnia")
    found = retrain(baseline, lines, FEW, mentored=flagged, strategy=shipped_for(baseline, flagged))
    assert digest_of(found) != digest_of(baseline)


def test_an_answer_on_a_picture_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"answers.jsonl:2 answers item bbbbbbbbbbbb, whose record is gone; export"):
        read_mentored(exported(tmp_path / "record", answer(), answer(item="b" * 64)))
    folder = exported(tmp_path / "picture", answer())
    (folder / "pictures" / "one.png").unlink()
    with pytest.raises(DatasetError, match=r"one.png is gone; export the hub again"):
        read_mentored(folder)
    torn = exported(tmp_path / "torn", answer())
    (torn / "answers.jsonl").write_text('{"id": 1')
    with pytest.raises(FormatError, match=r"answers.jsonl:1"):
        read_mentored(torn)


def test_what_the_model_cannot_have_been_asked_is_told(tmp_path: Path, baseline: Checkpoint, lines: Lines) -> None:
    def told(name: str, sentence: str, *answers: dict[str, Any], **more: Any) -> None:
        found = read_mentored(exported(tmp_path / name, *answers, **more))
        with pytest.raises(DatasetError, match=sentence):
            retrain(baseline, lines, FEW, mentored=found, strategy="masked")

    told("class", "speaks of class 'crack', but the model knows dent; retrain from the model", answer(), asked="crack")
    told("other", "speaks of class 'hole', but the model knows dent", answer(**{"class": "hole"}))
    told("cells", r"asks about cell \(9, 1\), but the model has 4 x 4 cells; retrain from", answer(), cell=9)
    told("question", "an answer is on question 5 of item press-3/left 12, which has 1", answer(question=5))
    told("both", "is answered healthy as a whole and defective at a place; withdraw", answer(), answer("infirm", None))
    told("nothing", r"says anything \(all unsure or withdrawn, or none given\)", answer("unsure"))


def test_a_damaged_confidence_map_is_told(tmp_path: Path, baseline: Checkpoint, lines: Lines) -> None:
    folder = exported(tmp_path / "hub", answer())
    (folder / "one.npy").write_bytes(b"torn")
    with pytest.raises(DatasetError, match=r"one.npy cannot be read .*; export the hub again"):
        retrain(baseline, lines, FEW, mentored=read_mentored(folder), strategy="masked+omnia")


def test_the_map_of_another_model_is_told_with_both_shapes(
    tmp_path: Path, baseline: Checkpoint, lines: Lines
) -> None:
    folder = exported(tmp_path / "hub", answer())
    np.save(folder / "one.npy", np.full((3, 4, 4), 0.001, np.float16))
    with pytest.raises(DatasetError, match=r"one.npy is of shape \(3, 4, 4\), but the model's maps are \(1, 4, 4\)"):
        retrain(baseline, lines, FEW, mentored=read_mentored(folder), strategy="masked+omnia")
