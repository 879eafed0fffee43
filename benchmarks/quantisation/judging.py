"""Our renderings of a trained network, and what any rendering makes of pictures that nobody has seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks.quantisation.nets import Net, inputs_of, truth_of
from benchmarks.quantisation.quantisers import floats_of, refused, roundings_of
from benchmarks.quantisation.renderings import AS_MANY, DEFAULT, SKIP, SKIPPED, TRAINED
from calibration.calibrating import calibrate, why_of
from calibration.choosing import choose
from calibration.graphs import Graph
from calibration.qdq import qdq_from_onnx
from calibration.scales import RULES
from calibration.sessions import Session, open_session
from edge_sdk.arrays import Array, Floats
from edge_sdk.quality.datasets import Sample
from export.qat import parted, quantisation_aware
from export.tuning import Plan

__all__ = ["judged", "ours_of"]


def ours_of(
    net: Net, graph: Graph, given: Sequence[Sample], as_many: int | None, *, epochs: int = 0
) -> tuple[dict[str, ModelProto], dict[str, object]]:
    """What ``calibration ranges`` and ``render`` make of a graph, and what they chose.

    Args:
        net: Whose preprocessing the pictures go through.
        graph: FP32.
        given: Pictures; a fifth of them chooses.
        as_many: Also with so many layers in float at most.
        epochs: Also fine-tuned for so long; 0 for not at all.
    """
    table = calibrate(graph, given, net.spec)
    ends = [layer.node for layer in table.float_layers]
    rule = table.rule
    assert rule is not None  # it is chosen for all tensors at once
    choosing = {entry.name for entry in table.choosing}
    worst = choose(
        graph,
        table,
        [one for one in given if one.image in choosing],
        net.spec,
        rules=(rule,),
        most_float=max(SKIPPED, as_many or 0),
    )
    order = [layer.node for layer in worst.float_layers]

    def rendered(kept: Sequence[str], **options: Any) -> ModelProto:
        return qdq_from_onnx(graph, table, layout="tensorrt", keep_float=kept, **options)

    made = {DEFAULT: rendered(ends), SKIP: rendered(order[:SKIPPED]), "ours, nothing in float": rendered(())}
    if as_many is not None:
        made[AS_MANY] = rendered(order[:as_many])
    made |= {f"ours, rule {one}": rendered(ends, rule=one) for one in RULES}
    if table.factors:
        plain = table.unequalised()
        made["ours, not equalised"] = qdq_from_onnx(graph, plain, layout="tensorrt", keep_float=ends)
    chosen: dict[str, object] = {
        "auto": why_of(table),
        "skip_list": order[:SKIPPED],
        "calibrated": table.n,
        "chose_on": len(choosing),
    }
    if epochs:
        parts, plan = parted(given, table, len(given)), Plan(epochs=epochs)
        tuned = quantisation_aware(graph, table, parts, net.spec, plan, keep_float=ends)
        made[TRAINED] = rendered(ends, tuned=tuned if tuned.said.trt.taken else None)
        chosen["trained"] = tuned.said.trt.model_dump()
    return made, chosen


def judged(
    net: Net,
    graph: Graph,
    models: Mapping[str, ModelProto],
    held_out: Sequence[Sample],
    classes: Sequence[str],
) -> dict[str, Any]:
    """Every rendering on the same pictures, as JSON holds it.

    Args:
        net: Whose preprocessing the pictures go through.
        graph: FP32.
        models: By row.
        held_out: Pictures that nobody calibrated or chose on.
        classes: As it was trained.
    """
    frames = [inputs_of(net, one) for one in held_out]
    truths = [truth_of(net, one, classes) for one in held_out]
    wanted = _cells(open_session(graph.model), frames)
    found: dict[str, Any] = {}
    for name, model in models.items():
        cells = _cells(open_session(model, reference=True), frames)
        found[name] = {
            "signal": [float((one.astype(np.float64) ** 2).sum()) for one in wanted],
            "error": [
                float(((a.astype(np.float64) - b) ** 2).sum()) for a, b in zip(cells, wanted, strict=True)
            ],
            "agreed": [
                float((_said(net, a) == _said(net, b)).mean()) for a, b in zip(cells, wanted, strict=True)
            ],
            "score": _score(net, cells, truths),
            "floats": len(floats_of(model)),
            "roundings": roundings_of(model),
            "refused": refused(model),
        }
    return {
        "groups": [one.unit for one in held_out],
        "score": _score(net, wanted, truths),
        "renderings": found,
    }


def _cells(session: Session, frames: Sequence[Floats]) -> list[Floats]:
    return [session.run(frame)["cells"] for frame in frames]


def _said(net: Net, cells: Floats) -> Array:
    """The top class, or which pixels are thought defective."""
    return np.asarray(cells.argmax(axis=1) if net.task == "classify" else cells > 0)


def _score(net: Net, cells: Sequence[Floats], truths: Sequence[Array | None]) -> float:
    """Share of pictures whose top class is right, or Dice over all pixels of them together."""
    known = [(_said(net, one), truth) for one, truth in zip(cells, truths, strict=True) if truth is not None]
    if net.task == "classify":
        return round(float(np.mean([int(said.reshape(-1)[0]) == int(truth) for said, truth in known])), 4)
    overlap = sum(int((said[0, 0] & (truth > 0.5)).sum()) for said, truth in known)
    both = sum(int(said.sum()) + int((truth > 0.5).sum()) for said, truth in known)
    return round(2 * overlap / both, 4) if both else 1.0
