"""Golden frames: pictures with a clear verdict, on which a station proves itself before it judges parts."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from calibration.collect import stacked
from calibration.sessions import open_session
from edge_sdk.arrays import Array, Floats, Image
from edge_sdk.errors import BundleError, DatasetError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.areas import Areas, areas_from_outputs
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.facts import facts_of_picture
from edge_sdk.quality.gates import Finding, Gates, compare, judge, verdicts
from edge_sdk.vision.preprocess import PreprocessSpec
from edge_sdk.vision.tiles import outputs_of_frame

__all__ = ["FEWEST", "MOST", "GoldenSet", "golden_set"]

FEWEST, MOST = 16, 64
_ENOUGH_BYTES = 48 << 20
"""Of the pictures together, uncompressed, which a station reads when it activates a bundle: no more than ``FEWEST``
where they take as much."""
_MOST_BYTES = 192 << 20
"""Not even ``FEWEST`` where they take more: of frames of 12 megapixels five.  One of each verdict there always is."""
_MARGIN = 0.25
"""How far, in logits, a frame's surest cell must lie from its class's band."""


@dataclass(frozen=True)
class GoldenSet:
    """Frames, and what each graph makes of them."""

    names: tuple[str, ...]
    frames: tuple[Image, ...]
    expected: dict[str, dict[str, Array]]
    """Role of a graph to output name to ``(N, …)``."""
    looked_at: int
    unclear: int
    """Pictures whose verdict is too close to call."""
    findings: dict[str, tuple[Finding, ...]]
    """Role of an INT8 graph to the gates that it broke on all the pictures looked at, or else on the golden frames."""
    outputs: dict[str, dict[str, Array]]
    """As ``expected``, of all the pictures looked at."""
    crowded: bool
    """There are fewer frames than there could be, as they would take more than a bundle should hold."""
    facts: Floats
    """``(N, 6)`` of all the pictures looked at, see ``edge_sdk.quality.facts``."""

    @property
    def picture_bytes(self) -> int:
        """Of the frames together, uncompressed."""
        return sum(frame.nbytes for frame in self.frames)

    def frames_npz(self) -> bytes:
        """``golden/frames.npz``: one array where all sizes are equal, else one a picture."""
        if len({frame.shape for frame in self.frames}) == 1:
            return _npz({"frames": np.stack(self.frames)})
        return _npz({f"frame{n:03d}": frame for n, frame in enumerate(self.frames)})

    def expected_npz(self, roles: Sequence[str]) -> bytes:
        """``golden/expected.npz``: the outputs of FP32 by their names, of an INT8 graph as ``cells.int8-cpu``."""
        arrays = dict(self.expected["fp32"])
        for role in roles:
            if role != "fp32":
                arrays.update({f"{name}.{role}": values for name, values in self.expected[role].items()})
        return _npz(arrays)


def golden_set(
    graphs: Mapping[str, Path],
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    bands: Thresholds,
    temperature: Floats,
    *,
    gates: Gates,
    normals: Sequence[float] | None = None,
    progress: Callable[[], None] = lambda: None,
) -> GoldenSet:
    """Choose clear pictures, as many passed as defective where there are, the same ones every time.

    Args:
        graphs: Role to file; ``fp32`` must be among them.
        samples: Pictures of the line, held out from training.
        spec: What the network was trained with.
        bands: Thresholds of the line.
        temperature: ``(K,)``.
        gates: Of the bundle.
        normals: Of an anomaly map, see ``area_logits``.
        progress: Called after each picture.

    Raises:
        DatasetError: There is no picture.
        BundleError: No picture has a clear verdict.
    """
    if not samples:
        raise DatasetError("there is no picture to choose golden frames from; give a folder with 16 or more")
    sessions = {role: open_session(path, reference=role == "int8-trt") for role, path in graphs.items()}
    outputs: dict[str, dict[str, list[Floats]]] = {role: {} for role in graphs}
    facts, sizes = [], []
    for sample in samples:
        image = read_image(sample)
        sizes.append((image.shape[0], image.shape[1]))
        facts.append(facts_of_picture(image, spec))
        for role, session in sessions.items():
            for name, values in outputs_of_frame(image, spec, session.run).items():
                outputs[role].setdefault(name, []).append(values)
        progress()
    whole = {role: stacked(by) for role, by in outputs.items()}
    areas = {role: areas_from_outputs(by, spec, sizes, normals=normals) for role, by in whole.items()}
    cells = areas["fp32"]
    if cells is None:
        raise BundleError(
            "the graph has no output named cells or scores, nor novelty with its normals, so no verdict can be golden; "
            "export one that has"
        )
    known = {role: found for role, found in areas.items() if found is not None}
    findings = {
        role: judge(compare(cells, found, bands, temperature=temperature), gates, against="fp32")
        for role, found in known.items()
        if role != "fp32"
    }
    clear = _clear(cells, bands, temperature)
    # what is not packed has no say in what is golden
    for role in (role for role in graphs if not findings.get(role)):
        clear &= _clear(known[role], bands, temperature, margin=0.0)
        clear &= _verdicts(known[role], bands, temperature) == _verdicts(cells, bands, temperature)
    places = _alternating(np.flatnonzero(clear), _verdicts(cells, bands, temperature))
    if not places:
        low, high = bands.pass_below.min(), bands.defective_from.max()
        raise BundleError(
            f"none of the {len(samples)} pictures has a clear verdict: all lie within the uncertain band, {low:g} to "
            f"{high:g}, or at its edge; give more pictures, or choose other thresholds"
        )
    frames: list[Image] = []
    kept: list[int] = []
    for place in places[:MOST]:
        picture = read_image(samples[place])
        size = sum(frame.nbytes for frame in frames) + picture.nbytes
        if (size > _ENOUGH_BYTES and len(kept) >= FEWEST) or (size > _MOST_BYTES and len(kept) >= 2):
            break
        frames.append(picture)
        kept.append(place)
    for role in (role for role in known if role != "fp32" and not findings.get(role)):
        # a station looks at these alone, and refuses what breaks a gate there
        findings[role] = judge(
            compare(cells[kept], known[role][kept], bands, temperature=temperature), gates, against="fp32"
        )
    return GoldenSet(
        names=tuple(samples[place].image for place in kept),
        frames=tuple(frames),
        expected={role: {name: values[kept] for name, values in by.items()} for role, by in whole.items()},
        looked_at=len(samples),
        unclear=int((~clear).sum()),
        crowded=len(kept) < len(places[:MOST]),
        findings=findings,
        outputs=whole,
        facts=np.stack(facts),
    )


def _verdicts(areas: Areas, bands: Thresholds, temperature: Floats) -> Array:
    return verdicts(areas.confidence(temperature), bands)


def _clear(areas: Areas, bands: Thresholds, temperature: Floats, *, margin: float = _MARGIN) -> Array:
    """``(N,)`` whether no class's surest cell lies within its band or near it."""
    surest = areas.surest(temperature)
    low, high = _logit(bands.pass_below) - margin, _logit(bands.defective_from) + margin
    return np.asarray(((surest < low) | (surest >= high)).all(axis=1) & ~np.isnan(surest).any(axis=1))


def _logit(confidence: Floats) -> Array:
    # a threshold of 1 is reached by logits beyond float32's sigmoid alone
    inside = np.clip(confidence.astype(np.float64), 1e-7, 1 - 1e-7)
    return np.log(inside / (1 - inside))


def _alternating(places: Array, verdict: Array) -> list[int]:
    """Passed and defective in turn, so that any beginning of the list holds both."""
    heaps = [[int(place) for place in places if verdict[place] == kind] for kind in (2, 0)]
    mixed: list[int] = []
    while any(heaps):
        for heap in heaps:
            if heap:
                mixed.append(heap.pop(0))
    return mixed


def _npz(arrays: Mapping[str, Array]) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **dict(arrays))  # type: ignore[arg-type]
    return out.getvalue()
