"""The commands on a detector, and what a hub exported of its boxes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.answers import MentoredRow
from edge_sdk.documents import canonical_json, sha256_hex
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.export.conftest import call
from tests.training.boxed import SMALL_BOXES, write_boxed_set
from training.checkpoint import digest_of, load_checkpoint
from training.cli import app
from training.detector import FACTORY, detector_of
from training.detector_mentors import ask_boxes
from training.detector_retrain import retrain_detector
from training.retrain import read_mentored

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxed_set(tmp_path_factory.mktemp("boxed") / "plates")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, plates: Path) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("detector") / "ckpt"
    words = ("--trunk", "slim", "--side-px", 64, "--iterations", 8, "--seed", 1, "--gap", "lamp")
    code, _, talk = call(app, "train", "--data", plates, "--out", out, "--head", "anchors", *words)
    assert code == 0, talk
    return out


def test_a_detector_is_trained_where_it_is_asked_for(trained: Path) -> None:
    found = load_checkpoint(trained)
    assert found.factory == FACTORY
    assert found.recipe["head"] == "anchors"
    assert found.classes == ("dent", "scratch")


def test_boxes_alone_do_not_make_a_detector(plates: Path, tmp_path: Path) -> None:
    words = ("--trunk", "slim", "--side-px", 64, "--iterations", 1, "--seed", 1, "--gap", "lamp")
    code, _, talk = call(app, "train", "--data", plates, "--out", tmp_path / "c", *words)
    assert code == 0, talk
    assert load_checkpoint(tmp_path / "c").factory != FACTORY


def test_a_detector_is_judged_by_its_boxes(trained: Path, plates: Path, tmp_path: Path) -> None:
    code, told, talk = call(app, "evaluate", trained, "--data", plates, "--out", tmp_path / "e", "--json")
    assert code == 0, talk
    figures = json.loads(told)
    for line in ("original", "new"):
        assert figures[line]["unit"] == "boxes"
        assert set(figures[line]["classes"]) == {"dent", "scratch"}
    assert (tmp_path / "e" / "page.html").is_file()
    assert (tmp_path / "e" / "evaluation.json").is_file()


def test_a_detector_is_not_adapted_without_labels(trained: Path, plates: Path, tmp_path: Path) -> None:
    code, _, talk = call(app, "adapt", trained, "--data", plates, "--out", tmp_path / "a")
    assert code == 2
    assert "the checkpoint is a detector, which is not adapted without labels; let operators answer its boxes" in talk
    assert not (tmp_path / "a").exists()


def exported(folder: Path, trained: Path, plates: Path) -> Path:
    """What a hub would export once an operator has answered two boxes, one of each kind."""
    checkpoint = load_checkpoint(trained)
    lines = lines_of(load_dataset(plates), gap="lamp", seed=1)
    state = checkpoint.line("original")
    state.thresholds.pass_below[:] = 0.001
    asked = ask_boxes(checkpoint, lines.new[0], SMALL_BOXES)
    (folder / "pictures").mkdir(parents=True)
    (folder / "confidence").mkdir()
    rows, answers = [], []
    for n, (header, word) in enumerate(zip(asked.headers[:2], ("confirm", "infirm"), strict=True)):
        item = sha256_hex(str(n).encode())
        cv2.imwrite(str(folder / "pictures" / f"{n}.png"), asked.views.images[n])
        np.save(folder / "confidence" / f"{n}.npy", asked.confidence[n].astype(np.float16))
        row = MentoredRow(item=item, picture=f"pictures/{n}.png", confidence=f"confidence/{n}.npy", header=header)
        rows.append(canonical_json(row.model_dump(mode="json", by_alias=True, exclude_none=True)))
        given = asked.answers[n][0].model_copy(update={"item": item, "question": 0, "answer": word})
        answers.append(canonical_json(given.model_dump(mode="json", by_alias=True, exclude_none=True)))
    (folder / "records.jsonl").write_bytes(b"\n".join(rows) + b"\n")
    (folder / "answers.jsonl").write_bytes(b"\n".join(answers) + b"\n")
    (folder / "export.json").write_bytes(canonical_json({"schema": "mentored/1", "mark": 2, "counts": {}, "files": {}}))
    return folder


def test_a_detector_is_retrained_from_what_a_hub_exported(trained: Path, plates: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path / "mentored", trained, plates)
    out = tmp_path / "retrained"
    code, told, talk = call(
        app, "retrain", trained, "--data", plates, "--mentored", folder, "--out", out, "--json"
    )
    assert code == 0, talk
    assert json.loads(told)["strategy"] == "masked"
    assert json.loads(told)["answers"] == {"records": 2, "confirm": 1, "infirm": 1}
    found = load_checkpoint(out)
    assert set(found.lines) == {"original", "new"}
    assert digest_of(found) != digest_of(load_checkpoint(trained))
    assert len(detector_of(found).anchors) == len(detector_of(load_checkpoint(trained)).anchors)


def test_confidence_of_another_detector_is_refused(trained: Path, plates: Path, tmp_path: Path) -> None:
    folder = exported(tmp_path / "mentored", trained, plates)
    np.save(folder / "confidence" / "0.npy", np.zeros((5, 2), np.float16))
    lines = lines_of(load_dataset(plates), gap="lamp", seed=1)
    with pytest.raises(DatasetError, match=r"holds \(5, 2\), but the detector has \d+ anchors and 2 classes; retrain"):
        retrain_detector(
            load_checkpoint(trained), lines, SMALL_BOXES, mentored=read_mentored(folder), strategy="masked+omnia"
        )
