"""A detector from its checkpoint to the station's verdict: exported, quantised, packed, proved, asked."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.cli import app as calibration_app
from calibration.exported import read_exported
from calibration.graphs import load_graph
from edge_sdk import Station, Verdict
from edge_sdk.bundles import open_bundle, prove
from edge_sdk.errors import FormatError, GateError, RunnerError
from edge_sdk.judge import Judge
from edge_sdk.labels import Thresholds
from edge_sdk.manifest import thresholds_of
from edge_sdk.quality.datasets import lines_of, load_dataset, read_image
from edge_sdk.records import confidence_of, decode_item, encode_item, record_from_inspection
from edge_sdk.testing import FakeRunner
from edge_sdk.vision.decode import confidence_from_logits, decode_anchors
from edge_sdk.vision.preprocess import geometry, preprocess
from export.cli import app as export_app
from export.graph import check_grid
from tests.export.conftest import call
from tests.stations import settings
from tests.training.boxed import SMALL_BOXES, write_boxed_set
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.detector import detector_of, train_detector

pytestmark = pytest.mark.slow
BAND = (0.35, 0.45, 0.55)
"""Narrow, so that a detector of a few seconds has pictures that are clear."""


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_boxed_set(tmp_path_factory.mktemp("boxed") / "plates")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, plates: Path) -> Path:
    torch.set_num_threads(1)
    dataset = load_dataset(plates)
    found = train_detector(dataset, lines_of(dataset, gap="lamp", seed=1), SMALL_BOXES)
    low, middle, high = (np.full(2, value, np.float32) for value in BAND)
    state = replace(found.line("original"), thresholds=Thresholds(middle, low, high, "a test", "none: a test"))
    folder = tmp_path_factory.mktemp("detector") / "ckpt"
    save_checkpoint(found.with_line("original", state), folder)
    return folder


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, plates: Path) -> Path:
    """A bundle with FP32 and what INT8 graphs hold the gates."""
    work = tmp_path_factory.mktemp("work")
    model = work / "model.onnx"
    named = ("--golden", plates, "--name", "plates", "--version", "1", "--out", work / "bundles")
    for app, words in (
        (export_app, ("onnx", checkpoint, "--line", "original", "--out", work)),
        (calibration_app, ("ranges", model, "--pictures", plates, "--out", work, "--max", 12)),
        (calibration_app, ("render", model, "--ranges", work / "ranges.json", "--out", work, "--arch", "x86_64")),
        (calibration_app, ("report", model, "--int8", work / "model.cpu.onnx", "--pictures", plates, "--out", work)),
        (export_app, ("pack", work, "--ckpt", checkpoint, "--line", "original", *named)),
    ):
        code, _, talk = call(app, *words)
        assert code == 0, talk
    return work


def test_the_graph_gives_boxes_in_pixels_without_operations_that_depend_on_data(packed: Path) -> None:
    exported = read_exported(packed / "export.json")
    assert exported.outputs == {"boxes": ["N", 32, 4], "scores": ["N", 32, 2], "feature": ["N", 64]}
    kinds = {node.op_type for node in load_graph(packed / "model.onnx").nodes}
    assert not kinds & {"NonZero", "GatherND", "Loop", "If", "NonMaxSuppression", "Shape", "TopK"}


def test_the_station_reports_the_boxes_that_the_network_means(packed: Path, checkpoint: Path, plates: Path) -> None:
    bundle = next((packed / "bundles").glob("*.bundle"))
    manifest = open_bundle(bundle, trust="unsigned").manifest
    assert (manifest.postprocess.kind, manifest.postprocess.cell_px, manifest.postprocess.iou) == ("anchors", 16, 0.5)
    told = settings(
        packed, bundle=str(bundle), camera={"uri": f"file:{plates / 'images'}", "pace": "max"},
        runner={"platform": "cpu-fp32"},
    )  # fmt: skip
    found = load_checkpoint(checkpoint)
    spec = found.preprocess
    inspected = seen = 0
    with Station.open(told) as station:
        for inspection in station:
            picture = inspection.frame.pixels
            with torch.no_grad():
                out = _with_line(found)(torch.from_numpy(preprocess(picture, spec)))
            slow = decode_anchors(
                out.boxes[0].numpy(),
                confidence_from_logits(out.scores[0].numpy()),
                thresholds_of(manifest).pass_below,
                place=geometry(spec, *picture.shape[:2]),
            )
            np.testing.assert_allclose(inspection.detections.boxes, slow.boxes, atol=0.05)
            np.testing.assert_array_equal(inspection.detections.classes, slow.classes)
            np.testing.assert_allclose(inspection.detections.confidence, slow.confidence, atol=1e-3)
            assert (inspection.verdict is Verdict.PASSED) == (len(slow) == 0)
            seen += len(slow)
            if len(slow):
                record = record_from_inspection(
                    inspection, station="s", boot_id="b", seq=0, reason="uncertain", stratum="", value=0.5,
                    inclusion_probability=1.0, labels=station.labels_of(inspection), thresholds=thresholds_of(manifest),
                )  # fmt: skip
                again = decode_item(encode_item(record))
                kept = confidence_of(again)
                assert kept is not None
                assert kept.shape == (32, 2)
                asked = again.header.questions
                assert 1 <= len(asked) <= 3
                for question in asked:
                    ((anchor, zero),) = question.cells
                    k = found.classes.index(question.class_name)
                    assert zero == 0
                    assert float(kept[anchor, k]) == pytest.approx(question.confidence, abs=1e-3)
            inspected += 1
    assert inspected == 48
    assert seen > 5


def test_a_detectors_int8_layers_are_fine_tuned_and_judged_by_boxes_and_scores(
    packed: Path, plates: Path, tmp_path: Path
) -> None:
    words = ("qat", packed / "model.onnx", "--pictures", plates, "--out", tmp_path, "--epochs", 2, "--json")
    code, out, talk = call(export_app, *words)
    assert code == 0, talk
    said = json.loads(out)
    assert len(said["losses"]) == 2 and (tmp_path / "tuned.safetensors").exists() is (said["tuned"] is not None)
    for kind in ("trt", "cpu"):
        assert said[kind]["before_db"] > 30 and said[kind]["after_db"] > said[kind]["before_db"] - 3


def test_int8_is_compared_area_by_area_and_packed_where_it_holds(packed: Path) -> None:
    bundle = next((packed / "bundles").glob("*.bundle"))
    opened = open_bundle(bundle, trust="unsigned")
    assert set(opened.golden().expected) >= {"boxes", "scores", "feature"}
    report = (packed / "report.json").read_text()
    assert '"cells_agreement"' in report


def test_a_graph_whose_boxes_are_off_fails_its_proof(packed: Path) -> None:
    opened = open_bundle(next((packed / "bundles").glob("*.bundle")), trust="unsigned")
    expected = opened.golden().expected
    boxes, scores = expected["boxes"], expected["scores"]

    class Shifted(FakeRunner):
        """Right scores, boxes far away."""

        turn = 0

        def infer(self, feeds):  # type: ignore[no-untyped-def]
            at = self.turn
            type(self).turn += 1
            return {"boxes": boxes[at : at + 1] + 300, "scores": scores[at : at + 1]}

    findings = prove(opened, Shifted({"boxes": boxes[:1], "scores": scores[:1]}), against="graph")
    # beside the picture they are no detections either
    assert [finding.gate for finding in findings] == ["agreement", "cells_agreement", "sqnr_db"]
    with pytest.raises(GateError, match="both must have boxes and scores, pack it again"):
        prove(opened, FakeRunner({"cells": np.zeros((1, 2, 4, 4), np.float32)}))


def test_an_engine_without_boxes_is_one_clear_sentence(packed: Path, plates: Path) -> None:
    from edge_sdk.frames import Frame

    manifest = open_bundle(next((packed / "bundles").glob("*.bundle")), trust="unsigned").manifest
    judge = Judge(manifest, FakeRunner({"scores": np.zeros((1, 32, 2), np.float32)}), model="m")
    picture = read_image(load_dataset(plates).samples[0])
    with pytest.raises(RunnerError) as caught:
        judge.inspect(Frame(picture, "c", 0, datetime.now(timezone.utc)), taken_ns=1)
    assert str(caught.value) == (
        "the outputs are scores (1, 32, 2); the bundle promises boxes (1, A, 4) and scores (1, A, 2), so pack it again"
    )


def test_boxes_and_scores_of_different_anchors_are_not_exported(checkpoint: Path) -> None:
    spec = load_checkpoint(checkpoint).preprocess
    outputs = {"boxes": torch.zeros(2, 5, 4), "scores": torch.zeros(2, 6, 2)}
    with pytest.raises(FormatError) as caught:
        check_grid(outputs, spec, cell_px=16, classes=2)
    assert str(caught.value) == (
        "the network gives boxes (5, 4) and scores (6, 2); a detector gives boxes (A, 4) and scores (A, K) of the same "
        "anchors"
    )
    with pytest.raises(FormatError, match="the network gives 2 classes but the checkpoint names 3"):
        check_grid({**outputs, "boxes": torch.zeros(2, 6, 4)}, spec, cell_px=16, classes=3)


def _with_line(checkpoint: Checkpoint) -> torch.nn.Module:
    from training.statistics import load_statistics

    network = detector_of(checkpoint).eval()
    load_statistics(network, checkpoint.line("original").statistics)
    return network
