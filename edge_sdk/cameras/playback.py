"""Video files and folders of pictures, played as if a camera had taken them.

What a station replays, what the demo streams and what tests run on.  The end of a file is its end,
never a lost camera; a picture that cannot be read is said, counted and passed over.
"""

from __future__ import annotations

import logging
import math
import re
import threading
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from edge_sdk.arrays import Image
from edge_sdk.cameras.base import CameraCounters
from edge_sdk.cameras.opencv import bgr8, import_cv2, open_options
from edge_sdk.errors import CameraError, DatasetError, EndOfFrames, FrameTimeout
from edge_sdk.frames import Frame
from edge_sdk.quality.pictures import read_picture

if TYPE_CHECKING:
    from edge_sdk.clock import Clock
    from edge_sdk.config import CameraConfig

__all__ = ["PICTURE_SUFFIXES", "Playback", "open_playback"]

log = logging.getLogger(__name__)

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
FOLDER_RATE_HZ = 10.0
"""Of a folder, where nobody says otherwise."""
VIDEO_RATE_HZ = 25.0
"""Of a video that states none."""


class Pictures(Protocol):
    """Something that can be played from its beginning."""

    what: str
    """How it is called in errors and logs."""
    rate_hz: float
    missing: int
    """Frames that the last pass should have had and had not."""

    def play(self) -> Generator[Image | None, None, None]:
        """One pass; ``None`` stands for a picture that could not be read."""
        ...


class Folder:
    """The pictures of a folder by name, numbers in their natural order; or one picture."""

    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self.rate_hz = FOLDER_RATE_HZ
        self.missing = 0
        if path.is_file():
            self._paths = [path]
            return
        try:
            inside = list(path.iterdir())
        except OSError as error:
            raise CameraError(
                f"folder {path} cannot be read ({error.strerror}); is the path right?"
            ) from error
        self._paths = sorted(
            (file for file in inside if file.suffix.lower() in PICTURE_SUFFIXES), key=_natural
        )
        if not self._paths:
            raise CameraError(
                f"folder {path} has no picture in it; give a folder with {', '.join(PICTURE_SUFFIXES[:4])} files"
            )

    def play(self) -> Generator[Image | None, None, None]:
        readable = False
        for path in self._paths:
            try:
                picture = _read_picture(path)
            except CameraError as error:
                log.warning("picture skipped", extra={"reason": str(error)})
                yield None
            else:
                readable = True
                yield picture
        if not readable:
            raise CameraError(
                f"none of the {len(self._paths)} pictures of {self.what} could be read; see the log"
            )


class Video:
    """A video file through OpenCV's FFmpeg."""

    def __init__(self, path: Path) -> None:
        cv2 = import_cv2()
        self.what = str(path)
        self.missing = 0
        self._path = path
        capture = self._open()
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = rate_hz if math.isfinite(rate_hz) and 0 < rate_hz <= 1000 else VIDEO_RATE_HZ
        capture.release()

    def play(self) -> Generator[Image | None, None, None]:
        cv2 = import_cv2()
        capture = self._open()
        seen = 0
        try:
            promised = capture.get(cv2.CAP_PROP_FRAME_COUNT)
            while True:
                here, pixels = capture.read()
                if not here:
                    break
                seen += 1
                yield bgr8(pixels, what=f"a frame of {self.what}")
        finally:
            capture.release()
        # An AVI counts its frames; of other containers the number is an estimate from the duration.
        slack = 0 if self._path.suffix.lower() == ".avi" else max(2.0, 0.01 * promised)
        self.missing = round(promised) - seen if math.isfinite(promised) and promised > seen + slack else 0
        if not seen:
            raise CameraError(
                f"{self.what} holds no frame that can be read; copy it again, or play another video"
            )

    def _open(self) -> Any:
        cv2 = import_cv2()
        backend = cv2.CAP_FFMPEG if cv2.videoio_registry.hasBackend(cv2.CAP_FFMPEG) else cv2.CAP_ANY
        with open_options.for_file():
            capture = cv2.VideoCapture(self.what, backend)
        if not capture.isOpened():
            capture.release()
            size = self._path.stat().st_size
            raise CameraError(
                f"{self.what} ({size} bytes) cannot be read as a video; give an AVI, MP4 or MKV file"
            )
        return capture


