"""Real network cameras as processes of their own: they stall, die and come back."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from edge_sdk.cameras import open_camera
from edge_sdk.cameras.live import LiveCamera
from edge_sdk.errors import CameraLost, FrameTimeout
from edge_sdk.frames import Frame
from edge_sdk.testing import drawn_picture
from tests.cameras.pictures import settings
from tests.servers.processes import CameraServer, free_port, mjpeg_server, rtsp_server

pytestmark = pytest.mark.system

COME_BACK_S = 20.0
"""Much longer than it takes, so that a busy machine fails nothing."""


@pytest.fixture(params=["rtsp h264", "rtsp mjpeg", "http"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CameraServer]:
    kind: str = request.param
    if kind == "http":
        paths = []
        for seed in range(3):
            paths.append(tmp_path / f"{seed}.jpg")
            assert cv2.imwrite(str(paths[-1]), drawn_picture(seed=seed))
        started = mjpeg_server(paths)
    else:
        started = rtsp_server(codec=kind.split()[1])
    with started:
        yield started


@pytest.fixture
def camera(server: CameraServer) -> Iterator[LiveCamera]:
    opened = open_camera(server.uri, settings(server.uri, read_timeout_s=1.0, open_timeout_s=10.0))
    assert isinstance(opened, LiveCamera)
    yield opened
    opened.close()


def next_frame(camera: LiveCamera) -> Frame:
    """The next frame, whatever is said in between."""
    until = time.monotonic() + COME_BACK_S
    while True:
        try:
            return camera.read(1.0)
        except (FrameTimeout, CameraLost):
            assert time.monotonic() < until, "the camera did not come back"


def said_until_lost(camera: LiveCamera) -> str:
    """Read until the camera is lost; frames that were under way may still come."""
    until = time.monotonic() + COME_BACK_S
    while time.monotonic() < until:
        try:
            camera.read(1.0)
        except FrameTimeout:
            continue
        except CameraLost as lost:
            return str(lost)
    raise AssertionError("the loss was not noticed")


def test_a_network_camera_delivers_new_frames_in_order(camera: LiveCamera) -> None:
    frames = [next_frame(camera) for _ in range(20)]
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(set(stamps))
    assert len({frame.pixels.tobytes() for frame in frames}) > 1


def test_a_slow_reader_gets_new_frames_and_the_others_are_counted(camera: LiveCamera) -> None:
    next_frame(camera)
    ages = []
    for _ in range(5):
        time.sleep(0.3)
        frame = next_frame(camera)
        ages.append((time.monotonic_ns() - frame.captured_ns) / 1e9)
    assert min(ages) < 0.3, "a queue would be 1.5 s late by now"
    assert camera.counters.dropped > 5


def test_a_server_that_is_killed_is_noticed_and_found_again(server: CameraServer, camera: LiveCamera) -> None:
    last = next_frame(camera)
    server.kill()
    assert said_until_lost(camera) == f"{server.uri} stopped sending; it is opened again"
    server.start()
    assert next_frame(camera).index > last.index
    assert camera.counters.reopened == 1


def test_a_stalled_server_gives_no_stale_frame_and_is_found_again(
    server: CameraServer, camera: LiveCamera
) -> None:
    next_frame(camera)
    server.stall()
    stalled_ns = time.monotonic_ns()
    said = said_until_lost(camera)
    assert said.endswith("; it is opened again")
    noticed_s = (time.monotonic_ns() - stalled_ns) / 1e9
    assert noticed_s < 5
    for _ in range(4):
        with pytest.raises(FrameTimeout):
            camera.read(0.5)
    server.go_on()
    assert next_frame(camera).captured_ns > stalled_ns + 2e9
    assert camera.counters.reopened == 1


def test_a_camera_that_is_away_at_first_is_found_when_it_comes(tmp_path: Path) -> None:
    server = rtsp_server(codec="mjpeg")
    server.start()
    server.kill()
    camera = open_camera(server.uri, settings(server.uri, open_timeout_s=2.0))
    assert isinstance(camera, LiveCamera)
    assert said_until_lost(camera) == (
        f"{server.uri} does not answer; is the camera on, and are address, path and password right?"
    )
    with server:
        assert next_frame(camera).index == 0
    camera.close()


def test_closing_a_camera_that_hangs_in_its_driver_returns(server: CameraServer, camera: LiveCamera) -> None:
    next_frame(camera)
    server.stall()
    started = time.monotonic()
    camera.close()
    assert time.monotonic() - started < 12
    server.go_on()


def test_a_silent_host_does_not_hold_up_another_camera(tmp_path: Path) -> None:
    """One that accepts the connection and says nothing; OpenCV would open the other one only after it."""
    picture = tmp_path / "0.jpg"
    cv2.imwrite(str(picture), drawn_picture())
    with socket.create_server(("127.0.0.1", free_port())) as silent, mjpeg_server([picture]) as server:
        uri = f"rtsp://127.0.0.1:{silent.getsockname()[1]}/line"
        mute = open_camera(uri, settings(uri, open_timeout_s=4.0, read_timeout_s=4.0))
        time.sleep(0.3)
        started = time.monotonic()
        healthy = open_camera(server.uri, settings(server.uri))
        assert isinstance(healthy, LiveCamera)
        next_frame(healthy)
        assert time.monotonic() - started < 3
        healthy.close()
        mute.close()
