"""Rule and layers in float are chosen by what the rendered graph answers, on pictures that calibrated nothing."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from onnx import ModelProto, numpy_helper

from calibration import choosing
from calibration.calibrating import calibrate, why_of
from calibration.choosing import Choice, Noise, Trial, choose, ends_of, loses_less, table_with
from calibration.collect import constant_tensors, ranges_from_pictures
from calibration.graphs import Graph
from calibration.pictures import dealt, odd_sizes, pictures_in
from calibration.qdq import qdq_from_onnx
from calibration.ranges import FloatLayer, RangeTable, read_ranges, write_ranges
from calibration.scales import RULES
from calibration.sessions import open_session
from edge_sdk.documents import sha256_file
from edge_sdk.errors import RangeError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.quality.measures import sqnr_db
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import preprocess
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, Builder, graph_of, residual_model


def drawn(folder: Path, count: int, *, seed: int = 0) -> tuple[Sample, ...]:
    folder.mkdir()
    for n in range(count):
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=seed + n, spot=(9, 12, 5)))
    return pictures_in(folder)


def slow_sqnr_db(graph: Graph, table: RangeTable, samples: tuple[Sample, ...], **how: object) -> float:
    """All outputs side by side, the worst of those that are judged."""
    model = qdq_from_onnx(graph, table, layout="tensorrt", **how)  # type: ignore[arg-type]
    frames = [preprocess(read_image(sample), SPEC) for sample in samples]
    sessions = open_session(graph.model), open_session(model, reference=True)
    before, after = (np.concatenate([one.run(frame)["cells"] for frame in frames]) for one in sessions)
    return sqnr_db(before, after)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    return drawn(tmp_path_factory.mktemp("drawn") / "pictures", 30)


# -- dealing


def test_who_calibrates_and_who_chooses_share_no_part_and_no_content(tmp_path: Path) -> None:
    plain = drawn(tmp_path / "pictures", 60)
    (tmp_path / "pictures" / "twin.png").write_bytes(plain[0].path.read_bytes())
    samples = [
        Sample(one.path, one.image, "good" if n % 3 else "crack", domain="ab"[n % 2], group=f"g{n // 3}")
        for n, one in enumerate(pictures_in(tmp_path / "pictures"))
    ]
    found = dealt(samples, 256)
    assert found == dealt(list(samples), 256) and found.twins == 1
    assert len(found.choosing) == 12 and len(found.calibrating) == 48
    for of in (lambda one: one.unit, lambda one: sha256_file(one.path)):
        assert not {of(one) for one in found.calibrating} & {of(one) for one in found.choosing}
    assert {(one.domain, one.label) for one in found.choosing} == {(one.domain, one.label) for one in samples}


def test_no_part_is_torn_to_find_pictures_that_choose(tmp_path: Path) -> None:
    samples = [
        Sample(path=one.path, image=one.image, label="", group=f"g{n // 10}")
        for n, one in enumerate(drawn(tmp_path / "pictures", 20))
    ]
    found = dealt(samples, 256)
    assert found.choosing == () and len(found.calibrating) == 20
    assert dealt(samples[:1], 256).calibrating == (samples[0],)


def test_at_most_32_choose_and_the_rest_is_cut_to_what_was_asked_for(tmp_path: Path) -> None:
    found = dealt(drawn(tmp_path / "pictures", 200), 100)
    assert len(found.choosing) == 32 and len(found.calibrating) == 100


def test_pictures_of_several_sizes_are_told(tmp_path: Path) -> None:
    samples = drawn(tmp_path / "pictures", 4)
    assert odd_sizes(samples) is None
    cv2.imwrite(str(tmp_path / "pictures" / "big.png"), drawn_picture(48, 64, seed=1))
    assert odd_sizes(pictures_in(tmp_path / "pictures")) == (
        "1 of 5 pictures is not 32 x 32 as most are: big.png is 64 x 48; is it of another camera?"
    )


# -- the rule


def test_the_rule_is_the_one_whose_graph_loses_least(residual: Graph, samples: tuple[Sample, ...]) -> None:
    table = ranges_from_pictures(residual, samples[:20], SPEC)
    choice = choose(residual, table, samples[20:], SPEC, most_float=0)
    slow = {rule: slow_sqnr_db(residual, table, samples[20:], rule=rule) for rule in RULES}
    assert choice.sqnr_db == pytest.approx(slow, abs=1e-3)
    assert choice.rule in ("mse", max(slow, key=lambda rule: slow[rule]))
    assert choice.float_layers == ()


INF = float("inf")


@pytest.mark.parametrize(
    ("mse", "minmax", "rule"),
    [
        ((30.0, 30.0, 30.0), (30.09, 30.09, 30.09), "mse"),
        ((30.0, 30.0, 30.0), (30.2, 30.21, 30.2), "minmax"),
        ((30.2, 30.2, 30.2), (30.0, 30.0, 30.0), "mse"),
        ((30.0, 30.0, 30.0, 30.0), (34.0, 29.0, 33.0, 29.5), "minmax"),
        ((INF, INF, INF), (INF, INF, INF), "mse"),
        ((-INF, -INF, -INF), (20.0, 20.0, 21.0), "minmax"),
    ],
)
def test_mse_in_a_tie(
    residual: Graph,
    residual_ranges: RangeTable,
    samples: tuple[Sample, ...],
    monkeypatch: pytest.MonkeyPatch,
    mse: tuple[float, ...],
    minmax: tuple[float, ...],
    rule: str,
) -> None:
    answers = iter([Trial(sum(each) / len(each), each) for each in (mse, minmax)])
    monkeypatch.setattr(choosing.Trials, "of", lambda *_: next(answers))
    found = choose(residual, residual_ranges, samples[:1], SPEC, rules=("mse", "minmax"), most_float=0)
    assert found.rule == rule


@pytest.mark.parametrize(
    ("before", "after", "better"),
    [
        ((20.0, (20.0, 20.0)), (21.0, (21.0, 20.5)), True),
        ((20.0, (20.0, 20.0)), (20.05, (22.0, 22.0)), False),
        # better on the whole for one picture, and worse on most
        ((20.0, (10.0, 40.0, 40.0)), (22.0, (12.0, 35.0, 35.0)), False),
        ((20.0, (20.0, 20.0)), (19.0, (25.0, 25.0)), False),
        ((math.inf, (math.inf,)), (math.inf, (math.inf,)), False),
        ((20.0, (20.0,)), (math.inf, (math.inf,)), True),
        ((20.0, (20.0,)), (-math.inf, (-math.inf,)), False),
    ],
)
def test_better_is_what_loses_less_on_the_whole_and_picture_by_picture(
    before: tuple[float, tuple[float, ...]], after: tuple[float, tuple[float, ...]], better: bool
) -> None:
    assert loses_less(Trial(*after), Trial(*before)) is better


def test_each_picture_is_measured_alone_too(residual: Graph, samples: tuple[Sample, ...]) -> None:
    table = ranges_from_pictures(residual, samples[:20], SPEC)
    model = qdq_from_onnx(residual, table, layout="tensorrt")
    found = choosing.Trials(residual, samples[20:24], SPEC, 1).of(model)
    alone = [slow_sqnr_db(residual, table, (sample,)) for sample in samples[20:24]]
    assert found.by_picture == pytest.approx(tuple(alone), abs=1e-3)
    assert found.sqnr_db == pytest.approx(slow_sqnr_db(residual, table, samples[20:24]), abs=1e-3)


def test_an_outlier_that_min_max_keeps_is_cut_by_the_chosen_rule(
    samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    graph = graph_of(residual_model(seed=2))
    # one picture of strong noise among the calibrating ones: min-max keeps what it makes for good
    cv2.imwrite(
        str(tmp_path / "loud.png"), np.random.default_rng(0).integers(0, 2, (SIDE, SIDE, 3), np.uint8) * np.uint8(255)
    )
    loud = Sample(path=tmp_path / "loud.png", image="loud.png", label="")
    table = ranges_from_pictures(graph, [*samples[:20], loud], SPEC)
    found = choose(graph, table, samples[20:], SPEC, most_float=0)
    assert found.rule != "minmax"
    assert found.sqnr_db[found.rule] > found.sqnr_db["minmax"]


def test_a_table_says_what_was_chosen_and_survives_the_disk(
    residual: Graph, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    said: list[str] = []
    table = calibrate(residual, samples, SPEC, say=said.append)
    assert table.n == 24 and len(table.choosing) == 6 and set(table.sqnr_db) == set(RULES)
    assert {one.sha256 for one in table.pictures}.isdisjoint(one.sha256 for one in table.choosing)
    assert {row.chosen for row in table.tensors.values()} == {table.rule}
    assert said == ["warning: only 24 pictures to calibrate on; below 64 ranges still move when more come"]
    assert why_of(table).startswith(f"rule {table.rule}, chosen on 6 pictures of their own (mse ")
    write_ranges(tmp_path / "ranges.json", table)
    assert read_ranges(tmp_path / "ranges.json") == table
    assert calibrate(residual, samples, SPEC).digest() == table.digest()


def test_one_picture_calibrates_and_is_told_to_be_few(residual: Graph, samples: tuple[Sample, ...]) -> None:
    said: list[str] = []
    table = calibrate(residual, samples[:1], SPEC, say=said.append)
    assert (table.n, table.choosing, table.rule) == (1, (), "mse")
    assert said == ["warning: only 1 picture to calibrate on; below 64 ranges still move when more come"]
    assert why_of(table) == (
        "rule mse, untested: no pictures of other parts are left to choose on; give ten or more"
    )


def test_pictures_of_one_grey_are_refused(residual: Graph, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((SIDE, SIDE, 3), 255, np.uint8))
    table = ranges_from_pictures(residual, [Sample(tmp_path / "grey.png", "grey.png", "")], WHITE)
    sentence = "every picture is one grey, frame = .* throughout; that has no range: give pictures of parts"
    with pytest.raises(RangeError, match=f"^{sentence}$"):
        constant_tensors(table, residual)


WHITE = type(SPEC)(width=SIDE, height=SIDE, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


# -- layers in float


def test_first_layers_and_heads_are_found_whatever_lies_between(residual: Graph, concat: Graph) -> None:
    assert ends_of(residual) == ["stem.node", "cells.node"]
    assert ends_of(concat) == ["down1.node", "cells.node"]
    assert ends_of(residual, ("stem.node",)) == ["cells.node"]
    build = Builder(1)
    grey = build.add("Mul", ["frame", build.constant("weigh", np.array(0.5, np.float32))], "weighed")
    at = build.add("Relu", [build.conv(grey, "stem", 3, 8)], "stem.on")
    build.conv(at, "left", 8, 1), build.conv(at, "right", 8, 1)
    build.add("Concat", ["left", "right"], "cells", axis=1)
    assert ends_of(graph_of(build.model({"cells": ["N", 2, SIDE, SIDE]}))) == ["stem.node", "left.node", "right.node"]


def with_a_delicate_head(seed: int = 0) -> Graph:
    """A head that lives on small differences of large values: int8 in front of it takes them away."""
    build = Builder(seed)
    at = build.add("Relu", [build.conv("frame", "stem", 3, 8)], "stem.on")
    at = build.add("Relu", [build.conv(at, "mid", 8, 8)], "mid.on")
    build.conv(at, "cells", 8, 1, kernel=1)
    model = build.model({"cells": ["N", 1, SIDE, SIDE]})
    for tensor in model.graph.initializer:
        if tensor.name == "cells.weight":
            # each weight nearly cancels its neighbour, so the errors of both outlive their values
            values = numpy_helper.to_array(tensor).copy()
            values[:, 1::2] = -values[:, ::2]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        if tensor.name in ("mid.weight", "mid.bias"):
            values = numpy_helper.to_array(tensor).copy()
            values[1::2] = values[::2] * np.float32(0.97)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return graph_of(model)


def test_a_layer_stays_in_float_exactly_where_that_gains_what_it_must(samples: tuple[Sample, ...]) -> None:
    graph = with_a_delicate_head()
    table = ranges_from_pictures(graph, samples[:20], SPEC)
    found = choose(graph, table, samples[20:], SPEC, rules=("mse",))
    wholly = slow_sqnr_db(graph, table, samples[20:])
    alone = {
        name: slow_sqnr_db(graph, table, samples[20:], keep_float=[name]) - wholly
        for name in ("stem.node", "cells.node")
    }
    assert found.gains_db == pytest.approx(alone, abs=1e-3)
    assert alone["cells.node"] > choosing.WORTH_DB
    kept = [layer.node for layer in found.float_layers]
    assert kept[0] == max(alone, key=lambda name: alone[name])
    reached = wholly
    for number, layer in enumerate(found.float_layers):
        with_it = slow_sqnr_db(graph, table, samples[20:], keep_float=kept[: number + 1])
        assert layer.gain_db == pytest.approx(with_it - reached, abs=1e-3) and layer.gain_db >= choosing.WORTH_DB
        assert layer.why == f"leaving it in float raises the outputs' SQNR from {reached:.1f} to {with_it:.1f} dB"
        reached = with_it


@pytest.mark.parametrize(
    ("head", "most", "kept"),
    [
        ((31.0, 31.1, 30.9, 31.0), None, ["cells.node"]),
        # little over all of them
        ((30.4, 30.4, 30.4, 30.4), None, []),
        ((30.4, 30.4, 30.4, 30.4), 1, ["cells.node"]),
    ],
)
def test_a_small_gain_leaves_no_layer_in_float_unasked(
    residual: Graph,
    residual_ranges: RangeTable,
    samples: tuple[Sample, ...],
    monkeypatch: pytest.MonkeyPatch,
    head: tuple[float, ...],
    most: int | None,
    kept: list[str],
) -> None:
    def of(_: object, model: ModelProto) -> Trial:
        each = head if any(tensor.name == "cells.weight" for tensor in model.graph.initializer) else (30.0,) * 4
        return Trial(sum(each) / len(each), each)

    monkeypatch.setattr(choosing.Trials, "of", of)
    found = choose(residual, residual_ranges, samples[:1], SPEC, rules=("mse",), most_float=most)
    assert [layer.node for layer in found.float_layers] == kept


def test_of_all_layers_at_most_so_many_stay_in_float(samples: tuple[Sample, ...]) -> None:
    graph = graph_of(residual_model())
    table = ranges_from_pictures(graph, samples[:20], SPEC)
    found = choose(graph, table, samples[20:24], SPEC, rules=("mse",), most_float=2)
    convolutions = {node.name for node in graph.nodes if node.op_type == "Conv"}
    assert set(found.gains_db) == convolutions
    assert 1 <= len(found.float_layers) <= 2
    assert all(layer.gain_db > 0 for layer in found.float_layers)
    first = found.float_layers[0].node
    again = choose(graph, table, samples[20:24], SPEC, rules=("mse",), keep_float=[first], most_float=1)
    assert first not in again.gains_db


# -- the measure


def test_noise_adds_up_to_the_sqnr_of_everything_at_once() -> None:
    random = np.random.default_rng(0)
    before = random.normal(size=(6, 2, 4, 4)).astype(np.float32)
    after = before + random.normal(size=before.shape).astype(np.float32) * 0.01
    noise = Noise()
    for n in range(6):
        noise.see({"cells": before[n], "feature": before[n]}, {"cells": after[n], "feature": 9 * after[n]})
    assert noise.sqnr_db == pytest.approx(sqnr_db(before, after), abs=1e-3), "nothing is judged by the feature"
    noise.see({"cells": before[0]}, {"cells": np.full_like(before[0], np.nan)})
    assert noise.sqnr_db == -np.inf
    exact = Noise()
    exact.see({"feature": before}, {"feature": before})
    assert exact.sqnr_db == np.inf


def test_what_is_infinite_is_left_out_of_the_table(residual_ranges: RangeTable) -> None:
    choice = Choice("kl", {"mse": np.inf, "kl": 31.0}, (FloatLayer(node="stem.node", gain_db=1.0, why="w"),))
    table = table_with(residual_ranges, choice, residual_ranges.pictures)
    assert table.sqnr_db == {"mse": None, "kl": 31.0} and table.rule == "kl"
    assert "(mse exact, kl 31.0 dB); left in float for TensorRT: stem.node (+1.0 dB)" in why_of(table)
