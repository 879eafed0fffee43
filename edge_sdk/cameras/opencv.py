"""What OpenCV's captures do, made safe to stand on: RTSP, MJPEG over HTTP, V4L2.

Time-outs are honoured only with an explicit backend and only as parameters of the open call; a read
that ran into its time-out may still return a picture, an old one.  ``LiveCamera`` keeps the thread
and the rules, this file the calls.
"""

from __future__ import annotations

import math
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.cameras.live import Backoff, LiveCamera, Taken
from edge_sdk.errors import CameraError, CameraLost, MissingPackage

if TYPE_CHECKING:
    from edge_sdk.clock import Clock
    from edge_sdk.config import CameraConfig

__all__ = ["bgr8", "import_cv2", "open_options", "open_stream_camera", "open_v4l2_camera", "redacted"]

FFMPEG_OPTIONS = "rtsp_transport;tcp|fflags;nobuffer"
"""TCP, because lost UDP packets arrive as torn pictures; no buffer, or the first frame is a second old."""
OPTIONS_VARIABLE = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
ERRORS_ONLY = 2
"""Of OpenCV's log levels."""
FILE_WAIT_S = 30.0
"""How long the opening of a file waits for streams that are being opened."""


def import_cv2() -> ModuleType:
    """OpenCV, set up for captures before its first one is opened.

    Raises:
        MissingPackage: It is not installed.
    """
    # One camera that accepts a connection and says nothing would hold up the opening of all others.
    os.environ.setdefault("OPENCV_FFMPEG_IS_THREAD_SAFE", "1")
    # A dying stream makes the decoder print a line a macroblock; what matters is in our errors.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    quiet = "OPENCV_LOG_LEVEL" not in os.environ
    try:
        import cv2
    except ImportError as error:
        raise MissingPackage(
            "this camera needs OpenCV, which is not installed; pip install 'edge-sdk[cpu]', or on a Jetson "
            "apt-get install nvidia-opencv"
        ) from error
    if quiet:
        # Version 5 moved it.
        setter = cv2.setLogLevel if hasattr(cv2, "setLogLevel") else cv2.utils.logging.setLogLevel
        setter(ERRORS_ONLY)
    return cv2


class _OpenOptions:
    """FFmpeg's options, which OpenCV takes from the environment of the whole process at every open.

    They are there only while streams are being opened: with ``nobuffer`` a file would lose the frames
    it is probed with.  What somebody else wrote there is left alone.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._streams = 0
        self._ours = False

    @contextmanager
    def for_stream(self) -> Iterator[None]:
        with self._changed:
            if not self._streams and OPTIONS_VARIABLE not in os.environ:
                os.environ[OPTIONS_VARIABLE] = FFMPEG_OPTIONS
                self._ours = True
            self._streams += 1
        try:
            yield
        finally:
            with self._changed:
                self._streams -= 1
                if not self._streams and self._ours:
                    os.environ.pop(OPTIONS_VARIABLE, None)
                    self._ours = False
                self._changed.notify_all()

    @contextmanager
    def for_file(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._ours, FILE_WAIT_S)
            yield


open_options = _OpenOptions()


def bgr8(picture: Array, *, what: str) -> Image:
    """Any picture a camera or a file may hold, as ``(H, W, 3)`` uint8, blue green red.

    16 bits become 8 by dropping the lower ones whatever the picture shows: a dark frame stays dark.
    Grey is repeated, alpha is dropped.

    Args:
        picture: ``(H, W)`` or ``(H, W, 1 | 3 | 4)``, uint8 or uint16.
        what: What the picture is called in an error.

    Raises:
        CameraError: It has another shape or type.
    """
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if (
        picture.dtype != np.uint8
        or picture.ndim != 3
        or picture.shape[2] not in (1, 3, 4)
        or not picture.size
    ):
        raise CameraError(
            f"{what} is {picture.shape} {picture.dtype}; give 8 or 16 bits, grey or colour, with or without alpha"
        )
    if picture.shape[2] == 1:
        picture = np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(picture[:, :, :3])


def redacted(uri: str) -> str:
    """The uri without user, password and query, for logs and errors."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return uri
    rest, query, _ = rest.partition("?")
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}{'?…' if query else ''}"


class CaptureStream:
    """A ``cv2.VideoCapture`` that is open.  All calls come from the thread that opened it.

    Releasing it from another thread while a read is under way crashes the process.
    """

    def __init__(self, capture: Any, cv2: ModuleType, *, what: str, device_stamps: bool = False) -> None:
        self._capture = capture
        self._cv2 = cv2
        self._what = what
        self._device_stamps = device_stamps

    def take(self) -> Taken | None:
        try:
            here, pixels = self._capture.read()
        except self._cv2.error as error:
            raise CameraLost(f"{self._what} failed in OpenCV ({error}); it is opened again") from error
        if not here or pixels is None:
            return None
        position_ms = float(self._capture.get(self._cv2.CAP_PROP_POS_MSEC))
        known = math.isfinite(position_ms) and position_ms > 0
        return Taken(
            pixels=bgr8(pixels, what=f"a frame of {self._what}"),
            position_ms=position_ms if known else None,
            device_ns=round(position_ms * 1e6) if known and self._device_stamps else None,
        )

    def release(self) -> None:
        self._capture.release()


