"""Thresholds of the rendering that a bundle runs: made on its own outputs, packed, and used by the station."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from calibration.cli import app as calibration_app
from calibration.exported import read_exported
from calibration.sessions import open_session
from calibration.thresholds import read_thresholds
from edge_sdk.bundles.archive import open_bundle
from edge_sdk.errors import FormatError
from edge_sdk.judge import Judge
from edge_sdk.manifest import thresholds_of
from edge_sdk.quality.datasets import load_dataset, read_image
from edge_sdk.runners.base import open_runner
from edge_sdk.vision.preprocess import preprocess
from export.cli import app as export_app
from tests.export.conftest import BAND, SPEC, call, pictures


def calibrated_on(work: Path, folder: Path, *more: object) -> tuple[int, str, str]:
    words = ["thresholds", work / "model.onnx", "--pictures", folder, "--out", work, *more]
    return call(calibration_app, *words)


def test_a_bundle_carries_the_thresholds_of_the_graph_it_runs(
    work: Path, checkpoint: Path, others: Path, tmp_path: Path
) -> None:
    labelled = pictures(tmp_path / "labelled", 60, seed=700)
    code, stdout, talk = calibrated_on(work, labelled, "--int8", work / "model.cpu.onnx", "--json")
    assert code == 0, talk
    assert json.loads(stdout)["int8-cpu"]["guarantee"] == "conformal alpha 0.1 n 30"
    (work / "report.json").unlink()  # a network this small is no faster in INT8, which would leave it out
    words = ["pack", work, "--ckpt", checkpoint, "--line", "new", "--golden", others, "--name", "press-3"]
    code, _, talk = call(export_app, *words, "--version", "1.0", "--out", tmp_path)
    assert code == 0, talk

    bundle = open_bundle(tmp_path / "press-3-1.0.bundle", trust="unsigned")
    own = thresholds_of(bundle.manifest, "int8-cpu")
    assert own.how == "conformal quantiles of the strongest cell of 60 pictures of the labelled set for int8-cpu"
    assert own.pass_below[0] != pytest.approx(BAND["pass_below"])
    assert thresholds_of(bundle.manifest).pass_below[0] == pytest.approx(BAND["pass_below"]), "FP32 as trained"

    # what the station judges with, and what the quantiles promise on the pictures they are of
    path = bundle.root / "model" / "model.cpu.onnx"
    judge = Judge(bundle.manifest, open_runner(path), model=bundle.id, rendering="int8-cpu")
    assert judge._thresholds.pass_below[0] == own.pass_below[0]
    judge.close()
    session = open_session(work / "model.cpu.onnx")
    healthy, top = [], []
    for sample in load_dataset(labelled).samples:
        cells = session.run(preprocess(read_image(sample), SPEC))["cells"]
        healthy.append(bool(sample.healthy))
        top.append(1 / (1 + np.exp(-float(cells.max()))))
    assert (np.array(top)[np.array(healthy)] > own.defective_from[0] + 1e-5).mean() <= 0.1
    assert (np.array(top)[~np.array(healthy)] < own.pass_below[0] - 1e-5).mean() <= 0.1


def test_a_rendering_without_its_own_takes_over_no_guarantee(work: Path, checkpoint: Path, others: Path) -> None:
    words = ["pack", work, "--ckpt", checkpoint, "--line", "new", "--golden", others, "--name", "plain"]
    code, _, talk = call(export_app, *words, "--version", "1.0", "--out", work)
    assert code == 0, talk
    manifest = open_bundle(work / "plain-1.0.bundle", trust="unsigned").manifest
    assert manifest.calibrated is None
    said = manifest.postprocess.model_copy(update={"guarantee": "conformal alpha 0.1 n 30"})
    promised = manifest.model_copy(update={"postprocess": said})
    assert thresholds_of(promised).guarantee == "conformal alpha 0.1 n 30"
    assert thresholds_of(promised, "int8-cpu").guarantee == (
        "none: conformal alpha 0.1 n 30 was calibrated on FP32 outputs, not on those of int8-cpu"
    )


def test_with_too_few_pictures_there_is_no_guarantee_and_the_reason(work: Path, tmp_path: Path) -> None:
    code, stdout, _ = calibrated_on(work, pictures(tmp_path / "few", 10), "--json")
    assert code == 0
    assert json.loads(stdout)["fp32"]["guarantee"] == (
        "none: the labelled set for fp32 holds 5 healthy pictures and at least 5 of each defect; "
        "conformal at alpha 0.1 needs 9 of each"
    )


def merged(folder: Path, *sources: Path) -> Path:
    """The pictures of several data sets under new names."""
    folder.mkdir()
    rows = ["image,label"]
    for source in sources:
        for sample in load_dataset(source).samples:
            name = f"copy-{len(rows):03d}.png"
            (folder / name).write_bytes(sample.path.read_bytes())
            rows.append(f"{name},{sample.label}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def test_pictures_that_made_the_int8_graph_do_not_set_its_thresholds(
    work: Path, typical: Path, tmp_path: Path
) -> None:
    fresh = pictures(tmp_path / "fresh", 40, seed=900)
    alone = json.loads(calibrated_on(work, fresh, "--int8", work / "model.cpu.onnx", "--json")[1])
    both = merged(tmp_path / "both", fresh, typical)
    code, stdout, talk = calibrated_on(work, both, "--int8", work / "model.cpu.onnx", "--json")
    assert code == 0, talk
    assert "20 of the pictures were calibrated on and are left out" in talk
    found = json.loads(stdout)
    assert {role: one["thresholds"] for role, one in found.items()} == {
        role: one["thresholds"] for role, one in alone.items()
    }
    # FP32 was made by none of them
    code, stdout, talk = calibrated_on(work, both, "--json")
    assert code == 0 and "left out" not in talk
    assert json.loads(stdout)["fp32"]["how"].startswith("conformal quantiles of the strongest cell of 60 pictures")


def test_too_few_pictures_beside_those_that_made_the_graph_are_refused(
    work: Path, typical: Path, tmp_path: Path
) -> None:
    both = merged(tmp_path / "both", typical, pictures(tmp_path / "few", 10, seed=900))
    code, _, talk = calibrated_on(work, both, "--int8", work / "model.cpu.onnx")
    assert code == 1
    assert talk.splitlines()[-1] == (
        "without the 20 pictures that made model.cpu.onnx what it is, the labelled set for int8-cpu holds 5 healthy "
        "pictures and at least 5 of each defect; conformal at alpha 0.1 needs 9 of each; give more pictures that were "
        "held out for this"
    )
    assert not (work / "thresholds.int8-cpu.json").exists()
    code, _, talk = calibrated_on(work, typical, "--int8", work / "model.cpu.onnx")
    assert code == 1
    assert "all 20 pictures were calibrated on; give a folder of others, held out for this" in talk


def test_thresholds_of_another_graph_are_refused(work: Path, tmp_path: Path) -> None:
    graph = work / "model.cpu.onnx"
    assert read_thresholds(work, "int8-cpu", graph) is None
    calibrated_on(work, pictures(tmp_path / "few", 10, seed=700), "--int8", graph)
    assert read_thresholds(work, "int8-cpu", graph) is not None
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(FormatError, match=r"thresholds.int8-cpu.json is of another graph than model.cpu.onnx; make it"):
        read_thresholds(work, "int8-cpu", graph)


def test_pictures_without_labels_are_refused(work: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "bare", 4)
    (folder / "labels.csv").unlink()
    code, _, talk = calibrated_on(work, folder)
    assert code == 1
    assert "none of the 4 pictures is labelled healthy or as one of defect; give a data set with labels" in talk
    assert read_exported(work / "export.json").classes == ("defect",)
