"""Two heads taught by noise and by defects, against the equations written out."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.measures import auroc
from edge_sdk.vision.preprocess import PreprocessSpec
from export.graph import kept_in_float, onnx_from_torch, unrounded
from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.checkpoint import digest_of
from training.scorers.distances import distances_of, scorer_of
from training.scorers.embedding import joined_maps
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.network import scorer_network
from training.scorers.normals import Normals, normals_in
from training.scorers.supersimple import (
    PERLIN,
    SuperSimpleHead,
    Taught,
    fit_supersimple,
    focal,
    perlin,
    spots,
    truncated,
)
from training.scorers.trained import mirrored
from training.train import quiet

RECIPE = ScorerRecipe(method="supersimple", side_px=96, rank=40, alpha=0.1, iterations=60)


def drawn(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 1, 5, 6, generator=generator) * 2
    truth = (torch.rand(2, 1, 5, 6, generator=generator) > 0.7).float()
    known = (torch.rand(2, 1, 5, 6, generator=generator) > 0.3).float()
    return logits, truth, known


def test_the_losses_agree_with_the_printed_equations() -> None:
    logits, truth, known = drawn(130)
    good, bad, light = [], [], []
    for x, y, k in zip(logits.ravel().tolist(), truth.ravel().tolist(), known.ravel().tolist(), strict=True):
        if not k:
            continue
        (bad if y else good).append(max(0.0, 0.5 - x) if y else max(0.0, x + 0.5))
        q = 1 / (1 + np.exp(-x if y else x))
        light.append(-((1 - q) ** 4) * np.log(q))
    assert float(truncated(logits, truth, known)) == pytest.approx(np.mean(good) + np.mean(bad), rel=1e-5)
    assert float(focal(logits, truth, known)) == pytest.approx(np.mean(light), rel=1e-5)


def test_what_nobody_knows_adds_no_loss_and_no_gradient() -> None:
    logits, truth, known = drawn(131)
    logits.requires_grad_()
    (truncated(logits, truth, known) + focal(logits, truth, known)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool((logits.grad[known == 0] == 0).all())
    nothing = torch.zeros_like(known)
    assert float(truncated(logits, truth, nothing).detach()) == float(focal(logits, truth, nothing).detach()) == 0
    healthy = torch.zeros_like(truth)
    assert np.isfinite(float(truncated(logits, healthy, known).detach()))


def test_a_very_sure_head_gives_finite_gradients() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    focal(logits, torch.tensor([[1.0, 0.0]]), torch.ones(1, 2)).backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None and bool(torch.isfinite(logits.grad).all())


def test_noise_is_smooth_within_a_cell_and_nothing_at_its_corners() -> None:
    found = perlin((64, 96), (4, 3), np.random.default_rng(132))
    assert found.shape == (64, 96) and 0.3 < np.abs(found).max() <= 1
    assert np.abs(np.diff(found, axis=0)).max() < 0.3 and np.abs(np.diff(found, axis=1)).max() < 0.3
    corners = found[[15, 16, 31, 32, 47, 48]][:, [31, 32, 63, 64]]
    assert np.abs(corners).max() < 0.1
    again = perlin((64, 96), (4, 3), np.random.default_rng(132))
    np.testing.assert_array_equal(found, again)


def test_spots_cover_some_places_and_differ_from_picture_to_picture() -> None:
    found = spots(40, (12, 16), np.random.default_rng(133))
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert 0.1 < float(found.mean()) < 0.5
    assert not torch.equal(found[0], found[1])
    assert 0 < PERLIN < 1


def features(pictures: int, seed: int, *, lifted: bool = False) -> tuple[Tensor, Tensor]:
    """Maps of 12 channels in 4 directions, and where a defect lifts them out of these."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(12, 4, generator=torch.Generator().manual_seed(1))
    rows = torch.einsum("nkhw,dk->ndhw", torch.randn(pictures, 4, 8, 8, generator=generator), mix) / 2
    mask = torch.zeros(pictures, 8, 8)
    if lifted:
        mask[:, 2:5, 3:6] = 1
        rows = rows + 1.5 * mask[:, None] * torch.randn(12, generator=torch.Generator().manual_seed(2))[:, None, None]
    return rows, mask


def looked_at(maps: Tensor) -> Tensor:
    return joined_maps(torch.split(maps, (4, 8), dim=1), (8, 8), 8)


