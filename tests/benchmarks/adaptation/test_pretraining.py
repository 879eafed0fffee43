"""E7's steps on drawn surfaces: what is cut, dealt and labelled, and that no test group is pretrained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.adaptation import pretraining
from benchmarks.adaptation.pretraining import ROWS, Work, labelled, result_of, row_step
from benchmarks.adaptation.surfaces import SURFACES, Squares, Surface, dealt, squares_of
from benchmarks.musts import musts_from_csv
from edge_sdk.errors import DatasetError
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.requirements import need
from tests.training.drawn import write_set
from training import pretrain, trunks
from training.networks.mobilenet import MobileNetV2

SPEC = PreprocessSpec(width=32, height=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
TINY = Work(side_px=32, pictures=40, pretraining=1, pretraining_batch=4, iterations=2, batch=4, mobile_pretraining=1)


@pytest.fixture(scope="module")
def surfaces(tmp_path_factory: pytest.TempPathFactory) -> tuple[Surface, ...]:
    root = tmp_path_factory.mktemp("drawn")
    two = write_set(root / "kinds", pictures=40, labels=("dent", "hole"))
    return Surface("plates", write_set(root / "plates", pictures=40)), Surface("squares", two, cut_px=30)


def test_a_surface_with_healthy_pictures_is_defective_or_not(surfaces: tuple[Surface, ...]) -> None:
    found = squares_of(surfaces[0], SPEC, most=20, seed=1)
    assert found.images.shape == (20, 32, 32, 3)
    assert found.truth.shape == (20, 1)
    assert 0 < found.truth.sum() < 20
    assert len(squares_of(surfaces[0], SPEC, most=1000, seed=1).images) == 40


def test_pictures_are_cut_where_masks_say_what_a_square_shows(surfaces: tuple[Surface, ...]) -> None:
    found = squares_of(surfaces[1], SPEC, most=1000, seed=1)
    assert found.truth.shape == (len(found.images), 1)
    dark = (found.images < 80).mean(axis=(1, 2, 3))  # the dents are dark and 16 px wide, plates are grey
    assert (dark[found.truth[:, 0] > 0] > 0).all()
    assert (dark[found.truth[:, 0] == 0] == 0).all()
    assert max(found.units.count(unit) for unit in found.units) <= 4  # of 60 x 64 pixels


def test_no_group_is_on_both_sides_and_each_has_both_kinds(surfaces: tuple[Surface, ...]) -> None:
    found = squares_of(surfaces[1], SPEC, most=1000, seed=1)
    parts = dealt(found, seed=3)
    sides = [{found.units[n] for n in side} for side in (parts.train, parts.test)]
    assert not sides[0] & sides[1]
    assert len(parts.train) + len(parts.test) == len(found.units)
    assert all(0 < found.truth[side].sum() < len(side) for side in (parts.train, parts.test))
    alone = Squares(found.images, np.zeros_like(found.truth), found.units)
    with pytest.raises(DatasetError, match="groups cannot be dealt so that every defect is on both sides; give more"):
        dealt(alone, seed=3)


def test_few_labels_are_among_more_and_show_every_kind() -> None:
    truth = np.zeros((200, 1), np.float32)
    truth[:4] = 1
    squares = Squares(np.zeros((200, 8, 8, 3), np.uint8), truth, tuple(map(str, range(200))))
    few, more = (labelled(squares, np.arange(100), share=share, seed=1) for share in (0.05, 0.5))
    assert len(few) in (5, 6, 7)
    assert truth[few].sum() >= 2
    assert set(few[truth[few, 0] == 0]) <= set(more)
    assert max(few) < 100
    assert set(few) != set(labelled(squares, np.arange(100), share=0.05, seed=1, draw=1))


def test_no_test_group_is_pretrained_on(surfaces: tuple[Surface, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def watched(images: Any, *rest: Any, **more: Any) -> Any:
        seen.append(images)
        return real(images, *rest, **more)

    real = pretrain.pretrain
    monkeypatch.setattr(pretrain, "pretrain", watched)
    row_step("core", TINY, 100, surfaces[:1])
    spec = pretraining._spec(TINY)
    squares = squares_of(surfaces[0], spec, most=TINY.pictures, seed=100)
    parts = dealt(squares, seed=100)
    shown = {image.tobytes() for image in seen[0]}
    assert shown == {squares.images[n].tobytes() for n in parts.train}
    assert not shown & {squares.images[n].tobytes() for n in parts.test}


@pytest.mark.slow
def test_the_result_answers_every_must(surfaces: tuple[Surface, ...]) -> None:
    torch.set_num_threads(1)
    rows = [row for row, way in ROWS.items() if not way.imagenet]  # those need weights
    found = [{row: row_step(row, TINY, seed, surfaces) for row in rows} for seed in (100, 101)]
    said = result_of(found, {})
    assert set(said.musts) == {key for key in musts_from_csv() if key.startswith("E7.")}
    names = [row["name"] for row in said.rows]
    assert len(names) == len(set(names))
    assert {"0.5 of the labels: core - scratch", "0.1 of the labels: core - simsiam"} <= set(names)
    assert "0.1 of the labels: mobilenetv2: core - mobilenetv2: scratch" in names
    assert not any("0.5 of the labels: mobilenetv2" in str(name) for name in names)
    assert "no row with ImageNet weights was run: they are not here" in said.notes
    gain = np.mean([[one["core"][name]["0.1"] - one["scratch"][name]["0.1"] for name in one["core"]] for one in found])
    assert said.musts["E7.core_minus_scratch_10"].value == pytest.approx(gain, abs=1e-4)


def test_a_row_that_fewer_seeds_saw_is_compared_on_those_alone() -> None:
    def of(value: float) -> dict[str, dict[str, float]]:
        return {"plates": {"0.1": value}}

    own = {"imagenet": 0.9, "mobilenetv2: scratch": 0.5, "mobilenetv2: imagenet, trained whole": 0.7}
    both = [{"scratch": of(0.5 + n / 10), "core": of(0.6 + n / 5)} for n in range(3)]
    found = [one | ({name: of(value + n / 10) for name, value in own.items()} if n < 2 else {})
             for n, one in enumerate(both)]  # fmt: skip
    for one in found[2:]:
        one["imagenet"] = of(0.1)
    rows = {str(row["name"]).removeprefix("0.1 of the labels: "): row for row in result_of(found, {}).rows}
    assert rows["core - scratch"]["each"] == pytest.approx([0.1, 0.2, 0.3])
    assert rows["imagenet"]["auroc"] == pytest.approx((0.9 + 1.0 + 0.1) / 3, abs=1e-4)
    assert (rows["mobilenetv2: scratch"]["auroc"], rows["mobilenetv2: scratch"]["seeds"]) == (pytest.approx(0.55), 2)
    whole = "mobilenetv2: imagenet, trained whole"
    assert rows[f"{whole} - mobilenetv2: scratch"]["each"] == pytest.approx([0.2, 0.2])
    assert rows[f"{whole} - imagenet"]["each"] == pytest.approx([-0.2, -0.2])


@pytest.mark.slow
def test_two_processes_come_to_what_one_does(surfaces: tuple[Surface, ...]) -> None:
    torch.set_num_threads(1)
    rows = ["scratch", "mobilenetv2: scratch"]
    with pretraining.workers() as pool:
        together = pretraining.seed_step(pool, rows, TINY, 100, surfaces)
    assert together == {row: row_step(row, TINY, 100, surfaces) for row in rows}


@pytest.mark.parametrize("row", ["mobilenetv2: scratch", "mobilenetv2: core", "mobilenetv2: imagenet, then core"])
def test_a_row_starts_from_what_it_says(
    row: str, surfaces: tuple[Surface, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(7)
    save_file(MobileNetV2(stages=5).state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(tmp_path / "weights.safetensors"))
    begun: list[trunks.Start] = []
    real = trunks.Start.network

    def watched(self: trunks.Start, seed: int) -> Any:
        begun.append(self)
        return real(self, seed)

    monkeypatch.setattr(trunks.Start, "network", watched)
    monkeypatch.setattr(pretraining, "DRAWS", 1)
    row_step(row, TINY, 100, surfaces[:1])
    weights = [None if one.weights is None else one.weights.name for one in begun]
    assert weights == {
        "mobilenetv2: scratch": [None],
        "mobilenetv2: core": [None, "trunk.safetensors"],
        "mobilenetv2: imagenet, then core": ["weights.safetensors", "trunk.safetensors"],
    }[row]
    assert all(one.arguments["trunk"] == "mobilenetv2" and not one.arguments.get("frozen") for one in begun)


def test_one_row_repeats(surfaces: tuple[Surface, ...]) -> None:
    torch.set_num_threads(1)
    one, again = (row_step("scratch", TINY, 100, surfaces[:1]) for _ in range(2))
    assert one == again
    assert all(0 <= value <= 1 for value in one["plates"].values())


@pytest.mark.parametrize("surface", SURFACES, ids=lambda surface: str(surface.name))
def test_every_surface_can_be_dealt(surface: Surface) -> None:
    need(f"../shared/data/{surface.folder.name}", found=surface.folder.is_dir())
    squares = squares_of(surface, SPEC, most=200, seed=100)
    parts = dealt(squares, seed=100)
    assert squares.truth.shape[1] == (6 if surface.folder.name == "neu_steel" else 1)
    assert len(parts.train) > 50
    assert len(parts.test) > 50
