"""What INT8 cost, on pictures that neither trained nor calibrated anything.

Verdicts and cells against FP32, picture by picture; the gates that a bundle asks for; and whether the
CPU's rendering is faster at all.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.collect import check_size, inputs_of, stacked
from calibration.exported import Exported
from calibration.graphs import Graph
from calibration.sessions import Session, open_session
from edge_sdk.arrays import Array, Floats
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.areas import Areas, areas_from_outputs
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.gates import ClassRecall, Finding, Gates, Measured, all_findings, compare, verdicts
from edge_sdk.quality.measures import average_precision, sqnr_db
from edge_sdk.vision.preprocess import PreprocessSpec
from edge_sdk.vision.tiles import outputs_of_frame

__all__ = [
    "VERDICTS",
    "Cost",
    "Domain",
    "Flip",
    "Judged",
    "compare_on_pictures",
    "cpu_instructions",
    "cpu_name",
]

VERDICTS = ("passed", "uncertain", "defective")
_ROUNDS = 40
_WARM_UP = 5


@dataclass(frozen=True)
class Flip:
    """A picture that INT8 judges otherwise."""

    picture: str
    label: str
    before: str
    after: str
    confidence_before: float
    confidence_after: float
    place: int
    """Among the pictures compared."""


@dataclass(frozen=True)
class Domain:
    """What INT8 cost on the pictures of one domain."""

    pictures: int
    flips: int
    defective: int
    """Pictures labelled so."""
    found_before: int
    """Of these, with FP32."""
    found_after: int


@dataclass(frozen=True)
class Cost:
    """What one rendering cost."""

    rendering: str
    """The file's name."""
    sha256: str
    measured: Measured
    findings: tuple[Finding, ...]
    """Every gate, held or not."""
    flips: tuple[Flip, ...]
    feature_sqnr_db: float | None
    confidence: Floats
    """``(N, K)`` surest cell of each class and picture."""
    scores: tuple[float, float] | None
    """Average precision of pictures, FP32 and INT8; none where the pictures' labels do not tell."""
    domains: Mapping[str, Domain]
    """By domain, of those that are named."""
    fp32_ms: float | None
    """Median of one frame on one thread; none where speed on this machine says nothing."""
    int8_ms: float | None

    @property
    def speedup(self) -> float | None:
        """Times as fast as FP32 on this machine."""
        return self.fp32_ms / self.int8_ms if self.fp32_ms and self.int8_ms else None

    @property
    def accepted(self) -> bool:
        """Whether every gate held."""
        return all(finding.held for finding in self.findings)


@dataclass(frozen=True)
class Judged:
    """All renderings on the same pictures."""

    samples: tuple[Sample, ...]
    confidence: Floats
    """``(N, K)`` of FP32."""
    verdicts: Array
    """``(N,)`` of FP32, places in ``VERDICTS``."""
    costs: tuple[Cost, ...]


