"""The thread that owns a camera, and the bounded place where its frames wait."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

import numpy as np

from edge_sdk.capture import Capture, Handover
from edge_sdk.clock import FakeClock
from edge_sdk.errors import CameraLost, EndOfFrames
from edge_sdk.frames import Frame
from edge_sdk.health import Ledger
from edge_sdk.testing import FakeCamera

AT = datetime(2026, 11, 21, tzinfo=timezone.utc)


def frame(index: int) -> Frame:
    return Frame(np.full((4, 4, 3), 1, np.uint8), "left", index, AT)


def test_the_capture_counts_a_read_that_never_returns_as_stuck() -> None:
    clock = FakeClock()
    entered, leave = threading.Event(), threading.Event()

    class Hangs:
        def read(self, timeout_s: float) -> Frame:
            entered.set()
            leave.wait(10)
            raise EndOfFrames("at last")

        def close(self) -> None: ...

    capture = Capture(
        Hangs(), Handover(lossless=False), Ledger(), left=lambda frame: None, read_timeout_s=1.0, clock=clock
    )
    capture.start()
    entered.wait(10)
    assert not capture.stuck
    clock.advance(3.1)
    assert capture.stuck
    leave.set()
    capture.stop()
    assert not capture.stuck


def test_a_stop_wakes_a_read_that_waits_for_a_frame() -> None:
    closed = threading.Event()

    class Waits:
        def read(self, timeout_s: float) -> Frame:
            closed.wait(timeout_s)
            raise CameraLost("the camera was closed")

        def close(self) -> None:
            closed.set()

    capture = Capture(
        Waits(), Handover(lossless=False), Ledger(), left=lambda frame: None, read_timeout_s=60.0
    )
    capture.start()
    began = time.monotonic()
    capture.stop()
    assert time.monotonic() - began < 10
    assert (capture.losses, capture.error) == (0, None)


def test_a_capture_that_never_started_still_closes_its_camera() -> None:
    camera = FakeCamera([])
    capture = Capture(camera, Handover(lossless=False), Ledger(), left=lambda frame: None, read_timeout_s=1.0)
    capture.stop()
    assert camera.closed


def test_a_frame_put_after_the_end_comes_straight_back() -> None:
    handover = Handover(lossless=True)
    handover.finish()
    late = frame(0)
    assert handover.put(late) is late
    assert handover.exhausted