class Playback:
    """Plays pictures at a pace, as one camera.

    At ``real`` pace a frame is due one period after the one before; a reader that is late gets the
    next one at once and no burst follows.  A frame's index is its place in the sequence, pictures
    that could not be read included, and goes on counting in a loop.

    Args:
        pictures: What to play.
        name: What frames say they come from.
        rate_hz: Frames a second; ``None`` as fast as they are read.
        loop: Begin again at the end.
        clock: Paces and stamps.
    """

    def __init__(
        self, pictures: Pictures, *, name: str, rate_hz: float | None, loop: bool, clock: Clock
    ) -> None:
        self._pictures = pictures
        self._name = name
        self._period_ns = 0 if rate_hz is None else round(1e9 / rate_hz)
        self._loop = loop
        self._clock = clock
        self._turn = threading.Lock()
        self._closed = False
        self._playing = pictures.play()
        self._waiting: Image | None = None
        self._index = -1
        self._follows = True
        self._due_ns: int | None = None
        self._end: EndOfFrames | None = None
        self._counters = CameraCounters()

    @property
    def counters(self) -> CameraCounters:
        """What was counted since the camera was opened."""
        return self._counters

    def read(self, timeout_s: float) -> Frame:
        """The next picture, when it is due; see ``Camera.read``."""
        with self._turn:
            if self._closed:
                raise CameraError(f"{self._pictures.what} was closed; open the camera again to read from it")
            if self._end is not None:
                raise self._end
            if self._waiting is None:
                self._waiting = self._next_picture()
            self._wait_until_due(timeout_s)
            now_ns = self._clock.monotonic_ns()
            frame = Frame(
                self._waiting, self._name, self._index, self._clock.now(), now_ns, follows=self._follows
            )
            self._waiting, self._follows = None, True
            self._counters = replace(self._counters, frames=self._counters.frames + 1)
            return frame

    def close(self) -> None:
        """Close the file.  May be called twice, and from another thread."""
        self._closed = True
        with self._turn:
            self._playing.close()

    def _wait_until_due(self, timeout_s: float) -> None:
        now_ns = self._clock.monotonic_ns()
        due_ns = now_ns if self._due_ns is None else self._due_ns
        wait_s = (due_ns - now_ns) / 1e9
        if wait_s > timeout_s:
            self._clock.sleep(timeout_s)
            raise FrameTimeout(
                f"no frame within {timeout_s:g} s: the next of {self._pictures.what} is due in {wait_s:.3g} s; "
                "read again"
            )
        if wait_s > 0:
            self._clock.sleep(wait_s)
        self._due_ns = max(due_ns, now_ns) + self._period_ns

    def _next_picture(self) -> Image:
        while True:
            for picture in self._playing:
                self._index += 1
                if picture is not None:
                    return picture
                self._counters = replace(self._counters, skipped=self._counters.skipped + 1)
            self._note_missing()
            if not self._loop:
                raise self._end_reached()
            self._playing, self._follows = self._pictures.play(), False

    def _note_missing(self) -> None:
        missing = self._pictures.missing
        if missing and not self._counters.missing:
            log.warning("video is cut short", extra={"video": self._pictures.what, "missing": missing})
        self._counters = replace(self._counters, missing=self._counters.missing + missing)

    def _end_reached(self) -> EndOfFrames:
        seen = self._index + 1
        if self._counters.missing:
            promised = seen + self._counters.missing
            message = f"{self._pictures.what} ended after {seen} of {promised} frames; it is cut short, copy it again"
        else:
            message = f"{self._pictures.what} was played to its end, {seen} frames"
            if self._counters.skipped:
                message += f" of which {self._counters.skipped} could not be read; see the log"
        self._end = EndOfFrames(message)
        return self._end


def open_playback(uri: str, config: CameraConfig, *, name: str, clock: Clock) -> Playback:
    """A video or a folder of pictures, ``file:line.avi``.

    Raises:
        CameraError: There is no such file, it is no video, or the folder has no picture.
        MissingPackage: OpenCV is not installed.
    """
    path = _path_of(uri)
    import_cv2()
    if not path.exists():
        near = "" if path.parent.exists() else f", nor a folder {path.parent}"
        raise CameraError(f"there is no file or folder {path}{near}; is camera.uri right?")
    pictures: Pictures
    if path.is_dir() or path.suffix.lower() in PICTURE_SUFFIXES:
        pictures = Folder(path)
    else:
        pictures = Video(path)
    rate_hz = (config.rate_hz or pictures.rate_hz) if config.pace == "real" else None
    return Playback(pictures, name=name, rate_hz=rate_hz, loop=config.loop, clock=clock)


def _path_of(uri: str) -> Path:
    rest = uri.partition(":")[2]
    if rest.startswith("//") and not rest.startswith("///"):
        host = urlsplit(uri).netloc
        raise CameraError(f"camera.uri is {uri}, a file on the machine {host!r}; write file:{rest[2:]}")
    if rest.startswith("///"):
        rest = unquote(rest[2:])
    if not rest:
        raise CameraError("camera.uri is file: without a path; e.g. file:line.avi")
    return Path(rest)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    """``9.png`` before ``10.png``."""
    pieces = re.split(r"(\d+)", path.name)
    return [(0, int(piece), piece) if piece.isdigit() else (1, 0, piece) for piece in pieces if piece]


def _read_picture(path: Path) -> Image:
    """The picture as data sets and training read it, but never half of one.

    Raises:
        CameraError: It is missing, cut short, or no picture.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CameraError(f"{path} cannot be read ({error.strerror}); it is skipped") from error
    if not _is_whole(data):
        raise CameraError(f"{path} is cut short ({len(data)} bytes); it is skipped")
    try:
        return read_picture(path)
    except DatasetError as error:
        raise CameraError(f"{error}; it is skipped") from error


def _is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG has its end: decoders fill what is missing with grey and say nothing."""
    if data.startswith(b"\xff\xd8\xff"):
        return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda")
    if data.startswith(b"\x89PNG"):
        return b"IEND" in data[-4096:]
    return True
