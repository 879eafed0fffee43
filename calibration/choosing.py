"""Which rule, and which layers stay in float: by what the INT8 graph answers on pictures that calibrated nothing.

How well a tensor is rounded says little of what the graph's outputs lose, so each candidate is rendered for
TensorRT and run as it is written, and its outputs are held against FP32's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

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
from edge_sdk.quality.measures import paired_t_interval
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["TIE_DB", "WORTH_DB", "Choice", "Noise", "Trial", "Trials", "beats", "choose", "ends_of", "table_with"]

TIE_DB = 0.1
"""Rules that are no further apart over all pictures are a tie, and MSE it is."""
_EXACT_DB = 200.0
"""Stands for infinity where decibels are subtracted."""
WORTH_DB = 0.5
"""What the first layer or a head must gain to stay in float unasked."""
_REMEMBERED_BYTES = 32 << 20
"""FP32's outputs are remembered up to this size, else computed again for each candidate."""
_FEATURE = "feature"
"""An output that nothing is judged by."""


@dataclass(frozen=True)
class Choice:
    """What was chosen, and what it was chosen by."""

    rule: Rule
    sqnr_db: Mapping[Rule, float]
    """Of the outputs with no layer in float, by rule; infinite where no bit differs."""
    float_layers: tuple[FloatLayer, ...] = ()
    """In the order in which they were taken."""
    gains_db: Mapping[str, float] = field(default_factory=dict)
    """By node: what its layer alone in float gains."""


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
    """Choose the rule by the SQNR of the TensorRT rendering, then the layers that are worth leaving in float.

    Args:
        graph: FP32.
        table: Of this graph.
        samples: Pictures that calibrated nothing, one or more.
        spec: What the network was trained with.
        rules: To choose among; MSE is taken unless another one beats it by more than ``TIE_DB``, and picture by picture
            so evenly that the 95 % interval of the mean lead lies above zero: few pictures tell little.
        keep_float: Nodes that stay in float whatever is found here.
        most_float: How many layers may stay in float: those that gain most, as long as each gains something.  By
            default the first ones and the heads, each that gains ``WORTH_DB`` or more, and as evenly as a rule must.
        threads: Of the runtime.
        progress: Called after each candidate.

    Reference:
        Wu et al. 2020, "Integer Quantization for Deep Learning Inference", section 5.1: partial quantisation by a
        sensitivity that is measured layer by layer.
    """
    trials = Trials(graph, samples, spec, threads)

    def tried(rule: Rule, *also: str) -> Trial:
        kept = [*keep_float, *also]
        found = trials.of(qdq_from_onnx(graph, table, layout="tensorrt", rule=rule, keep_float=kept))
        progress()
        return found

    plain = {rule: tried(rule) for rule in rules}
    by_rule = {rule: trial.sqnr_db for rule, trial in plain.items()}
    rule = _best(plain)
    wholly = by_rule[rule]
    least = WORTH_DB if most_float is None else 0.0
    names = ends_of(graph, keep_float) if most_float is None else _layers(graph, keep_float)
    if most_float == 0 or not math.isfinite(wholly):
        return Choice(rule, by_rule)
    alone = {name: tried(rule, name) for name in names}
    gains = {name: trial.sqnr_db - wholly for name, trial in alone.items()}
    kept: list[FloatLayer] = []
    reached = plain[rule]
    for name in sorted(gains, key=lambda one: -gains[one]):
        if len(kept) == (most_float if most_float is not None else len(gains)) or gains[name] < max(least, 1e-9):
            break
        found = alone[name] if not kept else tried(rule, *(one.node for one in kept), name)
        gain = found.sqnr_db - reached.sqnr_db
        if gain >= max(least, 1e-9) and (most_float is not None or beats(found, reached)):
            why = f"leaving it in float raises the outputs' SQNR from {reached.sqnr_db:.1f} to {found.sqnr_db:.1f} dB"
            kept.append(FloatLayer(node=name, gain_db=_finite(gain), why=why))
            reached = found
    return Choice(rule, by_rule, tuple(kept), {name: _finite(gain) for name, gain in gains.items()})


def table_with(table: RangeTable, choice: Choice, choosing: Sequence[PictureEntry]) -> RangeTable:
    """The table that says what was chosen, and on which pictures."""
    return table.model_copy(
        update={
            "tensors": {
                name: row.model_copy(update={"chosen": choice.rule}) for name, row in table.tensors.items()
            },
            "choosing": tuple(choosing),
            "sqnr_db": {rule: value if math.isfinite(value) else None for rule, value in choice.sqnr_db.items()},
            "float_layers": choice.float_layers,
            "gains_db": dict(choice.gains_db),
        }
    )


def _best(trials: Mapping[Rule, Trial]) -> Rule:
    best = max(trials, key=lambda rule: trials[rule].sqnr_db)
    if "mse" not in trials or best == "mse":
        return best
    return best if beats(trials[best], trials["mse"]) else "mse"


def beats(other: Trial, first: Trial) -> bool:
    """Whether a candidate loses less than another one beyond what these pictures leave to chance.

    By more than ``TIE_DB`` over all of them, and so evenly that the 95 % interval of the mean lead lies above zero.
    """
    if not _finite(other.sqnr_db) - _finite(first.sqnr_db) > TIE_DB or len(first.by_picture) < 2:
        return False
    leads = np.clip(other.by_picture, -_EXACT_DB, _EXACT_DB) - np.clip(first.by_picture, -_EXACT_DB, _EXACT_DB)
    return paired_t_interval(leads).low > 0


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
