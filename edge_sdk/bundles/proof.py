"""A runner proves itself on the golden frames of its bundle before it judges parts.

The frames go through the very functions the station uses, so a wrong resize, colour order or engine
shows here and not at the line.
"""

from __future__ import annotations

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.bundles.archive import Bundle, Golden
from edge_sdk.errors import GateError
from edge_sdk.quality.gates import Against, Finding, Measured, compare, judge
from edge_sdk.runners.base import Runner
from edge_sdk.vision.preprocess import preprocess

__all__ = ["measure", "prove"]


def prove(
    bundle: Bundle, runner: Runner, *, against: Against = "fp32", role: str = "fp32"
) -> tuple[Finding, ...]:
    """The gates of the bundle that this runner fails on the golden frames; empty: it may judge.

    Args:
        bundle: The bundle that the runner's graph is from.
        runner: Takes one picture at a time.
        against: ``fp32`` where the runner's graph is an INT8 rendering, ``graph`` where it is the very
            graph that the expected outputs come from.
        role: Of the runner's graph.  Where the bundle has the outputs of that rendering too
            (``cells.int8-cpu``), the runner is also held to them, as its own graph: INT8 arithmetic
            differs between processors.

    Raises:
        BundleError: The bundle has no golden frames.
        GateError: The runner's graph is another one than the golden outputs are of.
        RunnerError: The runner failed, or gave no numbers.
    """
    golden = bundle.golden()
    found = _cells(bundle, golden, runner)
    gates = bundle.manifest.golden
    findings = judge(_compared(bundle, golden.expected["cells"], found), gates, against=against)
    own = golden.expected.get(f"cells.{role}")
    if own is not None:
        findings += judge(_compared(bundle, own, found), gates, against="graph")
    return findings


def measure(bundle: Bundle, runner: Runner) -> Measured:
    """What differs between the FP32 golden outputs and this runner's; see ``prove``."""
    golden = bundle.golden()
    found = _cells(bundle, golden, runner)
    return _compared(bundle, golden.expected["cells"], found)


def _cells(bundle: Bundle, golden: Golden, runner: Runner) -> Array:
    """``(N, K, h, w)`` logits of the golden frames, one picture at a time as on the line."""
    names = [spec.name for spec in runner.outputs]
    if "cells" not in golden.expected or "cells" not in names:
        raise GateError(
            f"{bundle.title} expects {', '.join(golden.expected)} of its golden frames and the graph gives "
            f"{', '.join(names)}; both must have cells, pack it again"
        )
    spec = bundle.manifest.preprocess
    fed = np.zeros((1, 3, spec.height, spec.width), np.float32)
    found = []
    for picture in golden.frames:
        preprocess(picture, spec, out=fed)
        found.append(runner.infer({runner.inputs[0].name: fed})["cells"][0])
    return np.stack(found)


def _compared(bundle: Bundle, reference: Array, found: Array) -> Measured:
    if found.shape != reference.shape:
        raise GateError(
            f"{bundle.title} expects cells {reference.shape[1:]} of a golden frame and the graph gives "
            f"{found.shape[1:]}; the graph is not the one that was packed"
        )
    temperature = np.array([band.temperature for band in bundle.manifest.thresholds], np.float32)
    return compare(reference, found, bundle.thresholds, temperature=temperature)
