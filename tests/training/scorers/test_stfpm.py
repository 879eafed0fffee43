"""A student beside a frozen trunk, against the equations written out; its training is the same for a seed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from edge_sdk.vision.preprocess import PreprocessSpec
from export.graph import kept_in_float, onnx_from_torch
from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.checkpoint import digest_of
from training.networks.cellnet import trunk_of
from training.scorers.distances import distances_of, scorer_of
from training.scorers.embedding import Stages
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.network import ScorerNetwork, scorer_network
from training.scorers.normals import normals_in
from training.scorers.stfpm import FLOOR, TINY, StudentHead, fit_student
from training.train import quiet

CHANNELS, STRIDES = (3, 5, 4), (4, 8, 16)
SPEC = PreprocessSpec(width=64, height=64)


def maps(seed: int, pictures: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(pictures, channels, 64 // stride, 96 // stride, generator=generator) * stride
        for channels, stride in zip(CHANNELS, STRIDES, strict=True)
    ]


def head_with(lengths: tuple[float, ...] = (1, 1, 1), usual: tuple[float, ...] = (1, 1, 1)) -> StudentHead:
    head = StudentHead(CHANNELS, STRIDES, stride=8)
    for one, length, middle in zip(head.stages(), lengths, usual, strict=True):
        one.inverse_length.fill_(1 / length)
        one.inverse_usual.fill_(1 / middle)
    return head


def distance_slowly(taught: np.ndarray, learnt: np.ndarray) -> np.ndarray:
    """Eq. 1 and 2, place by place."""
    n, _, h, w = taught.shape
    found = np.zeros((n, h, w))
    for k in range(n):
        for y in range(h):
            for x in range(w):
                a, b = taught[k, :, y, x], learnt[k, :, y, x]
                off = a / np.sqrt(a @ a + TINY) - b / np.sqrt(b @ b + TINY)
                found[k, y, x] = 0.5 * off @ off
    return found


def test_a_stage_differs_by_half_the_squared_distance_of_unit_features() -> None:
    taught, learnt = maps(110), maps(111)
    found = head_with().distances(taught, learnt)
    for one, a, b in zip(found, taught, learnt, strict=True):
        np.testing.assert_allclose(one[:, 0].numpy(), distance_slowly(a.numpy(), b.numpy()), atol=1e-5)


def test_a_length_in_common_changes_nothing_and_a_feature_against_itself_is_at_zero() -> None:
    taught, learnt = maps(112), maps(113)
    plain = head_with().distances(taught, learnt)
    scaled = head_with((5, 0.3, 10)).distances(taught, learnt)
    for one, other in zip(plain, scaled, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    assert all(float(one.max()) == 0 for one in head_with().distances(taught, taught))


def test_the_map_is_the_root_of_the_product_of_stages_on_one_grid() -> None:
    taught, learnt = maps(114), maps(115)
    usual = (0.5, 0.25, 2.0)
    found = head_with(usual=usual)(taught, learnt)[:, 0].numpy()
    whole = np.ones_like(found)
    for number, stride in enumerate(STRIDES):
        ratio = distance_slowly(taught[number].numpy(), learnt[number].numpy()) / usual[number] + FLOOR
        if stride == 4:
            ratio = ratio.reshape(2, 8, 2, 12, 2).mean(axis=(2, 4))
        if stride == 16:
            ratio = np.stack([enlarged(one) for one in ratio])
        whole *= ratio
    np.testing.assert_allclose(found, whole ** (1 / 3), rtol=1e-4)
    order = np.argsort(found, axis=None)
    assert (np.diff(whole.ravel()[order]) >= -1e-6).all()


def enlarged(x: np.ndarray) -> np.ndarray:
    """Twice as large, linearly between the middles of cells."""
    at = [(np.arange(2 * side) + 0.5) / 2 - 0.5 for side in x.shape]
    for axis, where in enumerate(at):
        low = np.floor(where).astype(int)
        share = (where - low).reshape((-1, 1) if axis == 0 else (1, -1))
        last = x.shape[axis] - 1
        x = np.take(x, np.clip(low, 0, last), axis) * (1 - share) + np.take(x, np.clip(low + 1, 0, last), axis) * share
    return x


def test_features_that_never_fire_give_finite_distances_and_gradients() -> None:
    taught = [torch.zeros_like(one) for one in maps(116)]
    learnt = [torch.zeros_like(one).requires_grad_() for one in taught]
    found = head_with().distances(taught, learnt)
    assert all(float(one.detach().abs().max()) == 0 for one in found)
    sum(one.mean() for one in found).backward()  # type: ignore[union-attr]
    assert all(torch.isfinite(one.grad).all() for one in learnt if one.grad is not None)


def pair() -> tuple[Stages, Stages, StudentHead]:
    """A teacher with weights by lot, and its student."""
    torch.manual_seed(117)
    found = scorer_network(method="stfpm", height=64, width_px=64, trunk="resnet18", width=0.125, stages=3)
    assert found.student is not None and isinstance(found.head, StudentHead)
    return found.stages, found.student, found.head


def trained(images: np.ndarray, *, resume: Path | None = None, iterations: int = 30, seed: int = 118,
            fail_at: int | None = None) -> tuple[Stages, Stages, StudentHead, list[float]]:  # fmt: skip
    stages, student, head = pair()
    losses: list[float] = []

    def progress(what: str, step: int, steps: int, terms: object) -> None:
        assert (what, steps) == ("fit stfpm", iterations)
        losses.append(sum(terms.values()))  # type: ignore[attr-defined]
        if step == fail_at:
            raise KeyboardInterrupt

    fit_student(stages, student, head, images, SPEC, iterations=iterations, seed=seed, resume=resume, told="plates",
                progress=progress)  # fmt: skip
    return stages, student, head, losses


PLATES = np.stack([plate(number, height=64, width=64) for number in range(6)])


def test_the_student_comes_to_say_what_the_teacher_says_of_good_parts() -> None:
    _, _, head, losses = trained(PLATES)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert all(0 < 1 / float(one.inverse_usual) < 1 for one in head.stages())


def test_a_training_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    kept = tmp_path / "resume.safetensors"
    with pytest.raises(KeyboardInterrupt):
        trained(PLATES, resume=kept, fail_at=28)
    assert kept.exists()
    _, again, _, losses = trained(PLATES, resume=kept)
    _, whole, _, _ = trained(PLATES)
    assert len(losses) == 5 and not kept.exists()
    for one, other in zip(again.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_one_normal_is_enough_to_train_on_and_the_teacher_stays() -> None:
    before = [one.clone() for one in pair()[0].state_dict().values()]
    stages, student, head, _ = trained(PLATES[:1], iterations=5)
    assert all(torch.equal(one, other) for one, other in zip(before, stages.state_dict().values(), strict=True))
    with torch.no_grad():
        frames = torch.randn(1, 3, 64, 64)
        assert torch.isfinite(head(stages(frames), student(frames))).all()


def test_one_seed_makes_one_student_and_another_another(tmp_path: Path) -> None:
    trunk, good = write_trunk(tmp_path / "trunk"), normals_in(write_normals(tmp_path / "good"))
    recipe = ScorerRecipe(method="stfpm", side_px=96, alpha=0.1, iterations=8)
    first, said, held = fit_scorer(good, recipe, lent=trunk, progress=quiet)
    again, _, _ = fit_scorer(good, recipe, lent=trunk)
    other, _, _ = fit_scorer(good, recipe.model_copy(update={"seed": 1}), lent=trunk)
    assert digest_of(first) == digest_of(again) != digest_of(other)
    np.testing.assert_allclose(distances_of(scorer_of(first), held, first.preprocess).maps, said.maps, rtol=1e-5)
    assert 0.3 < float(np.median(said.maps)) < 3


def convolutions(stages: Stages) -> list[str]:
    return [f"{name}." for name, one in stages.named_modules() if isinstance(one, torch.nn.Conv2d)]


def test_both_trunks_are_rounded_and_nothing_that_compares_them() -> None:
    stages, student, head = pair()
    network = ScorerNetwork(stages, head, student)
    model = onnx_from_torch(network, SPEC)
    kept = set(kept_in_float(network, model))
    rounded = Counter(node.op_type for node in model.graph.node if node.name not in kept)
    assert rounded.keys() <= {"Conv", "Relu", "Add", "MaxPool", "ReduceMean", "Clip"}
    first = tuple(f"trunk.{part}." for part in stages.first_parts())
    beyond = [one for one in convolutions(stages) if not one.startswith(first)]
    assert 0 < len(beyond) < len(convolutions(stages))
    assert rounded["Conv"] == 2 * len(beyond)
    assert {"Sub", "Div", "ReduceSum", "Pow", "Resize", "AveragePool"} <= {
        node.op_type for node in model.graph.node if node.name in kept
    }


def test_the_student_has_the_architecture_of_the_trunk() -> None:
    stages, student, _ = pair()
    assert {k: v.shape for k, v in stages.state_dict().items()} == {k: v.shape for k, v in student.state_dict().items()}
    assert isinstance(student.trunk, type(trunk_of("resnet18", width=0.125, stages=3)))
