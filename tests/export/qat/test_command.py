"""``python -m export qat``, and what the commands after it make of its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.cli import app as calibration_app
from calibration.exported import Exported, exported_bytes, preprocess_bytes
from calibration.graphs import load_graph
from calibration.qdq import qdq_from_onnx
from calibration.ranges import read_ranges, write_ranges
from calibration.tuned import read_tuned
from edge_sdk.manifest import ClassThresholds
from export.cli import app
from tests.calibration.conftest import SPEC
from tests.calibration.networks import excited_model, save
from tests.export.conftest import call
from tests.export.qat.surfaces import drawn


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, typical: Path) -> Path:
    """A work folder with ranges."""
    work = tmp_path_factory.mktemp("work")
    graph = load_graph(save(excited_model(), work / "model.onnx"))
    (work / "preprocess.json").write_bytes(preprocess_bytes(SPEC))
    band = [
        ClassThresholds(class_name=name, boundary=0.5, pass_below=0.4, defective_from=0.6) for name in ("dent", "crack")
    ]
    exported = Exported(
        graph_sha256=graph.digest, factory="tests:none", line="new", weights_sha256="0" * 64, line_sha256="",
        opset=19, ir=10, nodes=len(graph.nodes), inputs={}, outputs={}, classes=("dent", "crack"),
        thresholds=tuple(band), cell_px=2, parity=(),
    )  # fmt: skip
    (work / "export.json").write_bytes(exported_bytes(exported))
    words = ("ranges", work / "model.onnx", "--pictures", typical, "--out", work, "--max", "40")
    code, _, talk = call(calibration_app, *words, "--max-fp16-layers", "0")
    assert code == 0, talk
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of the folder."""
    there = tmp_path / "work"
    there.mkdir()
    for path in made.iterdir():
        (there / path.name).write_bytes(path.read_bytes())
    return there


def test_from_ranges_to_a_report_of_the_fine_tuned_graph(work: Path, typical: Path, tmp_path: Path) -> None:
    model = work / "model.onnx"
    fp32 = model.read_bytes()
    words = ("qat", model, "--pictures", typical, "--out", work, "--epochs", "5", "--rate", "1e-3", "--seed", "7")
    code, out, talk = call(app, *words)
    assert code == 0, talk
    assert "warning: only 48 pictures to train on; below 64 the weights may fit these pictures and no others" in talk
    assert "for TensorRT " in out and " dB before and " in out and "the fine-tuned weights are taken" in out
    assert out.endswith(f"--tuned {work / 'tuned.safetensors'} --out {work}\n")
    assert model.read_bytes() == fp32 and not (work / "tuned.part.safetensors").exists()
    tuned = read_tuned(work / "tuned.safetensors")
    assert tuned.said.seed == 7 and len(tuned.said.losses) == 5 and tuned.said.trt.taken

    rendering = ("render", model, "--ranges", work / "ranges.json", "--out", work, "--fp16")
    code, out, talk = call(calibration_app, *rendering, "--tuned", work / "tuned.safetensors", "--json")
    assert code == 0, talk
    said = json.loads(out)
    taken = tuned.digest if tuned.said.cpu.taken else None
    assert [said[kind]["tuned"] for kind in ("trt", "cpu", "trt-fp16")] == [tuned.digest, taken, tuned.digest]

    # the report leaves out what trained, which is more than what calibrated
    everything = tmp_path / "all"
    drawn(everything, 30, seed=2000)
    for path in typical.iterdir():
        (everything / f"typical{path.name}").write_bytes(path.read_bytes())
    report = ("report", model, "--int8", work / "model.trt.onnx", "--pictures", everything, "--out", work)
    code, out, talk = call(calibration_app, *report, "--json")
    assert code == 0, talk
    assert json.loads(out)["n"] == 30 and "60 of the pictures were calibrated or fine-tuned on" in talk
    trained = {kind: row["tuned_on"] for kind, row in json.loads(out)["renderings"].items()}
    assert trained == {"trt": 48, "cpu": 48 if taken else None}
    assert "model.trt.onnx on 48 pictures" in (work / "report.html").read_text(encoding="utf-8")
    (work / "tuned.safetensors").rename(work / "elsewhere")
    code, _, talk = call(calibration_app, *report)
    assert code == 1 and "tuned.safetensors cannot be read" in talk
    code, _, talk = call(calibration_app, *report, "--tuned", work / "elsewhere")
    assert code == 0, talk


def test_what_does_not_help_is_said_and_nothing_is_written(work: Path, typical: Path) -> None:
    words = ("qat", work / "model.onnx", "--pictures", typical, "--out", work, "--epochs", "1", "--rate", "0.3")
    code, out, talk = call(app, *words)
    assert code == 0, talk
    assert "no better, so its weights stay" in out
    assert out.endswith("nothing was written: the calibrated graphs stay as they are\n")
    there = ["export.json", "model.onnx", "preprocess.json", "ranges.json"]
    assert sorted(path.name for path in work.iterdir()) == there
    code, out, _ = call(app, *words, "--json")
    said = json.loads(out)
    assert code == 0 and said["tuned"] is None and said["trt"]["taken"] is False and said["pictures"] == 48


@pytest.mark.parametrize(
    ("more", "code", "sentence"),
    [
        (["--rate", "0"], 2, "--rate is 0; give a number above 0, e.g. 0.0003"),
        (["--device", "cuda:77"], 2, "device is cuda:77, but "),
        (["--device", "meta"], 2, "there is no device named 'meta'; give cpu, cuda or, of several GPUs, cuda:1"),
        (["--out", "taken"], 2, "nothing can be made in taken: "),
        (["--ranges", "missing.json"], 1, "missing.json cannot be read"),
        (["--pictures", "empty"], 1, "empty holds no picture"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    work: Path,
    typical: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("taken").write_text("a file", encoding="utf-8")
    found, out, talk = call(app, "qat", work / "model.onnx", "--pictures", typical, "--out", "out", *more)
    assert (found, out) == (code, "") and sentence in talk and len(talk.splitlines()) == 1
    assert not Path("out").exists()


def test_a_graph_that_is_quantised_or_of_another_table_is_refused(work: Path, typical: Path) -> None:
    model, words = work / "model.onnx", ("--pictures", typical, "--out", work)
    table = read_ranges(work / "ranges.json")
    save(qdq_from_onnx(load_graph(model), table, layout="tensorrt"), work / "model.trt.onnx")
    code, _, talk = call(app, "qat", work / "model.trt.onnx", *words)
    assert code == 1 and "model.trt.onnx is already quantised" in talk
    write_ranges(work / "ranges.json", table.model_copy(update={"graph_sha256": "0" * 64}))
    code, _, talk = call(app, "qat", model, *words)
    assert code == 1 and "the range table is of graph 000000000000, but this is graph" in talk
