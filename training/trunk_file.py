"""A pretrained trunk as a file (``trunk/1``): weights by the trunk's own names, and what network they are of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from edge_sdk.documents import write_atomic
from edge_sdk.errors import ConfigError, FormatError
from training.checkpoint import read_tensors

__all__ = ["arguments_of", "is_trunk_file", "put_weights", "save_trunk", "tensors_of"]

SCHEMA = "trunk/1"


def save_trunk(
    trunk: nn.Module, path: Path, *, width: float, stages: int, told: Mapping[str, str], name: str = "resnet18"
) -> None:
    """Write a trunk; whole or not at all.

    Args:
        trunk: With its statistics.
        path: To write.
        width: Of a ResNet-18, times the paper's channels.
        stages: Of the trunk.
        told: How it came about.
        name: Of the trunk, as the network's factory takes it.
    """
    said = {**told, "schema": SCHEMA, "trunk": name, "width": repr(width), "stages": str(stages)}
    tensors = {name: tensor.detach().contiguous() for name, tensor in trunk.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, save(tensors, said))


def arguments_of(path: Path) -> dict[str, Any]:
    """``trunk``, ``width`` and ``stages``, as the network's factory takes them.

    Raises:
        ConfigError: There is no such file.
        FormatError: It is something else.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path} to start from; give what `python -m training pretrain` wrote")
    try:
        with safe_open(path, "pt") as file:
            said: dict[str, str] = file.metadata() or {}
        found = {"trunk": said["trunk"], "width": float(said["width"]), "stages": int(said["stages"])}
        schema = said["schema"]
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise FormatError(f"{path} holds no pretrained trunk ({error}); it is damaged or something else") from error
    if schema != SCHEMA:
        raise FormatError(f"{path} is of {schema!r}; this version reads {SCHEMA}")
    return found


def is_trunk_file(path: Path) -> bool:
    """Whether it says of itself that it is a pretrained trunk."""
    try:
        with safe_open(path, "pt") as file:
            return "schema" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def tensors_of(path: Path) -> dict[str, Tensor]:
    """The weights that a safetensors file holds.

    Raises:
        ConfigError: There is no such file.
        FormatError: It is damaged or something else.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; give a safetensors file of a trunk's weights")
    return read_tensors(path)


def put_weights(trunk: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Put weights into a trunk; others beside them are passed over.

    Args:
        trunk: To fill.
        tensors: By the trunk's names.
        source: Whence they are, in words.

    Raises:
        FormatError: Some are missing or of another shape; the trunk is as it was.
    """
    wanted = trunk.state_dict()
    missing = sorted(wanted.keys() - tensors.keys())
    if missing:
        raise FormatError(
            f"the weights lack {missing[0]} of the trunk; give those of MobileNetV2 1.0 with timm's names, what "
            f"`python -m training pretrain` wrote, or a checkpoint that was trained here, not {source}"
        )
    differ = sorted(name for name in wanted if wanted[name].shape != tensors[name].shape)
    if differ:
        raise FormatError(
            f"the weights of {source} have {differ[0]} as {tuple(tensors[differ[0]].shape)}, but the trunk's is "
            f"{tuple(wanted[differ[0]].shape)}; they are of another trunk"
        )
    trunk.load_state_dict({name: tensors[name] for name in wanted})
