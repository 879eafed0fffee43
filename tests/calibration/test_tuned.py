"""Fine-tuned weights on disk, and what they are refused for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calibration.graphs import Graph
from calibration.qdq import qdq_from_onnx
from calibration.ranges import PictureEntry, RangeTable
from calibration.renderings import tuned_of as weights_of
from calibration.tuned import Judgement, Tuned, TunedFile, read_tuned, tuned_digest_of, write_tuned
from edge_sdk.errors import FormatError
from tests.calibration.networks import save


def tuned_of(graph: Graph, table: RangeTable) -> Tuned:
    name = next(node.input[1] for node in graph.nodes if node.op_type == "Conv")
    said = TunedFile(
        graph_sha256=graph.digest,
        ranges_sha256=table.digest(),
        pictures=(PictureEntry(name="a.png", sha256="1" * 64),),
        judged_on=3,
        trt=Judgement(before_db=20.0, after_db=25.0, taken=True),
        cpu=Judgement(before_db=None, after_db=None, taken=False),
        epochs=2,
        rate=0.001,
        seed=0,
        losses=(0.02, 0.01),
    )
    return Tuned(said, {name: graph.weight(name) * np.float32(1.5)})


@pytest.fixture
def tuned(residual: Graph, residual_ranges: RangeTable) -> Tuned:
    return tuned_of(residual, residual_ranges)


def test_weights_survive_the_disk(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    write_tuned(path, tuned)
    found = read_tuned(path)
    assert found.said == tuned.said and found.digest == tuned.digest
    assert all(np.array_equal(values, tuned.weights[name]) for name, values in found.weights.items())


def test_a_rendering_says_which_weights_it_has(residual: Graph, residual_ranges: RangeTable, tuned: Tuned) -> None:
    plain = qdq_from_onnx(residual, residual_ranges, layout="tensorrt")
    finer = qdq_from_onnx(residual, residual_ranges, layout="tensorrt", tuned=tuned)
    assert tuned_digest_of(plain) is None and tuned_digest_of(finer) == tuned.digest
    said = {entry.key: entry.value for entry in finer.metadata_props}
    assert said["edge_sdk.fp32"] == residual.digest and said["edge_sdk.ranges"] == residual_ranges.digest()


def test_weights_of_another_graph_or_table_are_refused(
    residual: Graph, residual_ranges: RangeTable, concat: Graph, concat_ranges: RangeTable, tuned: Tuned
) -> None:
    with pytest.raises(FormatError, match="were fine-tuned for graph .*, but this is graph .*; fine-tune again"):
        qdq_from_onnx(concat, concat_ranges, layout="tensorrt", tuned=tuned)
    other = residual_ranges.model_copy(update={"n": 99})
    with pytest.raises(FormatError, match="were fine-tuned for range table .*, but this is range table"):
        qdq_from_onnx(residual, other, layout="tensorrt", tuned=tuned)
    (name,) = tuned.weights
    for weights in ({"strange": tuned.weights[name]}, {name: tuned.weights[name][:1]}):
        with pytest.raises(FormatError, match="the fine-tuned weight .* does not fit the graph"):
            qdq_from_onnx(residual, residual_ranges, layout="tensorrt", tuned=Tuned(tuned.said, weights))


def test_a_damaged_file_is_one_sentence(tuned: Tuned, tmp_path: Path) -> None:
    path = tmp_path / "tuned.safetensors"
    with pytest.raises(FormatError, match="cannot be read .*is the path right"):
        read_tuned(path)
    for data in (b"", b"PK\x03\x04", tuned.data[:-3], tuned.data[:40]):
        path.write_bytes(data)
        with pytest.raises(FormatError, match="holds no fine-tuned weights, or is damaged; fine-tune again"):
            read_tuned(path)
    path.write_bytes(tuned.data.replace(b"tuned/1", b"tuned/9"))
    with pytest.raises(FormatError, match=r"schema is .tuned/9."):
        read_tuned(path)


def test_renderings_that_were_written_with_different_weights_are_not_taken_for_one(
    residual: Graph, residual_ranges: RangeTable, tuned: Tuned, tmp_path: Path
) -> None:
    path, (name,) = tmp_path / "tuned.safetensors", tuned.weights
    write_tuned(path, tuned)
    other = Tuned(tuned.said, {name: tuned.weights[name] * np.float32(2)})
    files = {
        kind: save(qdq_from_onnx(residual, residual_ranges, layout=layout, tuned=weights), tmp_path / f"{kind}.onnx")
        for kind, layout, weights in (("trt", "tensorrt", tuned), ("cpu", "onnxruntime", other))
    }
    plain = save(qdq_from_onnx(residual, residual_ranges, layout="onnxruntime"), tmp_path / "plain.onnx")
    found, kinds = weights_of({"trt": files["trt"], "cpu": plain}, path)
    assert found is not None and found.digest == tuned.digest and kinds == ("trt",)
    assert weights_of({"cpu": plain}, tmp_path / "missing") == (None, ())
    with pytest.raises(FormatError, match=r"cpu.onnx was rendered with other fine-tuned weights than .*: --tuned"):
        weights_of(files, path)
