"""The report of what INT8 cost, and the commands that lead to it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import ModelProto, numpy_helper
from typer.testing import CliRunner

from calibration.cli import app
from calibration.exported import Exported, exported_bytes, preprocess_bytes, read_exported, read_preprocess
from calibration.graphs import load_graph
from calibration.ranges import FloatLayer, read_ranges, write_ranges
from calibration.report import compare_on_pictures
from calibration.report_file import ReportFile
from calibration.scales import RULES
from calibration.sessions import open_session
from edge_sdk.documents import parse_json
from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.manifest import ClassThresholds
from edge_sdk.quality.datasets import load_dataset
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.decode import confidence_from_logits
from edge_sdk.vision.preprocess import preprocess
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, graph_of, residual_model, save


def run(*words: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(app, [str(word) for word in words])
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


def data_set(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    rows = ["image,label"]
    for n in range(count):
        spot = (8 + 5 * n % 16, 9 + 3 * n % 14, 6) if n % 2 else None
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=seed + n, spot=spot))
        rows.append(f"{n:03d}.png,{'spot' if n % 2 else 'good'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def bands(low: float, high: float) -> tuple[ClassThresholds, ...]:
    return tuple(
        ClassThresholds(class_name=name, boundary=(low + high) / 2, pass_below=low, defective_from=high)
        for name in ("crack", "dent")
    )


def with_bands(work: Path, low: float, high: float) -> None:
    exported = read_exported(work / "export.json")
    changed = exported.model_copy(update={"thresholds": bands(low, high)})
    (work / "export.json").write_bytes(exported_bytes(changed))


def largest(work: Path, pictures: Path) -> list[float]:
    """The surest cell of each picture, FP32."""
    session = open_session(work / "model.onnx")
    found = []
    for sample in load_dataset(pictures).samples:
        image = np.asarray(cv2.imread(str(sample.path)), np.uint8)
        found.append(float(confidence_from_logits(session.run(preprocess(image, SPEC))["cells"]).max()))
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder with INT8 graphs, and the folders typical and others beside it."""
    root = tmp_path_factory.mktemp("report")
    work = root / "work"
    work.mkdir()
    model = save(residual_model(), work / "model.onnx")
    graph = load_graph(model)
    (work / "preprocess.json").write_bytes(preprocess_bytes(SPEC))
    exported = Exported(
        graph_sha256=graph.digest,
        factory="tests:none",
        line="new",
        weights_sha256="0" * 64,
        line_sha256="",
        opset=19,
        ir=10,
        nodes=len(graph.nodes),
        inputs={},
        outputs={},
        classes=("crack", "dent"),
        thresholds=bands(0.3, 0.7),
        cell_px=8,
        parity=(),
    )
    (work / "export.json").write_bytes(exported_bytes(exported))
    data_set(root / "typical", 12)
    data_set(root / "others", 16, seed=50)
    code, out, talk = run("ranges", model, "--pictures", root / "typical", "--out", work)
    assert code == 0, talk
    assert out == f"{work / 'ranges.json'}: 10 pictures, 10 tensors\n"
    assert "warning: only 10 pictures to calibrate on; below 64 ranges still move when more come" in talk
    code, out, talk = run("render", model, "--ranges", work / "ranges.json", "--out", work, "--json")
    assert code == 0, talk
    rendered = json.loads(out)["trt"]
    # the stem and the head each read a tensor of their own
    assert rendered["rounded_tensors"] == 7 - len(rendered["float_layers"])
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    (tmp_path / "work").mkdir()
    for path in (made / "work").iterdir():
        (tmp_path / "work" / path.name).write_bytes(path.read_bytes())
    for name in ("typical", "others"):
        (tmp_path / name).symlink_to(made / name)
    return tmp_path


def report_of(root: Path, *more: object) -> tuple[int, str, str]:
    work = root / "work"
    words = ("report", work / "model.onnx", "--int8", work / "model.cpu.onnx", "--pictures", root / "others")
    return run(*words, "--out", work, *more)