def open_stream_camera(uri: str, config: CameraConfig, *, name: str, clock: Clock) -> LiveCamera:
    """A network camera through FFmpeg.  Returns at once; the camera is connected to in its own thread.

    Raises:
        CameraError: The uri names no host, or this OpenCV has no FFmpeg.
        MissingPackage: OpenCV is not installed.
    """
    cv2 = import_cv2()
    try:
        host = urlsplit(uri).hostname
    except ValueError as error:
        raise CameraError(
            f"camera.uri {redacted(uri)} is no address ({error}); e.g. rtsp://10.0.0.7/line"
        ) from error
    if not host:
        raise CameraError(f"camera.uri {redacted(uri)} names no host; e.g. rtsp://10.0.0.7/line")
    if not cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG):
        raise CameraError(
            f"{redacted(uri)} needs an OpenCV with FFmpeg, and this one has none; "
            "pip install opencv-python-headless on a workstation, or install JetPack's own on a Jetson"
        )
    return LiveCamera(
        partial(_connect, uri, config, cv2),
        what=redacted(uri),
        name=name,
        open_timeout_s=config.open_timeout_s,
        read_timeout_s=config.read_timeout_s,
        backoff=Backoff(first_s=0.1, most_s=1.0),
        clock=clock,
    )


def _connect(uri: str, config: CameraConfig, cv2: ModuleType) -> CaptureStream:
    what = redacted(uri)
    parameters = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        math.ceil(config.open_timeout_s * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        math.ceil(config.read_timeout_s * 1000),
        # Each decoder thread adds a frame of delay, and one stale frame after a stall.
        cv2.CAP_PROP_N_THREADS,
        1,
    ]
    with open_options.for_stream():
        capture = _opened(cv2, uri, cv2.CAP_FFMPEG, parameters, what=what)
    if capture is None:
        raise CameraLost(
            f"{what} does not answer; is the camera on, and are address, path and password right?"
        )
    return CaptureStream(capture, cv2, what=what)


def open_v4l2_camera(uri: str, config: CameraConfig, *, name: str, clock: Clock) -> LiveCamera:
    """A camera of this machine, ``v4l2:///dev/video0``.

    Raises:
        CameraError: There is no such device, or the path is something else.
        MissingPackage: OpenCV is not installed.
    """
    cv2 = import_cv2()
    node = Path("/" + uri.partition(":")[2].lstrip("/"))
    if not node.exists():
        others = ", ".join(str(path) for path in sorted(Path("/dev").glob("video*"))) or "no camera at all"
        raise CameraError(f"there is no camera {node}; this machine has {others}")
    if not stat.S_ISCHR(node.stat().st_mode):
        raise CameraError(f"{node} is no camera device; for a video or a folder write file:{node}")
    # The driver's time-out is read once a process, in whole seconds.
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(math.ceil(config.read_timeout_s)))
    return LiveCamera(
        partial(_open_device, node, config, cv2),
        what=str(node),
        name=name,
        open_timeout_s=config.open_timeout_s,
        read_timeout_s=config.read_timeout_s,
        backoff=Backoff(first_s=0.05, most_s=0.1),
        clock=clock,
    )


def _open_device(node: Path, config: CameraConfig, cv2: ModuleType) -> CaptureStream:
    capture = _opened(cv2, str(node), cv2.CAP_V4L2, [], what=str(node))
    if capture is None:
        raise CameraLost(f"{node} does not open; is it plugged in, and may this user read it (group video)?")
    settings: list[tuple[str, int, float | None]] = [
        ("width", cv2.CAP_PROP_FRAME_WIDTH, config.width),
        ("height", cv2.CAP_PROP_FRAME_HEIGHT, config.height),
        ("rate_hz", cv2.CAP_PROP_FPS, config.rate_hz),
    ]
    if config.exposure_us is not None:
        settings.append(("exposure_us", cv2.CAP_PROP_AUTO_EXPOSURE, 1))
        settings.append(("exposure_us", cv2.CAP_PROP_EXPOSURE, config.exposure_us / 100))
    for setting, which, value in settings:
        if value is not None and not capture.set(which, value):
            capture.release()
            raise CameraLost(
                f"{node} does not take camera.{setting} {getattr(config, setting):g}; "
                "take the setting out, or give a value that v4l2-ctl --list-ctrls shows"
            )
    return CaptureStream(capture, cv2, what=str(node), device_stamps=True)


def _opened(cv2: ModuleType, where: str, backend: int, parameters: list[int], *, what: str) -> Any:
    try:
        capture = cv2.VideoCapture(where, backend, parameters)
    except cv2.error as error:
        raise CameraLost(f"{what} failed in OpenCV ({error}); it is opened again") from error
    if not capture.isOpened():
        capture.release()
        return None
    return capture
