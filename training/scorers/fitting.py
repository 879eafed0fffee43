"""From good parts to a scorer's checkpoint: a pass over those that fit it, one over those that set its threshold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from edge_sdk.arrays import Array
from edge_sdk.documents import Document, sha256_file, sha256_hex
from edge_sdk.errors import ConfigError
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.novelty import ALPHA, NOVELTY, band_of_normals
from edge_sdk.vision.preprocess import PreprocessSpec
from edge_sdk.vision.resampling import Sampling
from training.checkpoint import Checkpoint, LineState
from training.data.tiles import grid_of
from training.data.views import normalised
from training.networks.cellnet import CellNetwork
from training.scorers.cutting import check_alike, cut_or_not, said_of_size, spec_of
from training.scorers.distances import Distances, distances_as_new, distances_of, distances_of_pieces
from training.scorers.embedding import channel_scale, joined_maps
from training.scorers.gaussian import Covariance, GaussianFit, GaussianHead
from training.scorers.lending import Lent, lent_trunk
from training.scorers.network import FACTORY, ScorerNetwork, scorer_network
from training.scorers.normals import Normals, check_not_blank, split_normals, usual_size
from training.scorers.patchcore import PatchCoreFit, PatchCoreHead
from training.scorers.pieces import Batch, batches, tiles_each
from training.scorers.rim import rim_of
from training.scorers.suspects import named, suspicious
from training.scorers.trained import gaussian_beside, teaching, train_heads, trained
from training.train import Progress, quiet
from training.trunk_file import put_weights

__all__ = ["ScorerRecipe", "fit_scorer"]

FIRST = 32
"""Pictures that the channels' scales are measured on, …"""
SOME = 4
"""… and tiles of each, at most."""
SMOOTHED = ("patchcore",)
"""Whose distances are averaged over 3 x 3 cells: a nearest neighbour is far off by chance more often than a mean is.
On seeds from 100 on it gained 0.01 to 0.03 of ``patchcore``'s AUROC and nothing of the Gaussian's."""
BANKED = 0.1
"""Share of the normal places that a bank keeps, at most (the paper: 0.25, 0.1 and 0.01): to one that holds nearly all
of them, good parts look more alike than they are."""
RIM = 64
"""Pictures, at most, that what the border adds to distances is measured on."""


class ScorerRecipe(Document):
    """Everything besides the pictures that a scorer depends on."""

    method: Literal["gaussian", "patchcore", "stfpm", "supersimple"] = "patchcore"
    covariance: Covariance = "block"
    """Of ``gaussian``: one for all places, one a block of cells, or one a place, full or diagonal."""
    rank: int = Field(100, ge=1, le=512)
    """Dimensions that features are projected to."""
    bank: int = Field(3000, ge=1, le=16384)
    """Of ``patchcore``: normal features kept, at most, and no more than ``BANKED`` of those seen."""
    iterations: int | None = Field(None, ge=1)
    """Steps of what is trained, ``stfpm`` and ``supersimple``; the method's own number if not given."""
    side_px: int = Field(256, ge=64, le=2048, multiple_of=16)
    """The network's input has about ``side_px`` squared pixels, in the pictures' own ratio."""
    backbone: str | None = None
    """Of timm, any that gives maps of its stages, as the trunk; without it MobileNetV2."""
    weights: str | None = None
    """File of the trunk's weights; without it those of ImageNet, of a backbone from timm's hub."""
    sampling: Sampling | None = None
    """How pictures are made smaller, see ``training.recipe.Recipe``."""
    defect_px: int | None = Field(None, ge=1)
    """Side of the smallest defect that must be seen, in pixels of the pictures: they are cut into tiles where it would
    else be lost, see ``cut_or_not``."""
    tile_overlap_px: int | None = Field(None, ge=0)
    """Cut pictures into square tiles of ``side_px`` that share so many pixels or more."""
    shrink: int | None = Field(None, ge=1)
    """With tiles: pictures are made smaller by this whole ratio first."""
    stride: Literal[4, 8, 16] = 8
    """Pixels of the input a cell."""
    alpha: float = Field(ALPHA, gt=0, lt=1)
    """Share of good parts that may be stopped."""
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _of_the_method(self) -> ScorerRecipe:
        if self.covariance != "block" and self.method != "gaussian":
            raise ValueError(
                f"covariance is {self.covariance!r}, which is nothing to {self.method}; say method='gaussian' too"
            )
        return self


