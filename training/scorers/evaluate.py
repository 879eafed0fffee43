"""How good a scorer is on pictures with a truth that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_sdk.arrays import Array, Bools
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, Sample, load_dataset, picture_size, read_mask
from edge_sdk.quality.localisation import au_pro
from edge_sdk.quality.measures import auroc, average_precision, bootstrap_over_groups, precision_recall_at
from edge_sdk.quality.novelty import confidence_of_distances
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask, tiled, valid_cells
from training.checkpoint import Checkpoint
from training.data.views import CELL_COVERED
from training.scorers.distances import distances_of, scorer_of
from training.scorers.normals import FEWEST, held_back
from training.train import Progress, quiet

__all__ = ["evaluate_scorer", "evaluated_samples", "figures_of_maps"]

ROUNDS = 500
"""Of the bootstrap over groups."""


def evaluate_scorer(checkpoint: Checkpoint, data: Sequence[Path], *, progress: Progress = quiet) -> dict[str, Any]:
    """Figures of the good parts that it has not seen and of every defect.

    Args:
        checkpoint: Of a scorer; the pictures that it was fitted on or that set its threshold are left out, by content.
        data: Folders, read as when it was fitted.
        progress: Told of every picture.

    Returns:
        See ``figures_of_maps``; beside them ``false_alarms`` and ``found``, the shares of good and of defective
        pictures that a station would not pass, ``strange``, what is to be said where the pictures are of something
        else altogether, or ``None``, and ``left_out``, how many pictures of the set the scorer was made of.

    Raises:
        DatasetError: There is no truth to compare with.
    """
    dataset = load_dataset(*data)
    state = checkpoint.line("original")
    seen = frozenset(state.trained_on)
    samples = evaluated_samples(dataset, seed=int(checkpoint.recipe.get("seed", 0)), seen=seen)
    said = distances_of(scorer_of(checkpoint), samples, checkpoint.preprocess, what="test", progress=progress)
    assert state.normals is not None  # a scorer's line has them
    figures = figures_of_maps(said.maps, samples, checkpoint.preprocess)
    defective = np.array([one.healthy is False for one in samples])
    sure = confidence_of_distances(said.highest, state.normals)
    low = float(state.thresholds.pass_below[0])
    precision, recall = precision_recall_at(sure, defective, low)
    good = sure[~defective]
    return {
        **figures,
        "left_out": sum(one.healthy is not None for one in dataset.samples) - len(samples),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "false_alarms": round(float((good >= low).mean()), 4) if good.size else None,
        "found": round(float((sure[defective] >= low).mean()), 4) if defective.any() else None,
        "strange": _of_another_part(int((good >= low).sum()), good.size),
    }


def _of_another_part(stopped: int, of: int) -> str | None:
    """What is said where most good parts would be stopped: no threshold was meant to do that."""
    if of < FEWEST or stopped <= of / 2:
        return None
    return (
        f"{stopped} of {of} good parts would be stopped: they are not of the parts that the scorer was fitted on, or "
        "another light or camera took them; fit it on good parts of this line"
    )


def evaluated_samples(dataset: Dataset, *, seed: int, seen: frozenset[str] = frozenset()) -> list[Sample]:
    """Every defect, and the good parts that no scorer was fitted on.

    Args:
        dataset: With good parts and defects.
        seed: Of the scorer, which says what was held back where nothing else is known.
        seen: sha256 of the files that the scorer has seen, under whatever name; all others are judged.

    Raises:
        DatasetError: One of the two kinds is missing.
    """
    known = [one for one in dataset.samples if one.healthy is not None]
    if seen:
        found = [one for one in known if sha256_file(one.path) not in seen]
    else:
        back = held_back(dataset, seed=seed)
        found = [one for one in known if one.healthy is False or one.image in back]
    if len({one.healthy for one in found}) < 2:
        which = f", the {len(known) - len(found)} left out that it was made of" if len(known) > len(found) else ""
        raise DatasetError(
            f"{dataset.root} holds {len(found)} pictures to judge a scorer on, all of one kind{which}; give a data set "
            "with good parts and defects that it has not seen"
        )
    return found


def figures_of_maps(maps: Array, samples: Sequence[Sample], spec: PreprocessSpec) -> dict[str, Any]:
    """AUROC and AP of pictures by their highest distance, AUROC and AU-PRO of pixels.

    Pixels are those of the network's input, to which maps are enlarged linearly and masks reduced; of pictures that are
    cut into tiles they are the cells that show the picture, defective where a mask covers ``CELL_COVERED`` of one.  Of
    a defective picture without a mask none is known, so it counts as a picture alone.

    Args:
        maps: ``(N, h, w)`` distances, 0 behind a picture's border.
        samples: N, each healthy or not.
        spec: Of the network's input.

    Returns:
        ``ap`` with its 95 % bootstrap interval over groups, ``auroc``, ``auroc_low``, ``auroc_high``, ``pixel_auroc``
        and ``au_pro`` (``None`` without masks), ``n``, ``unit``.
    """
    defective = np.array([one.healthy is False for one in samples])
    highest = maps.max(axis=(1, 2))
    units = [one.unit for one in samples]
    sizes = [picture_size(one.path) for one in samples]
    # as many pixels as there are cells down the tallest picture's map
    cell_px = max(tiled(spec, *size)[0].total for size in sizes) // maps.shape[1]
    large, truth = [], []
    for one, sample, size in zip(maps, samples, sizes, strict=True):
        pair = _located(one, sample, spec, size, cell_px)
        if pair is not None:
            large.append(pair[0])
            truth.append(pair[1])
    located = any(mask.any() for mask in truth)
    ap = bootstrap_over_groups(lambda at: average_precision(highest[at], defective[at]), units, rounds=ROUNDS)
    area = bootstrap_over_groups(lambda at: auroc(highest[at], defective[at]), units, rounds=ROUNDS)
    return {
        "ap": _short(average_precision(highest, defective)),
        "ap_low": _short(ap.low),
        "ap_high": _short(ap.high),
        "auroc": _short(auroc(highest, defective)),
        "auroc_low": _short(area.low),
        "auroc_high": _short(area.high),
        "pixel_auroc": _short(auroc(_flat(large), _flat(truth))) if located else None,
        "au_pro": _short(au_pro(large, truth)) if located else None,
        "n": len(samples),
        "unit": "pictures",
    }


def _located(
    distances: Array, sample: Sample, spec: PreprocessSpec, size: tuple[int, int], cell_px: int
) -> tuple[Array, Bools] | None:
    """Distances and truth of a picture's places; ``None`` where nobody knows where the defect is."""
    if spec.tile_overlap_px is None:
        least = 0.5
        there = np.asarray(cv2.resize(distances, (spec.width, spec.height), interpolation=cv2.INTER_LINEAR))
    else:
        least = CELL_COVERED
        rows, columns = (axis.total // cell_px for axis in tiled(spec, *size))
        there = distances[:rows, :columns]
    grid = (there.shape[0], there.shape[1])
    mask = np.zeros(size, np.uint8) if sample.healthy else read_mask(sample, size)
    if mask is None:
        return None
    covered = cells_of_mask(mask, spec, grid) >= least
    if spec.tile_overlap_px is not None:
        # padding is healthy and its distance 0, which would be the easiest places of all
        seen = valid_cells(spec, *size, grid)
        shows = np.ix_(seen.any(axis=1), seen.any(axis=0))
        there, covered = there[shows], covered[shows]
    return there, np.asarray(covered)


def _flat(maps: Sequence[Array]) -> Array:
    return np.concatenate([one.ravel() for one in maps])


def _short(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None
