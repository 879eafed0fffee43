"""Any torch module, named in a recipe: made, given its weights, and written as the checkpoint that export reads.

``module: package.module:factory`` and a few lines are all that a network needs that was trained elsewhere.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ConfigDict, Field, model_validator
from safetensors.torch import save_file

from edge_sdk.documents import Document, canonical_json, read_yaml
from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.folders import begun, put_in_place
from edge_sdk.manifest import ClassThresholds
from edge_sdk.quality.thresholds import fixed_band
from edge_sdk.vision.preprocess import PreprocessSpec
from export.checkpoint import WEIGHTS, Checkpoint, CheckpointFile, LineFile, read_checkpoint
from export.graph import outputs_of

__all__ = ["CHECKPOINT", "ModuleRecipe", "checkpoint_from_recipe"]

CHECKPOINT = "checkpoint"
"""Folder that is written beside the graph."""


class ModuleRecipe(Document):
    """What is said of a network that was trained elsewhere."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    schema_: Literal["module/1"] = Field("module/1", alias="schema")
    module: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    """``package.module:factory``: called with ``arguments`` it gives a ``torch.nn.Module``."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    weights: Path | None = None
    """A safetensors file, relative to the recipe; without it the weights are those that the factory gives."""
    preprocess: PreprocessSpec
    cell_px: int | None = Field(None, gt=0)
    """Side of a cell in pixels of the input, or the anchors' step; a network with a map need not say it."""
    classes: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[ClassThresholds, ...] | None = None
    """Of each class, in their order; without them the fixed band, which guarantees nothing."""
    line: str = Field("original", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")

    @model_validator(mode="after")
    def _one_a_class(self) -> ModuleRecipe:
        named = tuple(band.class_name for band in self.thresholds or ())
        if self.thresholds is not None and named != self.classes:
            raise ValueError(
                f"thresholds are for {', '.join(named)} but the classes are {', '.join(self.classes)}; "
                "give each class its own, in this order"
            )
        return self


@contextmanager
def checkpoint_from_recipe(path: Path, out: Path) -> Iterator[Checkpoint]:
    """The checkpoint of a recipe's network; it gets its place once all that is made of it is written.

    Args:
        path: The recipe.
        out: Folder that gets ``checkpoint``, in place of an older one, where the block ends without an error; else
            everything is as it was.

    Yields:
        The checkpoint, where it is written for now.

    Raises:
        ConfigError: The recipe is wrong, or its module cannot be imported or called.
        FormatError: The weights are missing, damaged or of another network.
        ExportError: The network does not run on its input, or its outputs have no known names.
    """
    recipe = read_yaml(path, ModuleRecipe)
    cell_px = recipe.cell_px or 1
    file = CheckpointFile(
        factory=recipe.module,
        arguments=recipe.arguments,
        preprocess=recipe.preprocess,
        cell_px=cell_px,
        classes=recipe.classes,
        lines=(recipe.line,),
        recipe=recipe.model_dump(mode="json", by_alias=True, exclude={"preprocess"}),
        versions={"torch": str(torch.__version__)},
    )
    said = _line(recipe)
    network = _filled(Checkpoint(path.parent, file, recipe.line, said, named=path), recipe, path)
    if recipe.cell_px is None:
        file = file.model_copy(update={"cell_px": _cell_of(network, recipe, path)})
    folder, empty = out / CHECKPOINT, not out.exists()
    part = begun(folder)
    try:
        (part / "lines").mkdir()
        state = {name: tensor.detach().clone().contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, part / WEIGHTS)
        document = {**json.loads(file.model_dump_json(by_alias=True)), "preprocess": recipe.preprocess.document()}
        (part / "checkpoint.json").write_bytes(canonical_json(document) + b"\n")
        (part / "lines" / f"{recipe.line}.json").write_bytes(canonical_json(said) + b"\n")
        yield read_checkpoint(part, line=recipe.line)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        if empty:
            with suppress(OSError):  # it was made for the checkpoint alone
                out.rmdir()
        raise
    put_in_place(folder)


def _line(recipe: ModuleRecipe) -> LineFile:
    if recipe.thresholds is not None:
        return LineFile(thresholds=recipe.thresholds, guarantee="none: the recipe gives them")
    band = fixed_band(len(recipe.classes), why="the recipe says nothing of thresholds")
    rows = tuple(
        ClassThresholds(
            class_name=name,
            boundary=round(float(band.boundary[k]), 6),
            pass_below=round(float(band.pass_below[k]), 6),
            defective_from=round(float(band.defective_from[k]), 6),
        )
        for k, name in enumerate(recipe.classes)
    )
    return LineFile(thresholds=rows, how=band.how, guarantee=band.guarantee)


def _filled(checkpoint: Checkpoint, recipe: ModuleRecipe, path: Path) -> torch.nn.Module:
    """The network with the weights that the recipe names, or its own."""
    if recipe.weights is None:
        return checkpoint.made().eval()
    weights = path.parent / recipe.weights
    if not weights.is_file():
        raise FormatError(f"{path}: weights is {weights}, which is no file; give a safetensors file, or leave it out")
    return checkpoint.filled(weights)


def _cell_of(network: torch.nn.Module, recipe: ModuleRecipe, path: Path) -> int:
    """Pixels a cell, from the map that the network gives."""
    outputs = outputs_of(network, recipe.preprocess)
    found = next((outputs[name] for name in ("cells", "novelty") if name in outputs), None)
    if found is None or found.ndim != 4:
        raise ConfigError(f"{path}: cell_px is missing; say how many pixels of the input its anchors are apart")
    return max(1, round(recipe.preprocess.height / found.shape[2]))
