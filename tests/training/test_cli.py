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
from training import outcome, trunks
from training.cli import app
from training.networks.resnet import ResNet18
from training.trunk_file import save_trunk

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


def test_a_thin_trunk_for_want_of_weights_is_said(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (trunks, outcome):
        monkeypatch.setattr(module, "pretrained_weights", lambda: None)
    small = ("--side-px", "32", "--width", "0.125", "--iterations", "2")
    found = run("train", "--data", plates, "--out", tmp_path / "auto", *small)
    said = "no trunk is named and the ImageNet weights of MobileNetV2 are not here, so a thin trunk learns from scratch"
    assert f"{said}; name their file in EDGE_SDK_MOBILENETV2" in found.stderr
    figures = json.loads((tmp_path / "auto" / "figures.json").read_text())
    assert figures["trunk"] == "resnet18"
    assert said not in run("train", "--data", plates, "--out", tmp_path / "named", "--trunk", "slim", *small).stderr
    save_trunk(ResNet18(width=0.125, stages=3), tmp_path / "t", width=0.125, stages=3, told={})
    begun = run("train", "--data", plates, "--out", tmp_path / "begun", "--start", tmp_path / "t", *small)
    assert begun.exit_code == 0 and said not in begun.stderr, "it does not learn from scratch"


def test_the_commands_follow_one_another(plates: Path, source: Path, tmp_path: Path) -> None:
    said = done("adapt", source, "--data", plates, "--out", tmp_path / "adapted", "--quick")
    written = json.loads((tmp_path / "adapted" / "figures.json").read_text())
    assert written["decision"] == said["decision"]
    assert said["decision"]["method"] in {"source", "adabn", "dann"}
    assert said["decision"]["why"]
    health = json.loads((tmp_path / "adapted" / "health.json").read_text())
    assert said["lines"]["new"]["health"] == {"verdict": health["verdict"], "why": health["why"]}
    assert (tmp_path / "adapted" / "health.html").is_file()
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


def test_every_command_leaves_figures_and_a_page(plates: Path, source: Path, tmp_path: Path) -> None:
    done("adapt", source, "--data", plates, "--out", tmp_path / "a", "--quick", "--method", "dann", "--seed", 5)
    done("retrain", tmp_path / "a", "--data", plates, "--out", tmp_path / "r", "--strategy", "full-labels", "--quick")
    done("evaluate", tmp_path / "r", "--data", plates, "--out", tmp_path / "e")
    places = {"train": source, "adapt": tmp_path / "a", "retrain": tmp_path / "r", "evaluate": tmp_path / "e"}
    for command, out in places.items():
        said = json.loads((out / "figures.json").read_text())
        assert said["command"] == command
        page = (out / "page.html").read_text()
        assert f"python -m training {command}" in page
        assert "<script" not in page and "http:" not in page and "https:" not in page
        if command != "evaluate":
            (curves,) = said["curves"].values()
            assert len(curves["supervised"]) == curves["supervised"][-1][0]
            assert curves["grad_supervised"][0][0] == 1
            assert "<svg" in page
    judged = json.loads((tmp_path / "e" / "figures.json").read_text())
    assert set(judged["lines"]) == set(judged["worst"]) == {"original", "new"}
    page = (tmp_path / "e" / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == sum(len(some) for some in judged["worst"].values()) > 0


def test_a_named_method_is_taken(plates: Path, source: Path, tmp_path: Path) -> None:
    said = done("adapt", source, "--data", plates, "--out", tmp_path / "one", "--method", "source")
    assert said["decision"]["method"] == "source"
    said = done(
        "adapt", source, "--data", plates, "--out", tmp_path / "two", "--method", "adabn", "--method", "source"
    )
    assert set(said["decision"]["facts"]) == {"source", "adabn"}
    found = run("adapt", source, "--data", plates, "--out", tmp_path / "no", "--method", "magic")
    assert found.exit_code == 2
    assert "there is no method named 'magic'; give one of source, adabn" in last_line(found)


def test_several_new_lines_are_adapted_to_at_once(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "three", pictures=36)
    rows = (folder / "labels.csv").read_text().splitlines()
    parts = [f"{row},{'abc'[n // 2 % 3]}" for n, row in enumerate(rows[1:])]
    (folder / "labels.csv").write_text("\n".join([rows[0] + ",domain", *parts]) + "\n")
    roles = ("--data", folder, "--original", "a", "--new", "b", "--new", "c")
    done("train", *roles, "--out", tmp_path / "source", *SMALL)
    out = tmp_path / "adapted"
    said = done("adapt", tmp_path / "source", "--data", folder, "--out", out, "--method", "dann")
    assert set(said["lines"]) == {"new", "new2"} and "decision" not in said
    figures = done("evaluate", out, "--data", folder)
    assert set(figures) == {"original", "new", "new2"}
    for line in ("new", "new2"):
        alone = done("evaluate", out / "methods" / line / "dann", "--data", folder)
        assert figures[line] == alone[line]
    assert figures["original"] == done("evaluate", tmp_path / "source", "--data", folder)["original"]
    words = ("--line", "new2", "--method", "adabn")
    only = done("adapt", tmp_path / "source", "--data", folder, "--out", tmp_path / "2", *words)
    assert set(only["lines"]) == {"new2"}


def test_a_recipe_says_what_flags_say_and_flags_win(plates: Path, source: Path, tmp_path: Path) -> None:
    recipe = plates.parent / "recipe.yaml"
    recipe.write_text(
        "schema: recipe/1\ndata: plates\ngap: stains+lamp\ntrunk: slim\nside_px: 64\nwidth: 0.125\n"
        "iterations: 12\nseed: 7\n"
    )
    done("train", "--recipe", recipe, "--seed", 1, "--out", tmp_path / "again")
    one, other = (json.loads((out / "checkpoint.json").read_text()) for out in (source, tmp_path / "again"))
    assert one == other
    assert (source / "weights.safetensors").read_bytes() == (tmp_path / "again" / "weights.safetensors").read_bytes()
    assert done("evaluate", source, "--recipe", recipe, "--seed", 1) == done("evaluate", source, "--data", plates)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("data: .\nitterations: 3\n", "recipe.yaml:2: no setting named itterations; did you mean iterations?"),
        ("data: .\nrate: -1\n", "recipe.yaml:2: rate is -1; give a number above 0"),
        ("data: .\nseed: 1\nside_px: 100\n", "recipe.yaml:3: side_px is 100; "),
        ("data: .\ntrunk: vgg\n", "recipe.yaml:2: trunk is \"vgg\"; give 'auto', 'slim' or 'mobilenetv2'"),
        ("gap: fog\ndata: .\n", "recipe.yaml:1: gap is \"fog\"; there is no gap named 'fog'; give one of"),
        ("schema: recipe/2\ndata: .\n", "recipe.yaml:1: schema is \"recipe/2\"; give 'recipe/1'"),
        ("gap: lamp\n", "data is missing; give --data FOLDER, or write `data: FOLDER` into the recipe"),
        ("data: [\n", "recipe.yaml:2: not YAML"),
        ("data: .\ndevice: gpu\n", "there is no device named 'gpu'; give cpu, cuda or, of several GPUs, cuda:1"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_line(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    found = run("train", "--recipe", tmp_path / "recipe.yaml", "--out", tmp_path / "out")
    assert found.exit_code == 2
    assert sentence in last_line(found)
    assert not (tmp_path / "out").exists()


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
        (2, "there is no device named 'tpu'", ("train", "--data", plates, "--out", free, "--device", "tpu")),
        (2, "data is missing; give --data FOLDER", ("evaluate", source)),
        (
            2,
            "there is no strategy 'x'; give one of",
            ("retrain", source, "--data", plates, "--out", free, "--strategy", "x"),
        ),
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
    monkeypatch.setattr("training.trunks.pretrained_weights", lambda: None)
    found = run("train", "--data", plates, "--out", tmp_path / "a", "--trunk", "mobilenetv2")
    assert found.exit_code == 2
    assert "trunk is mobilenetv2, but its ImageNet weights are not here; name the file in" in last_line(found)


@pytest.mark.parametrize("command", ["train", "adapt", "retrain", "evaluate", "pictures"])
def test_every_command_has_an_example(command: str) -> None:
    found = run(command, "--help")
    assert found.exit_code == 0
    assert f"python -m training {command}" in found.stdout
