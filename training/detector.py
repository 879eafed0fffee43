"""A detector trained on boxes, by the loop that trains maps of cells: the mentoring paper's second reading of an area.

``training.detector_retrain`` goes on from operators' answers, ``training.detector_evaluate`` says how good it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Floats
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.datasets import Dataset, Line, Lines, read_image
from edge_sdk.quality.thresholds import calibrated_band, fixed_band
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec, geometry
from training.checkpoint import Checkpoint, LineState
from training.data.boxes import BoxBatch, BoxStream, BoxViews, MapCache, anchor_shapes, box_views, with_maps
from training.data.views import batches_of, line_boxes
from training.fitting import fit, loss_of
from training.lines import NO_LABELS
from training.losses.anchors import anchor_loss
from training.networks.anchornet import AnchorNetwork, BoxOutputs, anchor_network
from training.networks.cellnet import CellNetwork
from training.recipe import Recipe
from training.statistics import Statistics, estimated, statistics_of, with_statistics
from training.train import Progress, data_of, preprocess_of, quiet
from training.trunks import load_trunk, start_of

__all__ = [
    "FACTORY",
    "box_state",
    "detector_of",
    "fresh_detector",
    "judged_pictures",
    "original_box_state",
    "outputs_of",
    "read_boxes",
    "supervised_terms",
    "train_detector",
]

FACTORY = "training.networks.anchornet:anchor_network"


def train_detector(
    dataset: Dataset,
    lines: Lines,
    recipe: Recipe,
    *,
    resume: Path | None = None,
    cache: MapCache | None = None,
    progress: Progress = quiet,
) -> Checkpoint:
    """Train a detector for the original line on its boxes; the new line is not looked at.

    Args:
        dataset: As read.
        lines: Its roles and parts.
        recipe: Everything else; ``head`` need not be ``anchors``.
        resume: File that keeps the state of a training under way.
        cache: See ``with_maps``; only of a frozen trunk.
        progress: Told of every step.

    Returns:
        A checkpoint with the line ``original``.

    Raises:
        DatasetError: Nobody has drawn a box on a picture of part train.
        ConfigError: The trunk's weights are asked for and not there.
    """
    line = lines.original
    start = start_of(recipe, classes=len(dataset.classes), pooled=False)
    spec = preprocess_of(line, recipe, pretrained=start.weights is not None)
    common = {name: value for name, value in start.arguments.items() if name != "pooled"}
    arguments = {**common, "shapes": _shapes(dataset, line, spec), "height": spec.height, "width_px": spec.width}
    network = fresh_detector(arguments, recipe)
    if start.weights is not None:
        load_trunk(network, start.weights)
    views = read_boxes(network, line, line.train, spec, recipe, labelled=True, cache=cache, progress=progress)
    chance = np.random.default_rng(recipe.seed)
    stream = BoxStream(views, network, spec, batch=recipe.batch, jitter=recipe.jitter, chance=chance)
    history = fit(
        {"network": network},
        lambda _: supervised_terms(network, stream.next()),
        iterations=recipe.iterations,
        rate=recipe.rate,
        weight_decay=recipe.weight_decay,
        averaging=recipe.averaging,
        chance=chance,
        resume=resume,
        told=f"train detector {recipe.model_dump_json()} {views.digest}",
        progress=lambda step, steps, terms: progress("train", step, steps, terms),
    )
    state = original_box_state(network, line, views, spec, recipe, method="source", cache=cache)
    loss = [loss_of(terms) for terms in history]
    return Checkpoint(
        network=cast(CellNetwork, network),
        arguments=arguments,
        preprocess=spec,
        cell_px=spec.height // network.grid[0],
        classes=dataset.classes,
        lines={"original": state},
        recipe=recipe.model_copy(update={"head": "anchors"}).model_dump(mode="json"),
        data=data_of(dataset, lines),
        figures={
            "loss_first": round(float(np.mean(loss[:10])), 6),
            "loss_last": round(float(np.mean(loss[-10:])), 6),
        },
        factory=FACTORY,
    )


def fresh_detector(arguments: Mapping[str, Any], recipe: Recipe) -> AnchorNetwork:
    """A detector before its first step; a trunk that learnt before has the weights that the recipe starts from.

    Raises:
        ConfigError: These weights are not here.
    """
    torch.manual_seed(recipe.seed)
    network = anchor_network(**arguments)
    if arguments["trunk"] == "mobilenetv2" or arguments.get("frozen"):
        asked = recipe if recipe.start is not None else recipe.model_copy(update={"trunk": "mobilenetv2"})
        start = start_of(asked, classes=1, pooled=False)
        assert start.weights is not None  # it raises where they are missing
        load_trunk(network, start.weights)
    return network


def detector_of(checkpoint: Checkpoint) -> AnchorNetwork:
    """The network of a detector's checkpoint.

    Raises:
        ConfigError: It is another network.
    """
    network: Any = checkpoint.network
    if not isinstance(network, AnchorNetwork):
        raise ConfigError(f"the checkpoint is of {checkpoint.factory}, which is no detector; train one: --head anchors")
    return network


def judged_pictures(
    network: AnchorNetwork, statistics: Statistics, views: BoxViews, spec: PreprocessSpec
) -> tuple[Floats, Floats, Floats]:
    """What a detector says of pictures under a line's statistics.

    Returns:
        ``(N, A, 4)`` boxes in pixels of the network's input, ``(N, A, K)`` logits, ``(N, F)`` features.
    """
    mode = network.training
    network.eval()
    found: list[BoxOutputs] = []
    with with_statistics(network, statistics), torch.inference_mode():
        for places in np.array_split(np.arange(len(views)), max(1, -(-len(views) // 32))):
            if not len(places):
                continue
            if views.maps is not None:
                found.append(network.judged(torch.from_numpy(views.maps[places, 0])))
            else:
                batch = next(iter(batches_of(views.images[places], spec, size=len(places))))
                found.append(BoxOutputs(*(one[: len(places)] for one in network(batch))))
    network.train(mode)
    if not found:
        none = len(network.anchors)
        width = network.score.in_channels
        return (
            np.zeros((0, none, 4), np.float32),
            np.zeros((0, none, network.classes), np.float32),
            np.zeros((0, width), np.float32),
        )
    boxes, scores, feature = (torch.cat(pieces).numpy() for pieces in zip(*found, strict=True))
    return boxes, scores, feature


def outputs_of(network: AnchorNetwork, batch: BoxBatch) -> BoxOutputs:
    """What a network says of a batch, which holds the trunk's maps where that is frozen."""
    found: BoxOutputs = network.judged(batch.seen) if network.frozen else network(batch.seen)
    return found


