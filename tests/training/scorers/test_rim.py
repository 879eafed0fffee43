"""The border of a picture, which is strange in every picture, hides no defect inside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edge_sdk.errors import ConfigError
from edge_sdk.quality.measures import auroc
from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.checkpoint import load_checkpoint, save_checkpoint
from training.data.views import normalised
from training.scorers import fitting
from training.scorers.distances import PieceDistances, distances_as_new, distances_of_pieces, scorer_of
from training.scorers.embedding import averaged
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.network import scorer_network
from training.scorers.normals import Normals, normals_in
from training.scorers.patchcore import PatchCoreHead
from training.scorers.pieces import batches
from training.scorers.rim import Rim, rim_of, rings


def test_rings_are_counted_from_the_nearest_border_and_leave_an_interior() -> None:
    np.testing.assert_array_equal(
        rings((5, 6), 2), [[0] * 6, [0, 1, 1, 1, 1, 0], [0, 1, 2, 2, 1, 0], [0, 1, 1, 1, 1, 0], [0] * 6]
    )
    assert rings((4, 40), 4).max() == 1
    assert rings((1, 7), 4).max() == 0
    assert (rings((9, 9), 0) == 0).all()


def test_distances_of_normals_come_out_alike_in_every_ring_and_none_is_enlarged() -> None:
    chance = np.random.default_rng(130)
    ring = rings((12, 14), 3)
    grown = np.array([2.0, 1.5, 0.5, 1.0])[ring]
    maps = (chance.gamma(9.0, 0.1, (200, 12, 14)) * grown).astype(np.float32)
    share = rim_of(maps, 3)
    np.testing.assert_allclose([share[ring == r].mean() for r in range(4)], [0.5, 1 / 1.5, 1, 1], rtol=0.05)
    assert share.max() == 1 and share[ring >= 2].min() == 1


@pytest.mark.parametrize("maps", [np.zeros((3, 8, 8)), np.ones((1, 1, 1)), np.ones((2, 2, 9))])
def test_a_grid_too_small_for_rings_and_distances_that_do_not_vary_stay_as_they_are(maps: np.ndarray) -> None:
    assert (rim_of(maps.astype(np.float32), 4) == 1).all()


def test_a_defect_inside_is_seen_though_every_picture_is_stranger_at_its_border() -> None:
    chance = np.random.default_rng(131)
    ring = rings((16, 16), 2)
    maps = (chance.gamma(16.0, 1 / 16, (120, 16, 16)) * np.where(ring == 0, 3.0, 1.0)).astype(np.float32)
    spoiled = np.arange(120) >= 60
    maps[spoiled, 8, 8] = 3.5
    rim = Rim((16, 16), 2)
    rim.set_from(maps[:30])
    evened = rim(torch.from_numpy(maps[30:, None])).numpy()
    assert auroc(maps[30:].max(axis=(1, 2)), spoiled[30:]) < 0.7
    assert auroc(evened.max(axis=(1, 2, 3)), spoiled[30:]) > 0.99


@pytest.mark.parametrize("method", ["gaussian", "patchcore"])
def test_a_fitted_scorer_keeps_its_rim_and_one_of_before_loads_without(tmp_path: Path, method: str) -> None:
    torch.set_num_threads(1)
    trunk, good = write_trunk(tmp_path / "trunk"), write_normals(tmp_path / "good", pictures=12)
    recipe = ScorerRecipe(method=method, side_px=96, rank=40, bank=100)  # type: ignore[arg-type]
    checkpoint, _, _ = fit_scorer(normals_in(good), recipe, lent=trunk)
    save_checkpoint(checkpoint, tmp_path / "scorer")
    network = scorer_of(load_checkpoint(tmp_path / "scorer"))
    assert network.rim is not None
    share = network.rim.share[0, 0].numpy()
    assert share.max() == 1 and (share > 0).all()
    frame = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(132))
    with torch.no_grad():
        whole, bare = network(frame).novelty, network.head(network.stages(frame))
        bare = averaged(bare) if method == "patchcore" else bare
    torch.testing.assert_close(whole, bare * network.rim.share)
    before = {name: value for name, value in checkpoint.arguments.items() if name != "rim"}
    old = scorer_network(**before)
    if method == "patchcore":
        assert isinstance(network.head, PatchCoreHead) and network.head.joined.fade
        plain = scorer_network(**{name: value for name, value in before.items() if name != "fade"})
        assert isinstance(plain.head, PatchCoreHead) and not plain.head.joined.fade
    old.load_state_dict({name: one for name, one in network.state_dict().items() if not name.startswith("rim.")})
    with torch.no_grad():
        torch.testing.assert_close(old(frame).novelty, bare)
        rough = scorer_network(**{name: value for name, value in before.items() if name != "smooth"})
        rough.load_state_dict(old.state_dict())
        torch.testing.assert_close(rough(frame).novelty, network.head(network.stages(frame)))


def test_smoothing_is_the_mean_of_the_cells_about_each_that_there_are() -> None:
    network = scorer_network(
        method="patchcore", trunk="resnet18", width=0.125, height=48, width_px=64, rank=8, bank=5, smooth=True
    )
    frame = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(133))
    with torch.no_grad():
        found, rough = network(frame).novelty[:, 0].numpy(), network.head(network.stages(frame))[:, 0].numpy()
    assert found.shape == rough.shape == (2, 6, 8)
    for y in range(6):
        for x in range(8):
            about = rough[:, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            np.testing.assert_allclose(found[:, y, x], about.mean(axis=(1, 2)), rtol=1e-5)


def test_what_a_ring_holds_follows_the_coarsest_stage() -> None:
    network = scorer_network(
        method="gaussian", trunk="resnet18", width=0.125, height=128, width_px=128, rank=8, stride=4, rim=True
    )
    assert network.rim is not None and network.rim.count == 2 * 16 // 4
    with pytest.raises(ConfigError, match="give multiples of 16 px"):
        scorer_network(method="gaussian", trunk="resnet18", width=0.125, height=120, width_px=128, rank=8, rim=True)


def test_a_bank_judges_the_border_of_its_own_parts_as_if_it_did_not_know_them(tmp_path: Path) -> None:
    """Each part's border is strange in its own way: the bank is full of borders, and its own parts look ordinary."""
    torch.set_num_threads(1)
    (tmp_path / "good").mkdir()
    for number in range(24):
        rough = np.random.default_rng(number).integers(0, 255, (12, 16, 3)).astype(np.uint8)
        frame = cv2.resize(rough, (128, 96), interpolation=cv2.INTER_NEAREST)
        frame[12:-12, 12:-12] = plate(number)[12:-12, 12:-12]
        cv2.imwrite(str(tmp_path / "good" / f"{number}.png"), frame)
    normals, recipe = normals_in(tmp_path / "good"), ScorerRecipe(method="patchcore", side_px=96, rank=40)
    checkpoint, _, held = fit_scorer(normals, recipe, lent=write_trunk(tmp_path / "trunk"))
    network, known = scorer_of(checkpoint), {one.image for one in held}
    fits = [one for one in normals.samples if one.image not in known]
    assert network.rim is not None
    share = network.rim.share.clone()
    network.rim.share.fill_(1)
    by_heart = rim_of(distances_of_pieces(network, fits, checkpoint.preprocess).maps, network.rim.count)
    assert float(share.min()) < 0.9 < 0.95 < by_heart.min()