def taught_head(defects: int, *, known: bool = True, seed: int = 134) -> tuple[SuperSimpleHead, list[dict[str, float]]]:
    head = SuperSimpleHead((4, 8), (8, 8), stride=8, rank=12).eval()
    good, _ = features(20, 135)
    bad, masks = features(defects, 136, lifted=True)
    said: list[dict[str, float]] = []
    given, sure = (masks, torch.ones_like(masks)) if known else (torch.zeros_like(masks), torch.zeros_like(masks))
    fit_supersimple(
        head,
        Taught(looked_at(good), looked_at(bad), given, sure, torch.ones(defects, dtype=torch.bool)),
        torch.zeros(12),
        torch.ones(12),
        iterations=40,
        seed=seed,
        resume=None,
        told="features",
        progress=lambda what, step, steps, terms: said.append(dict(terms)),
    )
    return head, said


@pytest.mark.parametrize(("defects", "known"), [(0, True), (6, True), (6, False)])
def test_what_lies_off_the_normals_is_strange_with_masks_without_and_without_a_defect(
    defects: int, known: bool
) -> None:
    head, said = taught_head(defects, known=known)
    first, last = (np.mean([sum(one.values()) for one in part]) for part in (said[:5], said[-5:]))
    assert last < 0.7 * first
    rows, mask = features(10, 137, lifted=True)
    normal, _ = features(10, 138)
    with torch.no_grad():
        strange, usual = (head(torch.split(one, (4, 8), dim=1))[:, 0] for one in (rows, normal))
    assert float(strange[mask > 0].median()) > float(usual.quantile(0.95))
    assert 0.2 < float(usual.median()) < 2
    assert float(head.heard) == (1 if defects else 0)


def test_the_same_seed_makes_the_same_heads_and_another_others() -> None:
    first, again, other = taught_head(3), taught_head(3), taught_head(3, seed=139)
    assert first[1] == again[1] != other[1]
    for name, tensor in first[0].state_dict().items():
        torch.testing.assert_close(again[0].state_dict()[name], tensor, rtol=0, atol=0)


def test_without_a_defect_the_pictures_judgement_moves_nothing_below_it() -> None:
    head = SuperSimpleHead((4, 8), (8, 8), stride=8, rank=12)
    head.requires_grad_(True)
    adapted = torch.randn(2, 12, 8, 8, requires_grad=True)
    _, picture = head.judge(adapted, apart=True)
    picture.sum().backward()
    assert adapted.grad is None and all(one.grad is None for one in head.judge.places.parameters())
    _, picture = head.judge(adapted)
    picture.sum().backward()
    assert adapted.grad is not None and bool((adapted.grad != 0).any())


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return write_trunk(tmp_path_factory.mktemp("trunk") / "ckpt")


def labelled(root: Path, *, defects: int) -> Path:
    """Good plates and dented ones, some of them with masks, as a data set."""
    (root / "masks").mkdir(parents=True)
    write_normals(root / "images", pictures=40)
    rows = [(f"images/{n:03d}.png", "good", "") for n in range(40)]
    for number in range(defects):
        whole, dented = plate(700 + number), plate(700 + number, dent=True)
        cv2.imwrite(str(root / "images" / f"d{number:02d}.png"), dented)
        mask = ""
        if number % 2:
            mask = f"masks/d{number:02d}.png"
            cv2.imwrite(str(root / mask), 255 * (np.abs(dented.astype(int) - whole).max(axis=2) > 60).astype(np.uint8))
        rows.append((f"images/d{number:02d}.png", "dent", mask))
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "label", "mask"), *rows])
    return root


def test_defects_of_part_train_teach_and_are_told_and_those_of_part_test_do_not(trunk: Path, tmp_path: Path) -> None:
    normals = normals_in(labelled(tmp_path / "set", defects=20))
    assert 0 < len(normals.defects) < 20
    checkpoint, _, _ = fit_scorer(normals, RECIPE, lent=trunk)
    count, masks = len(normals.defects), sum(one.mask is not None for one in normals.defects)
    said = f"{count} defects of the set's part train teach beside noise, {masks} of them with a mask"
    assert said in checkpoint.data["notes"] and checkpoint.data["defects"] == count
    assert len(checkpoint.line("original").trained_on) == count + len(normals.samples)
    others = RECIPE.model_copy(update={"method": "gaussian"})
    plain, _, _ = fit_scorer(normals, others, lent=trunk)
    assert plain.data["defects"] == 0 and len(plain.line("original").trained_on) == len(normals.samples)


def test_good_parts_alone_find_a_dent_and_say_that_none_was_shown(trunk: Path, tmp_path: Path) -> None:
    normals = normals_in(write_normals(tmp_path / "good"))
    first, _, _ = fit_scorer(normals, RECIPE, lent=trunk)
    again, _, _ = fit_scorer(normals, RECIPE, lent=trunk)
    assert digest_of(first) == digest_of(again)
    assert "no defect is known, so noise on good parts alone teaches" in first.data["notes"]
    samples = []
    for number in range(12):
        path = tmp_path / f"{number:02d}.png"
        cv2.imwrite(str(path), plate(300 + number, dent=number >= 6))
        samples.append(Sample(path=path, image=path.name, label=""))
    found = distances_of(scorer_of(first), samples, first.preprocess, progress=quiet)
    assert auroc(found.highest, np.arange(12) >= 6) >= 0.9


