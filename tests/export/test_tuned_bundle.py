"""Fine-tuned INT8 weights on their way to the station: trained, rendered, judged, packed, proved, asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.torch import save_file

from calibration.cli import app as calibration_app
from calibration.sessions import Session, open_session
from calibration.tuned import read_tuned, tuned_digest_of
from edge_sdk import Station
from edge_sdk.arrays import Floats
from edge_sdk.bundles import open_bundle, prove
from edge_sdk.documents import canonical_json
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.runners import open_runner
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import preprocess
from export.cli import app as export_app
from tests.export.conftest import BAND, CELL, SIDE, SPEC, call, pictures, taught
from tests.export.networks import excited
from tests.stations import settings

pytestmark = pytest.mark.slow
ROLES = {"int8-cpu": "model.cpu.onnx", "int8-trt": "model.trt.onnx"}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, others: Path) -> Path:
    """A work folder with a bundle of fine-tuned graphs, and in ``plain`` what calibration alone had made."""
    work = tmp_path_factory.mktemp("tuned")
    network = excited()
    save_file(taught(network, network.head, rate=0.02).state_dict(), work / "weights.safetensors")
    recipe = {
        "schema": "module/1", "module": "tests.export.networks:excited", "weights": "weights.safetensors",
        "preprocess": {"width": SIDE, "height": SIDE}, "cell_px": CELL, "classes": ["defect"], "thresholds": [BAND],
    }  # fmt: skip
    (work / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    model, typical = work / "model.onnx", pictures(work / "typical", 40, seed=300)
    render = ("render", model, "--ranges", work / "ranges.json", "--out")
    for app, words in (
        (export_app, ("onnx", work / "recipe.yaml", "--out", work)),
        (calibration_app, ("ranges", model, "--pictures", typical, "--out", work, "--max-fp16-layers", 0)),
        (calibration_app, (*render, work / "plain")),
        (export_app, ("qat", model, "--pictures", typical, "--out", work, "--epochs", 5)),
        (calibration_app, (*render, work, "--tuned", work / "tuned.safetensors")),
        (calibration_app, ("report", model, "--int8", work / "model.cpu.onnx", "--pictures", others, "--out", work)),
    ):
        code, _, talk = call(app, *words)
        assert code == 0, talk
    report = json.loads((work / "report.json").read_bytes())
    # a network this small is no faster in INT8, which would leave it out
    for row in (report, report["renderings"]["cpu"]):
        row["speedup"] = 2.0
    (work / "report.json").write_bytes(canonical_json(report))
    named = ("--golden", others, "--name", "press-3", "--version", "1", "--out", work)
    code, _, talk = call(export_app, "pack", work, "--ckpt", work / "checkpoint", "--line", "original", *named)
    assert code == 0 and "left out" not in talk, talk
    return work


def cells(session: Session, frames: list[Floats]) -> Floats:
    return np.concatenate([session.run(frame)["cells"] for frame in frames])


def test_the_bundle_has_the_fine_tuned_graphs_and_their_answers(work: Path) -> None:
    bundle = open_bundle(work / "press-3-1.bundle", trust="unsigned")
    tuned, golden = read_tuned(work / "tuned.safetensors"), bundle.golden()
    frames = [preprocess(picture, SPEC) for picture in golden.frames]
    for role, name in ROLES.items():
        path = bundle.file(role)
        assert path is not None and tuned_digest_of(onnx.load(path)) == tuned.digest
        exact = role == "int8-trt"
        said = golden.expected[f"cells.{role}"]
        plain = cells(open_session(work / "plain" / name, reference=exact), frames)
        assert np.array_equal(said, cells(open_session(path, reference=exact), frames))
        assert sqnr_db(golden.expected["cells"], said) > sqnr_db(golden.expected["cells"], plain)
    card = (bundle.root / "card.md").read_text(encoding="utf-8")
    assert f"weights fine-tuned for INT8 on {len(tuned.said.pictures)} pictures" in card


def test_the_bundle_passes_its_proof_and_the_station_answers_by_the_fine_tuned_graph(work: Path, others: Path) -> None:
    bundle = open_bundle(work / "press-3-1.bundle", trust="unsigned")
    path, role = bundle.model("cpu")
    runner = open_runner(path)
    assert role == "int8-cpu" and prove(bundle, runner, role=role) == ()
    runner.close()
    told = settings(
        work, bundle="press-3-1.bundle", camera={"uri": f"file:{others}", "pace": "max"}, runner={"platform": "cpu"}
    )  # fmt: skip
    sessions = [open_session(work / name) for name in ("model.cpu.onnx", "plain/model.cpu.onnx")]
    differs = inspected = 0
    with Station.open(told) as station:
        for inspection in station:
            frame = preprocess(inspection.frame.pixels, SPEC)
            finer, plain = (confidence_from_logits(session.run(frame)["cells"][0]) for session in sessions)
            assert inspection.confidence is not None
            np.testing.assert_allclose(inspection.confidence, finer, atol=1e-6)
            differs += not np.allclose(inspection.confidence, plain, atol=1e-6)
            inspected += 1
    assert inspected == 24 and differs > 12