def compare_on_pictures(
    graph: Graph,
    renderings: Mapping[str, Path],
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    exported: Exported,
    *,
    gates: Gates | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Judged:
    """Run FP32 and the INT8 renderings side by side.

    Args:
        graph: FP32.
        renderings: ``trt``, ``trt-fp16`` or ``cpu`` to file.
        samples: Held-out pictures.
        spec: What the network was trained with.
        exported: Thresholds and classes of the line.
        gates: By default the ones we ship.
        progress: Called after each picture.

    Raises:
        DatasetError: There is no picture.
        FormatError: The graph has nothing to judge by, or another size.
    """
    if not samples:
        raise DatasetError("there is no picture to compare on; give a folder with at least one, better 100")
    if not {"cells", "scores"} & set(graph.outputs) and not ("novelty" in graph.outputs and exported.normals):
        raise FormatError(
            f"the graph's outputs are {', '.join(graph.outputs)}; a verdict needs one named cells, boxes with scores, "
            "or novelty with its normals"
        )
    check_size(graph, spec)
    bands, temperature = exported.bands(), exported.temperature()
    fp32 = open_session(graph.model)
    # TensorRT's graph is run as it is written: it stands for an engine
    sessions = {kind: open_session(path, reference=kind != "cpu") for kind, path in renderings.items()}
    before: dict[str, list[Floats]] = {name: [] for name in graph.outputs}
    after: dict[str, dict[str, list[Floats]]] = {kind: {name: [] for name in graph.outputs} for kind in renderings}
    sizes = []
    for sample in samples:
        image = read_image(sample)
        sizes.append((image.shape[0], image.shape[1]))
        _keep(before, outputs_of_frame(image, spec, fp32.run))
        for kind, session in sessions.items():
            _keep(after[kind], outputs_of_frame(image, spec, session.run))
        progress()
    first = next(inputs_of(samples[0], spec))
    whole = stacked(before)
    areas = areas_from_outputs(whole, spec, sizes, normals=exported.normals)
    assert areas is not None  # as seen above
    confidence = areas.confidence(temperature)
    costs = []
    for kind, path in renderings.items():
        times = _interleaved(fp32, sessions[kind], first) if kind == "cpu" else (None, None)
        rendered = stacked(after[kind])
        other = areas_from_outputs(rendered, spec, sizes, normals=exported.normals)
        assert other is not None  # a rendering has the outputs of its graph
        scores = _scores(areas, other, samples, temperature)
        measured = _measured(areas, other, samples, bands, temperature, scores)
        surest = other.confidence(temperature).max(axis=(2, 3))
        found = verdicts(other.confidence(temperature), bands)
        feature = sqnr_db(whole["feature"], rendered["feature"]) if "feature" in whole else None
        costs.append(
            Cost(
                rendering=path.name,
                sha256=sha256_file(path),
                measured=measured,
                findings=all_findings(measured, gates or Gates(), against="fp32"),
                flips=_flips(measured, samples, verdicts(confidence, bands), found, confidence, surest),
                feature_sqnr_db=feature,
                confidence=surest,
                scores=scores,
                domains=_domains(samples, measured, verdicts(confidence, bands) > 0, found > 0),
                fp32_ms=times[0],
                int8_ms=times[1],
            )
        )
    return Judged(tuple(samples), confidence.max(axis=(2, 3)), verdicts(confidence, bands), tuple(costs))


def _keep(into: dict[str, list[Floats]], outputs: Mapping[str, Floats]) -> None:
    for name in into:
        if name in outputs:
            into[name].append(outputs[name])


def _scores(
    areas: Areas, other: Areas, samples: Sequence[Sample], temperature: Floats
) -> tuple[float, float] | None:
    """Average precision of pictures by their surest cell, before and after."""
    known = np.array([sample.healthy is not None for sample in samples])
    truth = np.array([sample.healthy is False for sample in samples])
    if not truth.any() or not (known & ~truth).any():
        return None
    # a detector without a box on the picture ranks it last
    lowest = float(np.finfo(np.float32).min)
    before, after = (np.maximum(one.surest(temperature).max(axis=1)[known], lowest) for one in (areas, other))
    if not np.isfinite(after).all():
        return None
    return average_precision(before, truth[known]), average_precision(after, truth[known])


def _domains(samples: Sequence[Sample], measured: Measured, before: Array, after: Array) -> dict[str, Domain]:
    flipped = set(measured.flips)
    found = {}
    for name in sorted({sample.domain for sample in samples if sample.domain}):
        places = [n for n, sample in enumerate(samples) if sample.domain == name]
        defective = [n for n in places if samples[n].healthy is False]
        found[name] = Domain(
            pictures=len(places),
            flips=len(flipped & set(places)),
            defective=len(defective),
            found_before=int(before[defective].sum()),
            found_after=int(after[defective].sum()),
        )
    return found


def _measured(
    areas: Areas,
    other: Areas,
    samples: Sequence[Sample],
    bands: Thresholds,
    temperature: Floats,
    scores: tuple[float, float] | None,
) -> Measured:
    """The comparison, with score and recall where the pictures' labels are known."""
    base = compare(areas, other, bands, temperature=temperature)
    truth = np.array([sample.healthy is False for sample in samples])
    found = [verdicts(one.confidence(temperature), bands) > 0 for one in (areas, other)]
    recall = {}
    for label in sorted({sample.label for sample in samples if sample.healthy is False}):
        of = np.array([sample.label == label for sample in samples]) & truth
        recall[label] = ClassRecall(int(of.sum()), int(found[0][of].sum()), int(found[1][of].sum()))
    return Measured(
        pictures=base.pictures,
        flips=base.flips,
        cells_agreement=base.cells_agreement,
        sqnr_db=base.sqnr_db,
        score_drop_points=100 * (scores[0] - scores[1]) if scores else None,
        recall=recall,
    )


def _flips(
    measured: Measured,
    samples: Sequence[Sample],
    before: Array,
    after: Array,
    confidence: Floats,
    surest: Floats,
) -> tuple[Flip, ...]:
    return tuple(
        Flip(
            picture=samples[n].image,
            label=samples[n].label,
            before=VERDICTS[int(before[n])],
            after=VERDICTS[int(after[n])],
            confidence_before=float(confidence[n].max()),
            confidence_after=float(surest[n].max()),
            place=n,
        )
        for n in measured.flips
    )


def _interleaved(first: Session, second: Session, frame: Floats) -> tuple[float, float]:
    """Median milliseconds of each, run in turn so that both see the same machine."""
    took: tuple[list[float], list[float]] = ([], [])
    for lap in range(_WARM_UP + _ROUNDS):
        for session, times in zip((first, second), took, strict=True):
            start = time.perf_counter()
            session.run(frame)
            if lap >= _WARM_UP:
                times.append(time.perf_counter() - start)
    return float(np.median(took[0])) * 1e3, float(np.median(took[1])) * 1e3


def cpu_name() -> str:
    """The processor, as the system names it."""
    for line in _cpuinfo():
        if line.startswith(("model name", "Model")) and ":" in line:
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cpu_instructions() -> list[str]:
    """The INT8 instructions that the processor has; a speed-up means little without them."""
    wanted = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")
    for line in _cpuinfo():
        if line.lower().startswith(("flags", "features")):
            has = set(line.split(":", 1)[1].split())
            return [name for name in wanted if name in has]
    return []


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
