"""Checkpoints (``checkpoint/1``): weights of all lines, statistics and thresholds of each, no pickle.

A folder with ``weights.safetensors``, ``lines/<line>.safetensors`` and ``.json`` a line, and
``checkpoint.json``.  It is written beside its place and renamed into it; where an older one must first make
room, the next who asks for it finishes what a kill cut short.  So a checkpoint is whole, or not there, and one that
was there stays: the old one or the new.
"""

from __future__ import annotations

import importlib
import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edge_sdk import __version__
from edge_sdk.arrays import Array
from edge_sdk.documents import sha256_hex, write_atomic
from edge_sdk.errors import ConfigError, EdgeError, FormatError
from edge_sdk.folders import begun, check_folder, put_in_place, settle
from edge_sdk.labels import Thresholds
from edge_sdk.vision.preprocess import PreprocessSpec
from training.networks.cellnet import CellNetwork

__all__ = [
    "FACTORY",
    "Checkpoint",
    "LineState",
    "check_place",
    "load_checkpoint",
    "read_tensors",
    "save_checkpoint",
]

FACTORY = "training.networks.cellnet:cell_network"
SCHEMA = "checkpoint/1"


@dataclass(frozen=True, eq=False)
class LineState:
    """What belongs to one line."""

    statistics: Mapping[str, Tensor]
    """Every tensor of the weights that the line overrides: its normalisations, of an ADDA line its whole encoder."""
    thresholds: Thresholds
    temperature: Array
    """``(K,)`` above 0."""
    method: str
    """How the statistics came about: a name of ``training.methods.METHODS``, or ``retrained``."""
    feature_mean: Array
    """``(F,)`` of the pooled feature on the line's pictures: the drift reference."""
    feature_sd: Array
    pictures: int
    """How many the drift reference was made of."""
    normals: Array | None = None
    """``(n,)`` of an anomaly map: the highest distance of each normal that it was calibrated on, ascending."""
    reliability: tuple[Mapping[str, Any], ...] = ()
    """A class: how its temperature came about, and how reliable confidences were before and after."""
    trained_on: tuple[str, ...] = ()
    """sha256 of what these weights learned from and no figure may count: items of the line's control sample that they
    were retrained with, or of a scorer the files of good parts that it was fitted on or that set its threshold."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A network with the lines it knows."""

    network: CellNetwork
    """By habit; of another factory whatever that makes, see ``training.detector.detector_of``."""
    arguments: Mapping[str, Any]
    """Of the factory."""
    preprocess: PreprocessSpec
    cell_px: int
    classes: tuple[str, ...]
    lines: Mapping[str, LineState]
    recipe: Mapping[str, Any]
    data: Mapping[str, Any]
    figures: Mapping[str, Any] = field(default_factory=dict)
    factory: str = FACTORY
    """What makes the network, as dotted path."""

    @property
    def grid(self) -> tuple[int, int]:
        """``(h, w)`` cells."""
        return self.preprocess.height // self.cell_px, self.preprocess.width // self.cell_px

    def line(self, name: str) -> LineState:
        """What belongs to a line.

        Raises:
            ConfigError: The checkpoint has no such line.
        """
        if name not in self.lines:
            raise ConfigError(f"the checkpoint has no line named {name}; it has {', '.join(self.lines)}")
        return self.lines[name]

    def with_line(self, name: str, state: LineState) -> Checkpoint:
        """The same checkpoint with a line added or changed."""
        return replace(self, lines={**self.lines, name: state})


def check_place(folder: Path) -> None:
    """Whether a checkpoint may be written there: best asked before minutes of training.

    Raises:
        ConfigError: It is a file, or a folder that holds something else, which is not replaced, or there is no way to
            make it.
    """
    settle(folder)
    if folder.is_file():
        raise ConfigError(f"{folder} is a file; give a folder to write the checkpoint to")
    check_folder(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder / "checkpoint.json").is_file():
        raise ConfigError(f"{folder} holds something else than a checkpoint; give an empty folder, or a new name")


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a checkpoint; an older one of the same name is replaced once the new one is whole.

    Raises:
        ConfigError: The folder holds something else, which is not replaced.
        OSError: The disk refused; an older checkpoint is as it was.
    """
    check_place(folder)
    part = begun(folder)
    (part / "lines").mkdir()
    weights = {name: tensor.detach().contiguous() for name, tensor in checkpoint.network.state_dict().items()}
    save_file(weights, part / "weights.safetensors")
    for name, state in checkpoint.lines.items():
        own = {key: tensor.contiguous() for key, tensor in state.statistics.items()}
        save_file(own, part / "lines" / f"{name}.safetensors")
        _write_json(part / "lines" / f"{name}.json", _line_document(state, checkpoint.classes))
    _write_json(
        part / "checkpoint.json",
        {
            "schema": SCHEMA,
            "factory": checkpoint.factory,
            "arguments": dict(checkpoint.arguments),
            "recipe": dict(checkpoint.recipe),
            "preprocess": _plain(checkpoint.preprocess),
            "cell_px": checkpoint.cell_px,
            "classes": list(checkpoint.classes),
            "data": dict(checkpoint.data),
            "lines": list(checkpoint.lines),
            "figures": dict(checkpoint.figures),
            "versions": {
                "edge_sdk": __version__,
                "torch": str(torch.__version__),
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        },
    )
    put_in_place(folder)


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint; no code runs but the factory that it names.

    Raises:
        ConfigError: There is no checkpoint there, or its factory cannot be called.
        FormatError: A file is missing, damaged or of another architecture.
    """
    settle(folder)
    if not (folder / "checkpoint.json").is_file():
        raise ConfigError(f"{folder} holds no checkpoint (no checkpoint.json); give the folder that training wrote")
    said = _read_json(folder / "checkpoint.json")
    if said.get("schema") != SCHEMA:
        raise FormatError(f"{folder} is of {said.get('schema')!r}; this version reads {SCHEMA}")
    try:
        spec = PreprocessSpec(**{key: _tupled(value) for key, value in said["preprocess"].items()})
        classes, cell_px = tuple(said["classes"]), int(said["cell_px"])
        network = _made(str(said["factory"]), dict(said["arguments"]))
        names = list(said["lines"])
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{folder / 'checkpoint.json'} lacks {error}; it is damaged") from error
    weights = read_tensors(folder / "weights.safetensors")
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise FormatError(
            f"{folder / 'weights.safetensors'} is of another architecture than {said['factory']} makes ({first}); "
            "copy the checkpoint whole"
        ) from error
    lines = {name: _line_state(folder, name, classes, weights) for name in names}
    return Checkpoint(
        network=network,
        arguments=said["arguments"],
        preprocess=spec,
        cell_px=cell_px,
        classes=classes,
        lines=lines,
        recipe=said.get("recipe", {}),
        data=said.get("data", {}),
        figures=said.get("figures", {}),
        factory=str(said["factory"]),
    )


