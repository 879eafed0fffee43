"""Which trunk a training starts from where none is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import write_set
from training import train as training
from training import trunks
from training.networks.cellnet import cell_network
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18
from training.recipe import Recipe
from training.train import train
from training.trunks import load_trunk, start_of


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
