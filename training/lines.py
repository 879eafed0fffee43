"""From a trained network to what belongs to one line: statistics, thresholds, drift reference."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.labels import Thresholds
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec
from training.checkpoint import LineState
from training.data.views import Views, batches_of
from training.networks.cellnet import CellNetwork
from training.statistics import Statistics, with_statistics
from training.thresholds import calibrated_band, fixed_band

__all__ = ["calibrated", "confidence", "line_state", "predicted", "uncalibrated"]

NO_LABELS = "the line has no labelled pictures to calibrate on"


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
    with with_statistics(network, statistics), torch.inference_mode():
        for piece in np.array_split(images, max(1, -(-len(images) // 32))):
            if len(piece):
                found = network(next(iter(batches_of(piece, spec, size=len(piece)))))
                cells.append(found.cells[: len(piece)])
                features.append(found.feature[: len(piece)])
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
    thresholds: Thresholds | None = None,
) -> LineState:
    """Everything that belongs to a line.

    Args:
        images: Of the line, ``(N, H, W, 3)`` uint8 at the network's size, N at least 1; unlabelled.
        method: How the statistics came about.
        thresholds: Of the class; without them the fixed band, which guarantees nothing.
    """
    classes = network.head.out_channels
    _, features = predicted(network, statistics, images, spec)
    return LineState(
        statistics=dict(statistics),
        thresholds=thresholds or fixed_band(classes, why=NO_LABELS),
        temperature=np.ones(classes, np.float32),
        method=method,
        feature_mean=features.mean(axis=0),
        feature_sd=features.std(axis=0),
        pictures=len(images),
    )


def calibrated(network: CellNetwork, statistics: Statistics, labelled: Views, spec: PreprocessSpec) -> Thresholds:
    """Thresholds from labelled pictures that the network was not trained on.

    Args:
        labelled: Of part validate; may be empty, which guarantees nothing.
    """
    logits, _ = predicted(network, statistics, labelled.images, spec)
    shown = np.where(labelled.valid[:, None], logits, -np.inf)
    maxima = confidence_from_logits(shown.max(axis=(2, 3), initial=-np.inf)[:, :, None, None])[:, :, 0, 0]
    shows = labelled.truth.any(axis=(2, 3)) | (labelled.maximum > 0)
    return calibrated_band(maxima, ~labelled.defective, shows)


def uncalibrated(home: Thresholds) -> Thresholds:
    """The band of a line without labels: it asks from where the original line asks, unless that is calibrated.

    Args:
        home: Of the original line with the same weights.
    """
    lower = None if home.guarantee.startswith("conformal") else home.pass_below
    return fixed_band(len(home), why=NO_LABELS, ask_from=lower)


def confidence(logits: Array, state: LineState) -> Floats:
    """Of logits, tempered as the line says: what the station computes too."""
    return confidence_from_logits(logits, state.temperature)