def test_the_report_says_what_int8_cost(root: Path) -> None:
    with_bands(root / "work", 0.995, 0.999)
    code, out, talk = report_of(root, "--json")
    assert code == 0, talk
    found = json.loads(out)
    assert (root / "work" / "report.json").read_bytes().decode() == json.dumps(
        found, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ) + "\n"
    read = parse_json((root / "work" / "report.json").read_bytes(), ReportFile, name="report.json")
    assert read.n == 16 and read.weak and read.calibrated_on == 10 and read.rule in RULES
    assert read.rendering == "model.cpu.onnx" and set(read.renderings) == {"cpu", "trt"}
    assert read.cells_agreement > 0.98 and read.sqnr_db is not None and read.sqnr_db > 20
    assert read.speedup is not None and read.speedup == pytest.approx(
        (read.fp32_ms or 0) / (read.int8_ms or 1)
    )
    assert read.renderings["trt"].speedup is None
    assert f"{root / 'work' / 'model.trt.onnx'} lies beside it and is compared too" in talk


def test_the_report_says_what_is_found_and_where_it_is_lost(root: Path) -> None:
    with_bands(root / "work", 0.995, 0.999)
    work = root / "work"
    halves = root / "halves"
    rows = ["image,label,domain"]
    for n in range(16):
        name, label = "left" if n < 8 else "right", "spot" if n % 2 else "good"
        (halves / name).mkdir(parents=True, exist_ok=True)
        (halves / name / f"{n:03d}.png").write_bytes((root / "others" / f"{n:03d}.png").read_bytes())
        rows.append(f"{name}/{n:03d}.png,{label},{name}")
    (halves / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    words = ("report", work / "model.onnx", "--int8", work / "model.cpu.onnx", "--pictures", halves, "--out", work)
    code, _, talk = run(*words)
    assert code == 0, talk
    read = parse_json((work / "report.json").read_bytes(), ReportFile, name="report.json")
    assert set(read.rules_db) == set(RULES) and read.chosen_on == 2
    for row in read.renderings.values():
        assert row.score_fp32 is not None and row.score_int8 is not None and row.score_drop_points is not None
        assert row.score_drop_points == pytest.approx(100 * (row.score_fp32 - row.score_int8))
        assert row.recall["spot"].pictures == 8
        assert set(row.domains) == {"left", "right"}
        assert sum(one.recall.fp32 for one in row.domains.values()) == row.recall["spot"].fp32
        assert sum(round((1 - one.agreement) * one.pictures) for one in row.domains.values()) == len(row.flips)
        assert [layer.node for layer in row.layers][:2] == ["stem.node", "one.a.node"]
        assert all(layer.sqnr_db is None or layer.sqnr_db > 10 for layer in row.layers)
        moved = [abs(one.confidence_fp32 - one.confidence_int8) for one in row.worst]
        assert len(moved) == 12 and moved[0] == max(moved)
    page = (work / "report.html").read_text(encoding="utf-8")
    for text in ("recall of spot", "recall on left", "Layer by layer", "rule chosen on", "<code>two.way.node</code>"):
        assert text in page


def test_a_rendering_slower_than_fp32_is_not_shipped(root: Path) -> None:
    report_of(root)
    read = parse_json((root / "work" / "report.json").read_bytes(), ReportFile, name="report.json")
    row = read.renderings["cpu"].model_copy(update={"accepted": True})
    assert row.model_copy(update={"speedup": 0.8}).refusal("a CPU") == (
        "it is 0.80 times as fast as FP32 on a CPU, so FP32 is shipped"
    )
    assert row.model_copy(update={"speedup": 1.2}).refusal("a CPU") is None
    assert row.model_copy(update={"speedup": None}).refusal("a CPU") is None


def test_every_flipped_verdict_is_listed_by_picture(root: Path) -> None:
    # a threshold in the midst of what the pictures reach: rounding takes some across
    sure = sorted(largest(root / "work", root / "others"))
    middle = float(np.median(sure))
    with_bands(root / "work", middle, middle)
    report_of(root)
    read = parse_json((root / "work" / "report.json").read_bytes(), ReportFile, name="report.json")
    samples = load_dataset(root / "others").samples
    judged = compare_on_pictures(
        load_graph(root / "work" / "model.onnx"),
        {"cpu": root / "work" / "model.cpu.onnx"},
        samples,
        SPEC,
        read_exported(root / "work" / "export.json"),
    )
    before = [value >= np.float32(middle) for value in judged.confidence.max(axis=1)]
    after = [value >= np.float32(middle) for value in judged.costs[0].confidence.max(axis=1)]
    expected = [sample.image for sample, old, new in zip(samples, before, after, strict=True) if old != new]
    assert [flip.picture for flip in read.flips] == expected
    assert read.agreement == 1 - len(expected) / 16
    for flip in read.flips:
        assert {flip.fp32, flip.int8} == {"passed", "defective"}
        assert (flip.confidence_fp32 >= middle) == (flip.fp32 == "defective")


def test_a_rendering_that_breaks_a_gate_is_refused_by_name(root: Path) -> None:
    work = root / "work"
    spoil(work / "model.cpu.onnx")
    code, _, talk = report_of(root)
    assert code == 0
    assert "refused: the outputs are " in talk
    assert "cpu: the layers farthest from FP32: two.b.node " in talk
    assert not parse_json((work / "report.json").read_bytes(), ReportFile, name="report.json").accepted
    assert "<b>Refused:</b> CPU rendering (ONNX Runtime)" in (work / "report.html").read_text(
        encoding="utf-8"
    )
    code, _, talk = report_of(root, "--strict")
    assert code == 1
    assert talk.rstrip().splitlines()[-1].startswith("model.cpu.onnx is refused: ")


def spoil(path: Path) -> None:
    """Weights of the last rounded convolution, all turned round."""
    model = ModelProto.FromString(path.read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == "two.b.weight_q":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    save(model, path)


def test_the_page_needs_nothing_from_outside(root: Path) -> None:
    report_of(root, "--title", "Press <3>")
    page = (root / "work" / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "<h1>Press &lt;3&gt;</h1>" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page and "<script" not in page
    for tensor in ("one.a.on", "two.way"):
        assert f"<code>{tensor}</code>" in page


def test_pictures_that_were_calibrated_on_do_not_judge(root: Path, tmp_path: Path) -> None:
    work, mixed = root / "work", tmp_path / "mixed"
    mixed.mkdir()
    for n in range(4):
        (mixed / f"known{n}.png").write_bytes((root / "typical" / f"{n:03d}.png").read_bytes())
        (mixed / f"other{n}.png").write_bytes((root / "others" / f"{n:03d}.png").read_bytes())
    words = ("report", work / "model.onnx", "--int8", work / "model.trt.onnx", "--out", work)
    code, out, talk = run(*words, "--pictures", mixed, "--json")
    assert code == 0, talk
    assert json.loads(out)["n"] == 4 and json.loads(out)["left_out"] == 4
    assert "4 of the pictures were calibrated on and are left out" in talk
    code, _, talk = run(*words, "--pictures", root / "typical")
    assert code == 1
    assert talk.splitlines()[-1] == (
        "all 12 pictures were calibrated on; give a folder of others, held out for this"
    )


def test_a_rendering_of_other_ranges_is_not_judged_by_these(root: Path) -> None:
    work = root / "work"
    code, _, talk = run("ranges", work / "model.onnx", "--pictures", root / "others", "--out", work)
    assert code == 0, talk
    code, _, talk = report_of(root)
    assert code == 1
    assert talk.splitlines()[-1] == (
        f"{work}/model.cpu.onnx was rendered with other ranges than {work}/ranges.json; give the table that it was "
        "rendered with (--ranges), or render it again: python -m calibration render"
    )
    (work / "ranges.json").unlink()
    code, _, talk = report_of(root)
    assert code == 0, talk
    assert (
        f"warning: there is no {work}/ranges.json, so pictures that calibrated cannot be told; give the table: --ranges"
    ) in talk


def test_no_picture_and_no_cells_are_refused(root: Path) -> None:
    graph, exported = load_graph(root / "work" / "model.onnx"), read_exported(root / "work" / "export.json")
    with pytest.raises(
        DatasetError, match="^there is no picture to compare on; give a folder with at least one,"
    ):
        compare_on_pictures(graph, {}, [], SPEC, exported)
    model = ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[0]
    sample = load_dataset(root / "others").samples[:1]
    said = "^the graph's outputs are feature; a verdict needs one named cells, boxes with scores, or novelty with its"
    with pytest.raises(FormatError, match=said):
        compare_on_pictures(graph_of(model), {}, sample, SPEC, exported)


Spoil = Callable[[Path], object]


def said_to_be_of_another_graph(path: Path) -> None:
    model = ModelProto.FromString(path.read_bytes())
    for entry in model.metadata_props:
        if entry.key == "edge_sdk.fp32":
            entry.value = "0" * 64
    save(model, path)


@pytest.mark.parametrize(
    ("spoil", "command", "code", "sentence"),
    [
        (
            lambda root: None,
            "ranges {work}/model.onnx --pictures {root}/typical --out {work} --rule best",
            2,
            "there is no rule best; give auto, mse, minmax, percentile, kl",
        ),
        (
            lambda root: None,
            "render {work}/model.onnx --ranges {work}/ranges.json --out {work} --arch mips",
            2,
            "there is no architecture mips; give x86_64, aarch64, auto",
        ),
        (
            lambda root: (root / "work/preprocess.json").unlink(),
            "ranges {work}/model.onnx --pictures {root}/typical --out {work}",
            1,
            "{work}/preprocess.json cannot be read (No such file or directory); is the path right?",
        ),
        (
            lambda root: save(residual_model(seed=7), root / "work/model.onnx"),
            "report {work}/model.onnx --int8 {work}/model.cpu.onnx --pictures {root}/others --out {work}",
            1,
            "{work}/export.json is of another graph than {work}/model.onnx; export it again",
        ),
        (
            lambda root: None,
            "report {work}/model.onnx --int8 {work}/model.onnx --pictures {root}/others --out {work}",
            1,
            "{work}/model.onnx is not an INT8 graph of this project; render it: python -m calibration render",
        ),
        (
            lambda root: (root / "work/model.cpu.onnx").write_bytes(b"\x00\x01"),
            "report {work}/model.onnx --int8 {work}/model.cpu.onnx --pictures {root}/others --out {work}",
            1,
            "{work}/model.cpu.onnx is no ONNX graph; render it: python -m calibration render",
        ),
        (
            lambda root: None,
            "report {work}/model.onnx --int8 {work}/model.cpu.onnx --int8 {work}/model.cpu.onnx "
            "--pictures {root}/others --out {work}",
            2,
            "{work}/model.cpu.onnx and {work}/model.cpu.onnx are the same rendering; give one of each",
        ),
        (
            lambda root: said_to_be_of_another_graph(root / "work/model.cpu.onnx"),
            "report {work}/model.onnx --int8 {work}/model.cpu.onnx --pictures {root}/others --out {work}",
            1,
            "{work}/model.cpu.onnx was rendered from another graph; render it again: python -m calibration render",
        ),
        (
            lambda root: (root / "taken").write_text("a file"),
            "render {work}/model.onnx --ranges {work}/ranges.json --out {root}/taken",
            2,
            "nothing can be made in {root}/taken: {root}/taken is a file; give another place",
        ),
        (
            lambda root: save(residual_model(seed=7), root / "work/model.onnx"),
            "render {work}/model.onnx --ranges {work}/ranges.json --out {work}",
            1,
            None,
        ),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    root: Path, spoil: Spoil, command: str, code: int, sentence: str | None
) -> None:
    spoil(root)
    words = command.format(work=root / "work", root=root).split()
    found, _, talk = run(*words)
    assert found == code, talk
    last = talk.rstrip().splitlines()[-1]
    if sentence is None:
        assert re.fullmatch(
            r"the range table is of graph \w{12}, but this is graph \w{12}; make the .*", last
        )
    else:
        assert last == sentence.format(work=root / "work", root=root)
    assert "Traceback" not in talk


@pytest.mark.parametrize("command", ["ranges", "report", "thresholds"])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    root: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("it began")

    monkeypatch.setattr("calibration.cli.pictures_in", started)
    (root / "taken").write_text("a file", encoding="utf-8")
    int8 = () if command == "ranges" else ("--int8", root / "work" / "model.cpu.onnx")
    words = (command, root / "work" / "model.onnx", *int8, "--pictures", root / "others", "--out", root / "taken/new")
    code, _, talk = run(*words)
    said = f"nothing can be made in {root}/taken/new: {root}/taken is a file; give another place"
    assert (code, talk.splitlines()[-1]) == (2, said)


def render_of(root: Path, *more: object) -> tuple[int, dict[str, Any], str]:
    work = root / "work"
    words = ("render", work / "model.onnx", "--ranges", work / "ranges.json", "--out", work, "--json")
    code, out, talk = run(*words, *more)
    return code, json.loads(out) if out else {}, talk


def rounded(path: Path) -> set[str]:
    nodes = ModelProto.FromString(path.read_bytes()).graph.node
    return {node.input[0] for node in nodes if node.op_type == "QuantizeLinear"}


def test_layers_that_the_ranges_name_stay_in_float_for_tensorrt_alone(root: Path) -> None:
    work = root / "work"
    table = read_ranges(work / "ranges.json")
    layers = tuple(FloatLayer(node=f"{name}.node", gain_db=1.0, why="because") for name in ("stem", "cells"))
    write_ranges(work / "ranges.json", table.model_copy(update={"float_layers": layers}))
    code, found, talk = render_of(root)
    assert code == 0, talk
    assert [layer["node"] for layer in found["trt"]["float_layers"]] == ["stem.node", "cells.node"]
    assert "stem.node is left in float for TensorRT: because" in talk
    whole = {"frame", "pool", "one.a.on", "one.out", "two.a.on", "two.way", "two.out"}
    assert rounded(work / "model.trt.onnx") == whole - {"frame", "two.out"}
    assert "frame" in rounded(work / "model.cpu.onnx")
    assert render_of(root, "--max-fp16-layers", 1)[0] == 0
    assert rounded(work / "model.trt.onnx") == whole - {"frame"}
    assert render_of(root, "--max-fp16-layers", 0)[0] == 0
    assert rounded(work / "model.trt.onnx") == whole
    _, _, talk = render_of(root, "--max-fp16-layers", 3)
    assert "ranges.json names 2 layers worth FP16; for more: ranges --max-fp16-layers 3" in talk


def test_the_strongly_typed_rendering_is_written_and_judged_where_it_is_asked_for(root: Path) -> None:
    work = root / "work"
    code, found, talk = render_of(root, "--fp16")
    assert code == 0, talk
    assert set(found) == {"arch", "trt", "cpu", "trt-fp16"}
    words = ("report", work / "model.onnx", "--int8", work / "model.trt.fp16.onnx", "--pictures", root / "others")
    code, out, talk = run(*words, "--out", work, "--json")
    assert code == 0, talk
    report = json.loads(out)
    assert set(report["renderings"]) == {"trt-fp16", "trt", "cpu"}
    assert report["renderings"]["trt-fp16"]["sqnr_db"] > 20 and report["renderings"]["trt-fp16"]["speedup"] is None
    words = ("thresholds", work / "model.onnx", "--int8", work / "model.trt.fp16.onnx", "--pictures", root / "others")
    code, _, talk = run(*words, "--out", work)
    assert code == 2
    assert talk.splitlines()[-1] == f"{work}/model.trt.fp16.onnx is no graph that a bundle carries; give model.trt.onnx"
    assert render_of(root)[0] == 0
    assert not (work / "model.trt.fp16.onnx").exists()  # one of older ranges would pass for this one


@pytest.mark.slow
@pytest.mark.parametrize("command", ["ranges", "render", "report"])
def test_a_disk_that_is_full_leaves_everything_as_it_was(root: Path, command: str) -> None:
    work = root / "work"
    words = {
        "ranges": [work / "model.onnx", "--pictures", root / "typical", "--rule", "minmax"],
        "render": [work / "model.onnx", "--ranges", work / "ranges.json", "--keep-float", "stem.node"],
        "report": [work / "model.onnx", "--int8", work / "model.cpu.onnx", "--pictures", root / "others"],
    }[command]
    for name in ("report.json", "report.html"):
        (work / name).write_text("before")
    before = {path.name: path.read_bytes() for path in work.iterdir()}
    # no file may grow beyond 2 kB: the system refuses as it does where a disk is full
    full = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (2048, 2048)); from calibration.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", full, command, *map(str, words), "--out", str(work)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert done.stderr.rstrip().splitlines()[-1].endswith("nothing half-written is left, mend it and run again")
    assert "Traceback" not in done.stderr
    assert {path.name: path.read_bytes() for path in work.iterdir()} == before


def test_preprocessing_survives_the_disk(tmp_path: Path) -> None:
    (tmp_path / "preprocess.json").write_bytes(preprocess_bytes(SPEC))
    assert read_preprocess(tmp_path / "preprocess.json") == SPEC


def test_the_command_runs_as_a_module_and_asks_wrongly_with_2() -> None:
    def module(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "calibration", *words]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    helped = module("--help")
    assert helped.returncode == 0 and "ranges" in helped.stdout and not helped.stderr
    asked = module("render", "--nonsense")
    assert asked.returncode == 2 and "Traceback" not in asked.stderr
