"""Which rule, and which layers stay in float: by what the INT8 graph answers on pictures that calibrated nothing.

How well a tensor is rounded says little of what the graph's outputs lose, so each candidate is rendered for
TensorRT and run as it is written, and its outputs are held against FP32's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from onnx import ModelProto

from calibration.collect import frames_of
from calibration.graphs import Graph
from calibration.placement import tensorrt_placement
from calibration.qdq import qdq_from_onnx
from calibration.ranges import FloatLayer, PictureEntry, RangeTable
from calibration.scales import RULES, Rule
from calibration.sessions import Session, open_session
from edge_sdk.arrays import Floats
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["TIE_DB", "WORTH_DB", "Choice", "Noise", "Trial", "Trials", "choose", "ends_of", "loses_less", "table_with"]

TIE_DB = 0.1
"""Candidates that are no further apart over all pictures are a tie, and the plainer one it is."""
_EXACT_DB = 200.0
"""Stands for infinity where decibels are subtracted."""
WORTH_DB = 0.5
"""What the first layer or a head must gain to stay in float unasked, and channels to be equalised."""
_REMEMBERED_BYTES = 32 << 20
"""FP32's outputs are remembered up to this size, else computed again for each candidate."""
_FEATURE = "feature"
"""An output that nothing is judged by."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen by."""

    rule: Rule
    sqnr_db: Mapping[Rule, float]
    """Of the outputs with no layer in float and no channel equalised, by rule; infinite where no bit differs."""
    float_layers: tuple[FloatLayer, ...] = ()
    """In the order in which they were taken."""
    gains_db: Mapping[str, float] = field(default_factory=dict)
    """By node: what its layer alone in float gains."""
    equalised: bool = False
    """Whether the table's factors are taken."""
    equalised_db: Mapping[Rule, float] = field(default_factory=dict)
    """As ``sqnr_db``, with the table's factors; empty where it has none, or there was no choice."""


class Noise:
    """Signal and error of a graph's outputs over any number of frames."""

    def __init__(self) -> None:
        self._signal: dict[str, float] = {}
        self._error: dict[str, float] = {}

    def see(self, reference: Mapping[str, Floats], other: Mapping[str, Floats]) -> None:
        """Add a frame's outputs; those that only one of the two has are passed over."""
        for name in reference.keys() & other.keys():
            wanted = np.asarray(reference[name], np.float64)
            self._signal[name] = self._signal.get(name, 0.0) + float((wanted**2).sum())
            error = float(((np.asarray(other[name], np.float64) - wanted) ** 2).sum())
            self._error[name] = self._error.get(name, 0.0) + error

    def by_output(self) -> dict[str, float]:
        """SQNR in dB, infinite where no bit differs, -infinite where something is no number."""
        return {name: _decibels(self._signal[name], self._error[name]) for name in sorted(self._signal)}

    @property
    def sqnr_db(self) -> float:
        """Of the worst output that something is judged by."""
        found = self.by_output()
        return min(value for name, value in found.items() if name != _FEATURE or len(found) == 1)


def _decibels(signal: float, error: float) -> float:
    if not (math.isfinite(signal) and math.isfinite(error)):
        return -math.inf
    if error == 0:
        return math.inf
    return 10 * math.log10(signal / error) if signal > 0 else -math.inf


