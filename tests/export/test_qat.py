"""Fine-tuning with fake quantisation: it rounds what the renderer rounds, and wins or leaves everything as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from onnx import ModelProto, numpy_helper

from calibration.calibrating import calibrate
from calibration.choosing import Noise
from calibration.cli import app as calibration_app
from calibration.collect import frames_of
from calibration.equalising import equalised
from calibration.exported import Exported, exported_bytes, preprocess_bytes
from calibration.graphs import Graph, load_graph
from calibration.pictures import pictures_in
from calibration.qdq import qdq_from_onnx
from calibration.ranges import RangeTable, read_ranges, write_ranges
from calibration.sessions import open_session
from calibration.tuned import Tuned, read_tuned
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError, RangeError
from edge_sdk.manifest import ClassThresholds
from edge_sdk.testing import drawn_picture
from export.cli import app
from export.qat import Parting, parted, quantisation_aware
from export.trainable import FakeQuantised, TorchGraph
from export.tuning import Plan, noise_to_signal, rate_at, tune
from tests.calibration.conftest import SPEC
from tests.calibration.networks import (
    SIDE,
    Builder,
    concat_graph,
    excited_model,
    graph_of,
    hswish_model,
    residual_model,
    save,
    uneven_model,
)
from tests.export.conftest import call

CPU = torch.device("cpu")
PLAN = Plan(epochs=5, rate=1e-3)


def drawn(folder: Path, count: int, *, seed: int = 0) -> Path:
    folder.mkdir(parents=True)
    for n in range(count):
        spot = (5 + n % 20, 12, 5) if n % 2 else None
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=seed + n, spot=spot))
    return folder


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("typical") / "pictures", 60)


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(excited_model())


@pytest.fixture(scope="module")
def table(graph: Graph, typical: Path) -> RangeTable:
    return calibrate(graph, pictures_in(typical), SPEC, most_float=0, equalise=False)


@pytest.fixture(scope="module")
def parts(typical: Path, table: RangeTable) -> Parting:
    return parted(pictures_in(typical), table, 256)


@pytest.fixture(scope="module")
def tuned(graph: Graph, table: RangeTable, parts: Parting) -> Tuned:
    return quantisation_aware(graph, table, parts, SPEC, PLAN)


# -- what is rounded


def agreement(student: FakeQuantised, rendering: ModelProto, parts: Parting) -> list[float]:
    """SQNR of the training graph's outputs against the rendering's in the reference session, a picture each."""
    session = open_session(rendering, reference=True)
    found = []
    for _, frame in frames_of(parts.judging, SPEC):
        with torch.no_grad():
            made = {name: value.numpy() for name, value in student(torch.from_numpy(frame)).items()}
        noise = Noise()
        noise.see(session.run(frame), made)
        found.append(min(noise.by_output().values()))
    return found


@pytest.mark.parametrize("model", [residual_model, concat_graph, hswish_model, excited_model])
def test_what_is_trained_answers_as_the_rendered_graph_does(
    model: Callable[[], ModelProto], typical: Path
) -> None:
    graph = graph_of(model())
    samples = pictures_in(typical)[:30]
    table = calibrate(graph, samples, SPEC, most_float=0, equalise=False)
    parts = parted(samples, table, 256)
    for kept in ((), ("cells.node",)):
        student = FakeQuantised(TorchGraph(graph, CPU), table, keep_float=kept)
        tune(TorchGraph(graph, CPU), student, parts.training, SPEC, Plan(epochs=1))
        moved = [(values != graph.weight(name)).any() for name, values in student.weights().items()]
        assert sum(moved) > len(moved) / 2
        found = agreement(
            student,
            qdq_from_onnx(graph.with_weights(student.weights()), table, layout="tensorrt", keep_float=kept),
            parts,
        )
        # torch and the runtime sum in other orders: a value within 1e-6 of the edge between two steps may fall to
        # either side.  A wrong step or place shows below 35 dB; 100 dB and more is no such value at all
        assert min(found) > 40 and float(np.median(found)) > 80, found


def test_a_layer_in_float_reads_the_weight_that_it_shares_with_an_int8_layer_as_it_is(typical: Path) -> None:
    build = Builder(2)
    at = build.add("Relu", [build.conv("frame", "stem", 3, 8)], "stem.on")
    at = build.add("Relu", [build.conv(at, "one", 8, 8)], "one.on")
    at = build.add("Relu", [build.add("Conv", [at, "one.weight", "one.bias"], "two", pads=[1] * 4)], "two.on")
    build.conv(at, "cells", 8, 2, kernel=1)
    graph = graph_of(build.model({"cells": ["N", 2, SIDE, SIDE]}))
    samples = pictures_in(typical)[:30]
    table = calibrate(graph, samples, SPEC, most_float=0, equalise=False)
    for kept in ("one.node", "two.node"):
        student = FakeQuantised(TorchGraph(graph, CPU), table, keep_float=[kept])
        rendering = qdq_from_onnx(graph, table, layout="tensorrt", keep_float=[kept])
        found = agreement(student, rendering, parted(samples, table, 256))
        assert min(found) > 40 and float(np.median(found)) > 80, found


def test_channels_that_are_equalised_are_trained_as_they_are_rendered(typical: Path) -> None:
    graph, samples = graph_of(uneven_model()), pictures_in(typical)[:40]
    table = calibrate(graph, samples, SPEC)
    parts = parted(samples, table, 256)
    assert table.factors
    with pytest.raises(FormatError, match=r"the table equalises the channels of .*; give the equalised graph"):
        FakeQuantised(TorchGraph(graph, CPU), table)
    student = FakeQuantised(TorchGraph(equalised(graph, table.factors), CPU), table)
    found = agreement(student, qdq_from_onnx(graph, table, layout="tensorrt"), parts)
    assert min(found) > 40 and float(np.median(found)) > 80, found
    tuned = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, rate=1e-5))
    # what is kept are weights of the graph as it is, for either rendering
    for name, values in tuned.weights.items():
        np.testing.assert_allclose(values, graph.weight(name), rtol=1e-2, atol=1e-3 * np.abs(graph.weight(name)).max())


def test_steps_and_places_are_those_that_the_renderer_writes(graph: Graph, table: RangeTable) -> None:
    student = FakeQuantised(TorchGraph(graph, CPU), table)
    rendering = qdq_from_onnx(graph, table, layout="tensorrt")
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in rendering.graph.initializer}
    written = {
        node.input[0]: float(constants[node.input[1]])
        for node in rendering.graph.node
        if node.op_type == "QuantizeLinear"
    }
    assert {name: float(step) for name, step in student._steps.items()} == written
    int8 = {name for name, values in constants.items() if values.dtype == np.int8 and values.ndim > 1}
    assert {f"{name}_q" for name in student._axes} == int8 and len(int8) == 14
    # and before a single step the weights are the graph's, to the bit
    assert all(np.array_equal(values, graph.weight(name)) for name, values in student.weights().items())


def test_layers_in_float_and_all_other_constants_stay_as_they_are(
    graph: Graph, table: RangeTable, parts: Parting
) -> None:
    kept = ("stem.node", "cells.node")
    parts = replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    found = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1), keep_float=kept)
    assert found.said.keep_float == tuple(sorted(kept))
    assert not {"stem.weight", "stem.bias", "cells.weight", "cells.bias", "axes"} & found.weights.keys()
    assert {"deep0.weight", "deep0.bias", "narrow2.weight"} <= found.weights.keys()
    rendering = qdq_from_onnx(graph, table, layout="tensorrt", keep_float=kept, tuned=found)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in rendering.graph.initializer}
    assert np.array_equal(constants["stem.weight"], graph.weight("stem.weight"))
    assert np.array_equal(constants["deep0.bias"], found.weights["deep0.bias"])


def test_the_same_nodes_are_written_with_and_without_fine_tuning(
    graph: Graph, table: RangeTable, tuned: Tuned
) -> None:
    before = qdq_from_onnx(graph, table, layout="tensorrt")
    after = qdq_from_onnx(graph, table, layout="tensorrt", tuned=tuned)
    assert list(before.graph.node) == list(after.graph.node)
    moved = {
        one.name for one, other in zip(before.graph.initializer, after.graph.initializer, strict=True) if one != other
    }
    assert moved and all(name.endswith((".bias", ".weight_q", ".weight_scale")) for name in moved)


# -- what it is good for


def test_where_calibration_loses_much_fine_tuning_regains_some(tuned: Tuned) -> None:
    trt = tuned.said.trt
    assert trt.taken and trt.before_db is not None and trt.after_db is not None
    assert trt.before_db < 28 and trt.after_db > trt.before_db + 0.5
    assert tuned.said.judged_on == 12 and len(tuned.said.pictures) == 48


def test_the_gain_holds_on_pictures_that_neither_trained_nor_judged(
    graph: Graph, table: RangeTable, tuned: Tuned, tmp_path: Path
) -> None:
    others = pictures_in(drawn(tmp_path / "others", 24, seed=1000))
    fp32 = open_session(graph.model)
    lost = []
    for weights in (None, tuned):
        session = open_session(qdq_from_onnx(graph, table, layout="tensorrt", tuned=weights), reference=True)
        noise = Noise()
        for _, frame in frames_of(others, SPEC):
            noise.see(fp32.run(frame), session.run(frame))
        lost.append(noise.sqnr_db)
    assert lost[1] > lost[0] + 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    graph: Graph, table: RangeTable, parts: Parting
) -> None:
    parts = replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    first, again, other = (
        quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, seed=seed)).data for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("rate", [1e-9, 0.3])
def test_weights_that_are_not_better_are_not_taken(
    graph: Graph, table: RangeTable, parts: Parting, rate: float
) -> None:
    found = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, rate=rate)).said
    assert not found.trt.taken and not found.cpu.taken


class Ended(Exception):
    """Stands for a kill."""


def test_a_training_that_was_ended_goes_on_after_its_last_epoch_to_the_same_bytes(
    graph: Graph, table: RangeTable, parts: Parting, tmp_path: Path
) -> None:
    plan, parts = Plan(epochs=3), replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    whole = quantisation_aware(graph, table, parts, SPEC, plan)
    kept = tmp_path / "part.safetensors"
    n = len(parts.training)

    def end(what: str, done: int, of: int) -> None:
        if done > 2 * n:
            raise Ended

    with pytest.raises(Ended):
        quantisation_aware(graph, table, parts, SPEC, plan, kept=kept, progress=end)
    told: list[int] = []
    again = quantisation_aware(
        graph, table, parts, SPEC, plan, kept=kept, progress=lambda what, done, of: told.append(done)
    )
    assert told[0] > 2 * n and again.data == whole.data
    # another plan, other pictures, or a damaged file: from the beginning
    for other, pictures in ((replace(plan, seed=1), parts), (plan, replace(parts, training=parts.training[:-1]))):
        told.clear()
        with pytest.raises(Ended):
            quantisation_aware(graph, table, pictures, SPEC, other, kept=kept, progress=_first(told))
        assert told[0] <= 8
    for damage in (b"", b"\x08\0\0\0\0\0\0\0 no JSON", kept.read_bytes()[:300]):
        kept.write_bytes(damage)
        told.clear()
        with pytest.raises(Ended):
            quantisation_aware(graph, table, parts, SPEC, plan, kept=kept, progress=_first(told))
        assert told[0] <= 8


def _first(told: list[int]) -> Callable[[str, int, int], None]:
    def step(what: str, done: int, of: int) -> None:
        told.append(done)
        raise Ended

    return step


# -- the maths


def test_the_loss_is_the_sum_over_outputs_of_noise_over_signal() -> None:
    random = np.random.default_rng(0)
    wanted = {name: random.normal(0, size, (3, 5)).astype(np.float32) for name, size in (("a", 1), ("b", 100))}
    made = {name: values + random.normal(0, 0.1, values.shape).astype(np.float32) for name, values in wanted.items()}
    slow = 0.0
    for name in wanted:
        pairs = list(zip(made[name].ravel().tolist(), wanted[name].ravel().tolist(), strict=True))
        slow += sum((y - t) ** 2 for y, t in pairs) / sum(t**2 for _, t in pairs)
    tensors = [{name: torch.from_numpy(value) for name, value in one.items()} for one in (made, wanted)]
    assert float(noise_to_signal(*tensors)) == pytest.approx(slow, rel=1e-5)
    index = {"places": torch.arange(4)}
    assert float(noise_to_signal(index, index)) == 0


def test_the_rate_rises_and_falls() -> None:
    rates = [rate_at(share / 100, rate=2.0) for share in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[10] == pytest.approx(2.0)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(1.0) and rates[99] < 0.01


# -- what is refused


def test_who_trains_and_who_judges_share_no_part(typical: Path, table: RangeTable) -> None:
    samples = pictures_in(typical)
    found = parted(samples, table, 20)
    assert {sha256_file(one.path) for one in found.judging} == {one.sha256 for one in table.choosing}
    assert len(found.training) == 20 and not {one.unit for one in found.training} & {one.unit for one in found.judging}
    same = {one.image for one in (*found.judging[:1], *samples[:10])}
    grouped = [replace(one, group="same") if one.image in same else one for one in samples]
    assert len(parted(grouped, table, 256).training) < len(parted(samples, table, 256).training)


def test_pictures_that_cannot_judge_or_train_are_told(typical: Path, table: RangeTable, tmp_path: Path) -> None:
    samples = pictures_in(typical)
    judging = parted(samples, table, 256).judging
    with pytest.raises(DatasetError, match="all 12 pictures judge, and none is left to train on; give more"):
        parted(judging, table, 256)
    others = pictures_in(drawn(tmp_path / "others", 2, seed=500))
    with pytest.raises(DatasetError, match="none of the 12 pictures that chose the rule is among these 2; give the"):
        parted(others, table, 256)
    with pytest.raises(DatasetError, match="made without pictures that choose, so none can judge the fine-tuning"):
        parted(samples, table.model_copy(update={"choosing": ()}), 256)


def test_a_loss_that_is_no_number_ends_it(graph: Graph, table: RangeTable, parts: Parting) -> None:
    with pytest.raises(RangeError, match=r"the loss is (nan|inf) in epoch 1 after \d+ pictures; lower --rate \(1e\+30"):
        quantisation_aware(graph, table, parts, SPEC, Plan(rate=1e30))


def test_what_does_not_belong_together_is_refused(graph: Graph, table: RangeTable, parts: Parting) -> None:
    other = graph_of(excited_model(seed=1))
    with pytest.raises(FormatError, match="the range table is of graph .* make the ranges again"):
        quantisation_aware(other, table, parts, SPEC, PLAN)
    with pytest.raises(FormatError, match="the range table was made with another preprocessing"):
        quantisation_aware(graph, table, parts, replace(SPEC, mean=(0.1, 0.1, 0.1)), PLAN)
    everything = [node.name for node in graph.nodes]
    with pytest.raises(FormatError, match="no layer of the graph is rounded to INT8, so there is nothing to fine-tune"):
        quantisation_aware(graph, table, parts, SPEC, PLAN, keep_float=everything)


def test_a_graph_of_a_fixed_batch_is_trained_frame_by_frame_or_refused(typical: Path) -> None:
    for batch in (1, 3):
        model = hswish_model()
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        fixed = graph_of(model)
        samples = pictures_in(typical)[:20]
        if batch == 1:
            table = calibrate(fixed, samples, SPEC, most_float=0, equalise=False)
            assert quantisation_aware(fixed, table, parted(samples, table, 8), SPEC, Plan(epochs=1)).said.losses
        else:
            table = table.model_copy(update={"graph_sha256": fixed.digest})
            with pytest.raises(FormatError, match="takes 3 frames and no other number; export it without --fixed"):
                quantisation_aware(fixed, table, parted(samples, table, 8), SPEC, PLAN)


# -- the commands


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
        (["--device", "cuda:77"], 2, "--device cuda:77 cannot be used ("),
        (["--device", "gpu"], 2, "--device gpu cannot be used ("),
        (["--device", "meta"], 2, "--device meta cannot be used (it is neither cpu nor cuda); give cpu"),
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
