"""Any backbone of timm (PyTorch image models) as a trunk, HRNet among them.

timm is optional: ``pip install 'edge-sdk[timm]'``.  Nothing of it is copied: names, strides and channels are asked of
``features_only`` and ``feature_info``, and weights are loaded by timm itself, from a local file or from its hub.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from edge_sdk.errors import ConfigError, FormatError

__all__ = ["PREFIX", "Pretrained", "TimmTrunk", "pretrained_timm"]

PREFIX = "timm:"
"""Before the name, where a checkpoint says which trunk it has."""
COARSEST = 16
"""Stride of the last stage that is used."""
TAPPED = (4, 8, COARSEST)
"""Strides of the stages that a scorer can look at: each lies on the others' grid."""
_stand_ins: list[Any] = []
"""Operators that were declared; they live as long as this holds them."""


class Pretrained(NamedTuple):
    """A trunk with what it was trained on."""

    trunk: TimmTrunk
    mean: tuple[float, float, float]
    """Of the pictures, red green blue, after the division by 255."""
    std: tuple[float, float, float]
    source: str
    """Whence its weights are, in words."""


class TimmTrunk(nn.Module):
    """``(N, 3, H, W)`` to ``(N, channels, H / stride, W / stride)``, untrained.

    Args:
        name: Of timm, e.g. ``hrnet_w18``.

    Raises:
        ConfigError: timm is not installed, knows no such backbone, or it gives no maps of stride 4, 8 or 16.
    """

    def __init__(self, name: str, *, net: nn.Module | None = None) -> None:
        super().__init__()
        self.net = _made(name) if net is None else net
        info: Any = self.net.feature_info
        self.strides = tuple(int(one) for one in info.reduction())
        self.stages = len(self.strides)
        self.channels, self.stride = int(info.channels()[-1]), self.strides[-1]
        self.taps = tuple(n for n, stride in enumerate(self.strides) if stride in TAPPED)

    def forward(self, x: Tensor) -> Tensor:
        return self.maps(x)[-1]

    def maps(self, x: Tensor, *, last: int | None = None) -> list[Tensor]:
        """The map of every stage, in order, up to ``last``, counted from 0."""
        found: list[Tensor] = self.net(x)
        return found[: None if last is None else last + 1]


def pretrained_timm(name: str, weights: Path | None) -> Pretrained:
    """A backbone with its trained weights.

    Args:
        name: Of timm.
        weights: A safetensors file by timm's names, as the backbone's page on the hub offers; without it the hub is
            asked.

    Raises:
        ConfigError: timm is not installed, knows no such backbone, or the hub cannot be reached.
        FormatError: The file is damaged, or of another backbone.
    """
    timm = _timm()
    if weights is not None:
        _check_file(timm, name, weights)
        net = _made(name, pretrained=True, pretrained_cfg_overlay={"file": str(weights)})
        source = f"timm's {name} ({weights.name})"
    else:
        _known(timm, name)
        try:
            net = _made(name, pretrained=True)
        except (OSError, RuntimeError, ValueError, ImportError) as error:
            # without a network the hub's client raises OSError or RuntimeError, by its version
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ConfigError(
                f"the weights of timm's {name} cannot be fetched ({first}); without a network give the file that its "
                "page on the hub offers: --weights model.safetensors"
            ) from error
        source = f"timm's {name} (from its hub)"
    said: Any = net.pretrained_cfg if hasattr(net, "pretrained_cfg") else timm.get_pretrained_cfg(name).to_dict()
    return Pretrained(TimmTrunk(name, net=net), _three(said["mean"]), _three(said["std"]), source)


def _made(name: str, **options: Any) -> nn.Module:
    timm = _timm()
    _known(timm, name)
    options = {"pretrained": False, **options}
    try:
        strides = timm.create_model(name, pretrained=False, features_only=True).feature_info.reduction()
        wanted = tuple(n for n, stride in enumerate(strides) if stride <= COARSEST)
        if not any(strides[n] in TAPPED for n in wanted):
            raise ConfigError(f"timm's {name} has maps of strides {list(strides)}; one of 4, 8 or 16 is needed")
        net: nn.Module = timm.create_model(name, features_only=True, out_indices=wanted, **options)
    except (RuntimeError, AttributeError) as error:
        if options["pretrained"]:
            raise
        raise ConfigError(f"timm's {name} gives no maps of its stages ({error}); choose another backbone") from error
    return net


def _known(timm: Any, name: str) -> None:
    if not timm.is_model(name):
        like = timm.list_models(f"*{name.partition('_')[0]}*")[:3]
        near = f", perhaps {', '.join(like)}" if like else ""
        raise ConfigError(f"timm {timm.__version__} knows no backbone {name!r}; give one of timm.list_models(){near}")


def _check_file(timm: Any, name: str, path: Path) -> None:
    """timm loads what fits and says nothing of the rest, so names and shapes are compared first."""
    from safetensors import safe_open

    _known(timm, name)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give the safetensors file of timm's {name}")
    try:
        with safe_open(path, "pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FormatError(f"{path} is no safetensors file ({error}); it is damaged or something else") from error
    wanted = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
    missing = [key for key in wanted if key not in shapes]
    if missing:
        raise FormatError(f"{path} lacks {missing[0]} of timm's {name}; it is of another backbone")
    for key, tensor in wanted.items():
        if shapes[key] != tuple(tensor.shape):
            raise FormatError(
                f"{path} has {key} as {shapes[key]}, but that of timm's {name} is {tuple(tensor.shape)}; it is of "
                "another backbone"
            )


def _timm() -> Any:
    """The package, imported when it is first needed.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'edge-sdk[timm]'") from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        _declare_operators()
        import timm
    return timm


def _declare_operators() -> None:
    """A CPU build of torch beside torchvision's usual build: its compiled part does not load, and importing it fails on
    operators that nothing here calls.  They are declared without a body; whoever called one would be told so."""
    library: Any = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _stand_ins.append(library)
    for name in [one for one in sys.modules if one.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(one) for one in values)
    return red, green, blue
