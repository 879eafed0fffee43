"""A checkpoint folder (``checkpoint/1``) as export reads it: files alone, and no code but the named factory.

Any network exports the same way as ours: ``checkpoint.json`` names a factory by its dotted path and the
arguments to call it with, ``weights.safetensors`` fills what it returns, and a line's file overrides
the tensors that belong to the line.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file

from edge_sdk.documents import Tolerant, read_json, sha256_file
from edge_sdk.errors import ConfigError, EdgeError, FormatError
from edge_sdk.folders import settle
from edge_sdk.manifest import ClassThresholds, DriftReference
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["Checkpoint", "CheckpointFile", "LineFile", "read_checkpoint"]

WEIGHTS = "weights.safetensors"


class CheckpointFile(Tolerant):
    """``checkpoint.json``."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    schema_: Literal["checkpoint/1"] = Field("checkpoint/1", alias="schema")
    factory: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """``package.module:function``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    preprocess: PreprocessSpec
    cell_px: int = Field(gt=0)
    classes: tuple[str, ...] = Field(min_length=1)
    lines: tuple[str, ...] = Field(min_length=1)
    data: Any = None
    figures: Any = None
    recipe: Any = None
    versions: dict[str, str] = Field(default_factory=dict)


class LineFile(Tolerant):
    """``lines/<line>.json``."""

    thresholds: tuple[ClassThresholds, ...]
    drift: DriftReference | None = None
    how: str = "given"
    """How the thresholds were chosen."""
    guarantee: str = "none"
    normals: tuple[float, ...] | None = None
    """Of an anomaly map: the highest distances of its normals."""
    method: str = ""
    """How the line's tensors came about."""


class Checkpoint:
    """A checkpoint for one of its lines."""

    def __init__(
        self, root: Path, file: CheckpointFile, line: str, said: LineFile, *, named: Path | None = None
    ) -> None:
        self.root = root
        self._named = named or root / "checkpoint.json"
        self.file = file
        self.line = line
        self.said = said

    @property
    def weights_path(self) -> Path:
        """Of all lines."""
        return self.root / WEIGHTS

    @property
    def line_path(self) -> Path:
        """Of this line's tensors; it may be missing."""
        return self.root / "lines" / f"{self.line}.safetensors"

    def digests(self) -> tuple[str, str]:
        """sha256 of the weights, and of the line's tensors or nothing."""
        line = sha256_file(self.line_path) if self.line_path.exists() else ""
        return sha256_file(self.weights_path), line

    def module(self) -> torch.nn.Module:
        """The network of this line, ready to infer.

        Raises:
            FormatError: The weights are damaged, or of another architecture.
            ConfigError: The factory cannot be imported, or does not take the arguments.
        """
        return self.filled(self.weights_path)

    def filled(self, path: Path) -> torch.nn.Module:
        """The network with the weights of a file, ready to infer.

        Raises:
            FormatError: The weights are damaged, or of another architecture.
            ConfigError: The factory cannot be imported, or does not take the arguments.
        """
        module = self.made()
        weights = _tensors(path)
        if self.line_path.exists():
            own = _tensors(self.line_path)
            strange = sorted(own.keys() - weights.keys())
            if strange:
                raise FormatError(
                    f"{self.line_path} overrides {strange[0]}, which {WEIGHTS} does not have; it is of another network"
                )
            weights.update(own)
        there = module.state_dict()
        missing, extra = sorted(there.keys() - weights.keys()), sorted(weights.keys() - there.keys())
        differ = [
            name for name in sorted(there.keys() & weights.keys()) if there[name].shape != weights[name].shape
        ]
        if missing or extra or differ:
            raise FormatError(
                f"{path} is of another architecture than {self.file.factory} makes: "
                + "; ".join(_difference(there, weights, missing, extra, differ))
                + f"; mind the arguments in {self._named.name}"
            )
        module.load_state_dict(weights)
        return module.eval()

    def made(self) -> torch.nn.Module:
        """What the factory makes, with the weights that it gives.

        Raises:
            ConfigError: The factory cannot be imported, or does not take the arguments.
        """
        path, _, name = self.file.factory.partition(":")
        where = self._named
        try:
            factory = getattr(importlib.import_module(path), name)
        except ImportError as error:
            raise ConfigError(
                f"{where}: factory {self.file.factory} cannot be imported ({error}); is its package installed here?"
            ) from error
        except AttributeError as error:
            raise ConfigError(f"{where}: {path} has no {name}; mind the factory's spelling") from error
        try:
            module = factory(**self.file.arguments)
        except EdgeError:
            raise
        except (TypeError, ValueError) as error:
            shown = json.dumps(self.file.arguments)
            raise ConfigError(f"{where}: {self.file.factory} does not take {shown} ({error})") from error
        if not isinstance(module, torch.nn.Module):
            raise ConfigError(
                f"{where}: {self.file.factory} made a {type(module).__name__}; give one that makes a torch module"
            )
        return module


def read_checkpoint(root: Path, *, line: str) -> Checkpoint:
    """Open a checkpoint for one line; the network is made later.

    Raises:
        FormatError: A file is missing or damaged.
        ConfigError: The checkpoint has no such line.
    """
    settle(root)
    if not root.is_dir():
        raise FormatError(f"there is no checkpoint {root}; give the folder that training wrote")
    file = read_json(root / "checkpoint.json", CheckpointFile)
    if line not in file.lines:
        raise ConfigError(f"{root} has no line {line}; it has {', '.join(file.lines)}")
    if not (root / WEIGHTS).exists():
        raise FormatError(f"{root / WEIGHTS} is missing; copy the checkpoint whole")
    said = read_json(root / "lines" / f"{line}.json", LineFile)
    named = tuple(band.class_name for band in said.thresholds)
    if named != file.classes:
        raise FormatError(
            f"{root / 'lines' / f'{line}.json'} has thresholds for {', '.join(named)}, but the classes are "
            f"{', '.join(file.classes)}; give each class its own, in this order"
        )
    return Checkpoint(root, file, line, said)


def _tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is no safetensors file ({error}); it is damaged, copy it again") from error
    return found


def _difference(
    there: dict[str, torch.Tensor],
    weights: dict[str, torch.Tensor],
    missing: list[str],
    extra: list[str],
    differ: list[str],
) -> list[str]:
    """The first of each kind, and how many there are."""

    def first(names: list[str]) -> str:
        return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"

    said = []
    if missing:
        said.append(f"it lacks {first(missing)}")
    if extra:
        said.append(f"the network has no {first(extra)}")
    if differ:
        name = differ[0]
        said.append(f"{name} is {tuple(weights[name].shape)}, not {tuple(there[name].shape)}")
    return said
