"""Backbones of timm as a scorer's trunk: strides, weights, export, and what is refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edge_sdk.errors import ConfigError, FormatError
from tests.requirements import need
from tests.training.scorers.normal_parts import write_normals, write_trunk
from training.checkpoint import load_checkpoint, save_checkpoint
from training.networks.resnet import ResNet18
from training.networks.timm_trunk import TimmTrunk, _timm, pretrained_timm
from training.scorers.distances import distances_of, scorer_of
from training.scorers.embedding import Stages
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.lending import lent_trunk
from training.scorers.normals import normals_in

SMALL = "hrnet_w18_small"


def needs_timm() -> None:
    need("timm (pip install 'edge-sdk[timm]')", found=importlib.util.find_spec("timm") is not None)


@pytest.fixture(scope="module")
def hrnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    needs_timm()
    torch.set_num_threads(1)
    torch.manual_seed(140)
    path = tmp_path_factory.mktemp("hrnet") / "model.safetensors"
    save_file(_timm().create_model(SMALL, pretrained=False).state_dict(), path)
    return path


def test_it_says_what_to_install_where_timm_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"timm is not installed; pip install 'edge-sdk\[timm\]'"):
        TimmTrunk("resnet18")


def test_its_maps_are_those_of_our_own_network_of_the_same_weights() -> None:
    needs_timm()
    torch.manual_seed(141)
    ours, theirs = ResNet18(width=1.0, stages=3).eval(), TimmTrunk("resnet18").eval()
    theirs.net.load_state_dict(ours.state_dict())
    assert theirs.strides == (2, 4, 8, 16) and theirs.taps == (1, 2, 3)
    frame = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        for mine, other in zip(ours.maps(frame), theirs.maps(frame)[1:], strict=True):
            torch.testing.assert_close(mine, other)


def test_hrnet_is_fitted_from_a_local_file_and_comes_back_from_the_disk(hrnet: Path, tmp_path: Path) -> None:
    good = write_normals(tmp_path / "good", pictures=10)
    recipe = ScorerRecipe(side_px=96, rank=20, backbone=SMALL, weights=str(hrnet))
    checkpoint, said, held = fit_scorer(normals_in(good), recipe)
    assert checkpoint.arguments["trunk"] == f"timm:{SMALL}"
    assert checkpoint.preprocess.mean == pytest.approx((0.485, 0.456, 0.406))
    assert f"the trunk is timm's {SMALL} (model.safetensors)" in checkpoint.data["notes"]
    network = scorer_of(checkpoint)
    assert network.stages.strides == (4, 8, 16)
    save_checkpoint(checkpoint, tmp_path / "scorer")
    again = load_checkpoint(tmp_path / "scorer")
    np.testing.assert_allclose(distances_of(scorer_of(again), held, again.preprocess).maps, said.maps, rtol=1e-5)
    program = torch.export.export(network, (torch.zeros(1, 3, 96, 96),))
    frame = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(142))
    torch.testing.assert_close(program.module()(frame).novelty, network(frame).novelty, rtol=1e-4, atol=1e-4)


def test_weights_of_another_backbone_or_none_at_all_are_refused(hrnet: Path, tmp_path: Path) -> None:
    said = r"lacks .* of timm's resnet18; it is of another backbone"
    with pytest.raises(FormatError, match=said):
        pretrained_timm("resnet18", hrnet)
    wide = tmp_path / "wide.safetensors"
    save_file(ResNet18(width=0.5).state_dict(), wide)
    with pytest.raises(FormatError, match=r"has conv1.weight as \(32, 3, 7, 7\), but that of timm's resnet18 is \(64,"):
        pretrained_timm("resnet18", wide)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    with pytest.raises(FormatError, match=r"damaged.safetensors is no safetensors file \(.*damaged or something else"):
        pretrained_timm("resnet18", damaged)
    with pytest.raises(ConfigError, match="there is no file .*; give the safetensors file of timm's resnet18"):
        pretrained_timm("resnet18", tmp_path / "none.safetensors")


def test_a_name_that_timm_does_not_know_and_a_backbone_without_maps_are_refused() -> None:
    needs_timm()
    with pytest.raises(ConfigError, match=r"timm .* knows no backbone 'hrnet_w17'; .* perhaps hrnet_w18"):
        TimmTrunk("hrnet_w17")
    with pytest.raises(ConfigError, match=r"has maps of strides \[14, 14, 14\]; one of 4, 8 or 16 is needed"):
        TimmTrunk("vit_small_patch14_dinov2")
    fixed = TimmTrunk("vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match=r"the trunk takes no 128 x 128 picture"):
        Stages(fixed, fixed.taps)


def test_where_the_hub_is_out_of_reach_it_says_how_to_give_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_timm()
    _timm()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"weights of timm's resnet18 cannot be fetched \(.*--weights model.safetens"):
        pretrained_timm("resnet18", None)


def test_a_checkpoint_s_trunk_and_another_cannot_both_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="brings its own trunk and weights; leave out --backbone and --weights"):
        lent_trunk(write_trunk(tmp_path / "ckpt"), "hrnet_w18", None)
