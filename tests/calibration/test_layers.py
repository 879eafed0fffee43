"""Where INT8 loses it, layer by layer, and pictures of another kind."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from calibration.collect import ranges_from_pictures
from calibration.graphs import Graph
from calibration.layers import Strange, layers_of, strangeness
from calibration.pictures import pictures_in
from calibration.qdq import qdq_from_onnx
from calibration.ranges import FloatLayer, RangeTable
from calibration.sessions import open_session
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import preprocess
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, save


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    folder = tmp_path_factory.mktemp("drawn")
    for n in range(40):
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=n, spot=(9, 12, 5)))
    return pictures_in(folder)


@pytest.fixture(scope="module")
def ranges(residual: Graph, samples: tuple[Sample, ...]) -> RangeTable:
    table = ranges_from_pictures(residual, samples[:24], SPEC)
    why = FloatLayer(node="stem.node", gain_db=1.0, why="it gains 1.0 dB")
    return table.model_copy(update={"float_layers": (why,), "gains_db": {"stem.node": 1.0, "one.a.node": 0.2}})


@pytest.fixture
def renderings(residual: Graph, ranges: RangeTable, tmp_path: Path) -> dict[str, Path]:
    trt = qdq_from_onnx(residual, ranges, layout="tensorrt", keep_float=["stem.node"])
    cpu = qdq_from_onnx(residual, ranges, layout="onnxruntime")
    return {"trt": save(trt, tmp_path / "model.trt.onnx"), "cpu": save(cpu, tmp_path / "model.cpu.onnx")}


def test_a_layer_s_figure_is_the_sqnr_of_its_result(
    residual: Graph, ranges: RangeTable, renderings: dict[str, Path], samples: tuple[Sample, ...]
) -> None:
    found = layers_of(residual, renderings, samples[24:30], SPEC, ranges=ranges)
    convolutions = [node.name for node in residual.nodes if node.op_type == "Conv"]
    assert [layer.node for layer in found["trt"]] == [layer.node for layer in found["cpu"]] == convolutions
    frames = [preprocess(read_image(sample), SPEC) for sample in samples[24:30]]
    # in the CPU's graph a rounding does what the ReLU behind a convolution did
    for kind, old, new in (("trt", "one.a", "one.a"), ("cpu", "one.a.on", "one.a.on_dq")):
        model = ModelProto.FromString(renderings[kind].read_bytes())
        before, after = (
            np.concatenate([open_session(one, watched=[name], reference=True).run(frame)[name] for frame in frames])
            for one, name in ((residual.model, old), (model, new))
        )
        layer = next(layer for layer in found[kind] if layer.node == "one.a.node")
        assert layer.sqnr_db == pytest.approx(sqnr_db(before, after), abs=0.01)


def test_what_is_in_float_says_why(
    residual: Graph, ranges: RangeTable, renderings: dict[str, Path], samples: tuple[Sample, ...]
) -> None:
    found = layers_of(residual, renderings, samples[24:26], SPEC, ranges=ranges, asked=("cells.node",))
    trt = {layer.node: layer for layer in found["trt"]}
    assert trt["stem.node"].why_float == "it gains 1.0 dB" and trt["stem.node"].sqnr_db > 90
    assert trt["one.a.node"].why_float is None and trt["one.a.node"].gain_db == 0.2
    assert trt["two.way.node"].gain_db is None
    cpu = {layer.node: layer.why_float for layer in found["cpu"]}
    assert {layer.gain_db for layer in found["cpu"]} == {None}, "gains are of the TensorRT rendering"
    assert cpu["stem.node"] is None and cpu["cells.node"] == "the network asks for it"
    other = layers_of(residual, renderings, samples[24:26], SPEC)
    assert {layer.why_float for layer in other["trt"]} == {None, "asked for when it was rendered"}
    assert other["cpu"][-1].why_float == "it makes an output, or ONNX Runtime has no integer kernel for it there"


def test_a_spoilt_layer_is_the_worst(
    residual: Graph, ranges: RangeTable, renderings: dict[str, Path], samples: tuple[Sample, ...]
) -> None:
    model = ModelProto.FromString(renderings["trt"].read_bytes())
    for tensor in model.graph.initializer:
        if tensor.name == "two.a.weight_q":
            tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))
    found = layers_of(residual, {"trt": save(model, renderings["trt"])}, samples[24:26], SPEC, ranges=ranges)
    assert min(found["trt"], key=lambda layer: layer.sqnr_db).node == "two.a.node"


def test_pictures_of_another_kind_are_told_from_those_of_this_line(
    residual: Graph, ranges: RangeTable, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    assert strangeness(residual, ranges, samples[24:], SPEC).sentence is None
    random = np.random.default_rng(0)
    for n in range(6):
        picture = random.integers(0, 2, (SIDE, SIDE, 3), np.uint8) * np.uint8(255)
        cv2.imwrite(str(tmp_path / f"{n}.png"), picture)
    other = strangeness(residual, ranges, pictures_in(tmp_path), SPEC)
    assert other.share > 0.8 and other.expected == pytest.approx(2 / 25)
    assert other.sentence is not None
    said = f"the pictures leave the calibrated range in {100 * other.share:.0f} % of the tensors, where"
    assert other.sentence.startswith(said)


def test_few_pictures_that_calibrated_excuse_much() -> None:
    assert Strange(0.5, 2 / 13).sentence is None
    assert Strange(0.5, 2 / 65).sentence == (
        "the pictures leave the calibrated range in 50 % of the tensors, where at most 3 % is usual: "
        "they are of another kind than those that calibrated; calibrate on pictures of this line"
    )
