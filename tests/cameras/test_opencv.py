"""The calls that go to OpenCV, against a stand-in that notes them: which, and with what."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from edge_sdk.cameras import open_camera, opencv
from edge_sdk.cameras.opencv import bgr8, open_options, redacted
from edge_sdk.errors import CameraError, CameraLost, FrameTimeout, MissingPackage
from edge_sdk.testing import drawn_picture
from tests.cameras.pictures import folder_of, settings, video_of

PICTURE = drawn_picture(24, 32)


class FakeCapture:
    """A ``cv2.VideoCapture`` that delivers ten frames, 40 ms apart, and takes every setting but those refused."""

    refuses: frozenset[int] = frozenset()
    opened: ClassVar[list[tuple[Any, ...]]]

    def __init__(self, *arguments: Any) -> None:
        self.opened.append((*arguments, os.environ.get("OPENCV_FFMPEG_CAPTURE_OPTIONS")))
        self.settings: dict[int, float] = {}
        self.frames = 0

    def isOpened(self) -> bool:  # noqa: N802
        return True

    def read(self) -> tuple[bool, Any]:
        self.frames += 1
        return (True, PICTURE) if self.frames <= 10 else (False, None)

    def get(self, which: int) -> float:
        return 40.0 * self.frames if which == cv2.CAP_PROP_POS_MSEC else 0.0

    def set(self, which: int, value: float) -> bool:
        self.settings[which] = value
        return which not in self.refuses

    def release(self) -> None:
        self.frames = 99


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    class Capture(FakeCapture):
        opened: ClassVar[list[tuple[Any, ...]]] = []

    stand_in = ModuleType("cv2")
    stand_in.__dict__.update({name: getattr(cv2, name) for name in dir(cv2) if name.startswith("CAP_")})
    stand_in.__dict__.update(VideoCapture=Capture, error=cv2.error)
    stand_in.__dict__["videoio_registry"] = SimpleNamespace(hasBackend=lambda backend: True)
    monkeypatch.setattr(opencv, "import_cv2", lambda: stand_in)
    return Capture


def test_a_stream_is_opened_with_its_backend_and_its_time_outs_as_parameters(fake: type[FakeCapture]) -> None:
    uri = "rtsp://user:secret@10.0.0.7/line"
    camera = open_camera(uri, settings(uri, open_timeout_s=3.0, read_timeout_s=0.5))
    camera.read(10)
    camera.close()
    where, backend, parameters, options = fake.opened[0]
    assert (where, backend) == (uri, cv2.CAP_FFMPEG)
    given = dict(zip(parameters[::2], parameters[1::2], strict=True))
    assert given == {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: 3000,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: 500,
        cv2.CAP_PROP_N_THREADS: 1,
    }
    assert options == "rtsp_transport;tcp|fflags;nobuffer"
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ, "a file opened later must not lose frames to it"


def test_options_that_somebody_set_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    with open_options.for_stream():
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
    with open_options.for_file():
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"


def test_two_streams_that_open_at_once_both_find_the_options() -> None:
    with open_options.for_stream():
        with open_options.for_stream():
            pass
        assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == opencv.FFMPEG_OPTIONS
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ


def test_no_password_reaches_a_sentence(fake: type[FakeCapture]) -> None:
    uri = "rtsp://user:secret@10.0.0.7/line?token=1"
    camera = open_camera(uri, settings(uri))
    said = ""
    try:
        while True:
            camera.read(10)
    except CameraLost as lost:
        said = str(lost)
    camera.close()
    assert said == "rtsp://10.0.0.7/line?… stopped sending; it is opened again"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://user:pa@ss@10.0.0.7:554/line", "rtsp://10.0.0.7:554/line"),
        ("rtsp://10.0.0.7", "rtsp://10.0.0.7"),
        ("http://u@h/x@y", "http://h/x@y"),
        ("http://h/x?user=a&pwd=b", "http://h/x?…"),
        ("file:line.avi", "file:line.avi"),
    ],
)
def test_a_uri_is_shown_without_user_and_password(uri: str, shown: str) -> None:
    assert redacted(uri) == shown


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("rtsp:///line", "camera.uri rtsp:///line names no host; e.g. rtsp://10.0.0.7/line"),
        (
            "http://[::1/x",
            "camera.uri http://[::1/x is no address (Invalid IPv6 URL); e.g. rtsp://10.0.0.7/line",
        ),
    ],
)
def test_a_network_uri_without_a_host_is_one_clear_sentence(uri: str, sentence: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(uri, settings("file:x"))
    assert str(caught.value) == sentence


def test_an_opencv_without_ffmpeg_is_said(fake: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opencv.import_cv2().videoio_registry, "hasBackend", lambda backend: False)
    with pytest.raises(CameraError, match="needs an OpenCV with FFmpeg, and this one has none"):
        open_camera("rtsp://10.0.0.7/line", settings())


def test_opencv_that_is_not_installed_is_said_with_the_line_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder_of(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingPackage) as caught:
        open_camera(f"file:{tmp_path}", settings())
    assert str(caught.value) == (
        "this camera needs OpenCV, which is not installed; pip install 'edge-sdk[cpu]', or on a Jetson "
        "apt-get install nvidia-opencv"
    )


def test_a_missing_device_is_one_clear_sentence() -> None:
    with pytest.raises(CameraError) as caught:
        open_camera("v4l2:///dev/video97", settings())
    assert str(caught.value).startswith("there is no camera /dev/video97; this machine has ")


def test_a_device_that_does_not_open_is_one_clear_sentence() -> None:
    """OpenCV's own answer: ``/dev/null`` is a device and no camera."""
    camera = open_camera("v4l2:///dev/null", settings(open_timeout_s=0.01))
    said = ""
    for _ in range(100):
        try:
            with suppress(FrameTimeout):
                camera.read(1.0)
        except CameraLost as lost:
            said = str(lost)
            break
    assert said == ("/dev/null does not open; is it plugged in, and may this user read it (group video)?")
    camera.close()


