"""Q2: the peers are set for TensorRT and checked for it, the lead is paired, and the best peer is chosen fairly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from benchmarks.peers import VARIABLE
from benchmarks.quantisation.nets import NETS, parts_of, small
from benchmarks.quantisation.noise import Heard, lead
from benchmarks.quantisation.quantisers import ORT, floats_of, ort_graph, refused, roundings_of
from benchmarks.quantisation.renderings import DEFAULT, SKIP, _step, best_peer, rows_of
from calibration.placement import tensorrt_placement
from calibration.qdq import qdq_from_onnx
from calibration.sessions import open_session
from edge_sdk.quality.datasets import Dataset
from tests.calibration.conftest import table
from tests.calibration.networks import frames, graph_of, residual_model, save

pytest.importorskip("onnxruntime.quantization")


def heard(error: list[float], groups: str = "aabb") -> Heard:
    count = len(groups)
    return Heard(tuple(groups), np.full(count, 100.0), np.array(error, np.float64), np.ones(count))


def run(name_to_error: dict[str, list[float]], *, refuse: dict[str, str] | None = None) -> dict[str, Any]:
    """What a step keeps, of four pictures in two groups."""
    renderings = {
        name: {"signal": [100.0] * 4, "error": error, "agreed": [1.0, 1.0, 1.0, 0.0], "score": 0.5, "floats": 1,
               "roundings": 9, "refused": (refuse or {}).get(name)}
        for name, error in name_to_error.items()
    }  # fmt: skip
    return {"groups": list("aabb"), "score": 0.6, "renderings": renderings, "skipped": {}, "said": {}}


@pytest.fixture(scope="module")
def ours() -> tuple[ModelProto, ModelProto]:
    """FP32, and our rendering with the head in float."""
    graph = graph_of(residual_model())
    return graph.model, qdq_from_onnx(graph, table(graph), layout="tensorrt", keep_float=["cells.node"])


def test_a_lead_is_the_difference_of_decibels_in_the_mean_over_seeds_and_paired() -> None:
    mine, other = [heard([1, 1, 1, 1]), heard([2, 2, 2, 2])], [heard([10, 10, 10, 10]), heard([2, 2, 2, 2])]
    found = lead(mine, other)
    assert found.each == pytest.approx((10.0, 0.0)) and found.db == pytest.approx(5.0)
    # every group says the same, so there is nothing to be unsure of
    assert (found.low, found.high) == pytest.approx((5.0, 5.0))
    uneven = lead([heard([1, 1, 1, 1])], [heard([1, 1, 100, 100])])
    assert uneven.low == pytest.approx(0.0) and uneven.high == pytest.approx(20.0)


def test_the_best_peer_is_chosen_on_the_other_seeds_among_those_that_tensorrt_takes() -> None:
    first = {DEFAULT: [1.0] * 4, "onnxruntime, a": [2.0] * 4, "ModelOpt, b": [4.0] * 4, "onnxruntime, c": [0.1] * 4}
    second = {DEFAULT: [1.0] * 4, "onnxruntime, a": [8.0] * 4, "ModelOpt, b": [4.0] * 4, "onnxruntime, c": [0.1] * 4}
    runs = [run(one, refuse={"onnxruntime, c": "it rounds to uint8"}) for one in (first, second)]
    mine = [Heard.of(one["renderings"][DEFAULT], one["groups"]) for one in runs]
    names, found = best_peer(runs, mine)
    assert names == ["ModelOpt, b", "onnxruntime, a"]
    assert found.each == pytest.approx((10 * np.log10(4), 10 * np.log10(8)))
    rows = {str(row["name"]): row for row in rows_of("ResNet-18", runs)}
    assert rows["ResNet-18, onnxruntime, c"]["refused"] == "it rounds to uint8"
    assert rows["ResNet-18, ModelOpt, b"]["agreement"] == 0.75


def test_a_peer_that_is_not_there_is_a_row_that_says_so() -> None:
    one = run({DEFAULT: [1.0] * 4, "onnxruntime, a": [2.0] * 4})
    one["skipped"] = {"ModelOpt, max": "not installed here; python -m benchmarks peer modelopt"}
    rows = rows_of("ResNet-18", [one])
    assert {"name": "ResNet-18, ModelOpt, max", "skipped": one["skipped"]["ModelOpt, max"]} in rows


@pytest.mark.slow
def test_a_step_judges_everybody_on_pictures_that_none_of_them_saw(
    drawn: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    net = replace(small(NETS["resnet18"]), iterations=4, folder=drawn.root)
    kept = _step(net, 100, (15, 6))
    parts = parts_of(drawn, seed=100)
    assert set(kept["groups"]) <= {one.unit for one in parts.held_out}
    assert kept["skipped"]["ModelOpt, max"] == "not installed here; python -m benchmarks peer modelopt"
    assert kept["said"]["calibrated"] + kept["said"]["chose_on"] == 15
    assert set(ORT) | {DEFAULT, SKIP, "ours, nothing in float"} < set(kept["renderings"])
    for name, found in kept["renderings"].items():
        assert found["refused"] is None, name
        assert len(found["error"]) == len(kept["groups"]) == 6
    assert len({tuple(found["signal"]) for found in kept["renderings"].values()}) == 1


def test_our_rendering_is_taken_and_its_layers_in_float_are_counted(ours: tuple[ModelProto, ModelProto]) -> None:
    plain, rendered = ours
    assert refused(rendered) is None
    assert floats_of(rendered) == ["cells.node"]
    assert len(floats_of(plain)) == len(tensorrt_placement(graph_of(plain)).weighted) and roundings_of(plain) == 0
    assert roundings_of(rendered) > 0


def test_onnxruntime_set_for_tensorrt_is_taken(tmp_path: Path, ours: tuple[ModelProto, ModelProto]) -> None:
    plain = ours[0]
    path, given = save(plain, tmp_path / "model.onnx"), np.concatenate(frames(8))
    made = {
        name: ort_graph(path, given, tmp_path, method=method, operations=operations)
        for name, (method, operations) in ORT.items()
        if method == "MinMax"
    }
    wanted = open_session(plain).run(given[:1])["cells"]
    for model in made.values():
        assert refused(model) is None and floats_of(model) == []
        error = open_session(model, reference=True).run(given[:1])["cells"] - wanted
        assert 15 < 10 * np.log10((wanted**2).sum() / (error**2).sum()) < 60
    own, set_so, fewest = (
        roundings_of(made[f"onnxruntime, {which}min-max"]) for which in ("its own placement, ", "", "no residuals, ")
    )
    assert fewest < set_so < own


def test_a_graph_that_tensorrt_would_refuse_is_found(tmp_path: Path, ours: tuple[ModelProto, ModelProto]) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Reader:
        def __init__(self) -> None:
            self.left = [{"frame": one} for one in frames(2)]

        def get_next(self) -> dict[str, Any] | None:
            return self.left.pop() if self.left else None

    import onnx

    path = save(ours[0], tmp_path / "model.onnx")
    for kind, bias, why in ((QuantType.QUInt8, False, "rounds to uint8"), (QuantType.QInt8, True, "rounds to int32")):
        quantize_static(
            path, tmp_path / "out.onnx", Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=kind, weight_type=QuantType.QInt8,
            extra_options={"ActivationSymmetric": kind == QuantType.QInt8, "QuantizeBias": bias},
        )  # fmt: skip
        assert why in (refused(onnx.load(tmp_path / "out.onnx")) or "taken")
