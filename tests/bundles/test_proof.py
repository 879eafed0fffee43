from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk.arrays import Array
from edge_sdk.bundles import Bundle, open_bundle, prove
from edge_sdk.bundles.proof import measure
from edge_sdk.errors import GateError, RunnerError
from edge_sdk.runners import open_runner
from edge_sdk.testing import FakeRunner
from tests.bundles.making import Parts, npz, put_folder, put_tar, seal
from tests.runners.graphs import cells_graph


@pytest.fixture
def bundle(tmp_path: Path, plain: Parts) -> Bundle:
    return open_bundle(put_folder(plain, tmp_path / "b"), trust="unsigned")


@pytest.mark.parametrize("platform", ["cpu-fp32", "cpu"])
def test_the_graphs_of_a_bundle_prove_themselves(bundle: Bundle, platform: str) -> None:
    path, role = bundle.model(platform)
    runner = open_runner(path)
    assert prove(bundle, runner, against="graph" if role == "fp32" else "fp32") == ()
    measured = measure(bundle, runner)
    assert (measured.pictures, measured.flips) == (4, ())
    runner.close()


def test_a_graph_that_judges_otherwise_is_refused_with_sentences(bundle: Bundle, tmp_path: Path) -> None:
    runner = open_runner(cells_graph(tmp_path / "other.onnx", scale=4.0))
    findings = prove(bundle, runner)
    assert {finding.gate for finding in findings} >= {"agreement", "cells_agreement", "sqnr_db"}
    assert "2 of 4 pictures got another verdict than from FP32; at most 1 may" in findings[0].sentence


def test_a_rendering_is_also_held_to_its_own_golden_outputs(tmp_path: Path, plain: Parts) -> None:
    """A processor whose INT8 arithmetic saturates may still agree with FP32 well enough."""
    bundle = open_bundle(put_folder(plain, tmp_path / "plain"), trust="unsigned")
    cells = bundle.golden().expected["cells"]
    runner = open_runner(bundle.model_path("cpu"))

    def proved_with(own: Array) -> list[str]:
        parts = seal({**plain, "golden/expected.npz": npz(**{"cells": cells, "cells.int8-cpu": own})})
        renewed = open_bundle(put_tar(parts, tmp_path / "b.bundle"), trust="unsigned")
        return [finding.gate for finding in prove(renewed, runner, against="fp32", role="int8-cpu")]

    assert proved_with(cells * np.float32(1.0025)) == []
    assert proved_with(cells * np.float32(1.3)) == ["sqnr_db"]
    runner.close()


def test_an_engine_that_gives_no_numbers_does_not_pass(bundle: Bundle) -> None:
    runner = FakeRunner({"cells": np.full((1, 1, 4, 4), np.nan, np.float32)})
    with pytest.raises(RunnerError, match="are NaN or infinite"):
        prove(bundle, runner)


def test_an_engine_of_another_grid_is_one_clear_sentence(bundle: Bundle) -> None:
    runner = FakeRunner({"cells": np.zeros((1, 1, 8, 8), np.float32)})
    with pytest.raises(GateError) as caught:
        prove(bundle, runner)
    assert str(caught.value) == (
        "press-3-1 expects cells (1, 4, 4) of a golden frame and the graph gives (1, 8, 8); "
        "the graph is not the one that was packed"
    )


def test_golden_outputs_without_cells_are_one_clear_sentence(tmp_path: Path, plain: Parts) -> None:
    parts = seal({**plain, "golden/expected.npz": npz(novelty=np.zeros((4, 1, 4, 4), np.float32))})
    bundle = open_bundle(put_folder(parts, tmp_path / "b"), trust="unsigned")
    runner = FakeRunner({"cells": np.zeros((1, 1, 4, 4), np.float32)})
    with pytest.raises(GateError) as caught:
        prove(bundle, runner)
    assert str(caught.value) == (
        "press-3-1 expects novelty of its golden frames and the graph gives cells; "
        "both must have cells, pack it again"
    )