def fit_scorer(
    normals: Normals,
    recipe: ScorerRecipe,
    *,
    lent: Path | None = None,
    strict: bool = False,
    stretch: bool | None = None,
    resume: Path | None = None,
    progress: Progress = quiet,
) -> tuple[Checkpoint, Distances, tuple[Sample, ...]]:
    """Fit a scorer on half of the good parts and set its threshold on the other half.

    Args:
        normals: Good parts.
        recipe: Method and settings.
        lent: A checkpoint whose trunk is taken as it was trained; without it MobileNetV2 with ImageNet weights.
        strict: Too few normals for the rate asked for, and pictures of several sizes, are errors.
        stretch: Whether pictures of several sizes are no error even so; if not given, they are none where the set is
            one of several sizes by nature, see ``usual_size``.
        resume: File that keeps the state of a training under way; nothing to what is fitted in one pass.
        progress: Told of every picture, and of every step of a training.

    Returns:
        A checkpoint with the line ``original``, and what it says of the pictures that set the threshold.

    Raises:
        DatasetError: Pictures differ in size or cannot be read, or all are blank; with ``strict`` they are too few.
        ConfigError: The weights of the trunk are not here, or pictures are to be stretched and cut.
        RangeError: The trunk says the same of every picture.
    """
    if stretch and recipe.tile_overlap_px is not None:
        raise ConfigError("tiles cover pictures of any size, and none is stretched; leave out --stretch, or the tiles")
    several = stretch if strict and recipe.tile_overlap_px is None else True
    size, alike = usual_size(normals.samples, several=several)
    recipe = cut_or_not(recipe, size)
    fits, holds = split_normals(normals.samples, seed=recipe.seed)
    dark = check_not_blank(fits[:FIRST], normals.root)
    spec, arguments, trunk = _started(recipe, size, lent, pictures=len(fits))
    if strict:
        check_alike(normals.samples, spec)
    network = scorer_network(**arguments)
    put_weights(network.stages.trunk, trunk.weights, source=trunk.source)
    defects = teaching(normals.defects, spec) if recipe.method == "supersimple" else ()
    fits, doubts, remembered = _fitted_without_suspects(network, fits, defects, spec, recipe, resume, progress)
    if recipe.method == "supersimple":
        doubts += (_taught_by(defects),)
    if not alike and spec.tile_overlap_px is None:
        doubts += (_stretched(spec, unasked=several is None),)
    some = fits[:: math.ceil(len(fits) / RIM)]
    assert network.rim is not None  # asked for in _started
    looked = distances_of_pieces if remembered is None else partial(distances_as_new, remembered=remembered)
    near = looked(network, some, spec, each=tiles_each(spec, len(fits)), what="even out the border", progress=progress)
    network.rim.set_from(near.maps, near.speaks)
    said = distances_of(network, holds, spec, what="set the threshold", progress=progress)
    strange = suspicious(said.highest)
    if strange.any():
        doubts += (
            f"{named(holds, strange)} lie far beyond the other good parts and raise the threshold; if they are "
            "defective, take them out and begin again",
        )
    units = [one.unit for one in holds]
    # as the checkpoint will store them
    reference = np.array(sorted(round(value, 6) for value in highest_of_units(said.highest, units)))
    band = band_of_normals(reference, reference, alpha=recipe.alpha, strict=strict)
    state = LineState(
        statistics={},
        thresholds=band,
        temperature=np.ones(1, np.float32),
        method=recipe.method,
        feature_mean=said.features.mean(axis=0),
        feature_sd=said.features.std(axis=0),
        pictures=len(holds),
        normals=reference,
        trained_on=tuple(sorted({sha256_file(one.path) for one in (*normals.samples, *defects)})),
    )
    checkpoint = Checkpoint(
        network=cast(CellNetwork, network),
        arguments=arguments,
        preprocess=spec,
        cell_px=recipe.stride,
        classes=(NOVELTY,),
        lines={"original": state},
        recipe=recipe.model_dump(mode="json"),
        data={
            "root": normals.root.name,
            "digest": _digest(normals.samples),
            "pictures": len(normals.samples),
            "fitted_on": len(fits),
            "threshold_from": len(holds),
            "defects": len(defects),
            "notes": [*normals.notes, *dark, *said_of_size(spec, size), *doubts, f"the trunk is {trunk.source}"],
            "original": sorted({one.domain for one in normals.samples if one.domain}),
            "new": [],
        },
        figures={"median_distance": round(float(np.median(reference)), 6), "highest_distance": float(reference[-1])},
        factory=FACTORY,
    )
    return checkpoint, said, holds


