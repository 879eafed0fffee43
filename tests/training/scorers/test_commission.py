"""A folder of good parts to a station that judges: every command on the way, and the station's own code."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.exported import read_exported, read_preprocess
from calibration.sessions import open_session
from edge_sdk import Station, Verdict
from edge_sdk.bundles import open_bundle
from edge_sdk.manifest import labels_of, thresholds_of
from edge_sdk.quality.novelty import confidence_of_distances
from edge_sdk.records import confidence_of, decode_item, encode_item, record_from_inspection
from edge_sdk.vision.preprocess import preprocess
from tests import stations
from tests.training.scorers.commissioning import commission
from tests.training.scorers.normal_parts import plate, write_normals, write_trunk
from training.checkpoint import load_checkpoint
from training.scorers.commission import place_of
from training.scorers.distances import scorer_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["gaussian", "patchcore", "stfpm", "supersimple"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a line was commissioned: ``press-3-1.bundle`` and what was made beside it."""
    root = tmp_path_factory.mktemp("line")
    normals, trunk = write_normals(root / "good", pictures=44), write_trunk(root / "trunk")
    words = ("--from", trunk, "--side-px", 96, "--alpha", 0.05, "--method", request.param, "--json")
    code, told, talk = commission(normals, "--bundle", root / "press-3-1.bundle", *words)
    assert code == 0, talk
    (root / "told.json").write_text(told)
    return root


def test_the_bundle_says_what_it_promises_and_holds_it(made: Path) -> None:
    told = json.loads((made / "told.json").read_text())
    assert told["guarantee"] == "conformal alpha 0.05 n 22"
    assert set(told["guarantees"].values()) == {"conformal alpha 0.05 n 22"}
    # of so few pictures one more flip than is allowed, or a busy machine, leaves an INT8 graph out: with the reason
    assert "fp32" in told["graphs"]
    assert told["left_out"].keys() | set(told["graphs"]) == {"fp32", "int8-cpu", "int8-trt"}
    manifest = open_bundle(made / "press-3-1.bundle", trust="unsigned").manifest
    assert manifest.postprocess.kind == "novelty"
    assert manifest.postprocess.normals is not None and len(manifest.postprocess.normals) == 22
    assert manifest.classes == ("novelty",)
    assert told["unwatched"].keys() == set(told["graphs"])
    assert all("too few for a drift reference" in why for why in told["unwatched"].values())
    assert json.loads((made / "press-3-1" / "figures.json").read_text())["id"] == told["id"]
    # of heads that look for noise alone
    said = any(note.startswith("no layer is rounded to INT8") for note in told["notes"])
    assert said == (told["method"] == "supersimple")
    assert "The good parts that lie farthest from the others" in (made / "press-3-1" / "page.html").read_text()


def test_the_graph_computes_what_the_network_does(made: Path) -> None:
    told = json.loads((made / "told.json").read_text())
    checkpoint = load_checkpoint(made / "press-3-1" / "checkpoint")
    normals = checkpoint.line("original").normals
    assert normals is not None and scorer_of(checkpoint) is checkpoint.network
    low, high = np.quantile(normals, [0.25, 0.75])
    assert told["parity"] <= 1e-3 * (high - low)


def test_int8_stops_as_many_good_parts_at_the_threshold_of_fp32(made: Path) -> None:
    """On 200 parts nobody has seen, behind a trunk that was never trained, which rounds worse than one that was."""
    graphs = made / "press-3-1" / "graphs"
    exported, spec = read_exported(graphs / "export.json"), read_preprocess(graphs / "preprocess.json")
    assert exported.normals is not None
    frames = [preprocess(plate(2000 + number), spec) for number in range(200)]
    shares = {}
    for name in ("model.onnx", "model.cpu.onnx", "model.trt.onnx"):
        session = open_session(graphs / name, reference=name == "model.trt.onnx")
        distances = np.array([session.run(frame)["novelty"].max() for frame in frames])
        sure = confidence_of_distances(distances, exported.normals)
        shares[name] = int((sure >= exported.thresholds[0].pass_below).sum())
    assert abs(shares["model.cpu.onnx"] - shares["model.onnx"]) <= 4
    assert abs(shares["model.trt.onnx"] - shares["model.onnx"]) <= 4


def test_a_station_passes_good_parts_and_asks_where_a_part_is_strange(made: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        cv2.imwrite(str(folder / f"{number:02d}.png"), plate(500 + number, dent=number >= 6))
    settings = stations.settings(tmp_path, bundle=str(made / "press-3-1.bundle"))
    with Station.open(settings) as station:
        found = list(station)
    assert sum(one.verdict is Verdict.PASSED for one in found[:6]) >= 5
    strange = [one for one in found[6:] if one.verdict is not Verdict.PASSED]
    assert len(strange) >= 5
    one = strange[0]
    assert one.reason.startswith("novelty ")
    assert one.questions and one.confidence is not None and one.confidence.shape == (1, *one.confidence.shape[1:])
    manifest = open_bundle(made / "press-3-1.bundle", trust="unsigned").manifest
    record = record_from_inspection(
        one,
        station="press-3",
        boot_id="b",
        seq=0,
        reason="novelty",
        stratum="novelty",
        value=0.5,
        inclusion_probability=1.0,
        labels=labels_of(manifest),
        thresholds=thresholds_of(manifest),
    )
    read = decode_item(encode_item(record))
    assert read.header.questions[0].class_name == "novelty"
    kept = confidence_of(read)
    assert kept is not None and kept.shape == one.confidence.shape


def test_a_bundle_is_named_after_its_folder_as_a_manifest_takes_it(tmp_path: Path) -> None:
    assert place_of(tmp_path / "out", tmp_path / "_good parts").name == "good-parts"


def test_a_folder_that_cannot_keep_the_promise_leaves_nothing_behind(tmp_path: Path) -> None:
    normals, trunk = write_normals(tmp_path / "good", pictures=20), write_trunk(tmp_path / "trunk")
    out = tmp_path / "press-3-1.bundle"
    code, _, talk = commission(normals, "--bundle", out, "--from", trunk, "--side-px", 96)
    assert code == 1
    assert "10 normals are held out to set the threshold, but a false-positive rate of 0.05 needs 19" in talk
    assert not out.exists() and not out.with_name("press-3-1").exists()