def test_opening_and_closing_files_leaves_no_handle_behind(tmp_path: Path) -> None:
    folder_of(tmp_path / "f", 2)
    video = video_of(tmp_path / "line.avi")
    handles = Path("/proc/self/fd")

    def once() -> None:
        for uri in (f"file:{video}", f"file:{tmp_path / 'f'}"):
            camera = open_camera(uri, settings(pace="max"))
            camera.read(1.0)
            camera.close()

    once()
    before = len(list(handles.iterdir()))
    for _ in range(100):
        once()
    assert len(list(handles.iterdir())) == before


def test_a_file_is_no_device(tmp_path: Path) -> None:
    video = video_of(tmp_path / "line.avi")
    with pytest.raises(CameraError) as caught:
        open_camera(f"v4l2://{video}", settings())
    assert str(caught.value) == f"{video} is no camera device; for a video or a folder write file:{video}"


def test_a_device_gets_its_settings_and_its_stamps_are_used(fake: type[FakeCapture]) -> None:
    """``/dev/null`` is a character device that every machine has."""
    config = settings(width=640, height=480, rate_hz=30, exposure_us=1200)
    stream = opencv._open_device(Path("/dev/null"), config, opencv.import_cv2())
    assert stream._capture.settings == {
        cv2.CAP_PROP_FRAME_WIDTH: 640,
        cv2.CAP_PROP_FRAME_HEIGHT: 480,
        cv2.CAP_PROP_FPS: 30,
        cv2.CAP_PROP_AUTO_EXPOSURE: 1,
        cv2.CAP_PROP_EXPOSURE: 12,
    }
    taken = stream.take()
    assert taken is not None
    assert (taken.position_ms, taken.device_ns) == (40.0, 40_000_000)


def test_a_setting_that_a_device_refuses_is_said(fake: type[FakeCapture]) -> None:
    fake.refuses = frozenset({cv2.CAP_PROP_EXPOSURE})
    camera = open_camera("v4l2:///dev/null", settings(exposure_us=120, open_timeout_s=0.01))
    with pytest.raises(CameraLost) as caught:
        camera.read(10)
    assert str(caught.value) == (
        "/dev/null does not take camera.exposure_us 120; take the setting out, or give a value that "
        "v4l2-ctl --list-ctrls shows"
    )
    camera.close()


def test_a_picture_of_a_kind_that_no_camera_sends_is_refused() -> None:
    with pytest.raises(CameraError) as caught:
        bgr8(np.zeros((4, 4, 3), np.float32), what="a.tif")
    assert str(caught.value) == (
        "a.tif is (4, 4, 3) float32; give 8 or 16 bits, grey or colour, with or without alpha"
    )
    with pytest.raises(CameraError, match=r"is \(4, 4, 2\) uint8"):
        bgr8(np.zeros((4, 4, 2), np.uint8), what="a.tif")


def test_opening_a_camera_leaves_opencvs_threads_alone(tmp_path: Path) -> None:
    folder_of(tmp_path, 1)
    before = cv2.getNumThreads()
    open_camera(f"file:{tmp_path}", settings()).close()
    assert cv2.getNumThreads() == before
