"""Which pictures of a folder that somebody else filled are taken for good parts."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest

from edge_sdk.errors import DatasetError
from tests.training.scorers.normal_parts import plate
from training.scorers.normals import normals_in


def put(folder: Path, numbers: range) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        cv2.imwrite(str(folder / f"{number:03d}.png"), plate(number))
    return folder


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("good", "scratch"),
        ("OK", "NG"),
        ("line 1/Normal", "line 1/dent"),
        ("good_parts", "bad_parts"),
        ("MT_Free", "MT_Crack"),
        ("good", "good_2"),
        ("ok-2026", "not-ok-2026"),
    ],
)
def test_of_folders_side_by_side_the_one_that_is_named_good_is_taken(tmp_path: Path, good: str, bad: str) -> None:
    put(tmp_path / good, range(9))
    put(tmp_path / bad, range(20, 24))
    found = normals_in(tmp_path)
    assert [one.image for one in found.samples] == [f"{good}/{n:03d}.png" for n in range(9)]
    assert found.notes == (
        f"4 pictures lie elsewhere than in {good} ({bad}) and are left out; give a folder of good parts alone if they "
        "are good",
    )


def test_the_test_folder_of_a_set_gives_its_good_parts(tmp_path: Path) -> None:
    put(tmp_path / "train/good", range(8))
    put(tmp_path / "test/good", range(10, 19))
    put(tmp_path / "test/dent", range(20, 23))
    assert {Path(one.image).parts[0] for one in normals_in(tmp_path / "test").samples} == {"good"}


def test_loose_pictures_beside_a_folder_of_good_ones_are_left_out_and_said(tmp_path: Path) -> None:
    put(tmp_path / "good", range(8))
    put(tmp_path, range(20, 22))
    found = normals_in(tmp_path)
    assert len(found.samples) == 8 and "2 pictures lie elsewhere than in good (the folder itself)" in found.notes[0]


def test_folders_that_say_nothing_are_all_taken_and_said(tmp_path: Path) -> None:
    put(tmp_path / "monday", range(5))
    put(tmp_path / "tuesday", range(10, 15))
    found = normals_in(tmp_path)
    assert len(found.samples) == 10 and found.notes == ("the pictures of 2 folders are all taken for good parts",)
    assert normals_in(put(tmp_path / "one" / "day", range(8)).parent).notes == ()


def test_files_that_a_system_hides_are_no_pictures(tmp_path: Path) -> None:
    put(tmp_path, range(8))
    (tmp_path / "._000.png").write_bytes(b"\0\5\x16\7")
    put(tmp_path / ".thumbnails", range(30, 33))
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    assert len(normals_in(tmp_path).samples) == 8


def test_one_picture_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds 1 good part; a scorer needs 8 at least, and 200 for a threshold tha"):
        normals_in(put(tmp_path / "good", range(1)))
