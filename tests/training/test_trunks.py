"""Which trunk a training starts from where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.quality.datasets import lines_of, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.drawn import write_set
from training import retrain, trunks
from training import train as training
from training.checkpoint import Checkpoint
from training.methods import contrastive
from training.networks.cellnet import cell_network
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18
from training.recipe import Recipe
from training.train import train
from training.trunk_file import save_trunk, tensors_of
from training.trunks import begin_as, load_trunk, start_of, start_of_pretraining


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(7)
    path = tmp_path / "weights.safetensors"
    save_file(MobileNetV2(stages=5).state_dict(), path)
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(path))
    return path


def test_where_none_is_named_the_pretrained_trunk_is_taken_where_its_weights_are(weights: Path) -> None:
    assert start_of(Recipe(), classes=1, pooled=False).weights == weights
    assert start_of(Recipe(trunk="slim"), classes=1, pooled=False).weights is None


def test_without_the_weights_a_thin_trunk_is_taken_unless_the_pretrained_one_is_named(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trunks, "pretrained_weights", lambda: None)
    assert start_of(Recipe(), classes=1, pooled=False).arguments["trunk"] == "resnet18"
    with pytest.raises(ConfigError, match="trunk is mobilenetv2, but its ImageNet weights are not here; name the file"):
        start_of(Recipe(trunk="mobilenetv2"), classes=1, pooled=False)


def test_mobilenet_is_kept_unless_all_of_it_is_to_be_trained(weights: Path) -> None:
    for told, kept in ((None, True), (True, True), (False, False)):
        start = start_of(Recipe(trunk="mobilenetv2", frozen=told), classes=1, pooled=False)
        network = start.network(0)
        assert network.frozen is kept
        assert any(p.requires_grad for p in network.trunk.parameters()) is not kept
    with pytest.raises(ConfigError, match="frozen keeps a trunk that has learnt nothing; give start a file"):
        start_of(Recipe(trunk="slim", frozen=True), classes=1, pooled=False)


def test_a_start_says_what_trunk_it_is_of_and_is_trained_whole_unless_kept(tmp_path: Path) -> None:
    mobile, slim = tmp_path / "mobile.safetensors", tmp_path / "slim.safetensors"
    save_trunk(MobileNetV2(stages=5), mobile, name="mobilenetv2", width=1.0, stages=5, told={})
    save_trunk(ResNet18(width=0.125, stages=2), slim, width=0.125, stages=2, told={})
    for file, trunk, kind in ((mobile, "mobilenetv2", MobileNetV2), (slim, "slim", ResNet18)):
        for named in ("auto", trunk):
            recipe = Recipe.model_validate({"trunk": named, "start": str(file)})
            network = start_of(recipe, classes=1, pooled=True).network(0)
            assert isinstance(network.trunk, kind) and not network.frozen
            assert all(torch.equal(one, tensors_of(file)[name]) for name, one in network.trunk.state_dict().items())
        kept = start_of(Recipe(start=str(file), frozen=True), classes=1, pooled=True).network(0)
        assert kept.frozen
    with pytest.raises(ConfigError, match=r"start is .*slim.safetensors, of trunk slim, but trunk is mobilenetv2"):
        start_of(Recipe(trunk="mobilenetv2", start=str(slim)), classes=1, pooled=True)
    with pytest.raises(ConfigError, match=r"of trunk mobilenetv2, but trunk is slim; give one of the two"):
        start_of(Recipe(trunk="slim", start=str(mobile)), classes=1, pooled=True)


def test_a_mobilenet_that_is_trained_whole_never_begins_at_random_where_something_is_trained_anew(
    weights: Path, tmp_path: Path
) -> None:
    whole = {"trunk": "mobilenetv2", "classes": 1, "frozen": False}
    save_trunk(MobileNetV2(stages=5), tmp_path / "t", name="mobilenetv2", width=1.0, stages=5, told={})
    for start, file in ((None, weights), (str(tmp_path / "t"), tmp_path / "t")):
        base = Checkpoint(
            network=cell_network(**whole), arguments=whole, preprocess=PreprocessSpec(width=64, height=64), cell_px=32,
            classes=("dent",), lines={}, recipe={"start": start}, data={},
        )  # fmt: skip
        task: Any = SimpleNamespace(checkpoint=base, recipe=Recipe(seed=3))
        for network in (retrain._fresh(base), contrastive._encoder(task)):
            own = network.trunk.state_dict()
            assert all(torch.equal(one, tensors_of(file)[name]) for name, one in own.items())
    slim = {"trunk": "resnet18", "classes": 1, "width": 0.125, "stages": 2}
    network = cell_network(**slim)
    before = network.trunk.conv1.weight.clone()
    begin_as(network, slim, start=None)
    assert torch.equal(network.trunk.conv1.weight, before)


def test_a_pretraining_begins_with_slim_imagenet_nothing_or_a_file(weights: Path, tmp_path: Path) -> None:
    assert start_of_pretraining(Recipe()).arguments["trunk"] == "resnet18"
    own, nothing = (start_of_pretraining(Recipe(trunk="mobilenetv2"), scratch=scratch) for scratch in (False, True))
    assert (own.weights, nothing.weights) == (weights, None)
    for start in (own, nothing):
        network = start.network(0)
        assert isinstance(network.trunk, MobileNetV2)
        assert all(p.requires_grad for p in network.trunk.parameters())
        assert (start.arguments["stages"], len(network.trunk.blocks)) == (5, 5)
    save_trunk(ResNet18(width=0.125, stages=2), tmp_path / "t", width=0.125, stages=2, told={})
    assert start_of_pretraining(Recipe(start=str(tmp_path / "t"))).weights == tmp_path / "t"
    with pytest.raises(ConfigError, match=r"start is .*t, but nothing is to be started from; give one of the two"):
        start_of_pretraining(Recipe(start=str(tmp_path / "t")), scratch=True)


@pytest.mark.parametrize("pictures", [6, 24])
def test_no_trunk_named_trains_once_and_comes_to_what_naming_it_does_however_few_the_pictures(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, pictures: int
) -> None:
    dataset = load_dataset(write_set(tmp_path / "plates", pictures=pictures))
    lines = lines_of(dataset, gap="lamp", seed=1)
    recipe = Recipe(side_px=64, iterations=2, batch=4)
    fit: Callable[..., object] = training.fit
    trainings: list[str] = []

    def counted(*given: object, **named: object) -> object:
        trainings.append(str(named["told"]))
        return fit(*given, **named)

    monkeypatch.setattr(training, "fit", counted)
    found = train(dataset, lines, recipe)
    assert len(trainings) == 1
    assert found.arguments["trunk"] == "mobilenetv2" and found.network.frozen
    named = train(dataset, lines, recipe.model_copy(update={"trunk": "mobilenetv2"}))
    for name, tensor in found.network.state_dict().items():
        assert torch.equal(tensor, named.network.state_dict()[name])


def test_a_file_that_holds_no_weights_or_those_of_another_trunk_is_refused(tmp_path: Path) -> None:
    network = cell_network(trunk="resnet18", width=0.125)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(ConfigError, match=r"there is no file .*none.safetensors; give a safetensors file of a trunk's"):
        load_trunk(network, tmp_path / "none.safetensors")
    (tmp_path / "notes.safetensors").write_text("not weights at all")
    with pytest.raises(FormatError, match=r"notes.safetensors is no safetensors file"):
        load_trunk(network, tmp_path / "notes.safetensors")
    save_file(MobileNetV2(stages=2).state_dict(), tmp_path / "mobile.safetensors")
    with pytest.raises(FormatError, match=r"weights lack .* of the trunk; give those of .*mobile.safetensors"):
        load_trunk(network, tmp_path / "mobile.safetensors")
    save_file(ResNet18(width=0.25, stages=3).state_dict(), tmp_path / "wide.safetensors")
    said = r"have .* as \(16,.*, but the trunk's is \(8,.*; they are of another trunk"
    with pytest.raises(FormatError, match=said):
        load_trunk(network, tmp_path / "wide.safetensors")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