def highest_of_units(highest: Array, units: Sequence[str]) -> list[float]:
    """Of each group its highest picture: pictures of one part are not independent, groups are."""
    found: dict[str, float] = {}
    for value, unit in zip(highest, units, strict=True):
        found[unit] = max(found.get(unit, -math.inf), float(value))
    return list(found.values())


def _fitted_without_suspects(
    network: ScorerNetwork,
    samples: tuple[Sample, ...],
    defects: tuple[Sample, ...],
    spec: PreprocessSpec,
    recipe: ScorerRecipe,
    resume: Path | None,
    progress: Progress,
) -> tuple[tuple[Sample, ...], tuple[str, ...], Array | None]:
    """Fit without those that lie far beyond the others; they set no threshold, so none is moved.

    What is trained learns a defect by heart, a bank remembers it before all else, and to a place's own covariance it is
    one of few, so none is surprised by it: a Gaussian of all places looks there first.

    Returns:
        Those that were fitted, what to say of the others, and what ``_fit`` gave.
    """
    looking = network
    if not isinstance(network.head, GaussianHead) or network.head.covariance != "shared":
        looking = gaussian_beside(network, spec, stride=recipe.stride, rank=recipe.rank)
    what, each = f"fit {recipe.method}", tiles_each(spec, len(samples))
    step = what if looking is network else "look at good parts"
    remembered = _fit(looking, samples, spec, recipe, progress, each=each, what=step)
    seen = distances_of_pieces(looking, samples, spec, each=each, what="look for defects", progress=progress)
    assert network.rim is not None
    strange = suspicious(seen.highest(rim_of(seen.maps, network.rim.count, seen.speaks)))
    kept = tuple(one for one, out in zip(samples, strange, strict=True) if not out)
    if trained(network):
        told = f"{recipe.model_dump_json()} {_digest(kept)} {_digest(defects)}"
        train_heads(
            network, kept, defects, spec,
            iterations=recipe.iterations, seed=recipe.seed, resume=resume, told=told, progress=progress,
        )  # fmt: skip
    elif looking is not network or strange.any():
        remembered = _fit(network, kept, spec, recipe, progress, each=each, what=what)
    if not strange.any():
        return samples, (), remembered
    doubt = f"{named(samples, strange)} lie far beyond the other good parts and are not fitted; are they defective?"
    return kept, (doubt,), remembered


