from __future__ import annotations

import queue
import threading
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import pytest

from edge_sdk.cameras.live import Backoff, LiveCamera, Taken
from edge_sdk.clock import FakeClock
from edge_sdk.errors import CameraError, CameraLost, FrameTimeout
from edge_sdk.testing import drawn_picture

WAIT_S = 10.0
"""Longer than anything here takes; a read returns as soon as there is something."""
PICTURE = drawn_picture(24, 32)


@dataclass
class Slow:
    """Something that a stream delivers after a while of the fake clock."""

    what: object
    after_s: float


class Script:
    """A source that does what the test tells it next, and notes which thread calls it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.steps: queue.Queue[object] = queue.Queue()
        self.opens: queue.Queue[object] = queue.Queue()
        self.threads: set[int] = set()
        self.released = 0
        self.opened = threading.Semaphore(0)

    def wait_until_opened(self, *, times: int) -> None:
        for _ in range(times):
            assert self.opened.acquire(timeout=WAIT_S)

    def camera(self, **changed: float) -> LiveCamera:
        return LiveCamera(
            self.open,
            what="rtsp://10.0.0.7/line",
            name="left",
            open_timeout_s=changed.get("open_timeout_s", 5.0),
            read_timeout_s=2.0,
            backoff=Backoff(first_s=0.0, most_s=0.0),
            clock=self.clock,
        )

    def open(self) -> Script:
        self.threads.add(threading.get_ident())
        self._do(self.opens.get())
        self.opened.release()
        return self

    def take(self) -> Taken | None:
        self.threads.add(threading.get_ident())
        return self._do(self.steps.get())

    def release(self) -> None:
        self.threads.add(threading.get_ident())
        self.released += 1

    def _do(self, step: object) -> Taken | None:
        if isinstance(step, Slow):
            self.clock.advance(step.after_s)
            step = step.what
        if isinstance(step, Exception):
            raise step
        assert step is None or isinstance(step, Taken)
        return step

    def end(self, camera: LiveCamera) -> None:
        """Let the thread out of whatever it waits for."""
        self.opens.put(CameraLost("over"))
        self.steps.put(None)
        for _ in range(3):
            self.opens.put(CameraLost("over"))
        camera.close()


def taken(at_ms: float | None = None, **more: int) -> Taken:
    return Taken(PICTURE, at_ms, **more)


@pytest.fixture
def script() -> Script:
    return Script()


def connected(script: Script) -> LiveCamera:
    """A camera that has delivered its first frame, at 40 ms of the stream."""
    camera = script.camera()
    script.opens.put(None)
    script.steps.put(taken(40.0))
    assert camera.read(WAIT_S).index == 0
    return camera


def test_frames_carry_name_number_and_arrival(script: Script) -> None:
    camera = script.camera()
    script.opens.put(None)
    script.steps.put(taken(40.0))
    frame = camera.read(WAIT_S)
    assert (frame.camera, frame.index, frame.stamp) == ("left", 0, "arrival")
    assert frame.captured_ns == script.clock.monotonic_ns()
    assert frame.captured_at == script.clock.now()
    assert frame.pixels is PICTURE
    script.end(camera)


def test_a_drivers_own_stamp_is_believed_where_it_is_of_this_clock(script: Script) -> None:
    script.clock.advance(100)
    camera = connected(script)
    now_ns = script.clock.monotonic_ns()
    script.steps.put(taken(80.0, device_ns=now_ns - 30_000_000))
    frame = camera.read(WAIT_S)
    assert (frame.stamp, frame.captured_ns) == ("device", now_ns - 30_000_000)
    assert script.clock.now() - frame.captured_at == timedelta(milliseconds=30)
    script.steps.put(taken(120.0, device_ns=now_ns - 60_000_000_000))
    assert camera.read(WAIT_S).stamp == "arrival"
    script.steps.put(taken(160.0, device_ns=now_ns + 1))
    assert camera.read(WAIT_S).stamp == "arrival"
    script.end(camera)


def test_only_the_newest_frame_waits_and_the_others_are_counted(script: Script) -> None:
    camera = connected(script)
    for at_ms in (80.0, 120.0, 160.0):
        script.steps.put(taken(at_ms))
    script.steps.put(CameraLost("gone"))
    # The thread opens again only when all three have gone through the slot.
    script.opens.put(None)
    script.wait_until_opened(times=2)
    assert camera.read(WAIT_S).index == 3
    assert camera.counters.dropped == 2
    assert camera.counters.frames == 2
    with pytest.raises(CameraLost, match="gone"):
        camera.read(WAIT_S)
    script.end(camera)


def test_a_picture_that_took_as_long_as_the_time_out_is_thrown_away(script: Script) -> None:
    camera = connected(script)
    script.steps.put(Slow(taken(80.0), after_s=2.0))
    with pytest.raises(CameraLost) as caught:
        camera.read(WAIT_S)
    assert str(caught.value) == "rtsp://10.0.0.7/line sent nothing for 2 s; it is opened again"
    assert camera.counters.stale == 1
    script.opens.put(None)
    script.steps.put(taken(40.0))
    assert camera.read(WAIT_S).index == 1
    assert camera.counters.reopened == 1
    script.end(camera)


def test_a_picture_whose_time_did_not_advance_is_thrown_away(script: Script) -> None:
    camera = connected(script)
    script.steps.put(taken(40.0))
    script.steps.put(taken(39.0))
    script.steps.put(taken(80.0))
    assert camera.read(WAIT_S).index == 1
    assert camera.counters.stale == 2
    script.end(camera)


def test_a_source_that_goes_on_repeating_itself_is_lost(script: Script) -> None:
    camera = connected(script)
    for _ in range(3):
        script.steps.put(Slow(taken(40.0), after_s=1.0))
    with pytest.raises(CameraLost) as caught:
        camera.read(WAIT_S)
    assert str(caught.value) == "rtsp://10.0.0.7/line repeats an old frame; it is opened again"
    script.end(camera)


def test_a_source_without_times_is_believed(script: Script) -> None:
    camera = script.camera()
    script.opens.put(None)
    for index in range(3):
        script.steps.put(taken(None))
        assert camera.read(WAIT_S).index == index
    script.end(camera)


def test_a_lost_camera_is_said_once_and_then_waited_for(script: Script) -> None:
    camera = connected(script)
    script.steps.put(None)
    with pytest.raises(CameraLost) as lost:
        camera.read(WAIT_S)
    assert str(lost.value) == "rtsp://10.0.0.7/line stopped sending; it is opened again"
    with pytest.raises(FrameTimeout) as waiting:
        camera.read(0.01)
    assert str(waiting.value).startswith("no frame within 0.01 s: rtsp://10.0.0.7/line stopped sending")
    for _ in range(3):
        script.opens.put(CameraLost("rtsp://10.0.0.7/line does not answer"))
    script.opens.put(None)
    script.steps.put(taken(40.0))
    back = camera.read(WAIT_S)
    assert (back.index, back.follows) == (1, False), "what went by meanwhile no index counts"
    assert camera.counters.reopened == 1
    script.steps.put(taken(80.0))
    assert camera.read(WAIT_S).follows
    script.end(camera)


def test_a_camera_that_is_not_there_yet_gets_its_time_and_is_then_lost(script: Script) -> None:
    camera = script.camera(open_timeout_s=5.0)
    script.opens.put(Slow(CameraLost("it does not answer"), 2.0))
    with pytest.raises(FrameTimeout):
        camera.read(0.05)
    script.opens.put(Slow(CameraLost("it does not answer"), 3.0))
    with pytest.raises(CameraLost, match="it does not answer"):
        camera.read(WAIT_S)
    script.opens.put(None)
    script.steps.put(taken(40.0))
    assert camera.read(WAIT_S).index == 0
    assert camera.counters.reopened == 0, "one that comes for the first time was never gone"
    script.end(camera)


def test_a_quiet_camera_is_a_timeout_and_not_lost(script: Script) -> None:
    camera = connected(script)
    with pytest.raises(FrameTimeout) as caught:
        camera.read(0.01)
    assert str(caught.value) == ("no frame from rtsp://10.0.0.7/line within 0.01 s; the connection stands")
    script.end(camera)


def test_what_breaks_the_thread_reaches_the_reader(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    camera = connected(script)
    script.steps.put(ZeroDivisionError("a driver's bug"))
    for _ in range(2):
        with pytest.raises(CameraError) as caught:
            camera.read(WAIT_S)
        assert str(caught.value) == (
            "rtsp://10.0.0.7/line failed with ZeroDivisionError: a driver's bug; see the log"
        )
        assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert script.released == 1
    camera.close()
    assert [record.getMessage() for record in caplog.records] == ["the camera's thread failed"]


def test_one_thread_alone_touches_the_stream(script: Script) -> None:
    camera = connected(script)
    script.steps.put(None)
    with pytest.raises(CameraLost):
        camera.read(WAIT_S)
    script.opens.put(None)
    script.steps.put(taken(40.0))
    camera.read(WAIT_S)
    closer = threading.Thread(target=camera.close)
    closer.start()
    script.steps.put(taken(80.0))
    closer.join(WAIT_S)
    assert not closer.is_alive()
    assert len(script.threads) == 1
    assert threading.get_ident() not in script.threads
    assert script.released == 2


def test_a_read_that_waits_ends_when_the_camera_is_closed(script: Script) -> None:
    camera = connected(script)
    said: list[str] = []

    def reader() -> None:
        try:
            camera.read(WAIT_S)
        except CameraError as error:
            said.append(str(error))

    thread = threading.Thread(target=reader)
    thread.start()
    script.steps.put(Slow(None, 0.0))
    camera.close()
    script.end(camera)
    thread.join(WAIT_S)
    assert len(said) == 1
    with pytest.raises(CameraError, match="was closed; open the camera again to read from it"):
        camera.read(1)


def test_a_thousand_losses_leave_no_thread_behind(script: Script) -> None:
    before = threading.active_count()
    camera = connected(script)
    for _ in range(1000):
        script.steps.put(None)
        script.opens.put(None)
        script.steps.put(taken(40.0))
    frames = 0
    while camera.counters.reopened < 1000:
        try:
            camera.read(WAIT_S)
            frames += 1
        except CameraLost:
            continue
    assert threading.active_count() == before + 1
    script.end(camera)
    assert threading.active_count() == before
    assert script.released == 1001
    assert np.all(PICTURE == drawn_picture(24, 32)), "nobody wrote to the pixels"
