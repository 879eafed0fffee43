"""``transfer`` as a user gives it: folders of good parts, statistics from elsewhere, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.drawn import write_set
from tests.training.test_cli import done, last_line, run
from training.checkpoint import load_checkpoint
from training.normals import TRAINED

SMALL = ("--trunk", "slim", "--side-px", "64", "--width", "0.125", "--iterations", "4", "--seed", "1")


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("cli") / "plates", pictures=40)


@pytest.fixture(scope="module")
def source(plates: Path) -> Path:
    out = plates.parent / "source"
    done("train", "--data", plates, "--gap", "lamp", "--out", out, *SMALL)
    return out


@pytest.fixture(scope="module")
def good(plates: Path) -> Path:
    """A folder of pictures and nothing else, darker than the plates."""
    folder = plates.parent / "good"
    folder.mkdir()
    for path in sorted((plates / "images").glob("*[02468].png")):
        cv2.imwrite(str(folder / path.name), (cv2.imread(str(path)) * 0.6).astype(np.uint8))
    return folder


def test_a_folder_of_good_parts_becomes_a_line(source: Path, good: Path, tmp_path: Path) -> None:
    said = done("transfer", source, "--normals", good, "--out", tmp_path / "out", "--line", "press-4")
    assert (said["method"], said["normals"], said["line"]) == ("statistics", 20, "press-4")
    assert said["guarantee"].startswith("none: 20 normals are too few")
    made = load_checkpoint(tmp_path / "out")
    assert set(made.lines) == {"original", "press-4"}
    told = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert told["command"] == "transfer"
    assert (tmp_path / "out" / "page.html").is_file()


def test_good_parts_that_fill_12_of_16_bits_are_read_as_the_folder_says(
    source: Path, good: Path, tmp_path: Path
) -> None:
    twelve = tmp_path / "twelve"
    twelve.mkdir()
    for path in good.iterdir():
        cv2.imwrite(str(twelve / path.name), cv2.imread(str(path)).astype(np.uint16) * 16)
    (twelve / "dataset.yaml").write_text("schema: dataset/1\nbit_depth: 12\n")
    files = tmp_path / "usual.safetensors", tmp_path / "twelve.safetensors"
    for folder, file in zip((good, twelve), files, strict=True):
        done("transfer", source, "--normals", folder, "--moments", file, "--under", "original")
    usual, other = map(load_file, files)
    assert usual.keys() == other.keys() and usual
    for name, values in usual.items():
        np.testing.assert_array_equal(values, other[name])


def test_places_pool_their_statistics(source: Path, good: Path, tmp_path: Path) -> None:
    halves = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        for path in sorted(good.iterdir())[name == "b" :: 2]:
            shutil.copy(path, folder)
        halves.append(tmp_path / f"{name}.safetensors")
        said = done("transfer", source, "--normals", folder, "--moments", halves[-1], "--under", "original")
        assert (said["normals"], said["under"]) == (10, "original")
        assert "out" not in said
    both = [word for path in halves for word in ("--pool", path)]
    said = done("transfer", source, *both, "--out", tmp_path / "out", "--moments", tmp_path / "whole.safetensors")
    assert (said["pooled"], said["normals"]) == (2, 20)
    assert load_checkpoint(tmp_path / "out").line("new").pictures == 20
    assert (tmp_path / "whole.safetensors").is_file()
    found = run("transfer", source, *both, "--normals", good, "--out", tmp_path / "no")
    assert (found.exit_code, last_line(found)) == (
        2,
        "--pool makes the line of statistics alone; leave out --normals, --audit and --method",
    )


def test_an_audit_chooses_and_is_told(source: Path, plates: Path, tmp_path: Path) -> None:
    words = ("--method", "statistics", "--method", "source", "--data", plates, "--audit", "6")
    said = done("transfer", source, *words, "--out", tmp_path / "out")
    assert 0 < said["audit"]["pictures"] <= 6
    assert said["method"] == said["audit"]["method"]
    assert (tmp_path / "out" / "methods" / "source" / "checkpoint.json").is_file()
    found = run("transfer", source, *words[:-1], "31", "--out", tmp_path / "no")
    assert last_line(found) == "an audit of 31 pictures is asked for; give at most 30"


def test_an_audit_without_a_method_chooses_among_what_the_figures_speak_for(
    source: Path, plates: Path, tmp_path: Path
) -> None:
    said = done("transfer", source, "--data", plates, "--audit", "6", "--iterations", "2", "--out", tmp_path / "out")
    assert list(said["audit"]["auroc"]) == list(TRAINED)
    assert said["method"] == TRAINED[0]  # six pictures are too few to leave the first


def test_a_tested_picture_is_found_in_an_audit_under_another_name(source: Path, plates: Path, tmp_path: Path) -> None:
    folder = tmp_path / "audit"
    (folder / "test" / "good").mkdir(parents=True)
    (folder / "test" / "dent").mkdir()
    for n, path in enumerate(sorted((plates / "images").glob("*.png"))[:30]):
        shutil.copy(path, folder / "test" / ("dent" if n % 2 else "good") / f"part{n}.png")
    found = run("transfer", source, "--data", plates, "--audit", folder, "--out", tmp_path / "no")
    assert found.exit_code != 0
    assert "is in part test, which no audit may see; take it out" in last_line(found)
    assert not (tmp_path / "no").exists()


def audit_of(folder: Path, pictures: dict[str, Path]) -> Path:
    """Every other one is called a dent."""
    folder.mkdir()
    for name, path in pictures.items():
        shutil.copy(path, folder / name)
    rows = [f"{name},{'dent' if n % 2 else 'good'}" for n, name in enumerate(pictures)]
    (folder / "labels.csv").write_text("\n".join(["image,label", *rows]), encoding="utf-8")
    return folder


def test_an_audit_shows_a_normal_twice_by_its_content_and_not_by_its_name(
    source: Path, good: Path, plates: Path, tmp_path: Path
) -> None:
    normals = sorted(good.iterdir())
    others = sorted((plates / "images").glob("*[13579].png"))
    named_alike = audit_of(tmp_path / "alike", dict(zip((path.name for path in normals), others[:6], strict=False)))
    words = ("--normals", good, "--method", "statistics", "--method", "source")
    said = done("transfer", source, *words, "--audit", named_alike, "--out", tmp_path / "out")
    assert (said["normals"], said["audit"]["pictures"]) == (20, 6)

    copy = audit_of(tmp_path / "copy", {"a.png": others[0], "b.png": normals[3]})
    found = run("transfer", source, *words, "--audit", copy, "--out", tmp_path / "no")
    assert found.exit_code == 1
    assert last_line(found).startswith(f"{normals[3].name} is both a normal and in the audit (as b.png), which would")
    assert not (tmp_path / "no").exists()


def test_pooling_over_a_frozen_trunk_says_what_it_costs(plates: Path, good: Path, tmp_path: Path) -> None:
    start = tmp_path / "trunk.safetensors"
    small = ("--side-px", "64", "--width", "0.125", "--iterations", "2", "--seed", "1")
    done("pretrain", "--data", good, "--batch", "4", "--out", start, *small)
    words = ("--gap", "lamp", "--start", start, "--frozen", *small)
    done("train", "--data", plates, "--out", tmp_path / "frozen", *words)
    done("transfer", tmp_path / "frozen", "--normals", good, "--moments", tmp_path / "a.safetensors")
    found = run("transfer", tmp_path / "frozen", "--pool", tmp_path / "a.safetensors", "--out", tmp_path / "out")
    assert found.exit_code == 0
    assert "try the model as it is beside it, with a threshold of normals: transfer --method source" in found.output
    assert load_checkpoint(tmp_path / "out").line("new").pictures == 20


def test_a_place_is_not_pooled_twice(source: Path, good: Path, tmp_path: Path) -> None:
    done("transfer", source, "--normals", good, "--moments", tmp_path / "a.safetensors")
    shutil.copy(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    pools = ("--pool", tmp_path / "a.safetensors", "--pool", tmp_path / "b.safetensors")
    found = run("transfer", source, *pools, "--out", tmp_path / "no")
    assert found.exit_code == 2
    assert last_line(found).endswith(
        "b.safetensors holds the same statistics as "
        f"{tmp_path}/a.safetensors, whose pictures would count twice; leave one out"
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--out", "{}/x"], "the new line's normals are missing; give --normals FOLDER, or --data with"),
        (["--normals", "{}/gone", "--out", "{}/x"], "there is no folder {}/gone; give the folder with"),
        (["--normals", "{}/empty", "--out", "{}/x"], "{}/empty holds no picture; give the folder with"),
        (["--normals", "{}/one", "--out", "{}/x"], "line new has one normal picture alone; give at least"),
        (["--normals", "{}/one"], "there is nothing to write; give --out FOLDER, or --moments FILE to pool elsewhere"),
        (["--pool", "{}/one/a.png", "--out", "{}/x"], "{}/one/a.png holds no statistics of a line"),
        (["--normals", "{}/one", "--out", "{}/x", "--under", "original"], "--under says how statistics for a file are"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    words: list[str], sentence: str, source: Path, good: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "one").mkdir()
    shutil.copy(next(good.iterdir()), tmp_path / "one" / "a.png")
    found = run("transfer", source, *(word.format(tmp_path) for word in words))
    assert found.exit_code in (1, 2)
    assert last_line(found).startswith(sentence.format(tmp_path))
    assert not (tmp_path / "x").exists()


def test_normals_of_another_shape_are_told(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wide"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((40, 120, 3), 90 + n, np.uint8))
    found = run("transfer", source, "--normals", folder, "--out", tmp_path / "out")
    assert found.exit_code == 0
    assert "3 of 3 normals have another shape than the original line's pictures (0.png is 120 x 40" in found.stderr


def test_the_folder_of_a_defect_is_not_taken_for_good_parts(source: Path, good: Path, tmp_path: Path) -> None:
    (tmp_path / "nut" / "train" / "good").mkdir(parents=True)
    shutil.copytree(good, tmp_path / "nut" / "test" / "crack")
    found = run("transfer", source, "--normals", tmp_path / "nut" / "test" / "crack", "--out", tmp_path / "out")
    assert found.exit_code == 1
    assert "holds the defect 'crack' of a data set, not good parts; give" in last_line(found)
    assert not (tmp_path / "out").exists()
