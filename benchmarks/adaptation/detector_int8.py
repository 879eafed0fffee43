"""What INT8 does to a detector's boxes, rendering by rendering: for E9."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.adaptation.detector_hits import packed
from edge_sdk.arrays import Array
from edge_sdk.detections import Detections
from edge_sdk.quality.datasets import Lines

if TYPE_CHECKING:
    from training.box_precision import Hits
    from training.checkpoint import Checkpoint
    from training.data.boxes import BoxViews

__all__ = ["BORDER", "COMPARED_ON", "INT8", "KEPT_FLOAT", "agreement", "compared"]

CALIBRATED_ON = 96
COMPARED_ON = 150
"""Test pictures of a seed, evenly chosen, on which INT8 is compared with FP32."""
KEPT_FLOAT = 24
"""Of the trunk's 39 convolutions, counted from the picture, and the two heads: what stays float.  The others do 42 % of
the multiplications.  On seeds 100 and 101 F1 was 0.948 and 0.944 with none in float, 0.961 and 0.939 with 8, 0.957 and
0.970 with 12, 0.971 and 0.963 with 18, 0.971 and 0.977 with 24."""
BORDER = 0.05
"""Confidence: a box that one of two graphs reports and the other finds so little below the threshold is spared."""
INT8 = {
    "cpu": f"INT8 cpu, {KEPT_FLOAT} first convolutions and heads in float",
    "cpu, all of it INT8": "INT8 cpu, all of it INT8",
    "trt": f"INT8 trt, {KEPT_FLOAT} first convolutions and heads in float",
}



def agreement(before: Sequence[Detections], after: Sequence[Detections]) -> Array:
    """``(N, 2)``: detections that are matched one to one, and the mean number of both, of each picture.

    Two match where they are of one class and overlap by 0.5 or more; F1 is the sum of the first over that of the
    second.
    """
    from edge_sdk.vision.boxes import overlaps

    counts = np.zeros((len(before), 2))
    for n, (one, other) in enumerate(zip(before, after, strict=True)):
        shared = overlaps(one.boxes, other.boxes)
        shared[one.classes[:, None] != other.classes[None]] = 0
        for row in shared:
            if len(row) and row.max() >= 0.5:
                counts[n, 0] += 1
                shared[:, int(row.argmax())] = 0
        counts[n, 1] = (len(one) + len(other)) / 2
    return counts


def compared(model: Checkpoint, lines: Lines, views: BoxViews, *, most: int) -> dict[str, Any]:
    """F1 of each rendering's detections with those of FP32 on the new line's test pictures, picture by picture."""
    from calibration.collect import ranges_from_pictures
    from calibration.exported import read_exported
    from calibration.graphs import load_graph
    from calibration.pictures import pictures_in
    from calibration.qdq import host_architecture, qdq_from_onnx
    from calibration.sessions import open_session
    from export.exporting import export_checkpoint
    from training.box_precision import hits_of
    from training.checkpoint import save_checkpoint
    from training.data.views import normalised
    from training.detector_evaluate import reported
    from training.pictures import write_pictures

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(model, folder / "ckpt")
        export_checkpoint(folder / "ckpt", line="new", out=folder / "out")
        write_pictures(lines.new[0], "train", folder / "pictures", labelled=False, most=CALIBRATED_ON)
        graph = load_graph(folder / "out" / "model.onnx")
        exported = read_exported(folder / "out" / "export.json")
        table = ranges_from_pictures(graph, pictures_in(folder / "pictures"), model.preprocess)
    least, warmth = exported.bands().pass_below, exported.temperature()
    some = views[np.arange(most) * len(views) // most]
    convolutions = [node.name for node in graph.nodes if node.op_type == "Conv"]
    careful = [*convolutions[:KEPT_FLOAT], *convolutions[-2:]]

    drawn = [one for one in some.drawn if one is not None]

    def judged(rendering: Any, *, reference: bool = False) -> tuple[list[Detections], list[Detections], Hits]:
        session = open_session(rendering, reference=reference)
        given = [session.run(normalised(image[None], model.preprocess).numpy()) for image in some.images]
        boxes, scores = (np.concatenate([one[name] for one in given]) for name in ("boxes", "scores"))
        at, below = (reported(boxes, scores, some, warmth, least=least - less) for less in (0, BORDER))
        return at, below, hits_of(reported(boxes, scores, some, warmth), drawn, count=len(model.classes))

    architecture = host_architecture()
    fp32, fp32_below, hits = judged(graph.model)
    found: dict[str, Any] = {
        "units": list(some.units),
        "detections": sum(len(one) for one in fp32),
        "borderline": sum(int((one.confidence < least[one.classes] + BORDER).sum()) for one in fp32),
        "hits": packed(hits),
    }
    for key, layout, keep in (
        ("cpu", "onnxruntime", careful),
        ("cpu, all of it INT8", "onnxruntime", []),
        ("trt", "tensorrt", careful),
    ):
        made = qdq_from_onnx(graph, table, layout=layout, architecture=architecture, keep_float=keep)  # type: ignore[arg-type]
        int8, int8_below, hits = judged(made, reference=key == "trt")
        plain = agreement(fp32, int8)
        spared = (agreement(fp32, int8_below)[:, 0] + agreement(int8, fp32_below)[:, 0]) / 2
        found[key] = {
            "plain": plain.tolist(),
            "spared": np.column_stack([spared, plain[:, 1]]).tolist(),
            "hits": packed(hits),
        }
    return found
