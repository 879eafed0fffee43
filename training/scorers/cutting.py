"""How a picture is brought to a scorer's input: made to fit, or cut into tiles where a small defect would be lost."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING

from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.quality.datasets import Sample, picture_size
from edge_sdk.vision.preprocess import PreprocessSpec, tiled
from edge_sdk.vision.tiles import tiles_of

if TYPE_CHECKING:
    from training.scorers.fitting import ScorerRecipe
    from training.scorers.lending import Lent

__all__ = ["LEAST_PX", "OVERLAP", "check_alike", "cut_or_not", "said_of_size", "spec_of"]

LEAST_PX = 4
"""Side that the smallest defect must have on the network's input: one place of the finest stage that is looked at.  A
smaller one is mixed there with what lies around it, though its contrast may be left (``LEAST_KEPT``).  Ours: of drawn
parts with a defect of 6 px 17 of 24 were found where it had 2.4 px on the input, and all where it had 6 (seed 100)."""
OVERLAP = 0.25
"""Share of a tile that its neighbour sees too: of 256 pixels 64, twice as far as the zeros beside a tile reach."""


def cut_or_not(recipe: ScorerRecipe, size: tuple[int, int]) -> ScorerRecipe:
    """The recipe with tiles, where the smallest defect that it names would else be smaller than ``LEAST_PX``.

    Pictures are made smaller first by the largest whole ratio that leaves the defect so large.

    Args:
        recipe: What was asked for; one that cuts pictures anyway, or names no defect, comes back as it is.
        size: Height and width of the pictures.

    Raises:
        ConfigError: ``shrink`` without tiles.
    """
    if recipe.shrink is not None and recipe.tile_overlap_px is None:
        raise ConfigError(f"shrink is {recipe.shrink}, and pictures are not cut into tiles; give tile_overlap_px too")
    if recipe.tile_overlap_px is not None or recipe.defect_px is None:
        return recipe
    height, width = _sides(recipe, size)
    if recipe.defect_px * min(height / size[0], width / size[1]) >= LEAST_PX:
        return recipe
    overlap = max(32, 32 * round(OVERLAP * recipe.side_px / 32))
    ratio = max(1, recipe.defect_px // LEAST_PX)
    return recipe.model_copy(update={"tile_overlap_px": overlap, "shrink": None if ratio == 1 else ratio})


def spec_of(recipe: ScorerRecipe, size: tuple[int, int], trunk: Lent) -> PreprocessSpec:
    """The preprocessing of pictures of ``size``, height and width."""
    height, width = _sides(recipe, size)
    # stretched: padding would be strange in every picture, and elsewhere in each where they are of several sizes
    return PreprocessSpec(
        width=width,
        height=height,
        mean=trunk.mean,
        std=trunk.std,
        colour=trunk.colour,
        resize="stretch",
        sampling=recipe.sampling,
        defect_px=recipe.defect_px,
        tile_overlap_px=recipe.tile_overlap_px,
        shrink=recipe.shrink,
    )


def said_of_size(spec: PreprocessSpec, size: tuple[int, int]) -> tuple[str, ...]:
    """What becomes of pictures of ``size``, a sentence; none where nothing is lost."""
    height, width = size
    if spec.tile_overlap_px is None:
        ratio = max(height / spec.height, width / spec.width)
        if spec.defect_px is not None or ratio < 2:
            return ()
        return (
            f"pictures of {width} x {height} are made {ratio:.1f} times smaller, so a defect below about "
            f"{ceil(LEAST_PX * ratio)} px may be lost; where smaller ones count, say how small: --defect-px N, and "
            "pictures are cut into tiles if need be",
        )
    count, ratio = len(tiles_of(spec, height, width)), spec.shrink or 1
    first = "" if ratio == 1 else f", made {ratio} times smaller,"
    said = (
        f"pictures of {width} x {height}{first} are cut into {count} tiles of {spec.width} px that share "
        f"{spec.tile_overlap_px} px or more; a frame takes as long as {count} runs of the network"
    )
    if spec.defect_px is None or spec.defect_px >= LEAST_PX * ratio:
        return (said,)
    return (
        said,
        f"a defect of {spec.defect_px} px has {spec.defect_px / ratio:g} px on a tile, and the network tells places of "
        f"{LEAST_PX} px apart, so it may be missed"
        + ("; leave --shrink out" if ratio > 1 else "; give pictures of more pixels if you can"),
    )


def check_alike(samples: Sequence[Sample], spec: PreprocessSpec) -> None:
    """Whether all pictures are cut alike, as a calibration compares them.

    Raises:
        DatasetError: Two are not; names both sizes.
    """
    if spec.tile_overlap_px is None:
        return
    found: dict[tuple[int, int], tuple[Sample, tuple[int, int]]] = {}
    for one in samples:
        height, width = picture_size(one.path)
        down, across = tiled(spec, height, width)
        found.setdefault((down.total, across.total), (one, (height, width)))
    if len(found) > 1:
        (first, (high, wide)), (other, (height, width)) = list(found.values())[:2]
        raise DatasetError(
            f"{other.path} is {width} x {height}, but {first.path} is {wide} x {high}, and pictures that are cut into "
            "tiles are compared place by place here; give pictures of one size, as one camera gives them"
        )


def _sides(recipe: ScorerRecipe, size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the network's input: a tile is square, a whole picture keeps its ratio."""
    ratio = 1.0 if recipe.tile_overlap_px is not None else min(4.0, max(0.25, size[1] / size[0]))
    across = max(32, 32 * round(recipe.side_px * ratio**0.5 / 32))
    down = max(32, 32 * round(recipe.side_px / ratio**0.5 / 32))
    return down, across
