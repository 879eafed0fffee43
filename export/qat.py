"""Quantisation-aware fine-tuning: train on some pictures, judge on others, and take the weights only where they win.

The ranges are the table's and stay so; the FP32 graph stays what it is.  What is written are weights for the INT8
renderings of this graph and this table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from calibration.choosing import Trial, Trials, loses_less
from calibration.collect import check_size, entries_of, inputs_of
from calibration.equalising import equalised, plain_weights
from calibration.graphs import Graph
from calibration.pictures import balanced
from calibration.qdq import Layout, host_architecture, qdq_from_onnx
from calibration.ranges import RangeTable, pictures_digest, spec_digest
from calibration.tuned import Judgement, Tuned, TunedFile
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec
from export.trainable import FakeQuantised, TorchGraph, check_same
from export.tuning import Plan, tune

__all__ = ["Parting", "parted", "quantisation_aware"]

Steps = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Parting:
    """Who trains and who judges."""

    training: tuple[Sample, ...]
    judging: tuple[Sample, ...]
    """Those by which the table's rule was chosen; no part of them trains."""


def parted(samples: Sequence[Sample], ranges: RangeTable, most: int) -> Parting:
    """Deal pictures: those that chose the rule judge, and of all others at most so many train.

    Raises:
        DatasetError: None is left to train, or none is there to judge.
    """
    if not ranges.choosing:
        raise DatasetError(
            "the range table was made without pictures that choose, so none can judge the fine-tuning; make the "
            "ranges again of ten pictures or more, with --rule auto"
        )
    chose = {picture.sha256 for picture in ranges.choosing}
    judging: dict[str, Sample] = {}
    rest: dict[str, Sample] = {}
    for sample in samples:
        digest = sha256_file(sample.path)
        (judging if digest in chose else rest).setdefault(digest, sample)
    if not judging:
        raise DatasetError(
            f"none of the {len(chose)} pictures that chose the rule is among these {len(samples)}; give the folder "
            "that the ranges were made of, or one that holds it"
        )
    units = {sample.unit for sample in judging.values()}
    training = balanced([sample for sample in rest.values() if sample.unit not in units], most)
    if not training:
        raise DatasetError(f"all {len(samples)} pictures judge, and none is left to train on; give more pictures")
    return Parting(training, tuple(sorted(judging.values(), key=lambda one: one.image)))


def quantisation_aware(
    graph: Graph,
    ranges: RangeTable,
    parts: Parting,
    spec: PreprocessSpec,
    plan: Plan,
    *,
    keep_float: Collection[str] = (),
    keep_float_cpu: Collection[str] = (),
    device: str = "cpu",
    kept: Path | None = None,
    progress: Steps = lambda what, done, of: None,
) -> Tuned:
    """Fine-tune a graph's int8 layers for its TensorRT rendering, and judge both renderings by them.

    Args:
        graph: FP32; its answers are the target.
        ranges: Of this graph; they are not moved.
        parts: Who trains and who judges.
        spec: What the network was trained with.
        plan: How to train.
        keep_float: Names of nodes that TensorRT's rendering leaves in float.
        keep_float_cpu: Of the CPU's.
        device: Of torch.
        kept: Where to keep the state after each epoch; remove it once the weights are written.
        progress: Told of every step.

    Returns:
        The weights, and for each rendering whether they are taken: where it ``loses_less`` on the judging pictures.

    Raises:
        FormatError: Table, preprocessing or graph do not fit each other, or torch cannot compute the graph.
        RangeError: The loss is no number any more.
        DatasetError: A picture cannot be read.
    """
    ranges.check_graph(graph)
    if ranges.preprocess_sha256 != spec_digest(spec):
        raise FormatError("the range table was made with another preprocessing; make the ranges again")
    check_size(graph, spec)
    network = TorchGraph(equalised(graph, ranges.factors), torch.device(device))
    fixed = graph.model.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    if fixed > 1:
        raise FormatError(f"the graph takes {fixed} frames and no other number; export it without --fixed-batch")
    plan = replace(plan, batch=1) if fixed else plan
    student = FakeQuantised(network, ranges, keep_float=keep_float)
    check_same(network, next(inputs_of(parts.training[0], spec)))
    entries = entries_of(parts.training)
    told = f"{graph.digest} {ranges.digest()} {pictures_digest(entries)} {sorted(keep_float)}"
    losses = tune(
        network, student, parts.training, spec, plan, told=told, kept=kept,
        progress=lambda done, of: progress("fine-tuning", done, of),
    )  # fmt: skip
    said = TunedFile(
        graph_sha256=graph.digest,
        ranges_sha256=ranges.digest(),
        keep_float=tuple(sorted(keep_float)),
        pictures=entries,
        judged_on=len(parts.judging),
        trt=Judgement(before_db=None, after_db=None, taken=False),
        cpu=Judgement(before_db=None, after_db=None, taken=False),
        epochs=plan.epochs,
        rate=plan.rate,
        seed=plan.seed,
        losses=losses,
    )
    made = Tuned(said, plain_weights(graph, ranges.factors, student.weights()))
    trials = Trials(graph, parts.judging, spec)
    left: Mapping[Layout, Collection[str]] = {"tensorrt": keep_float, "onnxruntime": keep_float_cpu}
    found: list[Judgement] = []
    for layout, floats in left.items():
        pair: list[Trial] = []
        for weights in (None, made):
            rendering = qdq_from_onnx(
                graph, ranges, layout=layout, architecture=host_architecture(), keep_float=floats, tuned=weights
            )
            pair.append(trials.of(rendering))
            progress("judging", 2 * len(found) + len(pair), 4)
        before, after = pair
        found.append(
            Judgement(
                before_db=_finite(before.sqnr_db), after_db=_finite(after.sqnr_db), taken=loses_less(after, before)
            )
        )
    return Tuned(said.model_copy(update={"trt": found[0], "cpu": found[1]}), made.weights)


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
