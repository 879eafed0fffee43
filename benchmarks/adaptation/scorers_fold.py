"""One scorer on one set: fitted, exported and quantised as commissioning does it, and judged in every form: for E5."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.arrays import Array, Floats
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Sample, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from training.scorers.fitting import ScorerRecipe

__all__ = [
    "CALIBRATED_ON",
    "FORMS",
    "KNOWING",
    "KNOWN",
    "Parts",
    "fold_of",
    "located",
    "parts_of",
    "recipes",
    "spec_of",
]

CALIBRATED_ON = 64
"""Fitted normals that ranges are taken of, at most, as ``commission`` does."""
COVARIANCES = ("block", "shared", "diagonal", "position")
"""Of the Gaussian; the first is the default."""
KNOWN = 10
"""Defects that one scorer may learn from beside good parts."""
KNOWING = f"supersimple, {KNOWN} defects known"
"""Its row; every other is of good parts alone."""
QUICK = {"iterations": 20, "side_px": 128}
FORMS = ("torch", "onnx", "int8", "int8_trt")
"""``int8`` is ONNX Runtime's rendering, ``int8_trt`` TensorRT's layout as ONNX Runtime interprets it, on normals."""


@dataclass(frozen=True)
class Parts:
    """Which pictures of a set do what."""

    root: Path
    good: tuple[Sample, ...]
    fits: tuple[Sample, ...]
    """Half of the good parts."""
    judged: tuple[Sample, ...]
    """The other half, then every defect of no group that is known of."""
    known: tuple[Sample, ...] = ()
    """Defects that may teach."""

    @property
    def held(self) -> int:
        """Good parts among those judged."""
        return sum(bool(one.healthy) for one in self.judged)


def parts_of(root: Path, *, seed: int, known: int = 0) -> Parts:
    """Whole groups of good parts are dealt into halves, as fitting deals them; some defects may teach.

    Args:
        root: A data set.
        seed: Of the dealing.
        known: Defects that may teach; none of their groups is judged.
    """
    from training.scorers.normals import split_normals

    samples = load_dataset(root).samples
    good = tuple(one for one in samples if one.healthy)
    fits, holds = split_normals(good, seed=seed)
    bad = [one for one in samples if one.healthy is False]
    taught = _evenly(bad, known, seed=seed)
    units = {one.unit for one in taught}
    return Parts(root, good, fits, (*holds, *(one for one in bad if one.unit not in units)), taught)


def _evenly(defects: Sequence[Sample], count: int, *, seed: int) -> tuple[Sample, ...]:
    """One of each kind by turns, by lot, each of another group, as the first defects of a line are of other parts.

    Raises:
        DatasetError: No defect would be left to judge.
    """

    def lot(one: Sample) -> bytes:
        return hashlib.sha256(f"{seed}:{one.image}".encode()).digest()

    queues: dict[str, list[Sample]] = {}
    for one in sorted(defects, key=lot, reverse=True):
        queues.setdefault(one.label or "", []).append(one)
    found: list[Sample] = []
    known: set[str] = set()
    while len(found) < count and any(queues.values()):
        for kind in sorted(queues):
            left = [one for one in queues[kind] if one.unit not in known]
            queues[kind] = left[:-1]
            found += left[-1:]
            known |= {one.unit for one in left[-1:]}
    found = found[:count]
    if count and {one.unit for one in defects} <= {one.unit for one in found}:
        raise DatasetError(f"of {len(defects)} defects {count} are to be known, which leaves none to judge; give fewer")
    return tuple(found)


def recipes(seed: int, *, quick: bool = False) -> dict[str, ScorerRecipe]:
    """Every scorer that there is, at its defaults, by name, and ``KNOWING``.

    ``quick``: one a method, small and hardly trained.
    """
    from training.scorers.fitting import ScorerRecipe
    from training.scorers.network import METHODS

    found: dict[str, ScorerRecipe] = {}
    for method in METHODS:
        asked: dict[str, Any] = {"method": method, "seed": seed, **(QUICK if quick else {})}
        if method == "gaussian":
            for covariance in COVARIANCES[: 1 if quick else None]:
                found[f"{method}, {covariance}"] = ScorerRecipe(**asked, covariance=covariance)
        else:
            found[method] = ScorerRecipe(**asked)
    return {**found, KNOWING: found["supersimple"]}


def fold_of(
    parts: Parts, recipe: ScorerRecipe, *, defects: Sequence[Sample] = (), keep: Path | None = None
) -> dict[str, Any]:
    """Scores of the judged pictures in every form, and where defects were found, as what JSON can hold.

    Args:
        parts: Of ``parts_of`` with the recipe's seed.
        recipe: Of the scorer.
        defects: That teach it.
        keep: Folder that the checkpoint and the graphs are left in.

    Returns:
        ``scores`` by form, ``parity`` (largest difference of a place between torch and ONNX), ``figures`` of torch and
        INT8, ``mb`` by form, ``notes`` and ``spec``.
    """
    from calibration.collect import frames_of
    from calibration.sessions import open_session
    from training.scorers.distances import distances_of, scorer_of
    from training.scorers.fitting import fit_scorer
    from training.scorers.normals import Normals

    checkpoint, said, held = fit_scorer(Normals(parts.root, parts.good, (), tuple(defects)), recipe)
    assert [one.image for one in held] == [one.image for one in parts.judged[: len(held)]]
    spec, network = checkpoint.preprocess, scorer_of(checkpoint)
    defective = distances_of(network, parts.judged[len(held) :], spec)
    maps: dict[str, Floats] = {"torch": np.concatenate([said.maps, defective.maps])}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mb = _rendered(checkpoint, parts, folder)
        files = {"onnx": "model.onnx", "int8": "model.cpu.onnx", "int8_trt": "model.trt.onnx"}
        for form, file in files.items():
            session = open_session(folder / file, reference=form == "int8_trt")
            some = parts.judged[: len(held)] if form == "int8_trt" else parts.judged
            maps[form] = np.concatenate([session.run(frame)["novelty"][:, 0] for _, frame in frames_of(some, spec)])
        if keep is not None:
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(folder, keep)
    weights = sum(one.numel() * one.element_size() for one in network.state_dict().values())
    return {
        "scores": {form: _short(one.max(axis=(1, 2))) for form, one in maps.items()},
        "parity": float(np.abs(maps["torch"] - maps["onnx"]).max()),
        "figures": {form: located(maps[form], parts.judged, spec) for form in ("torch", "int8")},
        "mb": {"torch": weights / 1e6, **mb},
        "notes": list(checkpoint.data["notes"]),
        "spec": asdict(spec),
    }


def _rendered(checkpoint: Any, parts: Parts, folder: Path) -> dict[str, float]:
    """Checkpoint, graph and INT8 renderings in a folder; megabytes of each graph."""
    from calibration.calibrating import calibrate
    from calibration.exported import read_exported
    from calibration.graphs import load_graph
    from calibration.qdq import host_architecture, qdq_from_onnx
    from export.exporting import export_checkpoint
    from training.checkpoint import save_checkpoint
    from training.scorers.commission import RULE

    save_checkpoint(checkpoint, folder / "checkpoint")
    export_checkpoint(folder / "checkpoint", line="original", out=folder)
    graph = load_graph(folder / "model.onnx")
    careful = read_exported(folder / "export.json").keep_float or ()
    table = calibrate(graph, parts.fits, checkpoint.preprocess, rule=RULE, most=CALIBRATED_ON, keep_float=careful)
    worth = tuple(layer.node for layer in table.float_layers)
    made = {
        "model.cpu.onnx": qdq_from_onnx(
            graph, table, layout="onnxruntime", architecture=host_architecture(), keep_float=careful
        ),
        "model.trt.onnx": qdq_from_onnx(graph, table, layout="tensorrt", keep_float=(*careful, *worth)),
    }
    for file, model in made.items():
        (folder / file).write_bytes(model.SerializeToString(deterministic=True))
    sizes = {"onnx": "model.onnx", "int8": "model.cpu.onnx"}
    return {form: (folder / file).stat().st_size / 1e6 for form, file in sizes.items()}


def located(maps: Array, judged: Sequence[Sample], spec: PreprocessSpec) -> dict[str, float | None]:
    """AUROC of pixels and AU-PRO, of the network's input."""
    from training.scorers.evaluate import figures_of_maps

    found = figures_of_maps(maps, judged, spec)
    return {name: found[name] for name in ("pixel_auroc", "au_pro")}


def spec_of(document: Mapping[str, Any]) -> PreprocessSpec:
    """Of ``fold_of``, read back."""
    said: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
    return PreprocessSpec(**said)


def _short(scores: Array) -> list[float]:
    return [float(f"{one:.7g}") for one in scores]
