"""``export onnx``: from a checkpoint's folder to model.onnx, preprocess.json and export.json."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import torch
from onnx import ModelProto

from calibration.exported import Exported, shapes_of, write_exported, write_preprocess
from edge_sdk.documents import sha256_hex, write_atomic
from export.checkpoint import read_checkpoint
from export.graph import OPSET, check_grid, kept_in_float, onnx_from_torch, outputs_of
from export.parity import BATCHES, check_parity

__all__ = ["export_checkpoint"]


def export_checkpoint(
    root: Path,
    *,
    line: str,
    out: Path,
    opset: int = OPSET,
    batch: int = BATCHES[-1],
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
    model = onnx_from_torch(network, file.preprocess, opset=opset)
    sizes = tuple(dict.fromkeys((1, 2, batch)))
    say(f"comparing with torch at batch {', '.join(map(str, sizes))}")
    parity = check_parity(network, model, file.preprocess, batches=sizes)
    data = graph_bytes(model)
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
        keep_float=kept_in_float(network, model) or None,
        cell_px=file.cell_px,
        parity=parity,
        versions={name: metadata.version(name) for name in ("torch", "onnx", "onnxscript", "onnxruntime")},
    )
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "model.onnx", data)
    write_preprocess(out / "preprocess.json", file.preprocess)
    write_exported(out / "export.json", exported)
    return exported


def graph_bytes(model: ModelProto) -> bytes:
    """The bytes of the file; equal models, equal bytes."""
    return bytes(model.SerializeToString(deterministic=True))
