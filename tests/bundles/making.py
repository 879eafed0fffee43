"""A small real bundle: graphs that run, golden frames that they reach, and keys that sign it."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_sdk.arrays import Array
from edge_sdk.bundles.tar import write_tar
from edge_sdk.bundles.trust import key_id
from edge_sdk.documents import canonical_json, sha256_hex
from edge_sdk.manifest import ClassThresholds, FileEntry, Manifest, PostprocessSpec, manifest_bytes
from edge_sdk.quality.gates import Gates
from edge_sdk.runners import open_runner
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess
from tests.runners.graphs import cells_graph

__all__ = ["Key", "Parts", "bundle_parts", "put_folder", "put_tar", "seal"]

ROLES = {
    "model/model.onnx": "fp32",
    "model/model.cpu.onnx": "int8-cpu",
    "golden/frames.npz": "golden-frames",
    "golden/expected.npz": "golden-expected",
    "card.md": "card",
}
SPEC = PreprocessSpec(width=64, height=64, mean=(0.35, 0.35, 0.35))
"""The surface is brighter than the mean, a spot darker, so that a spot alone is above 0."""
Parts = dict[str, bytes]
"""The files of a bundle by name."""


@dataclass
class Key:
    """A key pair of a release engineer."""

    private: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    @property
    def raw(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def id(self) -> str:
        return key_id(self.raw)

    def write(self, path: Path) -> Path:
        path.write_text(base64.b64encode(self.raw).decode() + "\n", encoding="ascii")
        return path

    def sign(self, manifest: bytes) -> dict[str, str]:
        return {"keyid": self.id, "sig": self.private.sign(manifest).hex()}


def bundle_parts(
    folder: Path, *, name: str = "press-3", version: str = "1", without: tuple[str, ...] = ()
) -> Parts:
    """The unsigned files of a bundle, its graphs written to ``folder`` on the way."""
    spec = SPEC
    graph = cells_graph(folder / "fp32.onnx", scale=-4.0)
    frames = np.stack([drawn_picture(64, 64, seed=n, spot=(20, 36, 10) if n % 2 else None) for n in range(4)])
    runner = open_runner(graph)
    cells = np.concatenate([runner.infer({"frame": preprocess(frame, spec)})["cells"] for frame in frames])
    runner.close()
    parts = {
        "model/model.onnx": graph.read_bytes(),
        "model/model.cpu.onnx": cells_graph(folder / "int8.onnx", scale=-4.01).read_bytes(),
        "golden/frames.npz": npz(frames=frames),
        "golden/expected.npz": npz(cells=cells),
        "card.md": b"# press-3\n",
    }
    return seal(
        {path: data for path, data in parts.items() if path not in without}, name=name, version=version
    )


def seal(parts: Parts, *, name: str = "press-3", version: str = "1", key: Key | None = None) -> Parts:
    """Write the manifest over the parts, and sign it."""
    parts = {path: data for path, data in parts.items() if not path.startswith("manifest.")}
    manifest = Manifest(
        name=name,
        version=version,
        created_at=datetime(2026, 11, 21, 10, tzinfo=timezone.utc),
        line="new",
        classes=("spot",),
        thresholds=(ClassThresholds(class_name="spot", boundary=0.5, pass_below=0.5, defective_from=0.5),),
        preprocess=SPEC,
        postprocess=PostprocessSpec(cell_px=16),
        files=tuple(
            FileEntry(path=path, bytes=len(data), sha256=sha256_hex(data), role=ROLES.get(path, "report"))
            for path, data in sorted(parts.items())
        ),
        golden=Gates(),
    )
    parts["manifest.json"] = manifest_bytes(manifest)
    if key is not None:
        parts["manifest.sig"] = canonical_json([key.sign(parts["manifest.json"])])
    return parts


def put_folder(parts: Parts, folder: Path) -> Path:
    for name, data in parts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def put_tar(parts: Parts, path: Path) -> Path:
    write_tar(dict(parts), path)
    return path


def npz(**arrays: Array) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]
    return out.getvalue()
