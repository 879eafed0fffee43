"""``train --method`` and ``evaluate`` of a scorer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import load_dataset, picture_size
from tests.export.conftest import call
from tests.training.drawn import write_set
from tests.training.scorers.normal_parts import write_normals, write_trunk
from training.cli import app
from training.drift_sides import model_of
from training.outcome import figures_in_words


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("scored")
    data, trunk = write_set(root / "plates", pictures=60), write_trunk(root / "trunk")
    words = ("--method", "gaussian", "--from", trunk, "--side-px", 96, "--alpha", 0.1, "--json")
    code, told, talk = call(app, "train", "--data", data, "--out", root / "scorer", *words)
    assert code == 0, talk
    assert json.loads(told)["guarantee"] == "conformal alpha 0.1 n 12"
    assert (root / "scorer" / "page.html").is_file()
    return data, root / "scorer"


def test_a_scorer_is_judged_by_pictures_and_by_places(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    data, scorer = fitted
    code, told, talk = call(app, "evaluate", scorer, "--data", data, "--out", tmp_path / "e", "--json")
    assert code == 0, talk
    found = json.loads(told)["original"]
    assert found["auroc"] >= 0.95 and found["pixel_auroc"] >= 0.9
    assert 0.5 < found["au_pro"] <= 1
    assert found["found"] >= 0.9 and found["false_alarms"] <= 0.4
    # all that it was not made of: 24 good parts fitted it and set its threshold
    assert (found["n"], found["left_out"]) == (36, 24)
    assert "36 pictures; 24 pictures that the model was made of are left out" in figures_in_words("original", found)
    assert json.loads((tmp_path / "e" / "evaluation.json").read_text())["original"]["au_pro"] == found["au_pro"]


def test_pictures_of_another_part_are_told(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    data, scorer = fitted
    other = Path(shutil.copytree(data, tmp_path / "other"))
    for number, one in enumerate(load_dataset(other).samples):
        rows, columns = picture_size(one.path)
        cv2.imwrite(str(one.path), np.random.default_rng(number).integers(0, 256, (rows, columns, 3), np.uint8))
    code, told, talk = call(app, "evaluate", scorer, "--data", other)
    assert code == 0, talk
    good = sum(bool(one.healthy) for one in load_dataset(other).samples)
    assert f"; {good} of {good} good parts would be stopped: they are not of the parts that the scorer" in told
    assert "would be stopped" not in call(app, "evaluate", scorer, "--data", data)[1]


def test_pictures_that_a_scorer_was_made_of_are_left_out_under_whatever_name(
    fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    """A folder of good parts knows nothing of the set that it was copied from."""
    data, _ = fitted
    good = [one for one in load_dataset(data).samples if one.healthy]
    (tmp_path / "good").mkdir()
    for number, one in enumerate(good[:-5]):
        shutil.copy2(one.path, tmp_path / "good" / f"other-{number}{one.path.suffix}")
    words = ("--method", "gaussian", "--from", data.parent / "trunk", "--side-px", 96, "--alpha", 0.1)
    code, _, talk = call(app, "train", "--data", tmp_path / "good", "--out", tmp_path / "scorer", *words)
    assert code == 0, talk
    code, told, talk = call(app, "evaluate", tmp_path / "scorer", "--data", data, "--json")
    assert code == 0, talk
    found = json.loads(told)["original"]
    assert (found["left_out"], found["n"]) == (len(good) - 5, 60 - len(good) + 5)
    (tmp_path / "seen").mkdir()
    rows = ["image,label"]
    for path in sorted((tmp_path / "good").glob("*.*")):
        shutil.copy2(path, tmp_path / "seen" / path.name)
        rows.append(f"{path.name},good")
    (tmp_path / "seen" / "labels.csv").write_text("\n".join(rows) + "\n")
    code, _, talk = call(app, "evaluate", tmp_path / "scorer", "--data", tmp_path / "seen")
    assert code == 1
    assert f"holds 0 pictures to judge a scorer on, all of one kind, the {len(good) - 5} left out" in talk


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("adapt", "the checkpoint is a scorer of good parts, which is not adapted; fit one on the new line"),
        ("retrain", "the checkpoint is a scorer of good parts, which learns from no answers; train a model"),
    ],
)
def test_what_a_scorer_cannot_do_is_said(
    fitted: tuple[Path, Path], tmp_path: Path, command: str, said: str
) -> None:
    data, scorer = fitted
    code, _, talk = call(app, command, scorer, "--data", data, "--out", tmp_path / "out", "--gap", "lamp")
    assert code == 2 and said in talk
    assert not (tmp_path / "out").exists()


def test_a_scorer_is_not_transferred_and_compared_as_a_bundle_alone(
    fitted: tuple[Path, Path], tmp_path: Path
) -> None:
    data, scorer = fitted
    code, _, talk = call(app, "transfer", scorer, "--normals", data, "--out", tmp_path / "out")
    assert code == 2 and "the checkpoint is a scorer of good parts, which is not transferred; fit one on" in talk
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="is a scorer's checkpoint; pack it and give the bundle"):
        model_of(scorer, line=None)


def test_two_folders_are_one_too_many(fitted: tuple[Path, Path], tmp_path: Path) -> None:
    data, _ = fitted
    words = ("--data", data, "--data", tmp_path, "--method", "gaussian", "--out", tmp_path / "o")
    code, _, talk = call(app, "train", *words)
    assert code == 2
    assert "2 folders are given; a scorer is fitted on one folder of good parts" in talk


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "gaussian", "--iterations", 9, "--no-jitter"),
         "--iterations, --no-jitter: nothing to a scorer, which is fitted on good parts; leave it out"),
        (("--alpha", 0.1, "--covariance", "shared"),
         "--covariance, --alpha: for a scorer alone; name one with --method, or leave it out"),
        (("--method", "patchcore", "--covariance", "position"),
         "--covariance: nothing to patchcore; leave it out, or take --method gaussian"),
        (("--method", "stfpm", "--covariance", "shared"),
         "--covariance: nothing to stfpm; leave it out, or take --method gaussian"),
    ],
)  # fmt: skip
def test_a_flag_that_would_change_nothing_is_refused(
    fitted: tuple[Path, Path], tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    code, _, talk = call(app, "train", "--data", fitted[0], "--out", tmp_path / "out", *words)
    assert code == 2 and said in talk
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--method", "patchcore", "--covariance", "diagonal"),
         "--covariance: nothing to patchcore; leave it out, or take --method gaussian"),
        (("--iterations", 9), "--iterations: nothing to patchcore, which is fitted in one pass; leave it out"),
        (("--covariance", "shared", "--iterations", 9),
         "--iterations: nothing to gaussian, which is fitted in one pass; leave it out"),
        (("--method", "patchcore", "--iterations", 9),
         "--iterations: nothing to patchcore, which is fitted in one pass; leave it out"),
    ],
)  # fmt: skip
def test_a_flag_of_another_method_is_refused_before_a_line_is_commissioned(
    tmp_path: Path, words: tuple[object, ...], said: str
) -> None:
    good = write_normals(tmp_path / "good", pictures=10)
    code, _, talk = call(app, "commission", good, "--bundle", tmp_path / "press-3-1.bundle", *words)
    assert code == 2 and said in talk
    assert sorted(one.name for one in tmp_path.iterdir()) == ["good"]