def supervised_terms(network: AnchorNetwork, batch: BoxBatch) -> Mapping[str, Tensor]:
    """``L_S`` of a batch of fully annotated pictures, term by term."""
    out = outputs_of(network, batch)
    return anchor_loss(out.scores, out.boxes, batch.truth, batch.known, batch.wanted, network.anchors)


def _shapes(dataset: Dataset, line: Line, spec: PreprocessSpec) -> list[list[float]]:
    """The anchors' shapes, of the boxes of part train."""
    sides = []
    for sample in line.train:
        boxes = line_boxes(line, sample)
        if boxes:
            place = geometry(spec, *read_image(sample).shape[:2])
            sides += [
                [(one.right - one.left) * place.scale_x, (one.bottom - one.top) * place.scale_y] for one in boxes
            ]
    if not sides:
        raise DatasetError(
            f"nobody has drawn a box on a picture of part train of {dataset.root}; write a boxes.csv with the columns "
            "image, class, xmin, ymin, xmax, ymax, or train a map of cells: --head cells"
        )
    return [list(shape) for shape in anchor_shapes(np.array(sides))]


def read_boxes(
    network: AnchorNetwork,
    line: Line,
    samples: Sequence[Any],
    spec: PreprocessSpec,
    recipe: Recipe,
    *,
    labelled: bool,
    cache: MapCache | None,
    flips: bool = True,
    progress: Progress = quiet,
) -> BoxViews:
    """Pictures of a line as a detector is trained and judged on; of a frozen trunk with its maps.

    Args:
        network: The detector.
        line: That shows the pictures.
        samples: Of it.
        spec: Of the network's input.
        recipe: Says whether training jitters.
        labelled: Whether boxes are asked for; pictures that nobody drew on are left out then.
        cache: See ``with_maps``.
        flips: Whether training will flip them.
        progress: Told of every picture.
    """
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("read pictures", done, len(samples), {})

    views = box_views(
        line,
        samples,
        spec,
        anchors=network.anchors.numpy(),
        classes=network.classes,
        labelled=labelled,
        step=step,
    )
    if not network.frozen or not len(views):
        return views
    return with_maps(views, network, spec, line=line, jitter=recipe.jitter, flips=flips, cache=cache)


def original_box_state(
    network: AnchorNetwork,
    line: Line,
    views: BoxViews,
    spec: PreprocessSpec,
    recipe: Recipe,
    *,
    method: str,
    cache: MapCache | None,
) -> LineState:
    """What belongs to the original line: statistics of its training pictures, thresholds of its part validate.

    Of a picture the surest anchor of a class counts, as the strongest cell does in a map.
    """
    if network.frozen:
        statistics = statistics_of(network)
    else:
        statistics = estimated(network, batches_of(views.images, spec, flips=True))
    held_out = read_boxes(network, line, line.validate, spec, recipe, labelled=True, cache=cache, flips=False)
    _, scores, _ = judged_pictures(network, statistics, held_out, spec)
    if len(held_out):
        maxima = confidence_from_logits(scores.max(axis=1)[:, :, None, None])[:, :, 0, 0]
        shows = np.array(
            [np.isin(np.arange(network.classes), one.classes) for one in held_out.drawn if one is not None]
        )
        thresholds = calibrated_band(maxima, np.asarray(~shows.any(axis=1)), shows)
    else:
        thresholds = fixed_band(network.classes, why=NO_LABELS)
    return box_state(network, statistics, views, spec, method=method, thresholds=thresholds)


def box_state(
    network: AnchorNetwork,
    statistics: Statistics,
    views: BoxViews,
    spec: PreprocessSpec,
    *,
    method: str,
    thresholds: Thresholds,
) -> LineState:
    """What belongs to a line, with the drift reference of these pictures; temperatures stay 1."""
    _, _, features = judged_pictures(network, statistics, views, spec)
    return LineState(
        statistics=dict(statistics),
        thresholds=thresholds,
        temperature=np.ones(network.classes, np.float32),
        method=method,
        feature_mean=features.mean(axis=0),
        feature_sd=features.std(axis=0),
        pictures=len(views),
    )
