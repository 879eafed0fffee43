"""A runner proves itself on the golden frames of its bundle before it judges parts.

The frames go through the very functions the station uses, so a wrong resize, colour order or engine
shows here and not at the line.
"""

from __future__ import annotations

import numpy as np

from edge_sdk.bundles.archive import Bundle
from edge_sdk.errors import GateError
from edge_sdk.quality.gates import Against, Finding, Measured, compare, judge
from edge_sdk.runners.base import Runner
from edge_sdk.vision.preprocess import preprocess

__all__ = ["measure", "prove"]


def prove(bundle: Bundle, runner: Runner, *, against: Against = "fp32") -> tuple[Finding, ...]:
    """The gates of the bundle that this runner fails on the golden frames; empty: it may judge.

    Args:
        bundle: The bundle that the runner's graph is from.
        runner: Takes one picture at a time.
        against: ``fp32`` where the runner's graph is an INT8 rendering, ``graph`` where it is the very
            graph that the expected outputs come from.

    Raises:
        BundleError: The bundle has no golden frames.
        GateError: The runner's graph is another one than the golden outputs are of.
        RunnerError: The runner failed, or gave no numbers.
    """
    return judge(measure(bundle, runner), bundle.manifest.golden, against=against)


def measure(bundle: Bundle, runner: Runner) -> Measured:
    """What differs between the golden outputs and this runner's; see ``prove``."""
    golden = bundle.golden()
    reference = golden.expected.get("cells")
    names = [spec.name for spec in runner.outputs]
    if reference is None or "cells" not in names:
        raise GateError(
            f"{bundle.title} expects {', '.join(golden.expected)} of its golden frames and the graph gives "
            f"{', '.join(names)}; both must have cells, pack it again"
        )
    spec = bundle.manifest.preprocess
    name = runner.inputs[0].name
    found = []
    fed = np.zeros((1, 3, spec.height, spec.width), np.float32)
    for picture in golden.frames:
        preprocess(picture, spec, out=fed)
        found.append(runner.infer({name: fed})["cells"][0])
    if found[0].shape != reference.shape[1:]:
        raise GateError(
            f"{bundle.title} expects cells {reference.shape[1:]} of a golden frame and the graph gives "
            f"{found[0].shape}; the graph is not the one that was packed"
        )
    temperature = np.array([band.temperature for band in bundle.manifest.thresholds], np.float32)
    return compare(reference, np.stack(found), bundle.thresholds, temperature=temperature)