def choose(
    graph: Graph,
    table: RangeTable,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    rules: Sequence[Rule] = RULES,
    keep_float: Collection[str] = (),
    most_float: int | None = None,
    threads: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> Choice:
    """Choose rule and factors by the SQNR of the TensorRT rendering, then the layers that are worth leaving in float.

    Args:
        graph: FP32.
        table: Of this graph.  Factors of its channels are taken where the best rule with them ``loses_less`` than the
            best without by ``WORTH_DB``; those of a table whose choosing is done stay as they are.
        samples: Pictures that calibrated nothing, one or more.
        spec: What the network was trained with.
        rules: To choose among; MSE is taken unless another one ``loses_less``.
        keep_float: Nodes that stay in float whatever is found here.
        most_float: How many layers may stay in float: those that gain most, as long as each gains something.  By
            default the first ones and the heads, each that gains ``WORTH_DB`` or more and ``loses_less``.
        threads: Of the runtime.
        progress: Called after each candidate.

    Reference:
        Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 5.1: partial quantisation by a
        sensitivity that is measured layer by layer.
    """
    trials = Trials(graph, samples, spec, threads)
    ways = [table] if table.choosing or not table.factors else [table.unequalised(), table]

    def tried(way: RangeTable, rule: Rule, *also: str) -> Trial:
        kept = [*keep_float, *also]
        found = trials.of(qdq_from_onnx(graph, way, layout="tensorrt", rule=rule, keep_float=kept))
        progress()
        return found

    found = [{rule: tried(way, rule) for rule in rules} for way in ways]
    best = [_best(each) for each in found]
    equal = len(ways) > 1 and loses_less(found[1][best[1]], found[0][best[0]], least=WORTH_DB)
    way, rule, plain = ways[equal], best[equal], found[equal]
    by_rule = [{one: trial.sqnr_db for one, trial in each.items()} for each in found]
    choice = Choice(
        rule, by_rule[0], equalised=equal or bool(ways[0].factors), equalised_db=by_rule[1] if len(ways) > 1 else {}
    )
    wholly = plain[rule].sqnr_db
    least = WORTH_DB if most_float is None else 0.0
    names = ends_of(graph, keep_float) if most_float is None else _layers(graph, keep_float)
    if most_float == 0 or not math.isfinite(wholly):
        return choice
    alone = {name: tried(way, rule, name) for name in names}
    gains = {name: trial.sqnr_db - wholly for name, trial in alone.items()}
    kept: list[FloatLayer] = []
    reached = plain[rule]
    for name in sorted(gains, key=lambda one: -gains[one]):
        if len(kept) == (most_float if most_float is not None else len(gains)) or gains[name] < max(least, 1e-9):
            break
        more = alone[name] if not kept else tried(way, rule, *(one.node for one in kept), name)
        gain = more.sqnr_db - reached.sqnr_db
        if gain >= max(least, 1e-9) and (most_float is not None or loses_less(more, reached)):
            why = f"leaving it in float raises the outputs' SQNR from {reached.sqnr_db:.1f} to {more.sqnr_db:.1f} dB"
            kept.append(FloatLayer(node=name, gain_db=_finite(gain), why=why))
            reached = more
    return replace(
        choice, float_layers=tuple(kept), gains_db={name: _finite(gain) for name, gain in gains.items()}
    )


def table_with(table: RangeTable, choice: Choice, choosing: Sequence[PictureEntry]) -> RangeTable:
    """The table that says what was chosen, and on which pictures; without factors that were not taken."""
    equalisation = table.equalisation and table.equalisation.model_copy(
        update={"sqnr_db": _said(choice.equalised_db)}
    )
    table = table.model_copy(update={"equalisation": equalisation})
    if not choice.equalised:
        table = table.unequalised()
    return table.model_copy(
        update={
            "tensors": {
                name: row.model_copy(update={"chosen": choice.rule}) for name, row in table.tensors.items()
            },
            "choosing": tuple(choosing),
            "sqnr_db": _said(choice.sqnr_db),
            "float_layers": choice.float_layers,
            "gains_db": dict(choice.gains_db),
        }
    )


def _said(decibels: Mapping[Rule, float]) -> dict[Rule, float | None]:
    return {rule: value if math.isfinite(value) else None for rule, value in decibels.items()}


def _best(trials: Mapping[Rule, Trial]) -> Rule:
    best = max(trials, key=lambda rule: trials[rule].sqnr_db)
    if "mse" not in trials or best == "mse":
        return best
    return best if loses_less(trials[best], trials["mse"]) else "mse"


def loses_less(after: Trial, before: Trial, *, least: float = TIE_DB) -> bool:
    """Whether a candidate's SQNR is better by more than ``least`` dB over all pictures, and better in their mean.

    Both must say so: one picture with a great error can decide the first, many with hardly any the second.
    """
    gain = _finite(after.sqnr_db) - _finite(before.sqnr_db)
    pairs = zip(after.by_picture, before.by_picture, strict=True)
    return gain > least and sum(_finite(new) - _finite(old) for new, old in pairs) > 0


def _finite(gain: float) -> float:
    return gain if math.isfinite(gain) else math.copysign(_EXACT_DB, gain)


def _layers(graph: Graph, keep_float: Collection[str]) -> list[str]:
    """Nodes with weights that TensorRT would run in int8."""
    placement = tensorrt_placement(graph, keep_float=frozenset(keep_float))
    return [graph.nodes[place].name for place in sorted(placement.weighted) if graph.nodes[place].name]


def ends_of(graph: Graph, keep_float: Collection[str] = ()) -> list[str]:
    """The first layers and the heads: those with no other layer with weights before, or behind them."""
    weighted = tensorrt_placement(graph).weighted
    behind_one: set[str] = set()
    firsts: list[int] = []
    for place, node in enumerate(graph.nodes):
        fed = any(name in behind_one for name in node.input)
        if place in weighted and not fed:
            firsts.append(place)
        if fed or place in weighted:
            behind_one.update(node.output)
    leads_on: set[str] = set()
    heads: list[int] = []
    for place in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[place]
        feeds = any(name in leads_on for name in node.output)
        if place in weighted and not feeds:
            heads.append(place)
        if feeds or place in weighted:
            leads_on.update(node.input)
    names = [graph.nodes[place].name for place in dict.fromkeys([*firsts, *sorted(heads)])]
    return [name for name in names if name and name not in keep_float]


@dataclass(frozen=True)
class Trial:
    """What one candidate made of the choosing pictures."""

    sqnr_db: float
    """Over all of them."""
    by_picture: tuple[float, ...]
    """Of each."""


class Trials:
    """The same pictures for every candidate."""

    def __init__(self, graph: Graph, samples: Sequence[Sample], spec: PreprocessSpec, threads: int = 1) -> None:
        self._graph = graph
        self._samples = samples
        self._spec = spec
        self._threads = threads
        self._remembered: dict[int, dict[str, Floats]] = {}
        self._room = _REMEMBERED_BYTES

    def of(self, model: ModelProto) -> Trial:
        """What a rendering of the graph makes of them, run as it is written."""
        whole, pictures = Noise(), dict[str, Noise]()
        candidate = open_session(model, threads=self._threads, reference=True, frugal=True)
        fp32: Session | None = None
        for number, (sample, frame) in enumerate(frames_of(self._samples, self._spec)):
            if number not in self._remembered and fp32 is None:
                fp32 = open_session(self._graph.model, threads=self._threads, frugal=True)
            wanted = self._remembered.get(number) or self._remember(number, fp32, frame)
            found = candidate.run(frame)
            for noise in (whole, pictures.setdefault(sample.image, Noise())):
                noise.see(wanted, found)
        return Trial(whole.sqnr_db, tuple(noise.sqnr_db for noise in pictures.values()))

    def _remember(self, number: int, fp32: Session | None, frame: Floats) -> dict[str, Floats]:
        assert fp32 is not None  # opened by the caller
        found = fp32.run(frame)
        size = sum(values.nbytes for values in found.values())
        if size <= self._room:
            self._room -= size
            self._remembered[number] = found
        return found
