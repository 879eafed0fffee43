"""Scorers on pictures that are cut into tiles: fitted on tiles, judged and thresholded as whole pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Sample, load_dataset, read_image
from edge_sdk.quality.localisation import au_pro
from edge_sdk.quality.measures import auroc
from edge_sdk.vision.preprocess import PreprocessSpec, valid_cells
from edge_sdk.vision.tiles import outputs_of_frame, tiles_of
from tests.training.scorers.normal_parts import plate, write_trunk
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data.views import normalised
from training.scorers.cutting import check_alike, cut_or_not, said_of_size
from training.scorers.distances import distances_of, distances_of_pieces, scorer_of
from training.scorers.evaluate import evaluate_scorer, figures_of_maps
from training.scorers.fitting import ScorerRecipe, fit_scorer, highest_of_units
from training.scorers.gaussian import GaussianFit, GaussianHead
from training.scorers.normals import normals_in
from training.scorers.page import write_scorer_page
from training.scorers.patchcore import PatchCoreFit, PatchCoreHead
from training.scorers.pieces import batches, tiles_each
from training.scorers.rim import rim_of, rings

TILES = ScorerRecipe(side_px=64, tile_overlap_px=32, rank=24, bank=60, iterations=3)
HEIGHT, WIDTH = 106, 138
"""Of which neither is a multiple of 32: the last tiles end in padding."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_trunk(tmp_path_factory.mktemp("trunk") / "trunk")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiled") / "good"
    folder.mkdir()
    for number in range(20):
        cv2.imwrite(str(folder / f"{number:03d}.png"), plate(140 + number, height=HEIGHT, width=WIDTH))
    return folder


@pytest.fixture(scope="module")
def fitted(good: Path, trunk: Path) -> Checkpoint:
    return fit_scorer(normals_in(good), TILES, lent=trunk)[0]


