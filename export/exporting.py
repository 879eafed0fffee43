"""``export onnx``: from a checkpoint's folder to model.onnx, preprocess.json and export.json."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from onnx import ModelProto

from calibration.exported import Exported, exported_bytes, preprocess_bytes, shapes_of
from edge_sdk.documents import sha256_hex, write_together
from export.checkpoint import read_checkpoint
from export.fused import check_fused, with_preprocessing
from export.graph import OPSET, check_grid, graph_of, kept_in_float, outputs_of, unrounded
from export.parity import BATCHES, check_parity

__all__ = ["FUSED", "export_checkpoint"]

FUSED = "model.fused.onnx"
"""Beside ``model.onnx``, where it was asked for."""


def export_checkpoint(
    root: Path,
    *,
    line: str,
    out: Path,
    opset: int = OPSET,
    batch: int = BATCHES[-1],
    fixed: bool = False,
    fused: bool = False,
    threads: int = 1,
    say: Callable[[str], None] = lambda text: None,
) -> Exported:
    """Export one line of a checkpoint.

    Args:
        root: The checkpoint's folder.
        line: Whose tensors and thresholds.
        out: Made if need be; nothing is written before everything was checked.
        opset: Asked for.
        batch: Compared with torch besides 1 and 2.
        fixed: The graph takes ``batch`` frames and no other number; without it any.
        fused: Write ``model.fused.onnx`` too, the graph with its preprocessing inside.
        threads: Of torch.
        say: Told what is being done.

    Raises:
        FormatError: The checkpoint is damaged, or of another architecture than its factory makes.
        ConfigError: It has no such line, or its factory cannot be called.
        ExportError: The network cannot be exported as asked, or the graph computes something else.
    """
    torch.set_num_threads(threads)
    checkpoint = read_checkpoint(root, line=line)
    file = checkpoint.file
    network = checkpoint.module()
    check_grid(
        outputs_of(network, file.preprocess), file.preprocess, cell_px=file.cell_px, classes=len(file.classes)
    )
    say(f"exporting {file.factory} for the line {line}, opset {opset}")
    made = graph_of(network, file.preprocess, opset=opset, batch=batch if fixed else None)
    model = made.model
    kept = kept_in_float(network, model)
    notes = [note for note in (made.note, unrounded(network, model, kept)) if note]
    for note in notes:
        say(f"note: {note}")
    sizes = (batch,) if fixed else tuple(dict.fromkeys((1, 2, batch)))
    say(f"comparing with torch at batch {', '.join(map(str, sizes))}")
    parity = check_parity(network, model, file.preprocess, batches=sizes)
    data = graph_bytes(model)
    inside = None
    if fused:
        say("comparing with its preprocessing inside, on letterboxed pictures")
        whole = with_preprocessing(model, file.preprocess)
        check_fused(model, whole, file.preprocess)
        inside = graph_bytes(whole)
    weights, own = checkpoint.digests()
    exported = Exported(
        graph_sha256=sha256_hex(data),
        factory=file.factory,
        line=line,
        weights_sha256=weights,
        line_sha256=own,
        opset=opset,
        ir=model.ir_version,
        nodes=len(model.graph.node),
        inputs=shapes_of(model.graph.input),
        outputs=shapes_of(model.graph.output),
        classes=file.classes,
        thresholds=checkpoint.said.thresholds,
        how=checkpoint.said.how,
        guarantee=checkpoint.said.guarantee,
        normals=checkpoint.said.normals,
        keep_float=kept or None,
        cell_px=file.cell_px,
        parity=parity,
        way=made.way,
        note="; ".join(notes) or None,
        fused_sha256=None if inside is None else sha256_hex(inside),
        versions={name: metadata.version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
    )
    out.mkdir(parents=True, exist_ok=True)
    files = {
        out / "model.onnx": data,
        out / "preprocess.json": preprocess_bytes(file.preprocess),
        out / "export.json": exported_bytes(exported),
    }
    if inside is not None:
        files[out / FUSED] = inside
    write_together(files)
    if inside is None:
        (out / FUSED).unlink(missing_ok=True)  # of an older graph
    return exported


def graph_bytes(model: ModelProto) -> bytes:
    """The bytes of the file; equal models, equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))
