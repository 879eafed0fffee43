"""What a training was told: one frozen document, kept in the checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field

from edge_sdk.documents import Document
from edge_sdk.errors import ConfigError
from edge_sdk.vision.resampling import Sampling

__all__ = ["MOBILENET_FILE", "WEIGHTS_VARIABLE", "Recipe", "pretrained_weights"]

MOBILENET_FILE = "mobilenetv2_100_tf_imagenet1k.safetensors"
WEIGHTS_VARIABLE = "EDGE_SDK_MOBILENETV2"


class Recipe(Document):
    """Everything besides the pictures that a training depends on."""

    trunk: Literal["auto", "slim", "mobilenetv2"] = "auto"
    """``slim`` is a thin ResNet-18 trained from scratch; ``mobilenetv2`` has ImageNet weights and is frozen unless
    ``frozen`` says otherwise; ``auto`` is the pretrained one where its weights are there, else the slim one."""
    width: float = Field(0.25, gt=0, le=2)
    """Of the slim ResNet-18, times the paper's channels."""
    stages: int = Field(3, ge=2, le=4)
    """Of the slim ResNet-18: a cell has 8, 16 or 32 pixels of the network's input."""
    start: str | None = None
    """File that `python -m training pretrain` wrote: its trunk is what the training starts from."""
    frozen: bool | None = None
    """Keep the trunk as it starts and train a neck above it; without it MobileNetV2 with ImageNet weights is kept, any
    other trunk is trained whole."""
    side_px: int = Field(160, ge=32, le=2048, multiple_of=16)
    """The network's input has about ``side_px`` squared pixels, in the pictures' own ratio."""
    sampling: Sampling | None = None
    """How pictures are made smaller: ``area`` averages over all pixels that fall together, ``filtered`` is quicker
    where the ratio is not whole, ``linear`` is quickest and steps over small defects; without it ``area``."""
    defect_px: int | None = Field(None, ge=1)
    """Side of the smallest defect that must be seen, in pixels of the pictures: a resize that would erase it is
    refused, here, when calibrating and on the station."""
    tile_overlap_px: int | None = Field(None, ge=0)
    """Cut pictures into square tiles of ``side_px`` that share so many pixels or more, instead of making all of a
    picture fit; for ``head: cells``, with masks."""
    shrink: int | None = Field(None, ge=1)
    """With tiles: pictures are made smaller by this whole ratio first."""
    iterations: int = Field(250, ge=1)
    batch: int = Field(8, ge=2)
    rate: float = Field(1e-3, gt=0)
    """Highest learning rate of the one cycle."""
    weight_decay: float = Field(0.01, ge=0)
    averaging: float = Field(0.97, ge=0, lt=1)
    """Of the weights, exponential, each step; 0: the last weights count."""
    jitter: bool = True
    """Ordinary photometric jitter: brightness, contrast, saturation, hue."""
    head: Literal["auto", "cells", "classifier", "anchors"] = "auto"
    """``cells`` learns a map from masks, ``classifier`` one verdict a picture from mean and maximum of the features,
    ``anchors`` a detector from the boxes of ``boxes.csv``; ``auto`` takes cells where any original training picture
    has a mask, else the classifier."""
    rebalance: bool = False
    """Of methods that align two lines: draw the new line's pictures so that about half are thought defective, as of
    the original's; for lines on which defects are rare (``training.methods.rebalancing``)."""
    masks: Literal["optional", "required"] = "optional"
    seed: int = Field(0, ge=0)

    def quick(self) -> Recipe:
        """The same code with less work, to see that everything runs."""
        return self.model_copy(update={"iterations": max(1, self.iterations * 2 // 5)})


def pretrained_weights() -> Path | None:
    """Where the ImageNet weights of MobileNetV2 are, if they are.

    The environment variable ``EDGE_SDK_MOBILENETV2`` names the file; else it is looked for beside the
    checkout, in ``shared/data/backbone_mobilenetv2``.

    Raises:
        ConfigError: The variable names a file that is not there.
    """
    named = os.environ.get(WEIGHTS_VARIABLE)
    if named:
        path = Path(named)
        if not path.is_file():
            raise ConfigError(f"{WEIGHTS_VARIABLE} is {named}, which is no file; name {MOBILENET_FILE}, or unset it")
        return path
    root = Path(__file__).resolve().parents[1]
    path = root.parent / "shared" / "data" / "backbone_mobilenetv2" / MOBILENET_FILE
    return path if path.is_file() else None
