"""Equalised channels change no function, are chosen where the outputs gain, and reach TensorRT's graph alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from calibration import choosing
from calibration.calibrating import calibrate, why_of
from calibration.choosing import WORTH_DB, Trial, Trials, choose
from calibration.equalising import equalised, plain_weights, sites_of
from calibration.factors import Channels, factors_of
from calibration.graphs import Graph
from calibration.layers import layers_of, strangeness
from calibration.qdq import qdq_from_onnx
from calibration.ranges import RangeTable, read_ranges, write_ranges
from calibration.sessions import open_session
from calibration.typed import half_from_qdq
from edge_sdk.arrays import Array
from edge_sdk.errors import FormatError
from edge_sdk.quality.datasets import Sample
from edge_sdk.quality.measures import sqnr_db
from tests.calibration.conftest import SPEC
from tests.calibration.networks import frames, graph_of, hswish_model, residual_model, save, uneven_model
from tests.calibration.test_choosing import drawn
from tests.calibration.test_qdq import renamed

WIDTH = 16


@pytest.fixture(scope="module")
def graph() -> Graph:
    return graph_of(uneven_model())


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return drawn(tmp_path_factory.mktemp("drawn") / "pictures", 60)


@pytest.fixture(scope="module")
def table(graph: Graph, samples: tuple[Sample, ...]) -> RangeTable:
    return calibrate(graph, samples, SPEC)


def some_factors(graph: Graph) -> dict[str, tuple[float, ...]]:
    random = np.random.default_rng(5)
    return {site.tensor: tuple(2.0 ** random.uniform(-4, 4, site.channels)) for site in sites_of(graph)}


def test_factors_stand_where_only_convolutions_read_and_cost_no_kernel(graph: Graph) -> None:
    found = {site.tensor: site for site in sites_of(graph)}
    assert list(found) == ["stem.on", "deep.on", "excited", "flat.on"]
    assert {name: site.gate for name, site in found.items() if site.gate} == {"excited": "gate"}
    producers = {name: graph.nodes[one.producer].name for name, one in found.items() if one.producer is not None}
    assert producers == {"deep.on": "deep.node"}
    # what goes round a block is read by its sum too, and a residual network needs none
    assert [site.tensor for site in sites_of(graph_of(hswish_model()))] == ["excited"]
    assert sites_of(graph_of(residual_model())) == ()


@pytest.mark.parametrize("name", ["stem.on_equalised", "stem.on_factors", "stem.on_equalise"])
def test_no_factor_stands_where_the_graph_has_its_names(name: str) -> None:
    hostile = graph_of(renamed(uneven_model(), {"stem": name}))
    assert [site.tensor for site in sites_of(hostile)] == ["deep.on", "excited", "flat.on"]


def test_the_function_is_the_same(graph: Graph) -> None:
    made = equalised(graph, some_factors(graph))
    assert made.digest == graph.digest and len(made.nodes) == len(graph.nodes) + 3
    wanted = {"stem.on": "stem.on_equalised", "deep.on": "deep.on_equalised", "excited": "excited_equalised"}
    before = open_session(graph.model, watched=list(wanted), reference=True)
    after = open_session(made.model, watched=list(wanted.values()), reference=True)
    factors = some_factors(graph)
    for frame in frames(4):
        old, new = before.run(frame), after.run(frame)
        assert sqnr_db(old["cells"], new["cells"]) > 100
        for name, other in wanted.items():
            scaled = old[name] * np.array(factors[name], np.float32)[None, :, None, None]
            np.testing.assert_allclose(new[other], scaled, rtol=1e-4, atol=1e-4 * np.abs(scaled).max())
    assert equalised(graph, {}) is graph


def test_weights_of_the_equalised_graph_are_given_back_as_the_graph_has_them(graph: Graph) -> None:
    factors = some_factors(graph)
    made = equalised(graph, factors)
    names = [tensor.name for tensor in graph.model.graph.initializer if tensor.name.endswith(("weight", "bias"))]
    held = {name: made.weight(name) for name in names}
    changed = {name for name in names if not np.array_equal(held[name], graph.weight(name))}
    assert changed == {"deep.weight", "deep.bias", "deeper.weight", "flat.weight", "cells.weight"}
    for name, values in plain_weights(graph, factors, held).items():
        np.testing.assert_allclose(values, graph.weight(name), rtol=1e-6)


@pytest.mark.parametrize("factors", [{"deep": (1.0,) * WIDTH}, {"stem.on": (1.0,) * 3}])
def test_factors_of_another_graph_are_refused(graph: Graph, factors: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(FormatError, match="cannot be equalised in this graph; make the ranges again"):
        equalised(graph, factors)


def slow_noise(graph: Graph, name: str, size: Array, power: Array, factors: Array) -> float:
    """Of a 1 x 1 convolution, from the equation, number by number."""
    weight = graph.weight(f"{name}.weight")[:, :, 0, 0].astype(np.float64)
    outputs, inputs = weight.shape
    step = max(size[c] * factors[c] for c in range(inputs)) / 127
    noise = signal = 0.0
    for o in range(outputs):
        own = max(abs(weight[o, c] / factors[c]) for c in range(inputs)) / 127
        for c in range(inputs):
            noise += step**2 / 12 * (weight[o, c] / factors[c]) ** 2
            noise += own**2 / 12 * power[c] * factors[c] ** 2
            signal += weight[o, c] ** 2 * power[c]
    return noise / signal


def seen(size: Array, power: Array) -> Channels:
    return Channels(1, size.copy(), power.copy())


def test_the_factors_are_those_of_least_noise_among_the_candidates(graph: Graph) -> None:
    site = next(one for one in sites_of(graph) if one.tensor == "excited")
    random = np.random.default_rng(1)
    size = 2.0 ** random.uniform(-2, 2, WIDTH)
    power = (size / 4) ** 2
    found = np.array(factors_of(graph, [site], {"excited": seen(size, power)})["excited"])
    weight = np.abs(graph.weight("flat.weight")[:, :, 0, 0]).max(axis=0).astype(np.float64)
    weight = np.maximum(weight, weight.max() / 64)
    noises = {}
    for a in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        scale = size**a / weight ** (1 - a)
        scale /= np.exp(np.log(scale).mean())
        noises[a] = slow_noise(graph, "flat", size, power, 1 / scale), 1 / scale
    least, wanted = min(noises.values(), key=lambda one: one[0])
    assert least < slow_noise(graph, "flat", size, power, np.ones(WIDTH))
    np.testing.assert_allclose(found, wanted, rtol=2e-3)
    assert np.array_equal(found, found.astype(np.float16).astype(np.float64))


def test_before_a_depthwise_convolution_every_channel_gets_all_levels(graph: Graph) -> None:
    site = next(one for one in sites_of(graph) if one.tensor == "stem.on")
    size = 2.0 ** np.linspace(-3, 2, WIDTH)
    found = np.array(factors_of(graph, [site], {"stem.on": seen(size, size**2)})["stem.on"])
    np.testing.assert_allclose(found * size / (found * size)[0], 1, rtol=2e-3)


def test_a_channel_that_was_silent_is_not_blown_up() -> None:
    channels = Channels()
    channels.see(np.array([8.0, 0.0, 0.001, 4.0], np.float32).reshape(1, 4, 1, 1))
    channels.see(np.array([-4.0, 0.0, 0.001, 0.0], np.float32).reshape(1, 4, 1, 1))
    assert channels.size == pytest.approx([6.0, 6.0, 6.0 / 64, 2.0])
    assert channels.power == pytest.approx([40.0, 40e-12, 1e-6, 8.0], rel=1e-4)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_a_table_with_a_factor_that_cannot_be_undone_is_refused(
    table: RangeTable, tmp_path: Path, factor: float
) -> None:
    said = json.loads(_written(table, tmp_path))
    name = next(iter(said["equalisation"]["factors"]))
    said["equalisation"]["factors"][name][0] = factor
    (tmp_path / "bad.json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(FormatError, match=r"bad.json: equalisation.factors.* is .*; give a number above 0"):
        read_ranges(tmp_path / "bad.json")


def test_it_is_taken_where_the_outputs_gain_and_said(
    graph: Graph, samples: tuple[Sample, ...], table: RangeTable, tmp_path: Path
) -> None:
    assert table.factors and table.equalisation and table.rule
    assert table.decibels == table.equalisation.sqnr_db
    best, without = (max(value or 200.0 for value in one.values()) for one in (table.decibels, table.sqnr_db))
    assert best > without + WORTH_DB
    assert f"; channels of {len(table.factors)} tensors equalised for TensorRT (without: mse " in why_of(table)
    write_ranges(tmp_path / "ranges.json", table)
    assert read_ranges(tmp_path / "ranges.json") == table
    held = drawn(tmp_path / "held", 12, seed=500)
    trials = Trials(graph, held, SPEC)
    with_it, plain = (trials.of(qdq_from_onnx(graph, one, layout="tensorrt")) for one in (table, table.unequalised()))
    assert with_it.sqnr_db > plain.sqnr_db + WORTH_DB
    # and not where nobody wants it
    other = calibrate(graph, samples, SPEC, equalise=False)
    assert other.equalisation is None and b"equalis" not in (_written(other, tmp_path))
    assert other.sqnr_db == pytest.approx(table.sqnr_db)


def _written(table: RangeTable, folder: Path) -> bytes:
    write_ranges(folder / "plain.json", table)
    return (folder / "plain.json").read_bytes()


def test_where_it_gains_too_little_no_factor_is_left(
    graph: Graph, samples: tuple[Sample, ...], table: RangeTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def of(_: object, model: ModelProto) -> Trial:
        gain = WORTH_DB - 0.1 if any(node.name.endswith("_equalise") for node in model.graph.node) else 0.0
        return Trial(30.0 + gain, (30.0 + gain,) * 2)

    monkeypatch.setattr(choosing.Trials, "of", of)
    found = calibrate(graph, samples, SPEC)
    assert found.factors == {} and not any(name.endswith("_equalised") for name in found.tensors)
    assert "; equalising channels for TensorRT gained too little (mse 30.4 dB, " in why_of(found)
    monkeypatch.undo()
    # chosen once, it is as it is: what else is asked of the table is asked of it with its factors
    again = choose(graph, table, samples[:4], SPEC, rules=("mse",), most_float=0)
    assert again.equalised and again.equalised_db == {}


def test_the_rendering_for_a_cpu_stays_as_it_is(graph: Graph, table: RangeTable) -> None:
    found, plain = (qdq_from_onnx(graph, one, layout="onnxruntime") for one in (table, table.unequalised()))
    for one in (found, plain):
        del one.metadata_props[:]
    assert found.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_the_int8_graph_rounds_what_was_equalised_and_is_held_against_fp32_layer_by_layer(
    graph: Graph, table: RangeTable, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    model = qdq_from_onnx(graph, table, layout="tensorrt")
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert {f"{name}_equalised" for name in table.factors} <= rounded and not rounded & set(table.factors)
    layers = layers_of(graph, {"trt": save(model, tmp_path / "trt.onnx")}, samples[:4], SPEC, ranges=table)["trt"]
    assert len(layers) == 6 and min(layer.sqnr_db for layer in layers) > 15
    assert 0 <= strangeness(graph, table, samples[:4], SPEC).share <= 1
    # without the table nobody knows the units of what the equalised convolution makes
    rest = layers_of(graph, {"trt": tmp_path / "trt.onnx"}, samples[:4], SPEC)["trt"]
    assert [one.node for one in rest] == [one.node for one in layers if one.node != "deep.node"]
    assert min(one.sqnr_db for one in rest) > 15


def test_fp16_holds_the_factors_to_the_bit(graph: Graph, table: RangeTable) -> None:
    half = half_from_qdq(qdq_from_onnx(graph, table, layout="tensorrt"), table)
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in half.graph.initializer}
    for name, factors in table.factors.items():
        if f"{name}_factors" in held:
            assert held[f"{name}_factors"].dtype == np.float16
            assert held[f"{name}_factors"].reshape(-1).astype(np.float64).tolist() == list(factors)
