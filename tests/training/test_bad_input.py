"""What a command says to pictures, checkpoints and losses that are not what they should be; nothing is half-written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import write_set
from tests.training.test_cli import SMALL, done, last_line, run
from training.api import evaluate
from training.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def plates(tmp_path: Path) -> Path:
    return write_set(tmp_path / "plates", pictures=16)


def refused(*words: object) -> str:
    """The last line of a command that must fail, having written nothing."""
    out = Path(str(words[words.index("--out") + 1]))
    before = sorted(out.parent.iterdir())
    found = run(*words)
    assert found.exit_code in (1, 2), found.stderr
    assert "Traceback" not in found.stderr and found.stdout == ""
    assert sorted(out.parent.iterdir()) == before
    return last_line(found)


def test_a_picture_that_cannot_be_read_is_named(plates: Path, tmp_path: Path) -> None:
    words = ("train", "--data", plates, "--out", tmp_path / "out", *SMALL)
    lines = lines_of(load_dataset(plates), seed=1)
    picture = lines.original.train[0].path
    whole = picture.read_bytes()
    for damaged, sentence in [
        (whole[: len(whole) // 3], ".png is no picture that can be read (damaged, or another format); replace it by"),
        (b"", ".png is empty; replace it by a PNG, JPEG, BMP or TIFF, or take it out of the set"),
        (b"<html>", ".png is no picture that can be read"),
    ]:
        picture.write_bytes(damaged)
        assert sentence in refused(*words)
    picture.unlink()
    assert f"{picture.name} does not exist; correct the path, or take the line out" in refused(*words)


@pytest.mark.parametrize("head", ["cells", "classifier", "anchors"])
def test_a_picture_smaller_than_a_cell_is_refused_with_the_smallest_side(
    plates: Path, tmp_path: Path, head: str
) -> None:
    small = lines_of(load_dataset(plates), seed=1).original.train[-1].path
    cv2.imwrite(str(small), np.full((4, 15, 3), 128, np.uint8))
    said = refused("train", "--data", plates, "--out", tmp_path / "out", *SMALL, "--head", head)
    advice = "a network takes pictures from 16 px a side, so give larger ones, or leave it out"
    assert said == f"{small} is 15 x 4 px; {advice}"


def test_a_resize_that_would_erase_the_smallest_defect_is_refused_before_training(
    plates: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    words = ("train", "--data", plates, "--out", tmp_path / "out", *SMALL, "--recipe", recipe)
    for path in plates.rglob("*.png"):
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path), -1), None, fx=3, fy=3, interpolation=0))
    recipe.write_text("sampling: linear\ndefect_px: 1\n")
    said = refused(*words)
    assert said.startswith("a defect of 1 px on a frame of ") and "so it could be missed; " in said
    assert "sampling: area keeps " in said and "ms a frame" in said
    recipe.write_text("sampling: nearest\n")
    assert "sampling is \"nearest\"; give 'area', 'linear' or 'filtered'" in refused(*words)
    recipe.write_text("defect_px: 0\n")
    assert "defect_px is 0; give at least 1" in refused(*words)


def test_pictures_of_16_bits_or_with_alpha_train_as_their_8_bit_selves(plates: Path, tmp_path: Path) -> None:
    done("train", "--data", plates, "--out", tmp_path / "plain", *SMALL)
    for path in sorted(plates.glob("images/*.png")):
        image = cv2.imread(str(path))
        assert image is not None
        if int(path.stem) % 3 == 0:
            cv2.imwrite(str(path), image.astype(np.uint16) * 256 + 77)
        elif int(path.stem) % 3 == 1:
            cv2.imwrite(str(path), np.dstack([image, np.full(image.shape[:2], int(path.stem), np.uint8)]))
    done("train", "--data", plates, "--out", tmp_path / "odd", *SMALL)
    one, other = load_checkpoint(tmp_path / "plain"), load_checkpoint(tmp_path / "odd")
    torch.testing.assert_close(one.network.state_dict(), other.network.state_dict(), atol=0, rtol=0)


def test_a_mask_of_another_size_is_told_with_both_sizes(plates: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(plates / "masks" / "01.png"), np.full((30, 64), 255, np.uint8))
    said = refused("train", "--data", plates, "--out", tmp_path / "out", *SMALL)
    assert "masks/01.png is 64 x 30 pixels, but its picture" in said and "is 64 x 60; give a mask of the pictu" in said


def test_a_folder_without_pictures_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("soon")
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "labels.csv").write_text("image,label\n")
    for name, sentence in [
        ("empty", "empty is empty; give a folder with pictures"),
        ("notes", "notes has neither a labels.csv nor folders train/good and test/<label>; write a labels.csv"),
        ("table", "table lists no picture; add some, or give another folder"),
        ("none", "there is no folder"),
    ]:
        assert sentence in refused("train", "--data", tmp_path / name, "--out", tmp_path / "out", *SMALL)


def test_a_set_of_one_kind_is_told(plates: Path, tmp_path: Path) -> None:
    table = (plates / "labels.csv").read_text()
    words = ("train", "--data", plates, "--out", tmp_path / "out", *SMALL)
    (plates / "labels.csv").write_text("\n".join(line for line in table.splitlines() if "dent" not in line) + "\n")
    assert "has no defective picture on the original line (labels: good); label some" in refused(*words)
    bare = [line.split(",")[0] + ",dent," for line in table.splitlines()[1:]]
    (plates / "labels.csv").write_text("image,label,mask\n" + "\n".join(bare) + "\n")
    assert "has neither a healthy picture nor a mask on the original line (labels: dent)" in refused(*words)


def test_a_checkpoint_of_another_architecture_is_told(plates: Path, tmp_path: Path) -> None:
    done("train", "--data", plates, "--out", tmp_path / "narrow", *SMALL)
    wide = (*SMALL[:5], "0.5", *SMALL[6:])
    done("train", "--data", plates, "--out", tmp_path / "wide", *wide)
    mixed = tmp_path / "mixed"
    shutil.copytree(tmp_path / "narrow", mixed)
    shutil.copy(tmp_path / "wide" / "weights.safetensors", mixed / "weights.safetensors")
    for command in ("adapt", "retrain", "evaluate"):
        said = refused(command, mixed, "--data", plates, "--out", tmp_path / "out")
        assert "mixed/weights.safetensors is of another architecture than training.networks.cellnet:" in said
        assert "size mismatch" in said and "copy the checkpoint whole" in said


def test_a_loss_that_is_no_number_leaves_nothing(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> torch.Tensor:
        return torch.tensor(float("nan"), requires_grad=True)

    monkeypatch.setattr("training.train.supervised_loss", broken)
    said = refused("train", "--data", plates, "--out", tmp_path / "out", *SMALL)
    assert said == "the loss term supervised is nan at step 0; lower the rate (0.001)"


def test_a_full_disk_leaves_the_checkpoint_that_was_there(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("train", "--data", plates, "--out", tmp_path / "kept", *SMALL)
    before = {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()}
    model = load_checkpoint(tmp_path / "kept")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for step in ("training.checkpoint.save_file", "training.checkpoint._write_json", "pathlib.Path.rename"):
        with monkeypatch.context() as one:
            one.setattr(step, full)
            with pytest.raises(OSError, match="No space left"):
                save_checkpoint(model, tmp_path / "kept")
        assert {path: path.read_bytes() for path in (tmp_path / "kept").rglob("*") if path.is_file()} == before
    save_checkpoint(model, tmp_path / "kept")
    assert not list(tmp_path.glob(".kept*"))


def test_a_recipe_of_a_checkpoint_that_is_no_recipe_is_told(plates: Path, tmp_path: Path) -> None:
    done("train", "--data", plates, "--out", tmp_path / "source", *SMALL)
    path = tmp_path / "source" / "checkpoint.json"
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, "recipe": {**said["recipe"], "batch": 1}}))
    assert "batch is 1; " in refused("adapt", tmp_path / "source", "--data", plates, "--out", tmp_path / "out")


def test_pictures_of_a_class_that_the_model_does_not_know_are_told(plates: Path, tmp_path: Path) -> None:
    done("train", "--data", plates, "--out", tmp_path / "source", *SMALL)
    more = write_set(tmp_path / "more", pictures=24, labels=("dent", "stain"))
    for command in ("adapt", "retrain", "evaluate"):
        said = refused(command, tmp_path / "source", "--data", more, "--out", tmp_path / "out")
        assert "more has pictures labelled stain, but the model knows dent; train one that knows them too, or" in said
    (more / "dataset.yaml").write_text("ignore: [stain]\n")
    done("evaluate", tmp_path / "source", "--data", more)


def test_a_folder_that_shows_some_of_the_models_classes_is_judged_by_those(plates: Path, tmp_path: Path) -> None:
    both = write_set(tmp_path / "both", pictures=24, labels=("dent", "stain"))
    done("train", "--data", both, "--out", tmp_path / "source", *SMALL)
    stains = write_set(tmp_path / "stains", pictures=16, labels=("stain",))
    model = load_checkpoint(tmp_path / "source")
    found = evaluate(model, stains)
    truth = found.judged["original"].views.truth
    assert model.classes == ("dent", "stain") and truth.shape[1] == 2
    assert not truth[:, 0].any() and truth[:, 1].any()


@pytest.mark.parametrize(
    "words",
    [
        "evaluate nothing --data {plates} --out {taken}/page",
        "pretrain --data {plates} --out {taken}/trunk.safetensors",
        "drift nothing --now {plates} --out {taken}/page",
        "transfer nothing --data {plates} --moments {taken}/moments.safetensors",
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(words: str, plates: Path, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file", encoding="utf-8")
    found = run(*words.format(plates=plates, taken=taken).split())
    assert found.exit_code == 2
    assert found.stderr.splitlines()[-1].endswith(f": {taken} is a file; give another place")
