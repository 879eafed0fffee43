"""Put the parts together: graphs, ranges, report, golden frames and card into one signed bundle.

An INT8 graph gets in only if it was made from this FP32 graph and holds the gates; where it does not, the
bundle goes without it and says why, and the station runs FP32.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import onnx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import ValidationError

from calibration.collect import check_size
from calibration.exported import Exported, read_exported
from calibration.graphs import Graph, load_graph
from calibration.ranges import read_ranges, spec_digest
from calibration.report_file import ReportFile
from calibration.thresholds import read_thresholds
from edge_sdk.bundles.archive import verify_bundle
from edge_sdk.bundles.tar import write_tar
from edge_sdk.documents import read_json, sha256_hex
from edge_sdk.errors import ConfigError, FormatError
from edge_sdk.manifest import (
    FileEntry,
    Manifest,
    PostprocessSpec,
    RenderingThresholds,
    manifest_bytes,
    manifest_id,
)
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.gates import Gates
from edge_sdk.vision.decode import IOU
from export.card import card
from export.checkpoint import Checkpoint
from export.drift import with_watch
from export.golden import GoldenSet, golden_set
from export.keys import signatures

__all__ = ["Packed", "bundle_from_parts"]

_INT8 = {"int8-trt": "model.trt.onnx", "int8-cpu": "model.cpu.onnx"}
_KINDS = {"int8-trt": "trt", "int8-cpu": "cpu"}


@dataclass(frozen=True)
class Packed:
    """A bundle that was written and verified."""

    path: Path
    id: str
    manifest: Manifest
    golden: GoldenSet
    left_out: dict[str, str]
    """Role of a graph that is not in it to the reason."""
    signed: bool
    unwatched: dict[str, str]
    """Role of a graph whose station will not watch for drift to the reason."""


@dataclass(frozen=True)
class _Parts:
    """What lies in the work folder."""

    graph: Graph
    exported: Exported
    graphs: dict[str, Path]
    ranges: Path | None
    report: ReportFile | None
    pages: dict[str, Path]
    left_out: dict[str, str]


def bundle_from_parts(
    work: Path,
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    out: Path,
    *,
    name: str,
    version: str,
    created_at: datetime,
    key: Ed25519PrivateKey | None = None,
    gates: Gates | None = None,
    mm_per_px: float | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Packed:
    """Assemble, sign and verify a bundle.

    Args:
        work: Folder with ``model.onnx`` and ``export.json``, and what calibration wrote.
        checkpoint: That the graph was exported from.
        samples: Held-out pictures of the line, for golden frames.
        out: Folder that ``NAME-VERSION.bundle`` is written to.
        name: Of the bundle.
        version: Of the bundle.
        created_at: Aware; equal parts and times give equal bytes.
        key: To sign with.
        gates: Of the golden frames; by default the ones we ship.
        mm_per_px: Of the frame, where it is known.
        progress: Called after each picture.

    Raises:
        FormatError: A part is missing, damaged, or of another graph or checkpoint.
        BundleError: No picture is fit to be golden.
        ConfigError: Name or version cannot be a file's.
    """
    table = gates or Gates()
    parts = _parts(work, checkpoint)
    spec, bands, temperature = (
        checkpoint.file.preprocess,
        parts.exported.bands(),
        parts.exported.temperature(),
    )
    check_size(parts.graph, spec)
    golden = golden_set(
        parts.graphs,
        samples,
        spec,
        bands,
        temperature,
        gates=table,
        normals=parts.exported.normals,
        progress=progress,
    )
    left_out = dict(parts.left_out)
    for role, findings in golden.findings.items():
        if findings:
            left_out[role] = findings[0].sentence
    graphs = {role: path for role, path in parts.graphs.items() if role not in left_out}
    files = _files(parts, graphs, golden)
    entries = [_entry(path, data, role) for path, (data, role) in files.items()]
    calibrated = _calibrated(work, graphs)
    drift, unwatched = with_watch(
        checkpoint.said.drift,
        golden,
        samples,
        tuple(graphs),
        bands,
        temperature,
        calibrated,
        normals=parts.exported.normals,
    )
    manifest = _manifest(
        name=name,
        version=version,
        created_at=created_at,
        line=checkpoint.line,
        classes=checkpoint.file.classes,
        thresholds=parts.exported.thresholds,
        calibrated=calibrated,
        preprocess=spec,
        postprocess=_postprocess(parts.exported, checkpoint.file.cell_px),
        mm_per_px=mm_per_px,
        drift=drift,
        files=tuple(entries),
        golden=table,
    )
    text = card(manifest, checkpoint, golden, report=parts.report, left_out=left_out).encode()
    files["card.md"] = (text, "card")
    entries.append(_entry("card.md", text, "card"))
    manifest = manifest.model_copy(update={"files": tuple(sorted(entries, key=lambda entry: entry.path))})
    members: dict[str, bytes | Path] = {path: data for path, (data, _) in files.items()}
    members["manifest.json"] = manifest_bytes(manifest)
    if key is not None:
        members["manifest.sig"] = signatures(manifest_bytes(manifest), key)
    path = _written(members, out / f"{name}-{version}.bundle")
    return Packed(path, manifest_id(manifest), manifest, golden, left_out, key is not None, unwatched)


def _calibrated(work: Path, graphs: dict[str, Path]) -> tuple[RenderingThresholds, ...] | None:
    """Thresholds of the renderings that are packed, of those that have their own."""
    found = (read_thresholds(work, role, path) for role, path in graphs.items())
    return tuple(one for one in found if one is not None) or None


def _postprocess(exported: Exported, cell_px: int) -> PostprocessSpec:
    """A graph with cells is a map, one with novelty an anomaly map, one with scores alone a detector."""
    said = {"cell_px": cell_px, "how": exported.how, "guarantee": exported.guarantee}
    if "cells" not in exported.outputs and "novelty" in exported.outputs:
        return PostprocessSpec.model_validate({**said, "kind": "novelty", "normals": exported.normals})
    if "cells" in exported.outputs or "scores" not in exported.outputs:
        return PostprocessSpec.model_validate(said)
    return PostprocessSpec.model_validate({**said, "kind": "anchors", "iou": IOU})


def _parts(work: Path, checkpoint: Checkpoint) -> _Parts:
    """Read the work folder, and hold every part to the FP32 graph and that to the checkpoint."""
    graph = load_graph(work / "model.onnx")
    exported = read_exported(work / "export.json")
    if exported.graph_sha256 != graph.digest:
        raise FormatError(f"{work / 'export.json'} is of another graph than model.onnx; export it again")
    if exported.line != checkpoint.line:
        raise FormatError(
            f"{work / 'model.onnx'} was exported for the line {exported.line}, not {checkpoint.line}; export that line"
        )
    if (exported.weights_sha256, exported.line_sha256) != checkpoint.digests():
        raise FormatError(
            f"{work / 'model.onnx'} was exported from other weights than {checkpoint.root} has; export it again"
        )
    if exported.thresholds != checkpoint.said.thresholds:
        raise FormatError(f"the thresholds of {checkpoint.root} changed after the export; export it again")
    graphs, left_out = {"fp32": work / "model.onnx"}, {}
    ranges = work / "ranges.json"
    if ranges.exists():
        table = read_ranges(ranges)
        table.check_graph(graph)
        if table.preprocess_sha256 != spec_digest(checkpoint.file.preprocess):
            raise FormatError(f"{ranges} was made with another preprocessing; make the ranges again")
    report_path = work / "report.json"
    report = read_json(report_path, ReportFile) if report_path.exists() else None
    if report is not None and report.graph_sha256 != graph.digest:
        raise FormatError(f"{report_path} is of another graph than model.onnx; make the report again")
    for role, name in _INT8.items():
        path = work / name
        if not path.exists():
            left_out[role] = "it was not rendered"
            continue
        _check_rendering(path, graph)
        graphs[role] = path
        why = _refusal(report, _KINDS[role], path)
        if why:
            del graphs[role]
            left_out[role] = why
    pages = {page: work / page for page in ("report.json", "report.html") if (work / page).exists()}
    return _Parts(graph, exported, graphs, ranges if ranges.exists() else None, report, pages, left_out)


def _check_rendering(path: Path, graph: Graph) -> None:
    try:
        model = onnx.load(path)
    except Exception as error:  # protobuf, onnx and the system each have their own
        raise FormatError(
            f"{path} is no ONNX graph; render it again: python -m calibration render"
        ) from error
    said = {entry.key: entry.value for entry in model.metadata_props}
    if said.get("edge_sdk.fp32") != graph.digest:
        raise FormatError(
            f"{path} was rendered from another graph than model.onnx; render it again: python -m calibration render"
        )


def _refusal(report: ReportFile | None, kind: str, path: Path) -> str | None:
    """Why the report speaks against a rendering; nothing where it speaks for it or is not there."""
    if report is None or kind not in report.renderings:
        return None
    row = report.renderings[kind]
    if row.sha256 != sha256_hex(path.read_bytes()):
        raise FormatError(
            f"the report is of another {path.name}; make the report again: python -m calibration report"
        )
    return row.refusal(report.cpu)


def _files(parts: _Parts, graphs: dict[str, Path], golden: GoldenSet) -> dict[str, tuple[bytes, str]]:
    files = {f"model/{path.name}": (path.read_bytes(), role) for role, path in graphs.items()}
    if parts.ranges is not None:
        files["calibration/ranges.json"] = (parts.ranges.read_bytes(), "ranges")
    for name, path in parts.pages.items():
        files[f"calibration/{name}"] = (path.read_bytes(), "report")
    files["golden/frames.npz"] = (golden.frames_npz(), "golden-frames")
    files["golden/expected.npz"] = (golden.expected_npz(tuple(graphs)), "golden-expected")
    return files


def _entry(path: str, data: bytes, role: str) -> FileEntry:
    return FileEntry(path=path, bytes=len(data), sha256=sha256_hex(data), role=role)


def _manifest(**fields: object) -> Manifest:
    try:
        return Manifest.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        if place in ("name", "version"):
            raise ConfigError(
                f"{place} is {first['input']!r}; give letters, digits, dots, dashes, beginning with a letter or digit"
            ) from error
        raise FormatError(f"the manifest would not be valid: {place}: {first['msg']}") from error


def _written(members: dict[str, bytes | Path], path: Path) -> Path:
    """Write the tar, verify it as a station would, and only then give it its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        write_tar(members, temporary)
        verify_bundle(temporary, trust="unsigned")
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
