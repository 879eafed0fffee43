"""Pretraining without labels: its losses against slow versions, what it leaves, and that a training starts from it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edge_sdk.errors import ConfigError, DatasetError, FormatError
from edge_sdk.quality.datasets import deal, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.drawn import SMALL, write_set
from tests.training.test_cli import done, last_line, run
from training.checkpoint import load_checkpoint
from training.losses.pretraining import (
    contrast_of_views,
    masked_restoration,
    restoration,
    similarity_of_views,
)
from training.networks.mobilenet import MobileNetV2
from training.pretrain import OBJECTIVES, Objective, pictures_of, pretrain
from training.trunk_file import arguments_of, save_trunk

TAU = 0.2
SPEC = PreprocessSpec(width=32, height=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
BRIEF = SMALL.model_copy(update={"iterations": 4, "batch": 4, "stages": 2})


def images(count: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)


def drawn(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_contrast_of_views_agrees_with_the_printed_equation() -> None:
    one, other = drawn(5, 1), drawn(5, 2)
    z = [row / row.norm() for row in torch.cat([one, other])]
    total = 0.0
    for i in range(10):
        again = (i + 5) % 10
        below = sum(math.exp((z[i] @ z[j]).item() / TAU) for j in range(10) if j != i)
        total -= math.log(math.exp((z[i] @ z[again]).item() / TAU) / below)
    assert contrast_of_views(one, other).item() == pytest.approx(total / 10, abs=1e-9)


def test_similarity_agrees_with_the_printed_equation_and_stops_the_gradient() -> None:
    one, other, guess, guess_other = (drawn(4, n).requires_grad_() for n in range(4))
    loss = similarity_of_views(one, other, guess, guess_other)

    def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(np.mean([(x @ y / x.norm() / y.norm()).item() for x, y in zip(a, b, strict=True)]))

    assert loss.item() == pytest.approx(-(cosine(guess, other) + cosine(guess_other, one)) / 2, abs=1e-9)
    slopes = torch.autograd.grad(loss, (one, other, guess, guess_other), allow_unused=True)
    assert slopes[0] is slopes[1] is None
    assert all(slope is not None and slope.abs().sum() > 0 for slope in slopes[2:])


def test_restoration_counts_every_place_and_masked_the_hidden_ones_alone() -> None:
    made, picture = torch.zeros(2, 3, 4, 4, requires_grad=True), torch.ones(2, 3, 4, 4)
    assert restoration(made, picture).item() == 1
    hidden = torch.zeros(2, 1, 4, 4)
    hidden[0, 0, :2] = 1
    loss = masked_restoration(made, 3 * picture, hidden)
    assert loss.item() == 3
    (slope,) = torch.autograd.grad(loss, made)
    assert ((slope != 0) == (hidden > 0).expand_as(slope)).all()
    assert masked_restoration(made, picture, torch.zeros_like(hidden)).item() == 0


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_an_objective_moves_the_trunk_and_repeats(objective: Objective) -> None:
    torch.set_num_threads(1)
    one, again = (pretrain(images(), SPEC, BRIEF, objective=objective) for _ in range(2))
    first = pretrain(images(), SPEC, BRIEF.model_copy(update={"iterations": 1, "rate": 1e-9}), objective=objective)
    own = one.trunk.state_dict()
    assert all(torch.equal(tensor, again.trunk.state_dict()[name]) for name, tensor in own.items())
    assert not torch.allclose(own["conv1.weight"], first.trunk.state_dict()["conv1.weight"])
    assert all(np.isfinite(list(terms.values())).all() for terms in one.history)
    expected = {"core": {"contrast", "restoration"}, "contrastive": {"contrast"}, "simsiam": {"simsiam"}}
    assert set(one.history[0]) == expected.get(objective, {"restoration"})


def test_core_compares_at_first_and_then_restores_alone() -> None:
    torch.set_num_threads(1)
    told = BRIEF.model_copy(update={"iterations": 8})
    core, masked = (pretrain(images(), SPEC, told, objective=one).history for one in ("core", "masked"))
    assert core[0]["restoration"] == masked[0]["restoration"]  # the same pictures and places
    assert ["contrast" in terms for terms in core] == [True] * 4 + [False] * 4
    # four pictures, eight views, of which each has seven others: log 7 while none is told apart
    shares = [terms["contrast"] / (0.3 * (1 - step / 4)) for step, terms in enumerate(core[:4])]
    assert shares == pytest.approx([math.log(7)] * 4, rel=0.3)


def test_restoring_gets_better() -> None:
    torch.set_num_threads(1)
    plain = np.full((8, 32, 32, 3), 40, np.uint8)
    plain[::2] = 200
    told = BRIEF.model_copy(update={"iterations": 40, "rate": 5e-3})
    history = pretrain(plain, SPEC, told, objective="restorative").history
    assert np.mean([one["restoration"] for one in history[-5:]]) < 0.7 * history[0]["restoration"]


def test_pictures_to_be_tested_on_are_not_seen(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "plates")
    found, spec = pictures_of([folder], SMALL)
    parts = deal(load_dataset(folder), seed=SMALL.seed)
    assert len(found) == sum(part != "test" for part in parts.values()) < len(parts)
    assert (spec.width, spec.height) == (64, 64)


def test_a_folder_of_pictures_and_nothing_else_is_pretrained_on_too(tmp_path: Path) -> None:
    shown = [one.path for one in load_dataset(write_set(tmp_path / "plates")).samples]
    bare = tmp_path / "bare" / "of june"
    bare.mkdir(parents=True)
    for number, path in enumerate(shown):
        (bare / f"{number}{path.suffix}").write_bytes(path.read_bytes())
    found, _ = pictures_of([bare.parent], SMALL)
    assert 0 < len(found) < len(shown)


def test_a_training_starts_from_what_was_pretrained(tmp_path: Path) -> None:
    plates = write_set(tmp_path / "plates")
    words = ("--width", "0.125", "--side-px", "64", "--seed", "1")
    told = ("pretrain", "--data", plates, *words, "--iterations", 3, "--batch", 4)
    assert set(done(*told, "--out", tmp_path / "m", "--objective", "masked")["first"]) == {"restoration"}
    said = done(*told, "--out", tmp_path / "t")
    assert (said["objective"], set(said["first"])) == ("core", {"contrast", "restoration"})
    out = tmp_path / "source"
    done("train", "--data", plates, "--gap", "lamp", "--start", tmp_path / "t", "--out", out, "--iterations", 1,
         "--side-px", "64", "--seed", "1")  # fmt: skip
    made = load_checkpoint(out)
    assert made.arguments["width"] == 0.125
    assert made.recipe["start"] == str(tmp_path / "t")
    assert made.preprocess.mean == (0.5, 0.5, 0.5)
    # one step at the first, low rate of a cycle hardly moves the weights, which were the pretrained ones
    kept = load_file(tmp_path / "t")["layer1.0.conv1.weight"]
    assert (made.network.trunk.state_dict()["layer1.0.conv1.weight"] - kept).abs().max() < 2e-3
    found = run("train", "--data", plates, "--start", plates / "labels.csv", "--out", tmp_path / "no")
    assert found.exit_code == 2 or found.exit_code == 1
    assert "labels.csv holds no pretrained trunk" in last_line(found)


def test_mobilenet_is_pretrained_from_its_weights_or_from_nothing_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(7)
    save_file(MobileNetV2(stages=5).state_dict(), tmp_path / "weights.safetensors")
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(tmp_path / "weights.safetensors"))
    plates = write_set(tmp_path / "plates")
    words = ("--side-px", 32, "--seed", 1)
    brief = ("--data", plates, *words, "--iterations", 1, "--batch", 4, "--trunk", "mobilenetv2")
    done("pretrain", *brief, "--out", tmp_path / "t")
    done("pretrain", *brief, "--out", tmp_path / "s", "--scratch")
    assert arguments_of(tmp_path / "t") == {"trunk": "mobilenetv2", "width": 1.0, "stages": 5}
    before, begun, fresh = (load_file(tmp_path / name)["blocks.0.0.conv_pw.weight"]
                            for name in ("weights.safetensors", "t", "s"))  # fmt: skip
    assert 0 < (begun - before).abs().max() < 2e-3 < (fresh - before).abs().max()
    for flag, frozen in (("--whole", False), ("--frozen", True)):
        done("train", "--data", plates, "--gap", "lamp", "--start", tmp_path / "t", "--out", tmp_path / flag,
             "--iterations", 1, flag, *words)  # fmt: skip
        made = load_checkpoint(tmp_path / flag)
        assert (made.network.frozen, made.arguments["trunk"]) == (frozen, "mobilenetv2")
        kept = made.network.trunk.state_dict()["blocks.0.0.conv_pw.weight"]
        assert torch.equal(kept, begun) is frozen
        assert (kept - begun).abs().max() < 2e-3


def test_pretraining_goes_on_from_what_was_pretrained(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    first = pretrain(images(), SPEC, BRIEF)
    first.save(tmp_path / "t")
    slow = BRIEF.model_copy(update={"iterations": 1, "rate": 1e-9, "start": str(tmp_path / "t")})
    again = pretrain(images(), SPEC, slow)
    for name, one in again.trunk.named_parameters():
        assert torch.allclose(one, first.trunk.state_dict()[name], atol=1e-6)


def test_what_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="7 pictures are too few to pretrain on; give 8 or more"):
        pretrain(images(7), SPEC, BRIEF)
    with pytest.raises(ConfigError, match="there is no objective named 'magic'; give one of core, contrastive"):
        pretrain(images(), SPEC, BRIEF, objective="magic")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="there is no file .*gone to start from"):
        arguments_of(tmp_path / "gone")
    save_trunk(torch.nn.Conv2d(1, 1, 1), tmp_path / "t", width=0.25, stages=3, told={})
    assert arguments_of(tmp_path / "t") == {"trunk": "resnet18", "width": 0.25, "stages": 3}
    (tmp_path / "x").write_bytes(b"nothing of the kind")
    with pytest.raises(FormatError, match="holds no pretrained trunk"):
        arguments_of(tmp_path / "x")
