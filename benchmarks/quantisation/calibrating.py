"""Q1: what calibrating costs: memory beyond the loaded process, and CPU seconds, against ONNX Runtime's calibrators.

Every calibrator runs in a process of its own.  ONNX Runtime's histogram calibrators keep every activation of every
picture, so they are run on a few, and what 512 would need is the line through two counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import ROOT
from benchmarks.results import Chart, Result, Steps, Value
from edge_sdk.errors import EdgeError
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["MINUTES", "NEEDS", "SUITE", "TITLE", "at_count", "drawn_pictures", "run"]

TITLE = "Calibrating: memory and CPU time"
SUITE = "quantisation"
MINUTES = 14.0
NEEDS = ("torch", "onnxscript", "onnxruntime", "cv2")

CALIBRATED, CHOOSING = 512, 32
SIDES = (256, 1024)
FORWARD_LARGE = 64
"""Pictures of the larger side that the forward alone is timed on; its CPU time is proportional to their number."""
PEERS = {"onnxruntime MinMax": (32, 128), "onnxruntime Percentile": (16, 48), "onnxruntime Entropy": (16, 48)}
PEERS_LARGE = {"onnxruntime MinMax": (2, 8), "onnxruntime Percentile": (1, 3), "onnxruntime Entropy": (1, 3)}


def run(*, quick: bool, progress: Steps) -> Result:
    """Measure; see ``benchmarks.results``."""
    sides = (64, 128) if quick else SIDES
    calibrated, choosing = (24, 6) if quick else (CALIBRATED, CHOOSING)
    peers = dict(zip(sides, (PEERS, PEERS_LARGE), strict=True))
    if quick:
        peers = {side: dict.fromkeys(PEERS, (2, 6)) for side in sides}
    progress.expect(len(sides) * (3 + 2 * len(PEERS)) + 1)
    rows: list[dict[str, object]] = []
    found: dict[tuple[str, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="edge-sdk-calibrating-") as made:
        work = Path(made)
        for side in sides:
            model, pictures = _graph(work, side), drawn_pictures(work, side, calibrated + choosing)

            def one(
                what: str, count: int, mark: str = "", side: int = side, model: Path = model, pictures: Path = pictures
            ) -> dict[str, Any]:
                measure = partial(_measured, what, model, pictures, count, calibrated)
                return progress.step(f"{what}{mark}, {count} of {side}²", measure)

            fewer = calibrated if side == sides[0] else min(calibrated, FORWARD_LARGE)
            before = one("forward", fewer, " before")
            ours = {"ours": one("ours", calibrated + choosing)}
            if side == sides[0]:
                ours["ours, nothing chosen"] = one("ours, nothing chosen", calibrated)
            # the machine is not the same all the time
            after = one("forward", fewer, " after")
            plain = {
                "cpu_s": (before["cpu_s"] + after["cpu_s"]) / 2 * calibrated / fewer,
                "growth_mb": (before["growth_mb"] + after["growth_mb"]) / 2,
            }
            found["forward", side] = plain
            rows.append(_row("forward alone, FP32", side, calibrated, plain, plain, measured=[fewer]))
            for name, facts in ours.items():
                found[name, side] = facts
                if facts["calibrated"] != calibrated:
                    raise EdgeError(f"{name} calibrated on {facts['calibrated']} pictures, not on {calibrated}")
                rows.append(_row(name, side, calibrated, facts, plain, measured=[calibrated]))
            for name, counts in peers[side].items():
                seen = [one(name, count) for count in counts]
                expected = at_count(calibrated, seen)
                rows.append(_row(f"{name}, extrapolated", side, calibrated, expected, plain, measured=list(counts)))
    musts = {} if quick else _musts(found)
    return Result(
        rows=rows,
        musts=musts,
        notes=[
            f"ours: as the command does it by default, {CALIBRATED} pictures calibrate and {CHOOSING} more choose rule "
            "and layers in float; nothing chosen: the pass over the pictures alone, all four rules in the table",
            "growth_mb: peak of the resident memory above what the process held with graph and packages loaded",
            f"onnxruntime's calibrators are fed as its quantize_static feeds them; {CALIBRATED} pictures by the line "
            "through the two counts of measured_on, since the histogram ones would not fit",
            "forward: the same pictures read, preprocessed and run through FP32 with all optimisations; the mean of a "
            "measurement before ours and one after",
            "ResNet-18 with a cell head, random weights, statistics that are neither 0 nor 1; drawn pictures",
        ],
        settings={
            "sides_px": list(sides),
            "calibrated": calibrated,
            "choosing": choosing,
            "threads": 1,
            "peers": {f"{side}": {name: list(counts) for name, counts in peers[side].items()} for side in sides},
        },
        packages=("onnxscript",),
        chart=Chart("growth_mb", "MB"),
    )


def at_count(count: int, seen: list[dict[str, Any]]) -> dict[str, float]:
    """What a count of pictures would take, by the line through two measurements; never less than was measured."""
    few, more = seen
    steps = (count - few["pictures"]) / (more["pictures"] - few["pictures"])
    return {
        key: max(more[key], few[key] + steps * (more[key] - few[key])) for key in ("cpu_s", "growth_mb")
    }


def _row(
    name: str,
    side: int,
    count: int,
    facts: Mapping[str, Any],
    plain: Mapping[str, float],
    *,
    measured: list[int] | None = None,
) -> dict[str, object]:
    row: dict[str, object] = {
        "name": f"{name}, {side}²",
        "pictures": count,
        "growth_mb": round(facts["growth_mb"], 1),
        "cpu_s": round(facts["cpu_s"], 2),
        "cpu_over_forward": round(facts["cpu_s"] / plain["cpu_s"], 2),
    }
    if measured is not None:
        row["measured_on"] = measured
    if "rule" in facts:
        row["rule"] = facts["rule"]
    return row


def _musts(found: Mapping[tuple[str, int], Mapping[str, float]]) -> dict[str, Value]:
    small, large = SIDES
    ours = found["ours", small]
    return {
        "Q1.cpu_256_s": Value(round(ours["cpu_s"], 2)),
        "Q1.cpu_over_forward": Value(round(ours["cpu_s"] / found["forward", small]["cpu_s"], 3)),
        "Q1.peak_256_mb": Value(round(ours["growth_mb"], 1)),
        "Q1.peak_1024_mb": Value(round(found["ours", large]["growth_mb"], 1)),
    }


def _measured(what: str, model: Path, pictures: Path, count: int, calibrated: int) -> dict[str, Any]:
    """In a fresh process with one thread."""
    module = "benchmarks.quantisation.measuring"
    command = [sys.executable, "-m", module, what, str(model), str(pictures), str(count), str(calibrated)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=alone)
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise EdgeError(f"{what} on {count} pictures ended with {done.returncode}: {said[-1] if said else 'no word'}")
    facts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return facts


def _graph(work: Path, side: int) -> Path:
    from benchmarks.export_nodes import network_of
    from export.exporting import graph_bytes
    from export.graph import onnx_from_torch

    path = work / f"model{side}.onnx"
    path.write_bytes(graph_bytes(onnx_from_torch(network_of("resnet18"), PreprocessSpec(width=side, height=side))))
    return path


def drawn_pictures(work: Path, side: int, count: int) -> Path:
    """So many in a new folder, every second one with a spot."""
    import cv2

    from edge_sdk.testing import drawn_picture

    folder = work / f"pictures{side}"
    folder.mkdir()
    for number in range(count):
        spot = (side // 4 + number % (side // 2), side // 3, max(2, side // 16)) if number % 2 else None
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), drawn_picture(side, side, seed=number, spot=spot))
    return folder
