"""The commands as a user gives them: exit codes, last lines, and files that the next command reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from edge_sdk.quality.datasets import load_dataset
from tests.training.drawn import write_set
from training.cli import app

SMALL = ("--trunk", "slim", "--side-px", "64", "--width", "0.125", "--iterations", "12", "--seed", "1")


def run(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300", "NO_COLOR": "1"})


def done(*words: object) -> dict[str, Any]:
    found = run(*words, "--json")
    assert found.exit_code == 0, found.stderr
    said: dict[str, Any] = json.loads(found.stdout)
    return said


def last_line(found: Result) -> str:
    return found.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("cli") / "plates")


@pytest.fixture(scope="module")
def source(plates: Path) -> Path:
    out = plates.parent / "source"
    said = done("train", "--data", plates, "--gap", "stains+lamp", "--out", out, *SMALL)
    assert said["classes"] == ["dent"]
    return out


def test_the_commands_follow_one_another(plates: Path, source: Path, tmp_path: Path) -> None:
    said = done("adapt", source, "--data", plates, "--out", tmp_path / "adapted", "--quick")
    written = json.loads((tmp_path / "adapted" / "figures.json").read_text())
    assert written["decision"] == said["decision"]
    assert said["decision"]["method"] in {"source", "adabn", "dann"}
    assert said["decision"]["why"]
    for method in ("source", "adabn", "dann"):
        assert (tmp_path / "adapted" / "methods" / method / "checkpoint.json").is_file()
    done(
        "retrain", tmp_path / "adapted", "--data", plates, "--out", tmp_path / "full", "--strategy", "full-labels"
    )
    figures = done("evaluate", tmp_path / "full", "--data", plates, "--out", tmp_path / "judged")
    assert set(figures) == {"original", "new"}
    keys = {"ap", "ap_low", "ap_high", "auroc", "precision", "recall", "n", "unit"}
    assert all(keys <= set(one) for one in figures.values())
    assert json.loads((tmp_path / "judged" / "evaluation.json").read_text()) == figures
    with np.load(tmp_path / "judged" / "features.npz") as arrays:
        assert len(arrays["new_feature"]) == figures["new"]["n"]
    with np.load(tmp_path / "judged" / "cells.npz") as arrays:
        assert arrays["new_confidence"].shape == arrays["new_truth"].shape


def test_roles_that_are_not_named_are_those_of_the_training(plates: Path, source: Path) -> None:
    remembered = json.loads((source / "checkpoint.json").read_text())["data"]
    assert remembered["gap"] == "stains+lamp"
    assert done("evaluate", source, "--data", plates) == done(
        "evaluate", source, "--data", plates, "--gap", "stains+lamp"
    )


def test_a_part_becomes_a_folder_that_reads_as_a_set(plates: Path, tmp_path: Path) -> None:
    said = done("pictures", "--data", plates, "--gap", "lamp", "--part", "mentor", "--out", tmp_path / "m", "--max", 3)
    assert said["pictures"] == 3
    assert len(load_dataset(tmp_path / "m").samples) == 3


def test_test_pictures_come_without_labels_unless_evaluating(plates: Path, tmp_path: Path) -> None:
    words = ("pictures", "--data", plates, "--part", "test")
    done(*words, "--out", tmp_path / "bare")
    done(*words, "--out", tmp_path / "told", "--evaluating")
    assert "dent" not in (tmp_path / "bare" / "labels.csv").read_text()
    assert "dent" in (tmp_path / "told" / "labels.csv").read_text()


def test_what_is_asked_wrongly_ends_with_one_sentence(plates: Path, source: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x").touch()
    free = tmp_path / "a"
    for code, sentence, words in [
        (2, "there is no gap named 'fog'; give one of", ("train", "--data", plates, "--gap", "fog", "--out", free)),
        (1, "there is no folder", ("train", "--data", tmp_path / "none", "--out", free)),
        (2, "holds something else than a checkpoint", ("train", "--data", plates, "--out", tmp_path / "mine", *SMALL)),
        (2, "holds no checkpoint", ("adapt", tmp_path / "mine", "--data", plates, "--out", free)),
        (2, "has no domain named left", ("train", "--data", plates, "--original", "left", "--out", free)),
        (1, "strategy masked+omnia needs answers", ("retrain", source, "--data", plates, "--out", free)),
        (
            1,
            "holds something else; give an empty folder",
            ("pictures", "--data", plates, "--part", "train", "--out", tmp_path / "mine"),
        ),
    ]:
        found = run(*words)
        assert found.exit_code == code, (words, found.stderr)
        assert sentence in last_line(found)
        assert "Traceback" not in found.stderr
        assert found.stdout == ""
    assert not free.exists()


def test_weights_that_are_not_here_are_told(plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.train.pretrained_weights", lambda: None)
    found = run("train", "--data", plates, "--out", tmp_path / "a", "--trunk", "mobilenetv2")
    assert found.exit_code == 2
    assert "trunk is mobilenetv2, but its ImageNet weights are not here; name the file in" in last_line(found)


@pytest.mark.parametrize("command", ["train", "adapt", "retrain", "evaluate", "pictures"])
def test_every_command_has_an_example(command: str) -> None:
    found = run(command, "--help")
    assert found.exit_code == 0
    assert f"python -m training {command}" in found.stdout
