"""Folders as somebody brings them, with no flag that says anything of the pictures: train, adapt, evaluate."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.training.test_cli import SMALL, done, last_line, run
from training.checkpoint import load_checkpoint


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())


def plate(number: int, *, defect: bool, size: tuple[int, int] = (70, 70), light: float = 1.0) -> np.ndarray:
    image = (np.random.default_rng(number).normal(150, 8, (*size, 3)) * light).clip(0, 255).astype(np.uint8)
    if defect:
        image[10:30, 10:30] = 25
    return image


def mvtec(root: Path) -> list[Path]:
    """Names beyond ASCII, pictures of several sizes and suffixes, and what a file manager leaves behind."""
    sizes = [(90, 120), (120, 90), (64, 64), (200, 150)]
    for n in range(12):
        save(root / f"train/good/Bild Nr. {n:02d} ä.png", plate(n, defect=False, size=sizes[n % 4]))
    for n in range(6):
        save(root / f"test/good/ø{n}{'.JPG' if n % 2 else '.bmp'}", plate(20 + n, defect=False, size=sizes[n % 4]))
        for label in ("Kratzer groß", "брак"):
            save(root / f"test/{label}/{n:03d}.png", plate(40 + n, defect=True, size=sizes[n % 4]))
            mask = np.zeros(sizes[n % 4], np.uint8)
            mask[10:30, 10:30] = 255
            save(root / f"ground_truth/{label}/{n:03d}_mask.png", mask)
    for name in ("Thumbs.db", "train/good/.DS_Store", "train/good/._Bild Nr. 00 ä.png"):
        (root / name).write_bytes(b"not a picture")
    return [root]


def labelled(root: Path, *, pictures: int, every: int) -> Path:
    rows = ["image,label"]
    for n in range(pictures):
        save(root / f"p{n}.png", plate(n, defect=n % every == 0))
        rows.append(f"p{n}.png,{'scratch' if n % every == 0 else 'ok'}")
    (root / "labels.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).encode())
    return root


def with_bare_folder(root: Path) -> list[Path]:
    """A table as a spreadsheet saves it, and a second folder that holds pictures and nothing else."""
    for n in range(12):
        save(root / f"neu/Charge {n // 6}/shot_{n}.jpg", plate(100 + n, defect=n % 3 == 0, light=0.6))
    return [labelled(root / "alt", pictures=24, every=3), root / "neu"]


FOLDERS = {
    "names beyond ASCII": lambda root: mvtec(root / "Prüfteile Süd" / "Schräubchen"),
    "a folder of bare pictures": with_bare_folder,
    "twelve pictures": lambda root: [labelled(root / "few", pictures=12, every=4)],
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FOLDERS)
def test_what_a_newcomer_brings_just_works(what: str, tmp_path: Path) -> None:
    data = [word for folder in FOLDERS[what](tmp_path) for word in ("--data", folder)]
    trained = done("train", *data, "--out", tmp_path / "source", *SMALL)
    assert trained["classes"] == (["Kratzer groß", "брак"] if "ASCII" in what else ["scratch"])
    adapted = done("adapt", tmp_path / "source", *data, "--out", tmp_path / "adapted")
    assert adapted["decision"]["method"] and adapted["lines"]["new"]["health"]["verdict"] in ("ship", "do not ship")
    figures = done("evaluate", tmp_path / "adapted", *data, "--out", tmp_path / "figures")
    assert figures["original"]["n"] > 0
    assert figures["new"]["n"] == 0 or "bare" not in what
    for page in ("source/page.html", "adapted/health.html", "figures/page.html"):
        assert (tmp_path / page).read_text(encoding="utf-8").startswith("<!")


def test_a_folder_that_comes_later_is_the_new_line(tmp_path: Path) -> None:
    old, new = with_bare_folder(tmp_path)
    done("train", "--data", old, "--out", tmp_path / "source", *SMALL)
    found = run("adapt", tmp_path / "source", "--data", old, "--data", new, "--method", "adabn", "--out",
                tmp_path / "adapted", "--quick")  # fmt: skip
    assert found.exit_code == 0, found.stderr
    assert "original line: alt (as the set proposes); new line: neu" in found.stderr
    assert load_checkpoint(tmp_path / "adapted").line("new").pictures <= 12


def test_a_folder_may_be_called_otherwise_by_now(tmp_path: Path) -> None:
    old = labelled(tmp_path / "plates", pictures=16, every=2)
    done("train", "--data", old, "--out", tmp_path / "source", *SMALL)
    before = done("evaluate", tmp_path / "source", "--data", old)
    after = done("evaluate", tmp_path / "source", "--data", old.rename(tmp_path / "moved"))
    assert before["original"]["ap"] == after["original"]["ap"]


def test_bare_pictures_alone_are_nothing_to_train_on(tmp_path: Path) -> None:
    _, new = with_bare_folder(tmp_path)
    found = run("train", "--data", new, "--out", tmp_path / "out", *SMALL)
    assert found.exit_code == 1
    assert "neu has neither a labels.csv nor folders train/good and test/<label>; write a" in last_line(found)
