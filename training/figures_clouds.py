"""From an evaluation to the feature spaces that are drawn: whole pictures, or defective areas alone.

Both colour by truth, so both ask for an ``Evaluation``: what trains has none.  ``features_picture`` is the whole way
in one call, from models to the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from edge_sdk.arrays import Array, Bools
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Lines
from training.checkpoint import Checkpoint
from training.data.views import Views, batches_of
from training.evaluate import Evaluation, evaluate
from training.figures import Cloud, alignment_picture
from training.statistics import with_statistics

__all__ = ["areas_cloud", "features_picture", "pictures_cloud"]


def features_picture(
    models: Mapping[str, Checkpoint],
    lines: Lines,
    *,
    new: str = "new",
    areas: bool = False,
    seed: int = 0,
    form: Literal["svg", "png"] = "svg",
) -> bytes:
    """t-SNE of the test pictures before and after: by line with the A-distance, and below by class.

        features_picture({"before": source, "after": adapted.chosen}, config.lines(evaluating=True)[1])

    Args:
        models: By what is said over their column.
        lines: Made with ``evaluating=True``.
        new: Name of the new line.
        areas: Defective cells instead of whole pictures.
        seed: Of t-SNE and of the probe.
        form: ``svg`` with real text, or ``png``, which is smaller from about a thousand points on.

    Returns:
        The file.

    Raises:
        TruthWithheld: ``lines`` was made for training.
        RangeError: There is no model.
        DatasetError: Areas are asked for, and a line shows none.

    Reference:
        The colour-gap paper (Wu, Cheng, Chen, Study on anomaly classifier with domain adaptation), figures 2 to 4.
    """
    cloud_of = areas_cloud if areas else pictures_cloud
    return alignment_picture(
        [cloud_of(evaluate(one, lines), one, title=title, new=new) for title, one in models.items()],
        seed=seed,
        form=form,
    )


def pictures_cloud(evaluation: Evaluation, checkpoint: Checkpoint, *, title: str, new: str = "new") -> Cloud:
    """The pooled features of both lines' test pictures, each with its class.

    Args:
        evaluation: Of the checkpoint.
        checkpoint: Names the classes.
        title: Over the picture.
        new: Name of the new line.
    """
    features, lines, units, kinds = [], [], [], []
    for name, said in (("original", "original line"), (new, "new line")):
        one = evaluation.judged[name]
        features.append(one.features)
        lines += [said] * len(one.views)
        units += list(one.views.units)
        kinds += _classes(one.views, checkpoint.classes)
    return Cloud(title, np.concatenate(features), lines, units, kinds)


def areas_cloud(
    evaluation: Evaluation,
    checkpoint: Checkpoint,
    *,
    title: str,
    new: str = "new",
    answered: Bools | None = None,
) -> Cloud:
    """The features of defective cells alone: of the original line, and of the new one by whether anybody was asked.

    Args:
        evaluation: Of the checkpoint.
        checkpoint: Makes the features, each line under its own statistics.
        title: Over the picture.
        new: Name of the new line.
        answered: ``(N, h, w)`` cells of the new line's test pictures that an operator answered.  Without it
            those count as known that the model reports, from its class's ``pass_below`` up: what it would ask about.

    Returns:
        Lines are ``original line``, ``new line, known`` and ``new line, missed``; classes where there are several.

    Raises:
        DatasetError: A line shows no defective cell: it has no masks, or no defects.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), figure 3; known and missed are ours.
    """
    features, lines, units, kinds = [], [], [], []
    for name in ("original", new):
        one = evaluation.judged[name]
        state = checkpoint.lines.get(name, checkpoint.line("original"))
        maps = _maps(checkpoint, name, one.views)
        where = (one.views.truth * one.views.known > 0) & one.views.valid[:, None]
        picture, k, row, column = np.nonzero(where)
        if not len(picture):
            raise DatasetError(
                f"line {name} has no defective cell in its part test; a picture of defective areas needs masks"
            )
        features.append(maps[picture, :, row, column])
        units += [one.views.units[n] for n in picture.tolist()]
        kinds += [checkpoint.classes[n] for n in k.tolist()]
        if name == "original":
            lines += ["original line"] * len(picture)
            continue
        if answered is None:
            known = one.confidence[picture, k, row, column] >= state.thresholds.pass_below[k]
        else:
            known = answered[picture, row, column]
        lines += ["new line, known" if yes else "new line, missed" for yes in known.tolist()]
    several = len(set(kinds)) > 1
    return Cloud(title, np.concatenate(features), lines, units, kinds if several else None)


def _maps(checkpoint: Checkpoint, name: str, views: Views) -> Array:
    """``(N, F, h, w)`` of the last map."""
    state = checkpoint.lines.get(name, checkpoint.line("original"))
    network = checkpoint.network
    mode = network.training
    network.eval()
    found = []
    with with_statistics(network, state.statistics), torch.inference_mode():
        for start in range(0, len(views), 32):
            piece = views.images[start : start + 32]
            batch = next(iter(batches_of(piece, checkpoint.preprocess, size=len(piece))))
            found.append(network.features(batch)[: len(piece)].numpy())
    network.train(mode)
    return np.concatenate(found)


def _classes(views: Views, classes: Sequence[str]) -> list[str]:
    """Of each picture the class that covers most of it, or that it is known to show somewhere."""
    shown = views.truth.sum(axis=(2, 3)) + views.maximum
    best = shown.argmax(axis=1).tolist()
    return [
        (classes[k] if shown[n].any() else "defective") if views.defective[n] else "healthy"
        for n, k in enumerate(best)
    ]