def station_map(checkpoint: Checkpoint, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``(h, w)`` distances of a frame and ``(F,)`` its feature, by the station's way."""

    def infer(frame: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            found = scorer_of(checkpoint)(torch.from_numpy(frame.copy()))
        return {"novelty": found.novelty.numpy(), "feature": found.feature.numpy()}

    said = outputs_of_frame(image, checkpoint.preprocess, infer)
    return said["novelty"][0, 0], said["feature"][0]


@pytest.mark.parametrize(
    "method",
    [{}, *({"method": "gaussian", "covariance": covariance} for covariance in ("shared", "block", "diagonal"))],
)
def test_a_picture_of_one_tile_is_a_picture_that_is_not_cut(
    trunk: Path, tmp_path: Path, method: dict[str, str]
) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number}.png"), plate(number, height=96, width=96))
    recipe = TILES.model_copy(update={**method, "side_px": 96})
    whole = recipe.model_copy(update={"tile_overlap_px": None})
    (one, said, _), (other, at_once, _) = (fit_scorer(normals_in(folder), r, lent=trunk) for r in (recipe, whole))
    assert one.preprocess.tile_overlap_px == 32 and other.preprocess.tile_overlap_px is None
    np.testing.assert_array_equal(said.maps, at_once.maps)
    np.testing.assert_array_equal(said.features, at_once.features)
    np.testing.assert_array_equal(one.line("original").normals, other.line("original").normals)


@pytest.mark.parametrize("method", ["gaussian", "patchcore", "stfpm", "supersimple"])
def test_a_picture_is_judged_tile_by_tile_as_the_station_does(
    trunk: Path, good: Path, tmp_path: Path, method: str
) -> None:
    recipe = TILES.model_copy(update={"method": method})
    checkpoint, said, held = fit_scorer(normals_in(good), recipe, lent=trunk)
    save_checkpoint(checkpoint, tmp_path / "scorer")
    read = load_checkpoint(tmp_path / "scorer")
    spec = read.preprocess
    assert (spec.width, spec.height, spec.tile_overlap_px) == (64, 64, 32)
    assert len(tiles_of(spec, HEIGHT, WIDTH)) == 12
    for n, sample in enumerate(held[:3]):
        novelty, feature = station_map(read, read_image(sample))
        shows = valid_cells(spec, HEIGHT, WIDTH, (novelty.shape[0], novelty.shape[1]))
        assert not shows.all() and not novelty[~shows].any() and novelty[shows].min() > 0
        np.testing.assert_allclose(said.maps[n], novelty, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(said.features[n], feature, rtol=1e-4, atol=1e-4)
    # one distance a picture sets the threshold, however many tiles it has
    state = read.line("original")
    assert state.pictures == len(held) == 10
    wanted = sorted(round(value, 6) for value in highest_of_units(said.highest, [one.unit for one in held]))
    np.testing.assert_array_equal(state.normals, np.array(wanted))


def test_the_tiles_of_a_batch_speak_for_each_cell_of_a_picture_once(good: Path) -> None:
    spec = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
    samples = normals_in(good).samples[:3]
    seen = np.zeros((3, 16, 20), int)
    for batch in batches(samples, spec, stride=8):
        assert len(batch.images) <= 8 and batch.images.shape[1:] == (64, 64, 3)
        for number, (row, column), speaks in zip(batch.pictures, batch.corners, batch.speaks, strict=True):
            seen[number, row : row + 8, column : column + 8] += speaks
    shows = valid_cells(spec, HEIGHT, WIDTH, (16, 20))
    assert (seen == shows).all() and 0 < (~shows).sum()


def test_tiles_are_drawn_by_lot_and_alike_whatever_pictures_come_with_them(good: Path) -> None:
    spec = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
    samples = normals_in(good).samples[:4]

    def corners(of: tuple, each: int | None) -> list[tuple[str, int, int]]:
        return [
            (of[number].image, int(row), int(column))
            for batch in batches(of, spec, stride=8, each=each)
            for number, (row, column) in zip(batch.pictures, batch.corners, strict=True)
        ]

    some = corners(samples, 3)
    assert len(some) == 12 and set(some) < set(corners(samples, None))
    assert corners(samples[2:], 3) == some[6:]
    assert len({place[1:] for place in some}) > 3
    assert tiles_each(spec, 100) == 10 and tiles_each(replace(spec, tile_overlap_px=None), 100) is None


@pytest.mark.parametrize("covariance", ["shared", "block", "position", "diagonal"])
def test_a_gaussian_of_tiles_is_that_of_the_cells_that_speak(covariance: str) -> None:
    """Against means and covariances of the same cells one after the other."""
    chance = np.random.default_rng(150)
    maps = chance.normal(3, 1, (30, 3, 4, 4)) * np.array([1.0, 2, 3])[:, None, None]
    speaks = chance.random((30, 4, 4)) < 0.7
    speaks[:, 2:, 2:] = False
    spoiled = torch.from_numpy(np.where(speaks[:, None], maps, 50.0)).float()
    head = GaussianHead([3], [8], stride=8, grid=(4, 4), rank=3, covariance=covariance)  # type: ignore[arg-type]
    fit = GaussianFit(head, torch.ones(3), seed=0)
    for start in (0, 10, 20):
        fit.see(spoiled[start : start + 10], torch.from_numpy(speaks)[start : start + 10])
    fit.finish()
    rows = maps.transpose(0, 2, 3, 1)
    every = rows[speaks]
    side = {"shared": 4, "block": 2}.get(covariance, 1)
    for top in range(0, 4, side):
        for left in range(0, 4, side):
            there = (slice(None), slice(top, top + side), slice(left, left + side))
            own = rows[there][speaks[there]] if covariance != "shared" else every
            own = own if len(own) else every
            mean, spread = own.mean(axis=0), np.cov(own.T, bias=True)
            if covariance == "block" and speaks[there].any():
                spread = (len(own) * spread + 3 * np.cov(every.T, bias=True)) / (len(own) + 3)
            if covariance == "diagonal":
                spread = np.diag(np.diag(spread))
            inverse = np.linalg.inv(spread + 0.01 * np.eye(3))
            if covariance == "shared":
                conv = next(head.joined.children())[0]  # type: ignore[index]
                weight, bias = conv.weight.detach()[:, :, 0, 0].numpy(), conv.bias.detach().numpy()
                np.testing.assert_allclose(weight.T @ weight * 3, inverse, rtol=1e-4, atol=1e-5)
                np.testing.assert_allclose(weight @ mean + bias, 0, atol=1e-4)
                return
            np.testing.assert_allclose(head.mean[0, :, top, left].numpy(), mean, rtol=1e-5)
            if covariance == "diagonal":
                found = np.diag(head.scale[0, :, top, left].numpy() ** 2)
            else:
                place = (top // side) * (4 // side) + left // side
                one = head.whiten.weight.detach()[3 * place : 3 * place + 3, :, 0, 0].numpy()
                found = one.T @ one
            np.testing.assert_allclose(found * 3, inverse, rtol=1e-3, atol=1e-4)


def test_a_rim_of_tiles_is_measured_side_by_side_where_a_side_is_the_pictures_own() -> None:
    chance = np.random.default_rng(151)
    ring = rings((12, 12), 2)
    maps = chance.gamma(16.0, 1 / 16, (200, 12, 12)).astype(np.float32)
    # the left tile's left side is the picture's, the right one's right side, which is stranger; seams do not speak
    speaks = np.ones((200, 12, 12), bool)
    speaks[0::2, :, 10:] = False
    speaks[1::2, :, :2] = False
    maps[0::2, 2:10, :2] *= 2
    maps[1::2, 2:10, 10:] *= 4
    maps[~speaks] = 1e6
    share = rim_of(maps, 2, speaks)
    np.testing.assert_allclose([share[5, 0], share[5, 11], share[5, 5]], [0.5, 0.25, 1], rtol=0.1)
    assert share[ring == 2].min() == 1 and share[0, 5] > 0.8
    # as of pictures where all cells speak
    np.testing.assert_array_equal(rim_of(maps, 2, np.ones_like(speaks)), rim_of(maps, 2))
    assert (rim_of(maps, 2, np.zeros_like(speaks)) == 1).all()


def test_a_picture_is_as_strange_as_its_strangest_tile(fitted: Checkpoint, good: Path) -> None:
    samples = normals_in(good).samples[:5]
    network, spec = scorer_of(fitted), fitted.preprocess
    pieces = distances_of_pieces(network, samples, spec)
    assert len(pieces.maps) == 5 * 12
    np.testing.assert_allclose(
        pieces.highest(np.ones((8, 8))), distances_of(network, samples, spec).highest, rtol=1e-4
    )


def test_pictures_of_several_sizes_are_tiled_each_by_itself(trunk: Path, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number}.png"), plate(number, height=96 + 32 * (number % 3), width=128))
    checkpoint, said, held = fit_scorer(normals_in(folder), TILES, lent=trunk)
    assert said.maps.shape[1:] == (20, 16)
    assert not any("stretched" in note for note in checkpoint.data["notes"])
    for n, sample in enumerate(held):
        image = read_image(sample)
        novelty, _ = station_map(checkpoint, image)
        assert said.maps[n].max() == pytest.approx(novelty.max(), rel=1e-4)
        assert not said.maps[n, image.shape[0] // 8 :].any()
    with pytest.raises(DatasetError, match=r"is 128 x \d+, but .* is 128 x \d+, and pictures that are cut into tiles"):
        fit_scorer(normals_in(folder), TILES.model_copy(update={"alpha": 0.3}), lent=trunk, strict=True)


def test_a_smallest_defect_decides_whether_pictures_are_cut() -> None:
    asked = ScorerRecipe(defect_px=6)
    cut = cut_or_not(asked, (1024, 1024))
    assert (cut.tile_overlap_px, cut.shrink) == (64, None)
    assert cut_or_not(asked, (300, 300)) == asked
    assert cut_or_not(ScorerRecipe(), (4000, 4000)) == ScorerRecipe()
    assert cut_or_not(ScorerRecipe(defect_px=13), (4000, 3000)).shrink == 3
    assert cut_or_not(ScorerRecipe(defect_px=6, tile_overlap_px=96), (1024, 1024)).tile_overlap_px == 96
    with pytest.raises(ConfigError, match="^shrink is 2, and pictures are not cut into tiles; give tile_overlap_px"):
        cut_or_not(ScorerRecipe(shrink=2), (1024, 1024))


def test_what_becomes_of_large_pictures_is_said() -> None:
    whole = PreprocessSpec(width=256, height=256, resize="stretch")
    assert said_of_size(whole, (300, 300)) == ()
    (said,) = said_of_size(whole, (1024, 1024))
    assert said == (
        "pictures of 1024 x 1024 are made 4.0 times smaller, so a defect below about 16 px may be lost; where smaller "
        "ones count, say how small: --defect-px N, and pictures are cut into tiles if need be"
    )
    tiles = PreprocessSpec(width=256, height=256, tile_overlap_px=64, defect_px=6)
    (said,) = said_of_size(tiles, (1024, 1024))
    assert said == (
        "pictures of 1024 x 1024 are cut into 25 tiles of 256 px that share 64 px or more; a frame takes as long as 25 "
        "runs of the network"
    )
    _, said = said_of_size(replace(tiles, shrink=2), (1024, 1024))
    assert said == (
        "a defect of 6 px has 3 px on a tile, and the network tells places of 4 px apart, so it may be missed; leave "
        "--shrink out"
    )


def test_pictures_are_not_both_stretched_and_cut(trunk: Path, good: Path) -> None:
    with pytest.raises(ConfigError, match="^tiles cover pictures of any size, and none is stretched; leave out --str"):
        fit_scorer(normals_in(good), TILES, lent=trunk, stretch=True)
    check_alike(normals_in(good).samples, PreprocessSpec(width=64, height=64, tile_overlap_px=32))


def defective_set(folder: Path, *, masks: bool = True) -> Path:
    """Good plates and dented ones in MVTec's layout."""
    for name in ("train/good", "test/good", "test/dent", "ground_truth/dent"):
        (folder / name).mkdir(parents=True)
    for number in range(14):
        cv2.imwrite(str(folder / f"train/good/{number:02d}.png"), plate(number, height=HEIGHT, width=WIDTH))
    for number in range(6):
        image = plate(60 + number, height=HEIGHT, width=WIDTH)
        cv2.imwrite(str(folder / f"test/good/{number:02d}.png"), image)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[50:66, 70:86] = 255
        image[50:66, 70:86] = np.where(np.indices((16, 16)).sum(axis=0) % 6 < 3, 20, 240)[..., None]
        cv2.imwrite(str(folder / f"test/dent/{number:02d}.png"), image)
        if masks:
            cv2.imwrite(str(folder / f"ground_truth/dent/{number:02d}_mask.png"), mask)
    return folder


def test_padding_makes_no_figure_of_places_better(tmp_path: Path) -> None:
    """A strip of 16 rows on tiles of 64: three quarters of the cells show nothing, at distance 0."""
    samples = []
    for name in ("good", "dent"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), plate(1, height=16, width=64))
        samples.append(Sample(path=tmp_path / f"{name}.png", image=name, label=name, healthy=name == "good"))
    mask = np.zeros((16, 64), np.uint8)
    mask[:, :16] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    samples[1] = replace(samples[1], mask=tmp_path / "mask.png")
    spec = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
    maps = np.zeros((2, 8, 8), np.float32)
    maps[:, :2] = np.random.default_rng(0).random((2, 2, 8)) + 1
    found = figures_of_maps(maps, samples, spec)
    truth = np.zeros((2, 2, 8), bool)
    truth[1, :, :2] = True
    assert found["pixel_auroc"] == pytest.approx(auroc(maps[:, :2].ravel(), truth.ravel()), abs=1e-4)
    assert found["au_pro"] == pytest.approx(au_pro(list(maps[:, :2]), list(truth)), abs=1e-4)


def test_a_scorer_of_tiles_is_evaluated_and_shown_on_whole_pictures(trunk: Path, tmp_path: Path) -> None:
    root = defective_set(tmp_path / "plates")
    recipe = TILES.model_copy(update={"method": "gaussian", "covariance": "shared"})
    checkpoint, said, held = fit_scorer(normals_in(root), recipe, lent=trunk)
    found = evaluate_scorer(checkpoint, [root])
    assert found["auroc"] == 1 and found["pixel_auroc"] > 0.95 and found["au_pro"] > 0.8
    assert found["n"] == 12 and load_dataset(root).samples
    facts = {"method": "gaussian"}
    write_scorer_page(checkpoint, said, held, tmp_path, command="train", facts=facts, title="tiles")
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == min(8, len(held))


def test_a_bank_of_tiles_knows_whose_each_place_is_and_sees_no_padding(
    good: Path, trunk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    see = PatchCoreFit.see

    def noted(self: PatchCoreFit, rows: torch.Tensor, parts: torch.Tensor) -> None:
        seen.append((rows, parts))
        see(self, rows, parts)

    monkeypatch.setattr(PatchCoreFit, "see", noted)
    normals = normals_in(good)
    checkpoint, _, held = fit_scorer(normals, TILES, lent=trunk)
    network, known = scorer_of(checkpoint), {one.image for one in held}
    fits = [one for one in normals.samples if one.image not in known]
    rows, parts = (torch.cat(column) for column in zip(*seen, strict=True))
    assert len(rows) == len(parts) and isinstance(network.head, PatchCoreHead)
    for number, sample in enumerate(sorted(fits, key=lambda one: one.unit)):
        own = []
        for batch in batches([sample], checkpoint.preprocess, stride=8):
            assert not batch.speaks.all()
            with torch.no_grad():
                places = network.head.joined(network.stages(normalised(batch.images, checkpoint.preprocess)))
            own.append(places.permute(0, 2, 3, 1)[torch.from_numpy(batch.speaks)])
        torch.testing.assert_close(rows[parts == number], torch.cat(own))
