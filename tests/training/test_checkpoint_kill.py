"""A save that is killed before any of its steps: whoever looks next finds the old checkpoint or the new one, whole."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edge_sdk.quality.datasets import lines_of, load_dataset
from export.checkpoint import read_checkpoint
from tests.training.drawn import SMALL, write_set
from training.checkpoint import Checkpoint, check_place, load_checkpoint, save_checkpoint
from training.train import train

STEPS = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree", "open")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    dataset = load_dataset(write_set(tmp_path_factory.mktemp("plates") / "set", pictures=16))
    return train(dataset, lines_of(dataset, gap="lamp", seed=1), SMALL.model_copy(update={"iterations": 1}))


def killed_before(step: int, model: Checkpoint, folder: Path) -> bool:
    """Save in a process of its own that dies before its ``step``-th change of the disk; whether it came that far."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    left = step

    def watch(event: str, given: tuple[Any, ...]) -> None:
        nonlocal left
        if event not in STEPS or str(folder.parent) not in str(given[0]):
            return
        if left == 0:
            os._exit(9)
        left -= 1

    sys.addaudithook(watch)
    try:
        save_checkpoint(model, folder)
    finally:
        os._exit(0)


@pytest.mark.parametrize("next_look", ["load", "save", "export", "ask"])
def test_a_kill_before_any_step_leaves_the_old_or_the_new_one_whole(
    trained: Checkpoint, tmp_path: Path, next_look: str
) -> None:
    old, new = replace(trained, figures={"which": "old"}), replace(trained, figures={"which": "new"})
    save_checkpoint(old, tmp_path / "kept")
    files = sorted(path.relative_to(tmp_path) for path in (tmp_path / "kept").rglob("*"))
    found: list[str] = []
    gaps = 0
    while True:
        place = tmp_path / str(len(found)) / "model"
        place.parent.mkdir()
        shutil.copytree(tmp_path / "kept", place)
        came = killed_before(len(found), new, place)
        gaps += not place.exists()
        if next_look == "export":
            found.append(read_checkpoint(place, line="original").file.figures["which"])
        elif next_look == "save":
            save_checkpoint(new, place)
            assert list(place.parent.iterdir()) == [place], "nothing is left beside it"
            found.append("new")
        else:
            if next_look == "ask":
                check_place(place)
                assert (place / "checkpoint.json").is_file()
            found.append(str(load_checkpoint(place).figures["which"]))
        assert sorted(Path("kept") / path.relative_to(place) for path in place.rglob("*")) == files
        if not came:
            break
    assert found[-1] == "new" and len(found) > 12
    assert gaps == 1, "between the two renames its place is empty, which is what this is about"
    if next_look != "save":
        assert found == sorted(found, reverse=True), "first the old one, from some step on the new one"


def test_a_save_that_was_killed_before_it_was_whole_is_forgotten(trained: Checkpoint, tmp_path: Path) -> None:
    half = tmp_path / ".model.part"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"torn")
    save_checkpoint(trained, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]
    assert load_checkpoint(tmp_path / "model").classes == trained.classes
