"""Which trunk a scorer stands on, and where its weights come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from edge_sdk.errors import ConfigError
from training.checkpoint import load_checkpoint
from training.networks.timm_trunk import PREFIX, pretrained_timm
from training.recipe import MOBILENET_FILE, pretrained_weights
from training.scorers.network import ScorerNetwork
from training.statistics import load_statistics
from training.trunk_file import arguments_of, is_trunk_file, tensors_of

__all__ = ["Lent", "lent_trunk"]

HALF = (0.5, 0.5, 0.5)
"""Of MobileNetV2's weights and of what ``pretrain`` writes, mean and standard deviation alike."""


@dataclass(frozen=True, eq=False)
class Lent:
    """A trunk with its weights, and what pictures must be like for it."""

    arguments: Mapping[str, Any]
    """``trunk``, ``width`` and ``stages``, as ``scorer_network`` takes them."""
    weights: Mapping[str, Tensor]
    source: str
    """In words."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    colour: Literal["rgb", "bgr"] = "rgb"


def lent_trunk(checkpoint: Path | None, backbone: str | None, weights: Path | None) -> Lent:
    """The trunk that was asked for; MobileNetV2 with ImageNet weights if none was.

    Args:
        checkpoint: Whose trunk is taken as it was trained.
        backbone: A name of timm.
        weights: Of the backbone; without one a file that ``python -m training pretrain`` wrote, or MobileNetV2's.

    Raises:
        ConfigError: Two trunks are asked for, or the weights are not to be had.
        FormatError: A file holds something else.
    """
    if checkpoint is not None and (backbone is not None or weights is not None):
        raise ConfigError(f"--from {checkpoint} brings its own trunk and weights; leave out --backbone and --weights")
    if checkpoint is not None:
        return _of_checkpoint(checkpoint)
    if backbone is not None:
        found = pretrained_timm(backbone.removeprefix(PREFIX), weights)
        arguments = {"trunk": PREFIX + backbone.removeprefix(PREFIX)}
        return Lent(arguments, found.trunk.state_dict(), found.source, found.mean, found.std)
    if weights is not None and is_trunk_file(weights):
        return Lent(arguments_of(weights), tensors_of(weights), f"that of {weights}", HALF, HALF)
    file = weights or pretrained_weights()
    if file is None:
        raise ConfigError(
            f"a scorer needs a trunk that was trained: name {MOBILENET_FILE} in EDGE_SDK_MOBILENETV2, take the "
            "trunk of a checkpoint: --from CKPT, or one of timm: --backbone NAME"
        )
    source = f"MobileNetV2 with ImageNet weights ({file.name})"
    return Lent({"trunk": "mobilenetv2"}, tensors_of(file), source, HALF, HALF)


def _of_checkpoint(path: Path) -> Lent:
    base = load_checkpoint(path)
    network, own = base.network, base.preprocess
    load_statistics(network, base.line("original").statistics)
    prefix = "stages.trunk." if isinstance(network, ScorerNetwork) else "trunk."
    whole = network.state_dict()
    weights = {name.removeprefix(prefix): one for name, one in whole.items() if name.startswith(prefix)}
    arguments = {name: base.arguments[name] for name in ("trunk", "width", "stages") if name in base.arguments}
    return Lent(arguments, weights, f"that of {path}", own.mean, own.std, own.colour)