def _made(factory: str, arguments: dict[str, Any]) -> CellNetwork:
    path, _, name = factory.partition(":")
    try:
        network = getattr(importlib.import_module(path), name)(**arguments)
    except EdgeError:
        raise
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise ConfigError(f"factory {factory} cannot be called ({error}); is its package installed?") from error
    if not isinstance(network, nn.Module):
        raise ConfigError(f"factory {factory} made a {type(network).__name__}; it must make a torch module")
    return network  # type: ignore[return-value]


def _line_document(state: LineState, classes: tuple[str, ...]) -> dict[str, Any]:
    bands = state.thresholds
    return {
        "thresholds": [
            {
                "class": name,
                "boundary": _short(bands.boundary[k]),
                "pass_below": _short(bands.pass_below[k]),
                "defective_from": _short(bands.defective_from[k]),
                "temperature": _short(state.temperature[k]),
                **({"reliability": dict(state.reliability[k])} if state.reliability else {}),
            }
            for k, name in enumerate(classes)
        ],
        "how": bands.how,
        "guarantee": bands.guarantee,
        "method": state.method,
        **({"trained_on": list(state.trained_on)} if state.trained_on else {}),
        **({} if state.normals is None else {"normals": [_short(value) for value in state.normals]}),
        "drift": {
            "mean": [_short(value) for value in state.feature_mean],
            "sd": [_short(value) for value in state.feature_sd],
            "n": state.pictures,
        },
    }


def _line_state(
    folder: Path, name: str, classes: tuple[str, ...], weights: Mapping[str, Tensor]
) -> LineState:
    path = folder / "lines" / f"{name}.json"
    said = _read_json(path)
    own = read_tensors(folder / "lines" / f"{name}.safetensors")
    strange = sorted(own.keys() - weights.keys())
    if strange:
        raise FormatError(f"line {name} overrides {strange[0]}, which the network does not have; it is of another one")
    for key, tensor in own.items():
        if tensor.shape != weights[key].shape:
            raise FormatError(
                f"line {name} has {key} as {tuple(tensor.shape)}, but the network's is {tuple(weights[key].shape)}; "
                "it is of another one"
            )
    try:
        bands = said["thresholds"]
        if tuple(band["class"] for band in bands) != classes:
            raise FormatError(f"{path} is not for the classes {', '.join(classes)}; copy the checkpoint whole")

        def column(key: str) -> Array:
            return np.array([band[key] for band in bands], np.float32)

        return LineState(
            statistics=own,
            thresholds=Thresholds(
                column("boundary"), column("pass_below"), column("defective_from"), said["how"], said["guarantee"]
            ),
            temperature=column("temperature"),
            method=said["method"],
            feature_mean=np.array(said["drift"]["mean"], np.float32),
            feature_sd=np.array(said["drift"]["sd"], np.float32),
            pictures=int(said["drift"]["n"]),
            normals=np.array(said["normals"], np.float64) if "normals" in said else None,
            reliability=tuple(band["reliability"] for band in bands if "reliability" in band),
            trained_on=tuple(said.get("trained_on", ())),
        )
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path} lacks {error}; it is damaged") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, by name.

    Raises:
        FormatError: It is missing or damaged.
    """
    try:
        found: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path} is no safetensors file ({error}); it is missing or damaged") from error
    return found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise FormatError(f"{path} cannot be read ({error.strerror}); copy the checkpoint whole") from error
    except ValueError as error:
        raise FormatError(f"{path} is not JSON ({error}); it is damaged") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path} holds no JSON object; it is damaged")
    return found


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _plain(spec: PreprocessSpec) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in spec.document().items()}


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _short(value: Any) -> float:
    return round(float(value), 6)


def digest_of(checkpoint: Checkpoint) -> str:
    """sha256 over weights and statistics, to tell whether two trainings came out the same."""
    pieces = [name.encode() + tensor.numpy().tobytes() for name, tensor in checkpoint.network.state_dict().items()]
    for line, state in checkpoint.lines.items():
        own = sorted(state.statistics.items())
        pieces += [f"{line}/{name}".encode() + tensor.numpy().tobytes() for name, tensor in own]
    return sha256_hex(b"".join(pieces))
