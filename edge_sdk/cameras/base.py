"""What a camera is to everyone else, and the one place that turns a uri into one.

The station opens its camera here and reads it from one thread.  No library is imported before a
uri asks for it.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import ConfigError
from edge_sdk.frames import Frame

if TYPE_CHECKING:
    from edge_sdk.config import CameraConfig

__all__ = ["OPENERS", "Camera", "CameraCounters", "Opener", "open_camera"]


class Camera(Protocol):
    """Where frames come from.  Read from one thread; ``close`` may be called twice, from any thread."""

    def read(self, timeout_s: float) -> Frame:
        """The next frame; of a live camera the newest that was not handed out yet.

        Args:
            timeout_s: How long to wait for it, above 0.

        Raises:
            FrameTimeout: None came in time.  Read again: the camera may be well, or, once it was
                reported as lost, it is being opened again.
            EndOfFrames: A file or folder has been played to its end.
            CameraLost: The camera went away; raised once a loss.  Read again: a live camera opens
                itself anew.
        """
        ...

    def close(self) -> None:
        """Give the device back.  A ``read`` that waits ends with an error."""
        ...


@dataclass(frozen=True)
class CameraCounters:
    """What an adapter counted since it was opened; each has them as ``camera.counters``."""

    frames: int = 0
    """Handed out by ``read``."""
    dropped: int = 0
    """Overtaken by a newer frame before anybody read them."""
    stale: int = 0
    """Returned by the driver although the source had sent nothing new; thrown away."""
    reopened: int = 0
    """Times that the camera came back after a loss."""
    skipped: int = 0
    """Pictures that could not be read."""
    missing: int = 0
    """Frames that a file promises and does not hold."""


Opener = Callable[[str, "CameraConfig", str, Clock], Camera]
"""From uri, settings, name and clock to a camera."""


def _file(uri: str, config: CameraConfig, name: str, clock: Clock) -> Camera:
    from edge_sdk.cameras.playback import open_playback

    return open_playback(uri, config, name=name, clock=clock)


def _stream(uri: str, config: CameraConfig, name: str, clock: Clock) -> Camera:
    from edge_sdk.cameras.opencv import open_stream_camera

    return open_stream_camera(uri, config, name=name, clock=clock)


def _v4l2(uri: str, config: CameraConfig, name: str, clock: Clock) -> Camera:
    from edge_sdk.cameras.opencv import open_v4l2_camera

    return open_v4l2_camera(uri, config, name=name, clock=clock)


OPENERS: dict[str, Opener] = {
    "file": _file,
    "rtsp": _stream,
    "rtsps": _stream,
    "http": _stream,
    "https": _stream,
    "v4l2": _v4l2,
}
"""What opens a uri, by its scheme.  An integrator's own camera is one more entry."""


def open_camera(
    uri: str, config: CameraConfig, *, clock: Clock | None = None, name: str | None = None
) -> Camera:
    """Open the camera that a uri names.

    Files, folders and device nodes must be there.  A network camera may be away: it is tried again
    until it comes, and ``read`` says so after ``open_timeout_s``.

    Args:
        uri: ``file:line.avi``, ``file:folder``, ``rtsp://…``, ``http://…``, ``v4l2:///dev/video0``.
        config: The camera's settings; its ``uri`` is not looked at.
        clock: Stamps frames and paces files; default: this machine's.
        name: What frames say they come from; default: ``config.name``.

    Raises:
        ConfigError: No camera has such a scheme.
        CameraError: A file, folder or device is missing or not what the uri says.
        MissingPackage: OpenCV is not installed.
    """
    scheme, colon, _ = uri.partition(":")
    opener = OPENERS.get(scheme.lower()) if colon else None
    if opener is None:
        near = difflib.get_close_matches(scheme.lower(), OPENERS, 1)
        hint = f"did you mean {near[0]}:?" if colon and near else f"give one of {', '.join(OPENERS)}"
        raise ConfigError(f"camera.uri is {uri!r}, which no camera answers to; {hint}")
    return opener(uri, config, name or config.name, clock or SystemClock())
