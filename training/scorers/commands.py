"""``python -m training train --method`` and ``commission``: models of lines that have shown good parts alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from calibration.console import hand_out, refusals, say
from training.commands import resume_beside
from training.options import Shrink, SmallestDefect, TileOverlap

if TYPE_CHECKING:
    from training.scorers.fitting import ScorerRecipe

__all__ = [
    "Scorer",
    "ScorerAlpha",
    "ScorerBackbone",
    "ScorerCovariance",
    "ScorerTrunk",
    "ScorerWeights",
    "check_flags",
    "commission",
    "scorer_settings",
    "train_scorer",
]


class Scorer(str, Enum):
    """How it is known what normal is."""

    gaussian = "gaussian"
    patchcore = "patchcore"
    stfpm = "stfpm"
    supersimple = "supersimple"


class CovarianceOf(str, Enum):
    """Whose the Gaussian's covariance is."""

    block = "block"
    shared = "shared"
    position = "position"
    diagonal = "diagonal"


ScorerCovariance = Annotated[
    CovarianceOf | None,
    typer.Option(
        "--covariance", help="Of gaussian: of each 2 x 2 cells of the picture (default), of all places, or of each."
    ),
]
ScorerAlpha = Annotated[
    float | None,
    typer.Option("--alpha", min=0.0001, max=0.5, help="Share of good parts that may be stopped; 0.05 if not given."),
]
ScorerTrunk = Annotated[
    Path | None, typer.Option("--from", metavar="CKPT", help="Take this checkpoint's trunk, as it was trained.")
]
ScorerBackbone = Annotated[
    str | None,
    typer.Option("--backbone", metavar="NAME", help="Take this backbone of timm as the trunk, e.g. hrnet_w18."),
]
ScorerWeights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="FILE", help="The trunk's weights (safetensors), where no hub is in reach."),
]


TRAINED = (Scorer.stfpm, Scorer.supersimple)
"""Which are trained step by step; the others are fitted in one pass."""
FLAGS = {"jitter": "--no-jitter", "masks": "--masks-required"}
"""Flags that are not called as the settings they change."""


def check_flags(method: Scorer | None, *, scorers: Mapping[str, object], others: Mapping[str, object]) -> None:
    """Whether ``train`` can follow every flag that was given.

    Args:
        method: A scorer's, or none.
        scorers: By name, what only a scorer understands; ``None`` where not given.
        others: By name, what no scorer does.

    Raises:
        ConfigError: A flag would change nothing; names all such.
    """
    from edge_sdk.errors import ConfigError

    if method in TRAINED:
        others = {name: value for name, value in others.items() if name != "iterations"}
    idle = [
        FLAGS.get(name, f"--{name.replace('_', '-')}")
        for name, value in (scorers if method is None else others).items()
        if value is not None
    ]
    if idle and method is None:
        raise ConfigError(f"{', '.join(idle)}: for a scorer alone; name one with --method, or leave it out")
    if idle:
        raise ConfigError(f"{', '.join(idle)}: nothing to a scorer, which is fitted on good parts; leave it out")


def scorer_settings(
    method: Scorer,
    covariance: CovarianceOf | None,
    alpha: float | None,
    side_px: int | None,
    seed: int | None,
    iterations: int | None,
    backbone: str | None = None,
    weights: Path | None = None,
    **cut: int | None,
) -> dict[str, Any]:
    """What was given, by the names of ``ScorerRecipe``.

    Raises:
        ConfigError: Something given is of another method.
    """
    from edge_sdk.errors import ConfigError

    if covariance is not None and method is not Scorer.gaussian:
        raise ConfigError(f"--covariance: nothing to {method.value}; leave it out, or take --method gaussian")
    if iterations is not None and method not in TRAINED:
        raise ConfigError(f"--iterations: nothing to {method.value}, which is fitted in one pass; leave it out")
    told = {
        "method": method.value,
        "covariance": None if covariance is None else covariance.value,
        "alpha": alpha,
        "side_px": side_px,
        "seed": seed,
        "iterations": iterations,
        "backbone": backbone,
        "weights": None if weights is None else str(weights),
        **cut,
    }
    return {name: value for name, value in told.items() if value is not None}


def train_scorer(
    data: list[Path], out: Path, settings: dict[str, Any], *, lent: Path | None, threads: int, json_: bool
) -> None:
    """Of ``train --method``: a checkpoint, ``figures.json`` and ``page.html`` in ``out``."""
    with refusals():
        from edge_sdk.errors import ConfigError
        from training.checkpoint import check_place, save_checkpoint
        from training.progress import shown
        from training.scorers.fitting import fit_scorer
        from training.scorers.normals import normals_in
        from training.scorers.page import write_scorer_page

        if len(data) != 1:
            raise ConfigError(f"{len(data)} folders are given; a scorer is fitted on one folder of good parts")
        check_place(out)
        recipe = _recipe(settings, threads)
        normals = normals_in(data[0], seed=recipe.seed)
        for note in normals.notes:
            say(note)
        with shown() as (progress, _):
            checkpoint, said, held = fit_scorer(
                normals, recipe, lent=lent, resume=resume_beside(out), progress=progress
            )
        for sentence in checkpoint.data["notes"]:
            if sentence not in normals.notes:
                say(sentence)
        save_checkpoint(checkpoint, out)
        band = checkpoint.line("original").thresholds
        facts = {
            "out": str(out),
            "method": recipe.method,
            "pictures": len(normals.samples),
            "guarantee": band.guarantee,
            **checkpoint.figures,
        }
        text = f"{out}: {recipe.method} of {len(normals.samples)} good parts; {band.how}; guarantee: {band.guarantee}"
        write_scorer_page(checkpoint, said, held, out, command="train", facts=facts, title=text.partition(": ")[2])
    hand_out(facts, as_json=json_, text=text)


