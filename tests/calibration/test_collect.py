"""Watching a graph: the same table whatever the batches, and a sentence for what cannot be watched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import ModelProto, TensorProto, helper

from calibration.collect import ranges_from_pictures
from calibration.graphs import Graph, load_graph
from calibration.observers import Observer
from calibration.pictures import balanced, pictures_in
from calibration.placement import observed_tensors
from calibration.qdq import qdq_from_onnx
from calibration.ranges import PictureEntry, RangeTable, read_ranges, spec_digest, table_of, write_ranges
from calibration.scales import RULES, Rule
from edge_sdk.arrays import Array
from edge_sdk.documents import canonical_json, parse_json, sha256_hex
from edge_sdk.errors import DatasetError, FormatError, RangeError
from edge_sdk.quality.datasets import Sample, read_image
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, Builder, graph_of, save


def folder_of(path: Path, count: int) -> Path:
    path.mkdir()
    for n in range(count):
        cv2.imwrite(str(path / f"{n}.png"), drawn_picture(40, 50, seed=n))
    return path


def test_the_order_of_the_pictures_changes_nothing(residual: Graph, tmp_path: Path) -> None:
    samples = pictures_in(folder_of(tmp_path / "pictures", 6))
    one, other = (ranges_from_pictures(residual, given, SPEC) for given in (samples, samples[::-1]))
    assert one.tensors == other.tensors


def test_what_was_seen_is_what_the_graph_computes(residual: Graph, tmp_path: Path) -> None:
    (sample,) = pictures_in(folder_of(tmp_path / "pictures", 1))
    found, frame = ranges_from_pictures(residual, [sample], SPEC).tensors, preprocess(read_image(sample), SPEC)
    assert tuple(sorted(found)) == tuple(sorted(observed_tensors(residual)))
    assert (found["frame"].lo, found["frame"].hi) == (float(frame.min()), float(frame.max()))
    assert found["stem.on"].lo == 0


def test_a_table_survives_the_disk(residual_ranges: RangeTable, tmp_path: Path) -> None:
    write_ranges(tmp_path / "ranges.json", residual_ranges)
    again = read_ranges(tmp_path / "ranges.json")
    assert again == residual_ranges
    assert canonical_json(again) == (tmp_path / "ranges.json").read_bytes()
    assert again.digest() == residual_ranges.digest()


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e9, 1e9, width=32)),
    st.sampled_from(RULES),
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=8), min_size=1, max_size=3),
)
def test_any_table_survives_its_bytes(residual: Graph, values: Array, rule: Rule, names: list[str]) -> None:
    observer = Observer()
    observer.see(values)
    pictures = [PictureEntry(name=name, sha256=sha256_hex(name.encode())) for name in names]
    table = table_of({"t": observer.histogram()}, graph=residual, spec=SPEC, pictures=pictures, rule=rule)
    again = parse_json(canonical_json(table), RangeTable, name="ranges.json")
    assert again == table
    assert np.array_equal(again.of("t").histogram.counts, observer.histogram().counts)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (b'"ranges/1"', b'"ranges/2"', "schema"),
        (b'"chosen":"mse"', b'"chosen":"best"', "chosen"),
        (b'"bin_width":', b'"bin_width":-', "bin_width"),
        (b"{", b"", "is not JSON"),
    ],
)
def test_a_damaged_table_is_refused(
    residual_ranges: RangeTable, tmp_path: Path, old: bytes, new: bytes, sentence: str
) -> None:
    path = tmp_path / "ranges.json"
    path.write_bytes(canonical_json(residual_ranges).replace(old, new, 1))
    with pytest.raises(FormatError, match=rf"^{path}.*{sentence}"):
        read_ranges(path)


def test_a_table_knows_graph_preprocessing_and_pictures(residual: Graph, tmp_path: Path) -> None:
    samples = pictures_in(folder_of(tmp_path / "pictures", 3))
    steps: list[None] = []
    table = ranges_from_pictures(residual, samples, SPEC, progress=lambda: steps.append(None))
    assert len(steps) == table.n == 3
    assert table.graph_sha256 == residual.digest
    assert (
        table.preprocess_sha256 == spec_digest(SPEC) != spec_digest(PreprocessSpec(SIDE, SIDE, colour="bgr"))
    )
    assert [picture.name for picture in table.pictures] == ["0.png", "1.png", "2.png"]
    fewer = ranges_from_pictures(residual, samples[:2], SPEC)
    assert fewer.pictures_sha256 != table.pictures_sha256
    assert ranges_from_pictures(residual, samples, SPEC) == table


def test_an_empty_calibration_set_is_refused(residual: Graph, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="^there is no picture to calibrate on; give a folder with at least one,"
    ):
        ranges_from_pictures(residual, [], SPEC)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(
        DatasetError, match=f"^{empty} holds no picture; give a folder with PNG, JPEG, BMP or TIFF"
    ):
        pictures_in(empty)
    with pytest.raises(DatasetError, match=f"^there is no folder {tmp_path / 'nowhere'}; is the path right"):
        pictures_in(tmp_path / "nowhere")


def test_a_picture_that_makes_a_tensor_nan_is_named(tmp_path: Path) -> None:
    build = Builder()
    at = build.add("Log", ["frame"], "log")
    build.conv(at, "cells", 3, 1)
    graph = graph_of(build.model({"cells": ["N", 1, SIDE, SIDE]}))
    samples = pictures_in(folder_of(tmp_path / "pictures", 1))
    sentence = (
        "picture 0.png: tensor log has a value that is NaN; a range needs finite values; is the checkpoint"
    )
    with pytest.raises(RangeError, match=f"^{sentence} sound.$"):
        ranges_from_pictures(graph, samples, SPEC)


def test_a_preprocessing_of_another_size_is_refused(residual: Graph) -> None:
    sample = Sample(path=Path("a.png"), image="a.png", label="")
    sentence = (
        "the graph takes 3 x 32 x 32 but the preprocessing makes 3 x 48 x 64; give the preprocess.json that was "
        "exported with it"
    )
    with pytest.raises(FormatError, match=f"^{sentence}$"):
        ranges_from_pictures(residual, [sample], PreprocessSpec(width=64, height=48))


def test_a_graph_without_weights_has_nothing_to_quantise(tmp_path: Path) -> None:
    given = helper.make_tensor_value_info("frame", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    made = helper.make_tensor_value_info("cells", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    node = helper.make_node("Relu", ["frame"], ["cells"])
    model = helper.make_model(helper.make_graph([node], "g", [given], [made]), ir_version=10)
    with pytest.raises(
        FormatError, match="^the graph has no Conv, Gemm or MatMul with fixed weights; there is"
    ):
        ranges_from_pictures(graph_of(model), pictures_in(folder_of(tmp_path / "pictures", 1)), SPEC)


def test_a_graph_that_is_already_quantised_is_refused(
    residual: Graph, residual_ranges: RangeTable, tmp_path: Path
) -> None:
    path = save(qdq_from_onnx(residual, residual_ranges, layout="tensorrt"), tmp_path / "model.trt.onnx")
    sentence = f"{path} is already quantised: it holds 21 quantising nodes; give the FP32 graph, model.onnx"
    with pytest.raises(FormatError, match=f"^{sentence}$"):
        load_graph(path)


def branching() -> ModelProto:
    """A convolution behind a choice."""
    branches = {
        name: helper.make_graph(
            [helper.make_node("Identity", ["frame"], [f"{name}.out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}.out", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])],
        )
        for name in ("then_branch", "else_branch")
    }
    build = Builder()
    always = build.constant("always", np.array(True))
    build.add("If", [always], "either", **branches)
    build.conv("either", "cells", 3, 1)
    return build.model({"cells": ["N", 1, SIDE, SIDE]})


def of_opset(version: int) -> ModelProto:
    build = Builder()
    build.conv("frame", "cells", 3, 1)
    model = build.model({"cells": ["N", 1, SIDE, SIDE]})
    model.opset_import[0].version = version
    return model


def of_another_domain() -> ModelProto:
    model = of_opset(19)
    model.graph.node.append(helper.make_node("Gelu", ["cells"], ["more"], name="gelu", domain="com.microsoft"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (
            branching,
            "has control flow (node either.node is an If): what may not run has no range; "
            "export the network without it",
        ),
        (
            lambda: of_opset(11),
            "is of opset 11, but a weight can be quantised per channel from opset 13 on; export it with opset 19",
        ),
        (
            of_another_domain,
            "holds com.microsoft.Gelu (node gelu), which is no ONNX operation; replace it in the network by ones that "
            "are, and export it again",
        ),
    ],
)
def test_a_graph_that_cannot_be_calibrated_is_refused(
    made: Callable[[], ModelProto], sentence: str, tmp_path: Path
) -> None:
    path = save(made(), tmp_path / "model.onnx")
    with pytest.raises(FormatError) as refused:
        load_graph(path)
    assert str(refused.value) == f"{path} {sentence}"


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=f"^{tmp_path / 'none.onnx'} cannot be read .No such file"):
        load_graph(tmp_path / "none.onnx")
    for content in (b"", b"not a graph at all", b"\x08\x0a" * 40):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(FormatError, match=f"^{tmp_path / 'bad.onnx'} is no ONNX graph"):
            load_graph(tmp_path / "bad.onnx")


def test_the_choice_is_even_over_domains_and_labels_and_always_the_same() -> None:
    samples = [
        Sample(
            path=Path(f"{n}.png"),
            image=f"{n:03d}.png",
            label="good" if n % 10 else "crack",
            domain="ab"[n % 2],
        )
        for n in range(100)
    ]
    chosen = balanced(samples, 20)
    assert chosen == balanced(list(reversed(samples)), 20)
    counts = {label: sum(sample.label == label for sample in chosen) for label in ("crack", "good")}
    assert counts == {"crack": 7, "good": 13}, "all three heaps in turn"
    assert [sample.image for sample in chosen] == sorted(sample.image for sample in chosen)
    assert balanced(samples, 1000) == tuple(samples)