def test_defects_without_a_single_mask_teach_too(trunk: Path, tmp_path: Path) -> None:
    normals = normals_in(labelled(tmp_path / "set", defects=8))
    bare = tuple(Sample(path=one.path, image=one.image, label=one.label, healthy=False) for one in normals.defects)
    told = Normals(normals.root, normals.samples, normals.notes, bare)
    checkpoint, _, _ = fit_scorer(told, RECIPE.model_copy(update={"iterations": 10}), lent=trunk)
    assert f"{len(bare)} defects of the set's part train teach beside noise, 0 of them" in checkpoint.data["notes"][-2]


def test_a_defect_that_somebody_drew_is_shown_mirrored_and_a_mirrored_part_is_no_good_one() -> None:
    chance = np.random.default_rng(140)
    shown = [chance.integers(0, 256, (size, 16, 16, 3), np.uint8) for size in (2, 1)]
    masks = torch.from_numpy(chance.integers(0, 2, (3, 2, 2)).astype(np.float32))
    images, where, known, whole = mirrored(shown, masks, torch.tensor([True, False, True]), most=9)
    every = np.concatenate(images)
    assert len(every) == len(where) == len(known) == len(whole) == 3 + 3 * 2
    assert whole.tolist() == [True] * 3 + [False] * 6
    np.testing.assert_array_equal(every[:3], np.concatenate(shown))
    np.testing.assert_array_equal(every[3], shown[0][0, ::-1])
    np.testing.assert_array_equal(where[3], masks[0].flip(0))
    np.testing.assert_array_equal(every[8], shown[1][0, ::-1, ::-1])
    np.testing.assert_array_equal(where[8], masks[2].flip(0, 1))
    assert bool((known[0] == 1).all()) and bool((known[1] == 0).all())
    assert torch.equal(known[3:], where[3:])


@pytest.mark.parametrize(("most", "more"), [(1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (100, 2)])
def test_mirrored_defects_take_the_room_that_is_left_and_no_other_ones_place(most: int, more: int) -> None:
    shown, masks = [np.zeros((3, 16, 16, 3), np.uint8)], torch.ones(3, 2, 2)
    images, where, known, whole = mirrored(shown, masks, torch.tensor([True, False, True]), most=most)
    assert sum(map(len, images)) == len(where) == len(known) == len(whole) == 3 + 3 * more
    assert known[:3, 0, 0].tolist() == [1, 0, 1]


def test_of_a_mirrored_part_neither_a_place_beside_the_defect_nor_the_picture_is_learned() -> None:
    good, _ = features(4, 141)
    bad, masks = features(2, 142, lifted=True)
    taught = Taught(good, bad, masks, masks, torch.zeros(2, dtype=torch.bool))
    rows, where, known, defective, whole = taught.drawn(np.random.default_rng(143))
    assert len(rows) == len(where) == 6
    assert defective.tolist() == [False] * 4 + [True] * 2
    assert whole.tolist() == [True] * 4 + [False] * 2
    assert torch.equal(known[defective], where[defective]) and bool((known[~defective] == 1).all())


def test_nothing_is_rounded_since_its_heads_look_for_noise() -> None:
    network = scorer_network(
        method="supersimple", height=64, width_px=64, trunk="resnet18", width=0.125, stages=3, rank=20
    )
    model = onnx_from_torch(network, PreprocessSpec(width=64, height=64))
    kept = set(kept_in_float(network, model))
    rounded = {node.op_type for node in model.graph.node if node.name not in kept}
    assert not {"Conv", "Add", "Mul"} & rounded
    assert not {"Loop", "NonZero", "GatherND", "TopK"} & {node.op_type for node in model.graph.node}
    assert unrounded(network, model, tuple(kept)) == (
        "no layer is rounded to INT8, and its INT8 graphs are as large and as slow as FP32: supersimple is trained to "
        "tell noise from good parts, and takes the rounding of its trunk for noise; where a station needs INT8's pace, "
        "take another method, e.g. gaussian"
    )


def test_a_scorer_whose_trunk_is_rounded_is_not_said_to_stay_in_float() -> None:
    network = scorer_network(
        method="gaussian", height=64, width_px=64, trunk="resnet18", width=0.125, stages=3, rank=20
    )
    model = onnx_from_torch(network, PreprocessSpec(width=64, height=64))
    kept = kept_in_float(network, model)
    assert kept and unrounded(network, model, kept) == ""

