"""Calibration on frames that are cut into tiles: each is watched, and a frame is judged as the station judges it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from calibration.collect import frames_of, ranges_from_pictures
from calibration.exported import Exported
from calibration.graphs import Graph
from calibration.qdq import qdq_from_onnx
from calibration.report import compare_on_pictures
from edge_sdk.errors import DatasetError
from edge_sdk.manifest import ClassThresholds
from edge_sdk.quality.datasets import Sample
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.tiles import tiles_of
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, watched

TILED = replace(SPEC, width=SIDE, height=SIDE, tile_overlap_px=0)
HIGH, WIDE = 2 * SIDE + 10, 3 * SIDE


def large_pictures(folder: Path, count: int, *, height: int = HIGH) -> list[Sample]:
    folder.mkdir(exist_ok=True)
    found = []
    for n in range(count):
        path = folder / f"{height}-{n}.png"
        cv2.imwrite(str(path), drawn_picture(height, WIDE, seed=n))
        found.append(Sample(path=path, image=path.name, label="good", healthy=True))
    return found


def test_every_tile_is_watched_and_a_picture_is_one_step(residual: Graph, tmp_path: Path) -> None:
    samples, steps = large_pictures(tmp_path, 3), []
    found = ranges_from_pictures(residual, samples, TILED, progress=lambda: steps.append(1))
    tiles = [frame for _, frame in frames_of(samples, TILED)]
    assert len(tiles) == 3 * len(tiles_of(TILED, HIGH, WIDE)) == 3 * 9 and len(steps) == 3 == found.n
    seen = watched(residual, tiles)
    assert {name: (one.lo, one.hi) for name, one in found.tensors.items()} == {
        name: (one.lo, one.hi) for name, one in seen.items()
    }


def test_a_frame_of_tiles_is_compared_as_one_picture(residual: Graph, tmp_path: Path) -> None:
    samples = large_pictures(tmp_path, 4)
    table = ranges_from_pictures(residual, samples, TILED)
    path = tmp_path / "model.trt.onnx"
    path.write_bytes(qdq_from_onnx(residual, table, layout="tensorrt").SerializeToString())
    judged = compare_on_pictures(residual, {"trt": path}, samples, TILED, exported(residual))
    assert len(judged.verdicts) == 4 and judged.confidence.shape == (4, 2)
    assert judged.costs[0].measured.pictures == 4 and judged.costs[0].measured.sqnr_db > 15


def test_frames_of_several_sizes_cannot_be_compared(residual: Graph, tmp_path: Path) -> None:
    samples = [*large_pictures(tmp_path, 1), *large_pictures(tmp_path, 1, height=5 * SIDE)]
    with pytest.raises(DatasetError, match=r"^the pictures' cells have 2 sizes, .*; give frames of one camera$"):
        compare_on_pictures(residual, {}, samples, TILED, exported(residual))


def exported(graph: Graph) -> Exported:
    rows = tuple(
        ClassThresholds(class_name=name, boundary=0.5, pass_below=0.3, defective_from=0.7) for name in ("crack", "dent")
    )
    return Exported(
        graph_sha256=graph.digest, factory="a:b", line="new", weights_sha256="", line_sha256="", opset=19, ir=10,
        nodes=1, inputs={}, outputs={}, classes=("crack", "dent"), thresholds=rows, cell_px=8, parity=(),
    )  # fmt: skip


