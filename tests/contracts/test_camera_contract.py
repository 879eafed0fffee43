"""One contract for every camera: the fake that tests stand on, and those that lines are watched with."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.cameras import Camera, open_camera
from edge_sdk.errors import CameraError, CameraLost, EndOfFrames, FrameTimeout
from edge_sdk.frames import Frame
from edge_sdk.testing import FakeCamera, drawn_picture
from tests.cameras.pictures import folder_of, settings, video_of
from tests.servers.processes import CameraServer, mjpeg_server

FRAMES = 6
PLAYED = ["fake", "folder", "video"]


@pytest.fixture(params=[*PLAYED, pytest.param("http", marks=pytest.mark.system)])
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Camera]:
    server: CameraServer | None = None
    if request.param == "fake":
        opened: Camera = FakeCamera([drawn_picture(seed=n) for n in range(FRAMES)], name="left")
    elif request.param == "folder":
        folder_of(tmp_path, FRAMES)
        opened = open_camera(f"file:{tmp_path}", settings(pace="max"), name="left")
    elif request.param == "video":
        opened = open_camera(
            f"file:{video_of(tmp_path / 'line.avi', FRAMES)}", settings(pace="max"), name="left"
        )
    else:
        server = mjpeg_server(_as_jpeg(tmp_path))
        server.start()
        opened = open_camera(server.uri, settings(server.uri), name="left")
    yield opened
    opened.close()
    if server is not None:
        server.kill()


def _as_jpeg(folder: Path) -> list[Path]:
    paths = []
    for number in range(FRAMES):
        paths.append(folder / f"{number}.jpg")
        assert cv2.imwrite(str(paths[-1]), drawn_picture(seed=number))
    return paths


def frames_of(camera: Camera, count: int) -> list[Frame]:
    """So many frames; a live camera may need a moment for its first."""
    frames: list[Frame] = []
    for _ in range(200):
        if len(frames) == count:
            break
        try:
            frames.append(camera.read(1.0))
        except (FrameTimeout, CameraLost):
            continue
    return frames


def test_frames_are_pictures_with_name_number_and_times(camera: Camera) -> None:
    frames = frames_of(camera, FRAMES)
    assert len(frames) == FRAMES
    for frame in frames:
        assert frame.pixels.dtype == np.uint8
        assert frame.pixels.ndim == 3
        assert frame.pixels.shape[2] == 3
        assert frame.pixels.flags.c_contiguous
        assert frame.camera == "left"
        assert frame.captured_at.utcoffset() == timedelta(0)
        assert frame.stamp in ("device", "stream", "arrival")
        assert frame.captured_ns > 0


def test_numbers_rise_and_time_does_not_go_back(camera: Camera) -> None:
    frames = frames_of(camera, FRAMES)
    indices = [frame.index for frame in frames]
    assert indices[0] == 0 or len(set(indices)) == FRAMES
    assert indices == sorted(set(indices))
    stamps = [frame.captured_ns for frame in frames]
    assert stamps == sorted(stamps)


def test_a_frame_keeps_its_pixels_when_the_next_one_comes(camera: Camera) -> None:
    first = frames_of(camera, 1)[0]
    kept = first.pixels.copy()
    frames_of(camera, 3)
    assert np.array_equal(first.pixels, kept)


def test_what_was_handed_out_is_counted(camera: Camera) -> None:
    frames_of(camera, 4)
    assert camera.counters.frames == 4  # type: ignore[attr-defined]


def test_the_end_is_said_again_and_again(camera: Camera, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["camera"] not in PLAYED:
        # A live camera has no end: it goes on instead.
        assert len(frames_of(camera, FRAMES + 3)) == FRAMES + 3
        return
    frames_of(camera, FRAMES)
    for _ in range(3):
        with pytest.raises(EndOfFrames):
            camera.read(1.0)


def test_it_may_be_closed_twice_and_then_refuses(camera: Camera) -> None:
    frames_of(camera, 1)
    camera.close()
    camera.close()
    with pytest.raises(CameraError, match="was closed; open"):
        camera.read(1.0)


def test_it_may_be_closed_before_it_was_read(camera: Camera) -> None:
    camera.close()
    with pytest.raises(CameraError):
        camera.read(1.0)
