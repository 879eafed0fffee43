"""A camera that goes on whether it is read or not: one owning thread, one newest frame.

The thread alone opens, reads and releases the stream, because drivers crash when another does.  It
keeps the newest frame, counts what was overtaken, throws away what is not new, and opens the stream
again after a loss.  OpenCV's captures stand on it; any driver that can open, take and release may.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Protocol

from edge_sdk.arrays import Image
from edge_sdk.cameras.base import CameraCounters
from edge_sdk.clock import Clock
from edge_sdk.errors import CameraError, CameraLost, EdgeError, FrameTimeout
from edge_sdk.frames import Frame

__all__ = ["Backoff", "LiveCamera", "Stream", "Taken"]

log = logging.getLogger(__name__)

DEVICE_STAMP_MOST_NS = 10_000_000_000
"""A driver's stamp that is further back from now than this is of another clock."""


@dataclass(frozen=True, eq=False)
class Taken:
    """What a stream delivered at one call."""

    pixels: Image
    """``(H, W, 3)`` uint8, blue green red."""
    position_ms: float | None = None
    """The stream's own time of the frame, rising; ``None`` where it has none."""
    device_ns: int | None = None
    """When the frame was captured, on this machine's monotonic clock, where the driver knows."""


class Stream(Protocol):
    """An open source.  Only the thread that opened it calls it."""

    def take(self) -> Taken | None:
        """Wait for the next frame; ``None`` when none will come.  Raises ``CameraLost`` alike."""
        ...

    def release(self) -> None:
        """Give the source back."""
        ...


@dataclass(frozen=True)
class Backoff:
    """Pauses between attempts to open: the first, then twice as long each, at most the last."""

    first_s: float
    most_s: float