def _fit(
    network: ScorerNetwork,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    recipe: ScorerRecipe,
    progress: Progress,
    *,
    each: int | None,
    what: str,
) -> Array | None:
    """Fit in one pass, and tell of a bank ``(B,)`` the unit that each feature is of."""
    stages, stride = network.stages, recipe.stride
    units, parts = np.unique([one.unit for one in samples], return_inverse=True)
    with torch.no_grad():

        def seen_of(batch: Batch) -> tuple[Tensor, Tensor | None]:
            maps = joined_maps(stages(normalised(batch.images, spec)), stages.strides, stride)
            # what another tile speaks for is seen there, and padding is no part
            return maps, None if batch.speaks.all() else torch.from_numpy(batch.speaks)

        first = batches(samples[:FIRST], spec, stride=stride, each=None if each is None else min(each, SOME))
        mean, scale = channel_scale(_rows(*seen_of(batch)) for batch in first)
        whole = batches(samples, spec, stride=stride, each=each)
        if isinstance(network.head, GaussianHead):
            gaussian = GaussianFit(network.head, scale, seed=recipe.seed)
            for batch in whole:
                gaussian.see(*seen_of(batch))
                progress(what, int(batch.pictures[-1]) + 1, len(samples), {})
            gaussian.finish()
            return None
        head = cast(PatchCoreHead, network.head)
        bank = PatchCoreFit(head, scale, mean, seed=recipe.seed)
        for batch in whole:
            places = head.joined(stages(normalised(batch.images, spec))).permute(0, 2, 3, 1)
            owners = np.repeat(parts[batch.pictures], batch.speaks.sum(axis=(1, 2)))
            bank.see(places[torch.from_numpy(batch.speaks)], torch.from_numpy(owners))
            progress(what, int(batch.pictures[-1]) + 1, len(samples), {})
        chosen = bank.finish(lambda done, count: progress("choose what is remembered", done, count, {}))
        return np.asarray(units[chosen.numpy()])


def _rows(maps: Tensor, speaks: Tensor | None) -> Tensor:
    """``(1, D, 1, n)``: of ``(N, D, h, w)`` the n cells that speak; all as they are where all do."""
    return maps if speaks is None else maps.permute(0, 2, 3, 1)[speaks].T[None, :, None]


def _stretched(spec: PreprocessSpec, *, unasked: bool) -> str:
    said = f"the good parts are of several sizes; every picture is stretched to {spec.width} x {spec.height}"
    if not unasked:
        return said
    return f"warning: {said}, so a part of the wrong size is not seen by it; --no-stretch refuses such pictures"


def _taught_by(defects: Sequence[Sample]) -> str:
    if not defects:
        return "no defect is known, so noise on good parts alone teaches"
    masks = sum(one.mask is not None for one in defects)
    return f"{len(defects)} defects of the set's part train teach beside noise, {masks} of them with a mask"


def _started(
    recipe: ScorerRecipe, size: tuple[int, int], lent: Path | None, *, pictures: int
) -> tuple[PreprocessSpec, dict[str, Any], Lent]:
    """Preprocessing, the factory's arguments, and the trunk."""
    trunk = lent_trunk(lent, recipe.backbone, None if recipe.weights is None else Path(recipe.weights))
    spec = spec_of(recipe, size, trunk)
    place: dict[str, Any] = {
        "height": spec.height, "width_px": spec.width, "stride": recipe.stride, "rim": True,
    }  # fmt: skip
    place["smooth"] = recipe.method in SMOOTHED
    cells = math.prod(grid_of(spec, *size, (spec.height // recipe.stride, spec.width // recipe.stride)))
    common: dict[str, Any] = {"method": recipe.method, **place, **trunk.arguments}
    by_method: dict[str, dict[str, Any]] = {
        "gaussian": {"covariance": recipe.covariance},
        "patchcore": {"bank": min(recipe.bank, max(1, round(BANKED * pictures * cells))), "fade": True},
        "stfpm": {},
        "supersimple": {},
    }
    options = by_method[recipe.method]
    probe = scorer_network(**{**common, "rank": 1}, **_tiny(options))
    rank = min(recipe.rank, sum(probe.stages.channels))
    return spec, {**common, **options, "rank": rank}, trunk


def _tiny(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: "shared" if name == "covariance" else 1 for name in options}


def _digest(samples: Sequence[Sample]) -> str:
    said = "".join(f"{one.image}\t{sha256_file(one.path)}\n" for one in sorted(samples, key=lambda one: one.image))
    return sha256_hex(said.encode())
