from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.errors import MissingPackage, RunnerError
from edge_sdk.runners import open_runner
from edge_sdk.runners.ort import OrtRunner
from tests.runners.graphs import cells_graph


def test_a_missing_model_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        open_runner(tmp_path / "model.onnx")
    assert str(caught.value) == f"there is no model {tmp_path}/model.onnx; is the path right?"


def test_a_file_that_nothing_executes_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunnerError) as caught:
        open_runner(tmp_path / "model.pt")
    assert str(caught.value) == "nothing here executes model.pt; give a file that ends in .onnx"


def test_no_threads_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="threads is 0; give at least 1"):
        open_runner(cells_graph(tmp_path / "model.onnx"), threads=0)


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x08" * 500])
def test_a_damaged_model_is_one_clear_sentence(tmp_path: Path, content: bytes) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    with pytest.raises(RunnerError) as caught:
        open_runner(model)
    said = str(caught.value)
    assert said.startswith(f"{model} is refused by ONNX Runtime ")
    assert said.endswith("; it is damaged, or exported for a newer version: export it again")
    assert "\n" not in said


def test_a_model_for_a_newer_version_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="is refused by ONNX Runtime"):
        open_runner(cells_graph(tmp_path / "model.onnx", ir=250))


def test_a_model_cut_short_anywhere_is_refused_or_refuses_to_run(tmp_path: Path) -> None:
    data = cells_graph(tmp_path / "whole.onnx").read_bytes()
    model = tmp_path / "model.onnx"
    for length in range(1, len(data), 37):
        model.write_bytes(data[:length])
        with pytest.raises(RunnerError):
            open_runner(model).infer({"frame": np.zeros((1, 3, 64, 64), np.float32)})


def test_onnx_runtime_that_is_not_installed_is_said_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cells_graph(tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingPackage) as caught:
        open_runner(model)
    assert str(caught.value) == (
        "model.onnx needs ONNX Runtime, which is not installed; pip install 'edge-sdk[cpu]'"
    )


def test_threads_are_those_given(tmp_path: Path) -> None:
    runner = OrtRunner(cells_graph(tmp_path / "model.onnx"), threads=3)
    options = runner._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (3, 1)
    runner.close()


def test_a_reference_runs_the_graph_as_it_is_written(tmp_path: Path) -> None:
    model = cells_graph(tmp_path / "model.onnx")
    fed = {"frame": np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)}
    plain, reference = OrtRunner(model), OrtRunner(model, as_written=True)
    np.testing.assert_array_equal(plain.infer(fed)["cells"], reference.infer(fed)["cells"])


def test_two_threads_that_share_a_runner_get_their_own_answers(tmp_path: Path) -> None:
    runner = open_runner(cells_graph(tmp_path / "model.onnx"))
    wrong: list[float] = []

    def ask(value: float) -> None:
        fed = {"frame": np.full((1, 3, 64, 64), value, np.float32)}
        for _ in range(50):
            found = runner.infer(fed)["cells"]
            wrong.extend(found[~np.isclose(found, value)].tolist())

    threads = [threading.Thread(target=ask, args=(value,)) for value in (1.0, 2.0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    runner.close()