class LiveCamera:
    """A source that is read by its own thread.

    A frame counts if it was delivered in less than ``read_timeout_s`` and is newer than the one
    before by the stream's own time: a driver whose wait ran out hands out an old picture as if it
    were new.  The first failure closes the stream, and the thread opens it anew.

    Args:
        open_stream: Called in the thread; raises ``CameraLost`` where the source does not answer.
        what: How the source is called in errors and logs, without passwords.
        name: What frames say they come from.
        open_timeout_s: A camera that was never there is reported as lost after this time.
        read_timeout_s: A frame that took so long is not believed.
        backoff: Pauses between attempts.
        clock: Stamps the frames.
    """

    def __init__(
        self,
        open_stream: Callable[[], Stream],
        *,
        what: str,
        name: str,
        open_timeout_s: float,
        read_timeout_s: float,
        backoff: Backoff,
        clock: Clock,
    ) -> None:
        self._open_stream = open_stream
        self._what = what
        self._name = name
        self._open_timeout_s = open_timeout_s
        self._read_timeout_s = read_timeout_s
        self._backoff = backoff
        self._clock = clock
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._newest: Frame | None = None
        self._counters = CameraCounters()
        self._made = 0
        self._why = f"{what} is being opened"
        self._unsaid: CameraLost | None = None
        self._broken: EdgeError | None = None
        self._was_lost = False
        self._started_ns = clock.monotonic_ns()
        self._thread = threading.Thread(target=self._run, name=f"camera-{name}", daemon=True)
        self._thread.start()

    @property
    def counters(self) -> CameraCounters:
        """What was counted since the camera was opened."""
        with self._changed:
            return self._counters

    def read(self, timeout_s: float) -> Frame:
        """The newest frame that was not handed out yet; see ``Camera.read``."""
        with self._changed:
            self._changed.wait_for(self._something_to_say, timeout_s)
            if self._stop.is_set():
                raise CameraError(f"{self._what} was closed; open the camera again to read from it")
            if self._newest is not None:
                frame, self._newest = self._newest, None
                self._counters = replace(self._counters, frames=self._counters.frames + 1)
                return frame
            if self._broken is not None:
                raise self._broken
            if self._unsaid is not None:
                lost, self._unsaid = self._unsaid, None
                raise lost
            if self._why:
                raise FrameTimeout(f"no frame within {timeout_s:g} s: {self._why}")
            raise FrameTimeout(f"no frame from {self._what} within {timeout_s:g} s; the connection stands")

    def close(self) -> None:
        """Stop the thread, which releases the stream itself.  May be called twice."""
        self._stop.set()
        with self._changed:
            self._newest = None
            self._changed.notify_all()
        if self._thread is not threading.current_thread():
            # An open and a read end by themselves, at the latest after their time-outs.
            self._thread.join(max(self._open_timeout_s, self._read_timeout_s) + 1)
        if self._thread.is_alive():
            log.warning("camera thread still waits for its driver", extra={"camera": self._name})

    def _something_to_say(self) -> bool:
        found = self._newest is not None or self._unsaid is not None or self._broken is not None
        return found or self._stop.is_set()

    def _run(self) -> None:
        try:
            self._keep_streaming()
        except EdgeError as error:
            self._break(error)
        except Exception as error:
            log.exception("the camera's thread failed", extra={"camera": self._name})
            broken = CameraError(f"{self._what} failed with {type(error).__name__}: {error}; see the log")
            broken.__cause__ = error
            self._break(broken)

    def _keep_streaming(self) -> None:
        pause_s = self._backoff.first_s
        while not self._stop.is_set():
            before = self._made
            why = self._stream_once()
            if self._stop.is_set():
                return
            if self._made > before:
                pause_s = self._backoff.first_s
            self._lose(why)
            self._stop.wait(pause_s)
            pause_s = min(2 * pause_s, self._backoff.most_s)

    def _stream_once(self) -> str:
        """Open, read until the source fails, release; why it ended."""
        try:
            stream = self._open_stream()
        except CameraLost as error:
            return str(error)
        try:
            return self._grab(stream)
        except CameraLost as error:
            return str(error)
        finally:
            stream.release()

    def _grab(self, stream: Stream) -> str:
        newest_ms: float | None = None
        fresh_ns = self._clock.monotonic_ns()
        while not self._stop.is_set():
            asked_ns = self._clock.monotonic_ns()
            taken = stream.take()
            now_ns = self._clock.monotonic_ns()
            if taken is None:
                return f"{self._what} stopped sending; it is opened again"
            if now_ns - asked_ns >= self._read_timeout_s * 1e9:
                self._count_stale()
                return f"{self._what} sent nothing for {self._read_timeout_s:g} s; it is opened again"
            if newest_ms is not None and taken.position_ms is not None and taken.position_ms <= newest_ms:
                self._count_stale()
                if now_ns - fresh_ns >= self._read_timeout_s * 1e9:
                    return f"{self._what} repeats an old frame; it is opened again"
                continue
            newest_ms = taken.position_ms
            fresh_ns = now_ns
            self._offer(taken, now_ns)
        return ""

    def _offer(self, taken: Taken, now_ns: int) -> None:
        stamp, captured_ns = "arrival", now_ns
        if taken.device_ns is not None and 0 <= now_ns - taken.device_ns < DEVICE_STAMP_MOST_NS:
            stamp, captured_ns = "device", taken.device_ns
        frame = Frame(
            pixels=taken.pixels,
            camera=self._name,
            index=self._made,
            captured_at=self._clock.now() - timedelta(microseconds=(now_ns - captured_ns) / 1000),
            captured_ns=captured_ns,
            stamp=stamp,
            follows=not self._was_lost,
        )
        with self._changed:
            self._made += 1
            if self._newest is not None:
                self._counters = replace(self._counters, dropped=self._counters.dropped + 1)
            if self._was_lost:
                self._was_lost = False
                # One that comes for the first time was never gone.
                again = self._made > 1
                self._counters = replace(self._counters, reopened=self._counters.reopened + again)
                log.warning(
                    "camera is back", extra={"camera": self._name, "reopened": self._counters.reopened}
                )
            self._why = ""
            self._unsaid = None
            self._newest = frame
            self._changed.notify_all()

    def _lose(self, why: str) -> None:
        with self._changed:
            first = not self._was_lost and self._made > 0
            never_s = (self._clock.monotonic_ns() - self._started_ns) / 1e9
            # A camera that boots together with the station gets its time before it counts as lost.
            never = not self._was_lost and self._made == 0 and never_s >= self._open_timeout_s
            self._why = why
            if first or never:
                self._was_lost = True
                self._unsaid = CameraLost(why)
                log.debug("camera lost", extra={"camera": self._name, "reason": why})
                self._changed.notify_all()

    def _count_stale(self) -> None:
        with self._changed:
            self._counters = replace(self._counters, stale=self._counters.stale + 1)

    def _break(self, error: EdgeError) -> None:
        with self._changed:
            self._broken = error
            self._changed.notify_all()
