"""A runner proves itself on the golden frames of its bundle before it judges parts.

The frames go through the very functions the station uses, so a wrong resize, colour order or engine
shows here and not at the line.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.bundles.archive import Bundle, Golden
from edge_sdk.errors import GateError
from edge_sdk.quality.areas import areas_from_outputs
from edge_sdk.quality.gates import Against, Finding, Measured, compare, judge
from edge_sdk.runners.base import Runner
from edge_sdk.vision.tiles import outputs_of_frame

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
    found = _outputs(bundle, golden, runner)
    gates = bundle.manifest.golden
    findings = judge(_compared(bundle, golden, golden.expected, found), gates, against=against)
    own = {
        name.removesuffix(f".{role}"): values for name, values in golden.expected.items() if name.endswith(f".{role}")
    }
    if own.keys() >= found.keys():
        findings += judge(_compared(bundle, golden, own, found), gates, against="graph")
    return findings


def measure(bundle: Bundle, runner: Runner) -> Measured:
    """What differs between the FP32 golden outputs and this runner's; see ``prove``."""
    golden = bundle.golden()
    return _compared(bundle, golden, golden.expected, _outputs(bundle, golden, runner))


def _outputs(bundle: Bundle, golden: Golden, runner: Runner) -> dict[str, Array]:
    """What the runner says of the golden frames, one picture at a time as on the line."""
    names = [spec.name for spec in runner.outputs]
    wanted = _wanted(bundle)
    if not wanted <= golden.expected.keys() & set(names):
        raise GateError(
            f"{bundle.title} expects {', '.join(golden.expected)} of its golden frames and the graph gives "
            f"{', '.join(names)}; both must have {' and '.join(sorted(wanted))}, pack it again"
        )
    spec = bundle.manifest.preprocess
    fed = np.zeros((1, 3, spec.height, spec.width), np.float32)
    found: dict[str, list[Array]] = {output: [] for output in wanted}
    name = runner.inputs[0].name
    for picture in golden.frames:
        given = outputs_of_frame(picture, spec, lambda frame: runner.infer({name: frame}), out=fed)
        for output, rows in found.items():
            rows.append(given[output][0])
    return {output: np.stack(rows) for output, rows in found.items()}


def _wanted(bundle: Bundle) -> set[str]:
    """Outputs that a verdict is made of."""
    made = {"cells": {"cells"}, "anchors": {"boxes", "scores"}, "novelty": {"novelty"}}
    return made[bundle.manifest.postprocess.kind]


def _compared(
    bundle: Bundle, golden: Golden, reference: Mapping[str, Array], found: Mapping[str, Array]
) -> Measured:
    for name in sorted(found):
        if found[name].shape != reference[name].shape:
            raise GateError(
                f"{bundle.title} expects {name} {reference[name].shape[1:]} of a golden frame and the graph gives "
                f"{found[name].shape[1:]}; the graph is not the one that was packed"
            )
    temperature = np.array([band.temperature for band in bundle.manifest.thresholds], np.float32)
    spec, normals = bundle.manifest.preprocess, bundle.manifest.postprocess.normals
    sizes = [(frame.shape[0], frame.shape[1]) for frame in golden.frames]
    wanted = {name: reference[name] for name in found}
    before, after = (areas_from_outputs(one, spec, sizes, normals=normals) for one in (wanted, found))
    assert before is not None and after is not None  # _outputs has seen to it
    return compare(before, after, bundle.thresholds, temperature=temperature)