def commission(
    normals: Annotated[Path, typer.Argument(metavar="NORMALS", help="Folder of pictures of good parts.")],
    bundle: Annotated[
        Path, typer.Option("--bundle", metavar="OUT", help="NAME-VERSION.bundle to write, or a folder for everything.")
    ],
    method: Annotated[
        Scorer | None,
        typer.Option(help="How it is known what normal is; patchcore if not given, or gaussian with --covariance."),
    ] = None,
    covariance: ScorerCovariance = None,
    alpha: ScorerAlpha = None,
    lent: ScorerTrunk = None,
    backbone: ScorerBackbone = None,
    weights: ScorerWeights = None,
    side_px: Annotated[
        int | None, typer.Option(min=64, max=2048, help="Side of the network's input, or of a tile; 256 if not given.")
    ] = None,
    defect_px: SmallestDefect = None,
    tile_overlap_px: TileOverlap = None,
    shrink: Shrink = None,
    stretch: Annotated[
        bool | None,
        typer.Option(
            "--stretch/--no-stretch",
            help="Take pictures of several sizes, each stretched to one, or refuse them; if not given, they are taken "
            "where fewer than 90 % share a size.",
        ),
    ] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Steps of a method that is trained; its own number if not given.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option(help="release.pem of `export keys`; without it the bundle is unsigned.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of all that is drawn by lot; 0 if not given.")] = None,
    threads: Annotated[int, typer.Option(min=1, max=256, help="Threads to compute with.")] = 1,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a new line's first model from good parts alone: fit, export, quantise, pack, prove.

    \b
    Example:
      python -m training commission pictures/good --bundle build/press-3-1.bundle
      python -m training commission pictures/good --bundle build/press-3-1.bundle --defect-px 6

    Half of the parts fit the model, half set its threshold, so that at most the share --alpha of good parts is
    stopped; with too few it refuses.  Large pictures are cut into tiles where the smallest defect, --defect-px, would
    else be lost, or with --tile-overlap-px.  Beside the bundle: checkpoint, graphs, page.html with the strangest
    good parts, figures.json.
    """
    with refusals():
        from edge_sdk.documents import write_atomic
        from training.progress import shown
        from training.scorers.commission import commission as made_of
        from training.scorers.commission import place_of
        from training.scorers.normals import normals_in
        from training.scorers.page import write_scorer_page

        place = place_of(bundle, normals)
        side = None if side_px is None else 16 * round(side_px / 16)
        told = scorer_settings(
            method or (Scorer.gaussian if covariance else Scorer.patchcore),
            covariance, alpha, side, seed, iterations, backbone, weights,
            defect_px=defect_px, tile_overlap_px=tile_overlap_px, shrink=shrink,
        )  # fmt: skip
        recipe = _recipe(told, threads)
        found = normals_in(normals, seed=recipe.seed)
        for note in found.notes:
            say(note)
        with shown() as (progress, _):
            made = made_of(found, recipe, place, lent=lent, key=key, stretch=stretch, progress=progress)
        for sentence in made.facts["notes"]:
            if sentence not in found.notes:
                say(sentence)
        for role, why in made.facts["left_out"].items():
            say(f"{role} is left out: {why}")
        for role, why in made.facts["unwatched"].items():
            say(f"the station will not watch {role} for drift: {why}")
        facts = made.facts
        title = f"{made.bundle.name}: {facts['pictures']} good parts, {facts['guarantee']}"
        write_scorer_page(
            made.checkpoint, made.distances, made.held, place.folder, command="commission", facts=facts, title=title
        )
        document = json.dumps(facts, indent=1, ensure_ascii=False).encode() + b"\n"
        write_atomic(place.folder / "figures.json", document)
    pace = ", ".join(f"{row['ms']:.0f} ms as {role}" for role, row in facts["station"].items())
    text = f"{made.bundle}: {facts['guarantee']}, {pace} a frame here, {facts['took_s']:.0f} s in all"
    hand_out(facts, as_json=json_, text=text)


def _recipe(settings: dict[str, Any], threads: int) -> ScorerRecipe:
    """The recipe, with as many threads at work as asked for.

    Raises:
        ConfigError: A setting is out of range.
    """
    import cv2
    import torch
    from pydantic import ValidationError

    from edge_sdk.errors import ConfigError
    from training.scorers.fitting import ScorerRecipe

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    try:
        return ScorerRecipe(**settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigError(f"{'.'.join(map(str, first['loc']))} is {first['input']}; {first['msg'].lower()}") from error
