"""The networks: names that others' weight files have, and outputs that export can trace."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from edge_sdk.errors import ConfigError
from tests.requirements import need
from training.networks.cellnet import PRIOR, batch_norms, cell_network, stride_of
from training.networks.mobilenet import MobileNetV2
from training.networks.resnet import ResNet18
from training.recipe import MOBILENET_FILE, pretrained_weights

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_names() -> set[str]:
    """The names of torchvision's ``resnet18`` without its classifier, written out."""
    found = {"conv1.weight", *(f"bn1.{kind}" for kind in NORM)}
    for stage in (1, 2, 3, 4):
        for block in (0, 1):
            place = f"layer{stage}.{block}"
            for number in (1, 2):
                found.add(f"{place}.conv{number}.weight")
                found |= {f"{place}.bn{number}.{kind}" for kind in NORM}
        if stage > 1:
            found.add(f"layer{stage}.0.downsample.0.weight")
            found |= {f"layer{stage}.0.downsample.1.{kind}" for kind in NORM}
    return found


def test_a_resnet_has_torchvisions_names_and_shapes() -> None:
    states = ResNet18().state_dict()
    assert set(states) == torchvision_names()
    assert len(states) == 120
    assert tuple(states["conv1.weight"].shape) == (64, 3, 7, 7)
    assert tuple(states["layer4.1.conv2.weight"].shape) == (512, 512, 3, 3)
    assert tuple(states["layer3.0.downsample.0.weight"].shape) == (256, 128, 1, 1)
    assert sum(p.numel() for p in ResNet18().parameters()) == 11_176_512


@pytest.mark.parametrize(("stages", "stride"), [(1, 4), (2, 8), (3, 16), (4, 32)])
def test_each_stage_halves_the_map(stages: int, stride: int) -> None:
    trunk = ResNet18(width=0.25, stages=stages).eval()
    assert trunk.stride == stride
    assert trunk(torch.zeros(1, 3, 64, 64)).shape == (1, trunk.channels, 64 // stride, 64 // stride)


def test_the_head_starts_from_few_defects() -> None:
    torch.manual_seed(0)
    out = cell_network(classes=3).eval()(torch.randn(2, 3, 64, 96))
    assert out.cells.shape == (2, 3, 4, 6)
    assert out.feature.shape == (2, 64)
    assert float(torch.sigmoid(out.cells).mean().detach()) == pytest.approx(PRIOR, abs=0.02)


def test_a_frozen_trunk_neither_learns_nor_counts() -> None:
    network = cell_network(trunk="mobilenetv2", frozen=True)
    before = {name: tensor.clone() for name, tensor in network.trunk.state_dict().items()}
    network.train()
    network(torch.randn(2, 3, 64, 64)).cells.sum().backward()
    assert all(p.grad is None for p in network.trunk.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.trunk.state_dict().items())
    assert network.head.weight.grad is not None
    assert stride_of(network) == 16


def test_every_normalisation_is_found() -> None:
    network = cell_network(trunk="resnet18")
    assert len(list(batch_norms(network))) == 15


def test_a_network_is_traced_without_branches() -> None:
    network = cell_network(width=0.125).eval()
    program = torch.export.export(network, (torch.randn(2, 3, 64, 64),))
    drawn = torch.randn(2, 3, 64, 64)
    assert torch.allclose(program.module()(drawn).cells, network(drawn).cells, atol=1e-6)


def test_an_unknown_trunk_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no trunk named 'vit'; give resnet18, mobilenetv2, or timm: and"):
        cell_network(trunk="vit")  # type: ignore[arg-type]


def test_weights_named_by_the_environment_must_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(tmp_path / "none.safetensors"))
    with pytest.raises(ConfigError, match=r"which is no file; name .*\.safetensors, or unset it"):
        pretrained_weights()
    (tmp_path / "none.safetensors").write_bytes(b"")
    assert pretrained_weights() == tmp_path / "none.safetensors"


def test_mobilenet_with_the_pretrained_weights_gives_the_reference_features() -> None:
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "backbone_mobilenetv2"
    need("../shared/data/backbone_mobilenetv2", found=(folder / MOBILENET_FILE).is_file())
    weights = load_file(folder / MOBILENET_FILE)
    trunk = MobileNetV2(stages=7).eval()
    trunk.load_state_dict({name: weights[name] for name in trunk.state_dict()})
    reference = np.load(folder / "reference_io.npz")
    x = torch.from_numpy(reference["x"].astype(np.float32))
    with torch.no_grad():
        last = trunk(x)
        head = F.conv2d(last, weights["conv_head.weight"])
        norm = nn.BatchNorm2d(1280).eval()
        norm.load_state_dict({kind: weights[f"bn2.{kind}"] for kind in NORM})
        logits = F.linear(F.relu6(norm(head)).mean((2, 3)), weights["classifier.weight"], weights["classifier.bias"])
    assert float((logits - torch.from_numpy(reference["logits"])).abs().max()) < 1e-3
    assert float(last.mean()) == pytest.approx(float(reference["feature_means"][-1]), abs=1e-3)
    assert float(last.std()) == pytest.approx(float(reference["feature_stds"][-1]), abs=1e-3)
