"""From a trained network to what belongs to one line: statistics, thresholds, drift reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.labels import Thresholds
from edge_sdk.quality.thresholds import VALIDATE, calibrated_band, fixed_band
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec
from training.checkpoint import LineState
from training.data.frozen import trunk_maps
from training.data.views import Views, batches_of
from training.networks.cellnet import CellNetwork
from training.statistics import Statistics, with_statistics
from training.team import carried
from training.temperature import tempered

__all__ = ["Certainty", "boundary_logits", "calibrated", "confidence", "line_state", "predicted", "uncalibrated"]

NO_LABELS = "the line has no labelled pictures to calibrate on"


@dataclass(frozen=True, eq=False)
class Certainty:
    """From a line's logits to passed, uncertain or defective."""

    temperature: Array
    """``(K,)`` above 0."""
    thresholds: Thresholds
    """Of tempered confidences."""
    reliability: tuple[Mapping[str, Any], ...] = ()
    """A class, as ``training.temperature`` says it."""


def predicted(
    network: CellNetwork, statistics: Statistics, images: Image, spec: PreprocessSpec
) -> tuple[Floats, Floats]:
    """Logits and pooled features of pictures under a line's statistics.

    Args:
        images: ``(N, H, W, 3)`` uint8, resized to the network's input; N may be 0.

    Returns:
        ``(N, K, h, w)`` logits and ``(N, F)`` features.
    """
    mode = network.training
    network.eval()
    cells: list[Tensor] = []
    features: list[Tensor] = []
    with carried(network) as device, with_statistics(network, statistics), torch.inference_mode():
        for piece in np.array_split(images, max(1, -(-len(images) // 32))):
            if len(piece):
                if isinstance(network, CellNetwork) and network.frozen:
                    found = network.judged(network.above(trunk_maps(network.trunk, piece, spec).to(device)))
                else:
                    found = network(next(iter(batches_of(piece, spec, size=len(piece)))).to(device))
                cells.append(found.cells[: len(piece)].cpu())
                features.append(found.feature[: len(piece)].cpu())
    network.train(mode)
    if not cells:
        height, width = spec.height, spec.width
        found = network(torch.zeros(1, 3, height, width))
        return found.cells[:0].detach().numpy(), found.feature[:0].detach().numpy()
    return torch.cat(cells).numpy(), torch.cat(features).numpy()


def line_state(
    network: CellNetwork,
    statistics: Mapping[str, Tensor],
    images: Image,
    spec: PreprocessSpec,
    *,
    method: str,
    certainty: Certainty | None = None,
) -> LineState:
    """Everything that belongs to a line.

    Args:
        images: Of the line, ``(N, H, W, 3)`` uint8 at the network's size, N at least 1; unlabelled.
        method: How the statistics came about.
        certainty: Temperature and thresholds; without them 1 and the fixed band, which guarantees nothing.
    """
    classes = network.head.out_channels
    sure = certainty or Certainty(np.ones(classes, np.float32), fixed_band(classes, why=NO_LABELS))
    _, features = predicted(network, statistics, images, spec)
    return LineState(
        statistics=dict(statistics),
        thresholds=sure.thresholds,
        temperature=sure.temperature,
        method=method,
        feature_mean=features.mean(axis=0),
        feature_sd=features.std(axis=0),
        pictures=len(images),
        reliability=sure.reliability,
    )


def calibrated(
    network: CellNetwork,
    statistics: Statistics,
    labelled: Views,
    spec: PreprocessSpec,
    *,
    source: str = VALIDATE,
) -> Certainty:
    """Temperature and thresholds from labelled pictures that the network was not trained on.

    Both may come from the same pictures: a temperature keeps the order of confidences, so the thresholds are the
    same quantiles whatever it is, and what they guarantee still holds.

    Args:
        labelled: Of part validate; may be empty, which guarantees nothing.
        source: What the pictures are, for those who read it.
    """
    logits, _ = predicted(network, statistics, labelled.images, spec)
    warmth = tempered(logits, labelled)
    shown = np.where(labelled.valid[:, None], logits, -np.inf).max(axis=(2, 3), initial=-np.inf)
    maxima = confidence_from_logits(shown[:, :, None, None], warmth.temperature)[:, :, 0, 0]
    shows = labelled.truth.any(axis=(2, 3)) | (labelled.maximum > 0)
    # what is guaranteed is of pictures: one that is cut into tiles is as sure as its surest tile
    surest, shown_in = labelled.of_pictures(maxima), labelled.of_pictures(shows, np.logical_or)
    band = calibrated_band(surest, ~labelled.shown_defective, shown_in, source=source)
    return Certainty(warmth.temperature, band, warmth.document)


def uncalibrated(home: LineState, *, why: str = NO_LABELS) -> Certainty:
    """The band of a line without labels: it asks from where the original line asks, unless that is calibrated.

    Its confidences are tempered as the original's, since the weights are the same; whether they are as reliable
    nobody knows before its control sample is answered.

    Args:
        home: The original line with the same weights.
        why: There is no guarantee.
    """
    lower = None if home.thresholds.guarantee.startswith("conformal") else home.thresholds.pass_below
    return Certainty(home.temperature, fixed_band(len(home.thresholds), why=why, ask_from=lower))


def boundary_logits(state: LineState) -> Array:
    """``(K,)``: the logit of each class at which the line's tempered confidence reaches its decision boundary."""
    boundary = np.clip(state.thresholds.boundary, 1e-6, 1 - 1e-6).astype(np.float64)
    return np.asarray(state.temperature * np.log(boundary / (1 - boundary)))


def confidence(logits: Array, state: LineState) -> Floats:
    """Of logits, tempered as the line says: what the station computes too."""
    return confidence_from_logits(logits, state.temperature)
