"""A tiny real station for tests: a graph that finds dark spots, its bundle, pictures, and settings.

The graph is the mean grey level of each cell, turned over: dark means defective.  It needs no training, and
every value can be told by hand.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.arrays import Image
from edge_sdk.documents import canonical_json, sha256_file
from edge_sdk.frames import Frame
from edge_sdk.manifest import (
    ClassThresholds,
    DriftReference,
    FileEntry,
    Manifest,
    PostprocessSpec,
    manifest_bytes,
    manifest_id,
    read_manifest,
    watch_of_reference,
)
from edge_sdk.quality.drift_reference import reference_of, summary_of
from edge_sdk.quality.facts import facts_of_picture
from edge_sdk.quality.gates import Gates
from edge_sdk.runners import open_runner
from edge_sdk.testing import FakeCamera, drawn_picture
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import PreprocessSpec
from edge_sdk.vision.tiles import outputs_of_frame

SIDE, CELL = 64, 8
SPEC = PreprocessSpec(width=SIDE, height=SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def spot_graph(path: Path, *, dark_below: float = 0.35, gain: float = 40.0, heavy: int = 0) -> None:
    """Write the graph: a cell's logit is ``gain * (dark_below - mean grey)``, grey in [0, 1].

    Args:
        path: Where to.
        dark_below: The grey level that counts as half defective.
        gain: Logits a grey level.
        heavy: So many needless convolutions on top, to take time.
    """
    import onnx
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node("ReduceMean", ["frame"], ["grey"], axes=[1], keepdims=1),
        helper.make_node("AveragePool", ["grey"], ["cell"], kernel_shape=[CELL, CELL], strides=[CELL, CELL]),
        helper.make_node("Mul", ["cell", "gain"], ["steep"]),
        helper.make_node("Add", ["steep", "offset"], ["cells" if not heavy else "light"]),
        helper.make_node("GlobalAveragePool", ["frame"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["feature"]),
    ]
    constants = [
        helper.make_tensor("gain", TensorProto.FLOAT, [], [-gain]),
        helper.make_tensor("offset", TensorProto.FLOAT, [], [gain * dark_below]),
    ]
    if heavy:
        width = 32
        constants.append(
            helper.make_tensor("first", TensorProto.FLOAT, [width, 3, 3, 3], [0.0] * (width * 27))
        )
        constants.append(
            helper.make_tensor("next", TensorProto.FLOAT, [width, width, 3, 3], [0.0] * (width * width * 9))
        )
        nodes.append(helper.make_node("Conv", ["frame", "first"], ["h0"], pads=[1, 1, 1, 1]))
        for n in range(heavy):
            nodes.append(helper.make_node("Conv", [f"h{n}", "next"], [f"h{n + 1}"], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("ReduceMean", [f"h{heavy}"], ["nothing"], axes=[1, 2, 3], keepdims=1))
        nodes.append(helper.make_node("Add", ["light", "nothing"], ["cells"]))
    graph = helper.make_graph(
        nodes,
        "spots",
        [helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        [
            helper.make_tensor_value_info("cells", TensorProto.FLOAT, ["N", 1, SIDE // CELL, SIDE // CELL]),
            helper.make_tensor_value_info("feature", TensorProto.FLOAT, ["N", 3]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def pictures(count: int, *, seed: int = 0) -> list[Image]:
    """Drawn pictures, every third with a dark spot."""
    spots = [(60, 80, 24) if n % 3 == 0 else None for n in range(count)]
    return [drawn_picture(seed=seed + n, spot=spot) for n, spot in enumerate(spots)]


def spot_bundle(
    folder: Path,
    *,
    version: str = "1",
    dark_below: float = 0.35,
    gain: float = 40.0,
    golden_off: float = 0.0,
    heavy: int = 0,
    preprocess: PreprocessSpec = SPEC,
) -> str:
    """Write a bundle's folder, unsigned.

    Args:
        folder: Made.
        version: Of the bundle.
        dark_below: See ``spot_graph``.
        gain: See ``spot_graph``.
        golden_off: Added to the expected outputs: a bundle that fails on its golden frames.
        heavy: See ``spot_graph``.
        preprocess: With an input of ``SIDE`` x ``SIDE``.

    Returns:
        The bundle's id.
    """
    for name in ("model", "golden"):
        (folder / name).mkdir(parents=True)
    model = folder / "model/model.onnx"
    spot_graph(model, dark_below=dark_below, gain=gain, heavy=heavy)
    frames = np.stack(pictures(16, seed=900))
    runner = open_runner(model)
    cells = np.concatenate(
        [outputs_of_frame(frame, preprocess, lambda one: runner.infer({"frame": one}))["cells"] for frame in frames]
    )
    runner.close()
    np.savez(folder / "golden/frames.npz", frames=frames)
    np.savez(folder / "golden/expected.npz", cells=(cells + golden_off).astype(np.float32))
    roles = {
        "model/model.onnx": "fp32",
        "golden/frames.npz": "golden-frames",
        "golden/expected.npz": "golden-expected",
    }
    band: dict[str, Any] = {"class": "spot", "boundary": 0.5, "pass_below": 0.3, "defective_from": 0.9}
    manifest = Manifest(
        name="press-3",
        version=version,
        created_at=datetime(2026, 11, 21, tzinfo=timezone.utc),
        line="new",
        classes=("spot",),
        thresholds=(ClassThresholds(**band),),
        preprocess=preprocess,
        postprocess=PostprocessSpec(cell_px=CELL),
        files=tuple(
            FileEntry(
                path=path, bytes=(folder / path).stat().st_size, sha256=sha256_file(folder / path), role=role
            )
            for path, role in sorted(roles.items())
        ),
        golden=Gates(),
    )
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return manifest_id(manifest)


def watched(folder: Path, *, count: int = 64, feature: bool = True) -> str:
    """Give a bundle's folder the drift reference of some healthy pictures; its new id.

    Args:
        folder: Of the bundle.
        count: Pictures.
        feature: Whether the pooled feature is watched, or a summary of the confidence.
    """
    runner = open_runner(folder / "model/model.onnx")
    images = [drawn_picture(seed=300 + n) for n in range(count)]
    spec = read_manifest(folder / "manifest.json").preprocess
    outputs = [outputs_of_frame(image, spec, lambda one: runner.infer({"frame": one})) for image in images]
    runner.close()
    maps = [confidence_from_logits(one["cells"][0]) for one in outputs]
    scores = np.array([one.max() for one in maps], np.float32)
    vectors = np.stack([one["feature"][0] for one in outputs] if feature else [summary_of(one) for one in maps])
    facts = np.stack([facts_of_picture(image, spec) for image in images])
    found = reference_of(vectors, scores, facts, scores >= 0.3, rounds=200)
    watch = watch_of_reference(found, rendering="fp32", of="feature" if feature else "scores")
    drift = DriftReference(mean=watch.mean, sd=watch.sd, n=count, watch=(watch,))
    manifest = read_manifest(folder / "manifest.json").model_copy(update={"drift": drift})
    (folder / "manifest.json").write_bytes(manifest_bytes(manifest))
    return manifest_id(manifest)


def packed(folder: Path, path: Path) -> Path:
    """The bundle's folder as the tar that is shipped."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for file in sorted(file for file in folder.rglob("*") if file.is_file()):
            data = file.read_bytes()
            info = tarfile.TarInfo(file.relative_to(folder).as_posix())
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def picture_folder(folder: Path, count: int, *, seed: int = 0) -> Path:
    """Drawn pictures as PNG files."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for n, picture in enumerate(pictures(count, seed=seed)):
        assert cv2.imwrite(str(folder / f"{n:04d}.png"), picture)
    return folder


def settings(folder: Path, **sections: Any) -> Path:
    """Write a ``station.yaml`` for the bundle and the pictures of ``folder``; ``None`` leaves a section out.

    JSON is YAML, so a test reads what it wrote.
    """
    told: dict[str, Any] = {
        "station": "press-3",
        "bundle": "./bundle",
        "trust": "unsigned",
        "camera": {"uri": "file:pictures", "pace": "max"},
        "pipeline": {"policy": "lossless"},
        **sections,
    }
    path = folder / "station.yaml"
    path.write_bytes(canonical_json({name: value for name, value in told.items() if value is not None}))
    return path


def three_bundles(folder: Path) -> Path:
    """Bundles ``first``, ``second`` (also as a file), and ``bad``, which fails on its golden frames."""
    spot_bundle(folder / "first")
    spot_bundle(folder / "second", version="2", dark_below=0.36)
    spot_bundle(folder / "bad", version="3", golden_off=9.0)
    packed(folder / "second", folder / "second.bundle")
    return folder


def place(folder: Path, made: Path) -> Path:
    """Lay the first of some bundles and nine pictures into a folder."""
    shutil.copytree(made / "first", folder / "bundle")
    picture_folder(folder / "pictures", 9)
    return folder


def endless(count: int = 1_000_000) -> FakeCamera:
    """As many drawn pictures as anybody reads, made when they are read."""
    few = pictures(30, seed=50)

    class Many(FakeCamera):
        def read(self, timeout_s: float) -> Frame:
            self._pictures.append(few[self._index % len(few)])
            return super().read(timeout_s)

    return Many([], rate_hz=400)
