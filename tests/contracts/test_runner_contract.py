"""One contract for every runner: the fake that tests stand on and the one that judges parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.arrays import Array
from edge_sdk.errors import RunnerError
from edge_sdk.runners import Runner, TensorSpec, open_runner
from edge_sdk.testing import FakeRunner
from tests.runners.graphs import cells_graph

Made = Callable[[float], Runner]
"""A runner whose logits are the mean of a cell times a number."""


def mean_of_cells(scale: float) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
    def answer(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        frame = feeds["frame"]
        cells = frame.reshape(len(frame), 3, 4, 16, 4, 16).mean(axis=(1, 3, 5))[:, None] * np.float32(scale)
        return {"cells": cells, "feature": frame.mean(axis=(2, 3))}

    return answer


@pytest.fixture(params=["fake", "onnxruntime"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Made]:
    runners: list[Runner] = []

    def make(scale: float) -> Runner:
        if request.param == "fake":
            outputs = (
                TensorSpec("cells", "float32", (None, 1, 4, 4)),
                TensorSpec("feature", "float32", (None, 3)),
            )
            runners.append(FakeRunner(mean_of_cells(scale), outputs=outputs))
        else:
            runners.append(open_runner(cells_graph(tmp_path / "model.onnx", scale=scale), threads=1))
        return runners[-1]

    yield make
    for runner in runners:
        runner.close()


@pytest.fixture
def frame() -> Array:
    return np.random.default_rng(0).normal(size=(1, 3, 64, 64)).astype(np.float32)


def test_it_says_what_it_takes_and_gives(made: Made) -> None:
    runner = made(1.0)
    assert runner.inputs == (TensorSpec("frame", "float32", (None, 3, 64, 64)),)
    assert runner.outputs == (
        TensorSpec("cells", "float32", (None, 1, 4, 4)),
        TensorSpec("feature", "float32", (None, 3)),
    )


def test_it_gives_every_output_by_its_name(made: Made, frame: Array) -> None:
    results = made(2.0).infer({"frame": frame})
    assert set(results) == {"cells", "feature"}
    expected = mean_of_cells(2.0)({"frame": frame})
    for name in results:
        np.testing.assert_allclose(results[name], expected[name], atol=1e-5)


def test_batches_are_taken(made: Made, frame: Array) -> None:
    assert made(1.0).infer({"frame": np.repeat(frame, 3, axis=0)})["cells"].shape == (3, 1, 4, 4)


def test_the_input_may_be_used_again_and_the_outputs_kept(made: Made, frame: Array) -> None:
    runner = made(1.0)
    first = runner.infer({"frame": frame})["cells"]
    kept = first.copy()
    frame[:] = 0
    runner.infer({"frame": frame})
    assert np.array_equal(first, kept)


def test_an_input_that_does_not_lie_in_one_piece_is_taken(made: Made, frame: Array) -> None:
    runner = made(1.0)
    crossed = np.asfortranarray(frame)
    whole = runner.infer({"frame": frame})["cells"]
    np.testing.assert_allclose(runner.infer({"frame": crossed})["cells"], whole, atol=1e-6)


@pytest.mark.parametrize(
    ("feeds", "sentence"),
    [
        ({}, "no input 'frame' given; feed 'frame' (N, 3, 64, 64) float32"),
        ({"frame": np.zeros((1, 3, 64, 64))}, "input 'frame' is float64; give float32"),
        (
            {"frame": np.zeros((1, 3, 32, 64), np.float32)},
            "input 'frame' is (1, 3, 32, 64); give (N, 3, 64, 64)",
        ),
        ({"frame": np.zeros((3, 64, 64), np.float32)}, "input 'frame' is (3, 64, 64); give (N, 3, 64, 64)"),
        (
            {"frame": np.zeros((1, 3, 64, 64), np.float32), "mask": np.zeros(1)},
            "there is no input 'mask'; feed 'frame' (N, 3, 64, 64) float32",
        ),
    ],
)
def test_feeds_that_it_does_not_take_are_refused_in_a_sentence(
    made: Made, feeds: dict[str, Array], sentence: str
) -> None:
    with pytest.raises(RunnerError) as caught:
        made(1.0).infer(feeds)
    assert str(caught.value) == sentence


def test_an_output_that_is_no_number_is_an_error_and_never_a_pass(made: Made, frame: Array) -> None:
    frame[0, 0, 0, 0] = np.nan
    with pytest.raises(RunnerError) as caught:
        made(1.0).infer({"frame": frame})
    assert str(caught.value) == (
        "1 of 16 values of output 'cells' are NaN or infinite; the model cannot judge this frame, "
        "prove the bundle again with edge-sdk doctor"
    )


def test_it_may_be_closed_twice_and_then_refuses(made: Made, frame: Array) -> None:
    runner = made(1.0)
    runner.close()
    runner.close()
    with pytest.raises(RunnerError, match="is closed; open it again"):
        runner.infer({"frame": frame})
