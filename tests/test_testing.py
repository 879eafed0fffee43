from __future__ import annotations

import numpy as np
import pytest

from edge_sdk.clock import FakeClock
from edge_sdk.errors import CameraLost, EndOfFrames, FrameTimeout, RunnerError
from edge_sdk.testing import FakeCamera, FakeRunner, drawn_picture


def test_a_fake_camera_fails_in_the_middle_as_told_and_goes_on() -> None:
    camera = FakeCamera([drawn_picture(), FrameTimeout("late"), drawn_picture()], then=CameraLost("gone"))
    assert camera.read(1).index == 0
    with pytest.raises(FrameTimeout, match="late"):
        camera.read(1)
    assert camera.read(1).index == 1
    for _ in range(2):
        with pytest.raises(CameraLost, match="gone"):
            camera.read(1)


def test_a_fake_camera_keeps_a_rate_on_its_clock() -> None:
    clock = FakeClock()
    camera = FakeCamera([drawn_picture()] * 3, rate_hz=10, clock=clock)
    stamps = [camera.read(1).captured_ns for _ in range(3)]
    assert np.diff(stamps).tolist() == [100_000_000] * 2
    with pytest.raises(EndOfFrames, match="the fake camera has played its last picture"):
        camera.read(1)


def test_a_fake_runner_fails_as_told() -> None:
    runner = FakeRunner(RunnerError("the engine is gone"))
    with pytest.raises(RunnerError, match="the engine is gone"):
        runner.infer({"frame": np.zeros((1, 3, 64, 64), np.float32)})
    assert runner.inferences == 1


def test_a_drawn_spot_is_dark_and_where_it_was_asked_for() -> None:
    picture = drawn_picture(100, 100, spot=(30, 60, 8))
    assert picture[30, 60].tolist() == [30, 30, 30]
    assert picture[60, 30].min() > 60
    assert np.array_equal(picture, drawn_picture(100, 100, spot=(30, 60, 8)))
