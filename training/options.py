"""The flags that the commands share, so that a flag means the same wherever it stands."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "CheckpointArgument",
    "Data",
    "Device",
    "Gap",
    "GapOn",
    "Head",
    "Json",
    "LineName",
    "New",
    "Original",
    "Out",
    "Part",
    "Quick",
    "RecipeFile",
    "Seed",
    "SeedOfTraining",
    "Shrink",
    "Side",
    "SmallestDefect",
    "Threads",
    "TileOverlap",
    "Trunk",
    "TrunkFile",
    "Whole",
]


class Trunk(str, Enum):
    """What a training starts from."""

    auto = "auto"
    slim = "slim"
    mobilenetv2 = "mobilenetv2"


class Head(str, Enum):
    """What a training learns to say."""

    auto = "auto"
    cells = "cells"
    classifier = "classifier"
    anchors = "anchors"


class Side(str, Enum):
    """A line that stands behind a gap."""

    new = "new"
    original = "original"


class Part(str, Enum):
    """A part of a line."""

    train = "train"
    validate = "validate"
    mentor = "mentor"
    test = "test"


CheckpointArgument = Annotated[Path, typer.Argument(metavar="CKPT", help="A checkpoint folder.")]
RecipeFile = Annotated[
    Path | None,
    typer.Option("--recipe", metavar="FILE", help="YAML with data, roles and settings; flags win over it."),
]
Data = Annotated[
    list[Path] | None, typer.Option(help="Folder of pictures; twice for a pair of folders, a line each.")
]
Out = Annotated[Path, typer.Option(help="Folder to write.")]
Original = Annotated[str | None, typer.Option(help="Domains of the original line, separated by commas.")]
New = Annotated[list[str] | None, typer.Option(help="Domains of a new line; repeat for several lines.")]
Gap = Annotated[str | None, typer.Option(help="Make the new line of the original's pictures, e.g. stains+lamp.")]
GapOn = Annotated[Side | None, typer.Option(help="Which line stands behind the gap; the new one if not given.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Of the parts and of everything random; 0 if not given.")]
SeedOfTraining = Annotated[int | None, typer.Option("--seed", min=0, help="As in the training, if not given.")]
Device = Annotated[str | None, typer.Option(metavar="NAME", help="cpu (default), cuda or cuda:1.")]
Threads = Annotated[int | None, typer.Option(min=1, max=256, help="Threads to compute with; 1 if not given.")]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer iterations: to see that everything runs.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LineName = Annotated[str | None, typer.Option("--line", help="The new line that is meant.")]
TrunkFile = Annotated[
    Path | None, typer.Option("--start", metavar="FILE", help="Start from the trunk that `pretrain` wrote.")
]
Whole = Annotated[
    bool | None,
    typer.Option(
        "--whole/--frozen",
        help="Train the whole trunk, or keep it and train what is above; MobileNetV2 with ImageNet weights is kept.",
        show_default=False,
    ),
]
SmallestDefect = Annotated[
    int | None,
    typer.Option("--defect-px", min=1, help="Side of the smallest defect that must be seen, in the pictures' pixels."),
]
TileOverlap = Annotated[
    int | None,
    typer.Option(
        "--tile-overlap-px",
        min=0,
        help="Cut pictures into tiles of --side-px that share so many pixels or more, instead of making all of it fit.",
    ),
]
Shrink = Annotated[
    int | None, typer.Option("--shrink", min=1, help="With tiles: make pictures smaller by this whole ratio first.")
]
