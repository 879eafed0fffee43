"""From good parts to a scorer's checkpoint, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edge_sdk.errors import ConfigError, DatasetError, FormatError, RangeError
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.measures import auroc
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.checkpoint import digest_of, load_checkpoint, save_checkpoint
from training.networks.cellnet import trunk_of
from training.scorers.commission import place_of
from training.scorers.distances import batches, distances_of, scorer_of
from training.scorers.embedding import Joined, Stages, channel_scale, joined_maps
from training.scorers.fitting import ScorerRecipe, fit_scorer, highest_of_units
from training.scorers.network import scorer_network
from training.scorers.normals import normals_in, split_normals, usual_size

RECIPE = ScorerRecipe(side_px=96, rank=40, alpha=0.1, bank=200)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_trunk(tmp_path_factory.mktemp("trunk") / "ckpt")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_normals(tmp_path_factory.mktemp("normals") / "good")


@pytest.mark.parametrize("settings", [{}, *({"method": "gaussian", **more} for more in (
                                          {}, {"covariance": "shared"}, {"covariance": "position", "rank": 8},
                                          {"covariance": "diagonal"})),
                                      {"method": "stfpm", "iterations": 60},
                                      {"method": "supersimple", "iterations": 80}])  # fmt: skip
def test_a_dent_is_strange_to_a_scorer_of_good_parts(
    trunk: Path, good: Path, tmp_path: Path, settings: dict[str, object]
) -> None:
    recipe = RECIPE.model_copy(update=settings)
    checkpoint, said, held = fit_scorer(normals_in(good), recipe, lent=trunk, strict=True)
    assert checkpoint.line("original").thresholds.guarantee == "conformal alpha 0.1 n 12"
    samples = []
    for number in range(16):
        path = tmp_path / f"{number:02d}.png"
        cv2.imwrite(str(path), plate(300 + number, dent=number >= 8))
        samples.append(Sample(path=path, image=path.name, label=""))
    found = distances_of(scorer_of(checkpoint), samples, checkpoint.preprocess)
    assert auroc(found.highest, np.arange(16) >= 8) >= 0.9
    assert len(said.maps) == len(held) == 12


def test_a_covariance_is_refused_where_it_would_be_nothing() -> None:
    said = "covariance is 'shared', which is nothing to patchcore; say method='gaussian' too"
    with pytest.raises(ValidationError, match=said):
        ScorerRecipe(covariance="shared")
    for recipe in (ScorerRecipe(), ScorerRecipe(method="gaussian", covariance="shared")):
        assert ScorerRecipe(**recipe.model_dump()) == recipe


def test_a_bank_holds_a_tenth_of_the_places_where_those_are_few(trunk: Path, good: Path) -> None:
    sizes = []
    for bank in (100, 3000):
        recipe = RECIPE.model_copy(update={"method": "patchcore", "bank": bank})
        sizes.append(fit_scorer(normals_in(good), recipe, lent=trunk)[0])
    assert sizes[0].arguments["bank"] == 100
    cells = (sizes[1].preprocess.height // 8) * (sizes[1].preprocess.width // 8)
    assert sizes[1].arguments["bank"] == round(0.1 * 12 * cells) < 3000


def test_a_scorer_survives_the_disk_and_comes_out_the_same_for_a_seed(trunk: Path, good: Path, tmp_path: Path) -> None:
    first, said, held = fit_scorer(normals_in(good), RECIPE, lent=trunk)
    again, _, _ = fit_scorer(normals_in(good), RECIPE, lent=trunk)
    assert digest_of(first) == digest_of(again)
    save_checkpoint(first, tmp_path / "scorer")
    read = load_checkpoint(tmp_path / "scorer")
    np.testing.assert_allclose(distances_of(scorer_of(read), held, read.preprocess).maps, said.maps, rtol=1e-6)
    np.testing.assert_array_equal(read.line("original").normals, first.line("original").normals)
    other, _, _ = fit_scorer(normals_in(good), RECIPE, lent=tmp_path / "scorer")
    assert digest_of(other) == digest_of(first)


def test_the_sum_of_convolutions_is_one_convolution_of_all_stages() -> None:
    below = Stages(trunk_of("resnet18", width=0.125, stages=3), (0, 1, 2))
    joined = Joined(below.channels, below.strides, stride=8, width=7)
    weight, bias = torch.randn(7, sum(below.channels)), torch.randn(7)
    joined.set_linear(weight, bias)
    with torch.no_grad():
        maps = below(torch.randn(2, 3, 64, 96))
        whole = torch.einsum("ed,ndhw->nehw", weight, joined_maps(maps, below.strides, 8)) + bias[:, None, None]
        torch.testing.assert_close(joined(maps), whole, rtol=1e-4, atol=1e-4)


def test_scales_merged_batch_by_batch_are_those_of_all_places_at_once() -> None:
    generator = torch.Generator().manual_seed(3)
    spread = torch.tensor([1.0, 1e-3, 50.0, 0.0])[:, None, None]
    maps = [1e3 + spread * torch.randn(n, 4, 5, 7, generator=generator) for n in (8, 8, 3, 1)]
    rows = torch.cat(maps).permute(0, 2, 3, 1).reshape(-1, 4).double()
    mean, scale = channel_scale(iter(maps))
    torch.testing.assert_close(mean, rows.mean(dim=0), rtol=1e-12, atol=0)
    torch.testing.assert_close(scale[[0, 2]], 1 / rows.std(dim=0, correction=0)[[0, 2]], rtol=1e-9, atol=0)
    assert scale[3] == 0


@pytest.mark.parametrize(("side_px", "most"), [(256, 8), (512, 4), (2048, 1)])
def test_a_batch_of_large_pictures_holds_fewer_of_them(good: Path, side_px: int, most: int) -> None:
    samples = normals_in(good).samples[:9]
    sizes = [len(one.images) for one in batches(samples, PreprocessSpec(width=side_px, height=side_px), stride=8)]
    assert sum(sizes) == 9 and max(sizes) == most


def test_no_group_is_on_both_sides_and_each_counts_once() -> None:
    samples = [Sample(path=Path(f"{n}"), image=f"{n:03d}", label="", group=f"part{n // 3}") for n in range(60)]
    fits, holds = split_normals(samples, seed=0)
    assert not {one.unit for one in fits} & {one.unit for one in holds}
    assert len(fits) == len(holds) == 30
    assert highest_of_units(np.array([1.0, 3.0, 2.0]), ["a", "b", "a"]) == [2.0, 3.0]


def test_of_a_labelled_set_good_parts_alone_are_taken_and_the_part_test_is_left(tmp_path: Path) -> None:
    root = tmp_path / "set"
    write_normals(root / "images", pictures=40)
    with (root / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        writer.writerows([f"images/{n:03d}.png", "dent" if n % 4 == 0 else "good"] for n in range(40))
    found = normals_in(root)
    assert {one.healthy for one in found.samples} == {True}
    assert found.notes[0] == f"10 pictures of {root} are not labelled healthy and are left out"
    assert found.notes[1].endswith("good parts belong to the set's part test and are left out")
    assert len(found.samples) < 30


def test_one_picture_and_no_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds 1 good part; a scorer needs 8 at least, and 200 for a threshold"):
        normals_in(write_normals(tmp_path / "one", pictures=1))
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match="holds no picture; give a folder with PNG, JPEG, BMP or TIFF files"):
        normals_in(tmp_path / "none")


def test_the_folder_of_a_defect_is_not_taken_for_good_parts(tmp_path: Path) -> None:
    write_normals(tmp_path / "nut" / "train" / "good", pictures=9)
    write_normals(tmp_path / "nut" / "test" / "crack", pictures=9)
    with pytest.raises(DatasetError, match="holds the defect 'crack' of a data set, not good parts; give .*train/good"):
        normals_in(tmp_path / "nut" / "test" / "crack")
    assert len(normals_in(tmp_path / "nut" / "train" / "good").samples) == 9


def test_a_set_of_defects_alone_is_refused(tmp_path: Path) -> None:
    write_normals(tmp_path / "images", pictures=9)
    rows = "".join(f"images/{n:03d}.png,dent\n" for n in range(9))
    (tmp_path / "labels.csv").write_text("image,label\n" + rows)
    with pytest.raises(DatasetError, match=r"has no picture of a good part \(labels: dent\); give good parts, or say"):
        normals_in(tmp_path)


def test_pictures_of_several_sizes_are_refused_where_a_station_is_made(trunk: Path, tmp_path: Path) -> None:
    folder = write_normals(tmp_path / "good", pictures=12)
    cv2.imwrite(str(folder / "zzz.png"), plate(1, height=200, width=128))
    said = r"zzz.png is 128 x 200, but 12 of 13 pictures are 128 x 96 or nearly; most cameras give one size, so leave "
    with pytest.raises(DatasetError, match=said) as refused:
        fit_scorer(normals_in(folder), RECIPE, lent=trunk, strict=True)
    checkpoint, _, _ = fit_scorer(normals_in(folder), RECIPE, lent=trunk)
    # padding would be strange in the pictures that have it
    assert checkpoint.preprocess.resize == "stretch"
    assert "--stretch" in str(refused.value)
    easy = RECIPE.model_copy(update={"alpha": 0.2})
    again, _, _ = fit_scorer(normals_in(folder), easy, lent=trunk, strict=True, stretch=True)
    assert again.preprocess == checkpoint.preprocess
    told = "the good parts are of several sizes; every picture is stretched to 96 x 96"
    assert told in checkpoint.data["notes"]


def test_where_sizes_differ_the_input_is_of_the_middle_ratio_and_not_of_the_size_that_occurs_twice(
    tmp_path: Path
) -> None:
    for number, width in enumerate([60, 60, *range(180, 201, 2)]):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), plate(number, height=120, width=width))
    size, alike = usual_size(normals_in(tmp_path).samples, several=True)
    assert size == (120, 188) and not alike


def test_a_set_of_several_sizes_by_nature_is_stretched_with_a_warning_unless_that_is_ruled_out(
    trunk: Path, tmp_path: Path
) -> None:
    for number, width in enumerate(range(80, 320, 20)):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), plate(number, height=120, width=width))
    normals, easy = normals_in(tmp_path), RECIPE.model_copy(update={"alpha": 0.2})
    checkpoint, _, _ = fit_scorer(normals, easy, lent=trunk, strict=True)
    spec = checkpoint.preprocess
    told = f"the good parts are of several sizes; every picture is stretched to {spec.width} x {spec.height}"
    warning = f"warning: {told}, so a part of the wrong size is not seen by it; --no-stretch refuses such pictures"
    assert warning in checkpoint.data["notes"]
    asked, _, _ = fit_scorer(normals, easy, lent=trunk, strict=True, stretch=True)
    assert told in asked.data["notes"] and asked.preprocess == spec
    with pytest.raises(DatasetError, match=r"00.png is 80 x 120, .* and 6 more differ, but 3 of 12 pictures are 220 "):
        fit_scorer(normals, easy, lent=trunk, strict=True, stretch=False)


@pytest.mark.parametrize(("odd", "refused"), [(2, True), (3, False)])
def test_nine_in_ten_make_a_set_one_of_nearly_one_size(odd: int, refused: bool, tmp_path: Path) -> None:
    """Though no two are cut alike to the pixel, and the odd ones are."""
    for number in range(20 - odd):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), plate(number, height=120, width=160 + number % 9 - 4))
    for number in range(20 - odd, 20):
        cv2.imwrite(str(tmp_path / f"{number:02d}.png"), plate(number, height=120, width=300))
    samples = normals_in(tmp_path).samples
    if refused:
        with pytest.raises(DatasetError, match=r"18.png is 300 x 120, .*19.png is 300 x 120, but 18 of 20 pictures "):
            usual_size(samples, several=None)
    else:
        (height, width), alike = usual_size(samples, several=None)
        assert height == 120 and 156 <= width <= 164 and not alike


def test_a_picture_smaller_than_a_cell_is_refused(trunk: Path, tmp_path: Path) -> None:
    folder = write_normals(tmp_path / "good", pictures=12)
    cv2.imwrite(str(folder / "zzz.png"), np.full((4, 4, 3), 128, np.uint8))
    with pytest.raises(DatasetError, match=r"zzz.png is 4 x 4 px; a network takes pictures from 16 px a side"):
        fit_scorer(normals_in(folder), RECIPE, lent=trunk)


def test_too_few_parts_for_the_rate_are_refused_where_a_station_is_made(trunk: Path, tmp_path: Path) -> None:
    folder = write_normals(tmp_path / "good", pictures=12)
    with pytest.raises(DatasetError, match=r"6 normals are held out .* rate of 0.1 needs 9; give more good parts"):
        fit_scorer(normals_in(folder), RECIPE, lent=trunk, strict=True)
    checkpoint, _, _ = fit_scorer(normals_in(folder), RECIPE, lent=trunk)
    assert checkpoint.line("original").thresholds.guarantee.startswith("none: 6 held-out normals")


def test_blank_pictures_are_refused(trunk: Path, tmp_path: Path) -> None:
    # all of a trunk's channels vary towards a picture's edge, so what cannot vary is the trunk itself
    dead = load_checkpoint(trunk)
    for parameter in dead.network.trunk.parameters():
        parameter.data.zero_()
    save_checkpoint(dead, tmp_path / "dead")
    with pytest.raises(RangeError, match="the trunk says the same of every place of every picture"):
        fit_scorer(normals_in(write_normals(tmp_path / "good", pictures=9)), RECIPE, lent=tmp_path / "dead")


def test_a_trunk_that_is_not_there_is_said(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.scorers.lending.pretrained_weights", lambda: None)
    with pytest.raises(ConfigError, match="a scorer needs a trunk that was trained: name .* in EDGE_SDK_MOBILENETV2"):
        fit_scorer(normals_in(good), RECIPE)
    wrong = tmp_path / "wrong.safetensors"
    from safetensors.torch import save_file

    save_file({"conv1.weight": torch.zeros(1)}, wrong)
    monkeypatch.setattr("training.scorers.lending.pretrained_weights", lambda: wrong)
    with pytest.raises(FormatError, match="the weights lack blocks.0.0.bn1.bias of the trunk; give those of Mobile"):
        fit_scorer(normals_in(good), RECIPE)


def test_a_network_that_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="no scorer named 'knn'; give gaussian, patchcore, stfpm, supersimple"):
        scorer_network(method="knn", height=64, width_px=64)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="the network's input is 72 x 64; give multiples of 16 px"):
        scorer_network(method="gaussian", height=64, width_px=72)
    with pytest.raises(ConfigError, match="rank is 500, but the stages looked at have 152 channels; give 1 to 152"):
        scorer_network(method="gaussian", height=64, width_px=64, rank=500)
    with pytest.raises(ConfigError, match=r"taps is \[7\]; give numbers of stages in rising order, from 0 to 4"):
        scorer_network(method="gaussian", height=64, width_px=64, taps=[7])


def test_a_bundle_is_named_or_a_folder(tmp_path: Path) -> None:
    named = place_of(tmp_path / "press-3-1.bundle", tmp_path / "good parts")
    assert (named.name, named.version) == ("press-3", "1")
    assert (named.folder, named.bundles) == (tmp_path / "press-3-1", tmp_path)
    folder = place_of(tmp_path / "out", tmp_path / "good parts")
    assert (folder.name, folder.version, folder.folder) == ("good-parts", "1", tmp_path / "out")
    with pytest.raises(ConfigError, match="press.bundle names no version; give NAME-VERSION.bundle"):
        place_of(tmp_path / "press.bundle", tmp_path)


@pytest.mark.parametrize(
    ("name", "what"),
    [("press 3-1", "name 'press 3'"), ("_press-1", "name '_press'"), ("press-_1", "version '_1'"),
     ("press-" + "1" * 51, "version '1")],
)  # fmt: skip
def test_a_name_that_no_bundle_takes_is_said_before_anything_is_fitted(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(ConfigError, match=f"no bundle can have the {what}.*; give letters, digits, dots and dashes"):
        place_of(tmp_path / f"{name}.bundle", tmp_path)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_fitted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match=r"nothing can be made in .*press-1/checkpoint: .*file is a file; give an"):
        place_of(tmp_path / "file" / "press-1.bundle", tmp_path)
