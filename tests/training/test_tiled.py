"""Training and judging on tiles: each cell of a picture counts once, and as the station sees it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.sessions import open_session
from edge_sdk.quality.datasets import lines_of, load_dataset, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask, geometry, valid_cells
from edge_sdk.vision.tiles import outputs_of_frame
from export.checkpoint import read_checkpoint
from export.graph import onnx_from_torch
from tests.training.drawn import write_set
from tests.training.test_bad_input import refused
from tests.training.test_cli import SMALL, done
from training.api import Config, evaluate
from training.checkpoint import load_checkpoint
from training.data.views import CELL_COVERED, views_of

SPEC = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
RECIPE = "tile_overlap_px: 32\nhead: cells\nstages: 2\n"


def large_set(folder: Path, *, pictures: int = 16) -> Path:
    """The drawn plates, twice as large, so that most defects lie across a seam."""
    write_set(folder, pictures=pictures)
    for path in folder.rglob("*.png"):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image is not None
        cv2.imwrite(str(path), cv2.resize(image, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    return folder


def test_the_tiles_of_a_picture_hold_each_of_its_cells_once(tmp_path: Path) -> None:
    line = lines_of(load_dataset(large_set(tmp_path / "plates")), seed=1, evaluating=True).original
    samples = line.test
    views = views_of(line, samples, SPEC, grid=(8, 8), labelled=True)
    assert views.tiled and views.pictures.max() == len(samples) - 1
    for n, sample in enumerate(samples):
        height, width = read_image(sample).shape[:2]
        mine = views.pictures == n
        assert set(np.array(views.names)[mine]) == {sample.image}
        valid = valid_cells(SPEC, height, width, (16, 16))
        assert views.valid[mine].sum() == valid.sum()
        mask = np.zeros((height, width), np.uint8) if sample.mask is None else cv2.imread(str(sample.mask), 0)
        assert mask is not None
        assert views.truth[mine].sum() == (cells_of_mask(mask, SPEC, (16, 16)) >= CELL_COVERED).sum()
        assert views.defective[mine].any() == (sample.healthy is False)
        assert geometry(SPEC, height, width).scale_x == 1


def test_a_network_trains_on_tiles_and_is_judged_as_the_station_judges(tmp_path: Path) -> None:
    plates, recipe, out = large_set(tmp_path / "plates"), tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    done("train", "--data", plates, "--recipe", recipe, "--out", out, *SMALL)
    checkpoint = load_checkpoint(out)
    spec = checkpoint.preprocess
    assert (spec.tile_overlap_px, spec.width, spec.height) == (32, 64, 64)
    assert json.loads((out / "checkpoint.json").read_text())["preprocess"]["tile_overlap_px"] == 32
    judged = evaluate(checkpoint, Config(data=(plates,), seed=1))
    figures = judged.figures["original"]
    views = judged.judged["original"].views
    assert figures["n"] == len(set(views.names)) < len(views) and figures["unit"] == "cells"
    # the very cells that the station's way through the graph gives
    line = lines_of(load_dataset(plates), seed=1, evaluating=True).original
    session = open_session(onnx_from_torch(read_checkpoint(out, line="original").module(), spec))
    for n, sample in enumerate(line.test[:2]):
        whole = outputs_of_frame(read_image(sample), spec, session.run)["cells"][0]
        valid = valid_cells(spec, 120, 128, (whole.shape[1], whole.shape[2]))
        mine = views.pictures == n
        there = judged.judged["original"].logits[mine][:, 0][views.valid[mine]]
        np.testing.assert_allclose(np.sort(there), np.sort(whole[0][valid]), atol=1e-3)


def test_what_tiles_cannot_learn_from_is_refused(tmp_path: Path) -> None:
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text(RECIPE)
    bare = write_set(tmp_path / "bare", pictures=16, masks=False)
    said = refused("train", "--data", bare, "--recipe", recipe, "--out", out, *SMALL)
    assert said.endswith(
        " is defective and has no mask, and nothing says in which of its tiles the defect is; draw its mask, or leave "
        "tile_overlap_px out"
    )
    recipe.write_text(RECIPE.replace("cells", "classifier"))
    said = refused("train", "--data", bare, "--recipe", recipe, "--out", out, *SMALL)
    assert said.startswith("the network judges cells of 64 x 64 pixels, whose borders do not lie alike in all tiles; ")
    recipe.write_text("shrink: 2\n")
    assert "shrink is 2; give a whole ratio of 1 or more, and tile_overlap_px with it" in refused(
        "train", "--data", bare, "--recipe", recipe, "--out", out, *SMALL
    )


@pytest.mark.parametrize("overlap", [40, 64])
def test_an_overlap_that_leaves_no_room_is_refused(tmp_path: Path, overlap: int) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE.replace("32", str(overlap)))
    plates = write_set(tmp_path / "plates", pictures=16)
    assert f"tile_overlap_px is {overlap} on an input of 64; give at most 32" in refused(
        "train", "--data", plates, "--recipe", recipe, "--out", tmp_path / "out", *SMALL
    )