def test_what_is_left_out_of_a_bank_is_each_pictures_own_part(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    samples = normals_in(write_normals(tmp_path / "good", pictures=12)).samples
    recipe = ScorerRecipe(method="patchcore", side_px=96, rank=40, bank=60)
    checkpoint, _, _ = fit_scorer(
        Normals(tmp_path / "good", samples, ()), recipe, lent=write_trunk(tmp_path / "trunk")
    )
    network = scorer_of(checkpoint)
    some, head = samples[:3], network.head
    assert isinstance(head, PatchCoreHead) and head.bank.bias is not None
    remembered = np.array([some[number % 3].unit for number in range(60)])
    found = distances_as_new(network, some, checkpoint.preprocess, remembered=remembered)
    assert found.pictures.tolist() == [0, 1, 2] and found.speaks.all()
    weight, bias = head.bank.weight.clone(), head.bank.bias.clone()
    for number, one in enumerate(some):
        others = torch.from_numpy(remembered != one.unit)
        head.bank.weight = nn.Parameter(weight[others], requires_grad=False)
        head.bank.bias = nn.Parameter(bias[others], requires_grad=False)
        head.bank.out_channels = int(others.sum())
        expected = distances_of_pieces(network, [one], checkpoint.preprocess).maps[0]
        np.testing.assert_allclose(found.maps[number], expected, rtol=1e-5)
    # a bank of one part has no others
    alone = np.full(int(others.sum()), some[2].unit)
    known = distances_as_new(network, some[2:], checkpoint.preprocess, remembered=alone)
    np.testing.assert_array_equal(known.maps[0], expected)


def test_a_feature_of_the_bank_is_its_parts_of_whichever_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_num_threads(1)
    folder = write_normals(tmp_path / "good", pictures=24)
    table = [f"{number:03d}.png,good,part {number % 12}" for number in range(24)]
    (folder / "labels.csv").write_text("\n".join(["image,label,group", *table]))
    told: list[np.ndarray] = []

    def noted(*given: Any, remembered: np.ndarray, **more: Any) -> PieceDistances:
        told.append(remembered)
        return distances_as_new(*given, remembered=remembered, **more)

    monkeypatch.setattr(fitting, "distances_as_new", noted)
    recipe = ScorerRecipe(method="patchcore", side_px=96, rank=40, bank=100)
    checkpoint, _, held = fit_scorer(normals_in(folder), recipe, lent=write_trunk(tmp_path / "trunk"))
    network, known = scorer_of(checkpoint), {one.image for one in held}
    assert isinstance(network.head, PatchCoreHead)
    bank = network.head.bank.weight[:, :, 0, 0] / -2
    owners: list[set[str]] = [set() for _ in bank]
    for sample in normals_in(folder).samples:
        for batch in batches([sample], checkpoint.preprocess, stride=8):
            with torch.no_grad():
                places = network.head.joined(network.stages(normalised(batch.images, checkpoint.preprocess)))
            off = torch.cdist(bank, places[0].flatten(1).T, compute_mode="donot_use_mm_for_euclid_dist").amin(dim=1)
            for number in torch.nonzero(off < 1e-5).flatten().tolist():
                owners[number].add(sample.unit)
                assert sample.image not in known
    assert [{unit} for unit in told[0].tolist()] == owners
    assert len(set(told[0])) == 6
