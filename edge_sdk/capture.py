"""The thread that owns a camera, and the bounded place where its frames wait.

The pipeline starts one capture a stream; nobody else reads from the camera.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import (
    CameraError,
    CameraLost,
    EdgeError,
    EndOfFrames,
    FrameTimeout,
)
from edge_sdk.frames import Frame
from edge_sdk.health import Ledger

if TYPE_CHECKING:
    from edge_sdk.cameras.base import Camera

__all__ = ["Capture", "Handover"]

log = logging.getLogger(__name__)

FIRST_PAUSE_S, MOST_PAUSE_S = 0.05, 2.0
"""Between two reads of a lost camera; each pause is twice the one before."""
LOSSLESS_DEPTH = 4
"""Frames that may wait where none may be dropped; then the camera waits."""


class Handover:
    """Where frames wait between the camera's thread and the deciding one.  Bounded.

    Args:
        lossless: A full queue makes the camera wait; otherwise one slot holds the latest frame and
            the older one leaves.
    """

    def __init__(self, *, lossless: bool) -> None:
        self._lossless = lossless
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._finished = False

    def put(self, frame: Frame) -> Frame | None:
        """Hand a frame over.

        Returns:
            The frame that had to leave for it: the older one, or this one after ``finish``.
        """
        with self._changed:
            if self._lossless:
                while len(self._frames) >= LOSSLESS_DEPTH and not self._finished:
                    self._changed.wait()
            if self._finished:
                return frame
            left = self._frames.popleft() if self._frames and not self._lossless else None
            self._frames.append(frame)
            self._changed.notify_all()
            return left

    def take(self, timeout_s: float) -> Frame | None:
        """The oldest frame, or ``None`` where none came in time or none will come."""
        with self._changed:
            if not self._frames and not self._finished:
                self._changed.wait(timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def finish(self) -> None:
        """No more frames; those that wait may still be taken."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    @property
    def exhausted(self) -> bool:
        """Finished, and every frame taken."""
        with self._changed:
            return self._finished and not self._frames


class Capture:
    """The thread that owns a camera: reads, counts and hands over; closes the camera at its end.

    A camera that is lost is a fault that is told, not an end: it is read again with growing pauses,
    also before its first frame, because a camera may be slower to start than its station.  Opening it
    anew is the adapter's business.

    Args:
        camera: Belongs to the capture from here on.
        handover: Where frames go.
        ledger: Counts every frame that comes in.
        left: Called with each frame that had to leave the queue.
        read_timeout_s: How long one read may wait for a frame.
        frames: End after so many; ``None``: with the camera.
        clock: For ages.
    """

    def __init__(
        self,
        camera: Camera,
        handover: Handover,
        ledger: Ledger,
        *,
        left: Callable[[Frame], None],
        read_timeout_s: float,
        frames: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._camera = camera
        self._handover = handover
        self._ledger = ledger
        self._left = left
        self._read_timeout_s = read_timeout_s
        self._frames = frames
        self._clock = clock or SystemClock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-sdk-capture", daemon=True)
        self._returned_ns = self._clock.monotonic_ns()
        self.delivered = 0
        self.gaps = 0
        """Frames that the camera made and did not deliver, by their numbers."""
        self.timeouts = 0
        self.losses = 0
        self.fault: str | None = None
        """Why no frame comes, while none comes."""
        self.error: EdgeError | None = None
        """The bug of an adapter that ended the capture."""
        self._reading = False

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def snapshot(self) -> dict[str, Any]:
        """The faults, ready for JSON, with what the adapter counted."""
        counters = getattr(self._camera, "counters", None)
        return {
            "fault": self.fault,
            "timeouts": self.timeouts,
            "losses": self.losses,
            "gaps": self.gaps,
            **({} if counters is None else {"counters": asdict(counters)}),
        }

    def stop(self) -> None:
        """End after the read that is under way.  May be called twice, and before ``start``."""
        self._stop.set()
        self._handover.finish()
        if self._thread.ident is None:
            self._camera.close()
            return
        self._thread.join(timeout=0.25)
        if self._thread.is_alive():
            with suppress(Exception):
                self._camera.close()  # ends a read that waits
            self._thread.join(timeout=self._read_timeout_s + 5)
        if self._thread.is_alive():
            log.error("the camera does not return from a read; its thread is left behind")

    @property
    def stuck(self) -> bool:
        """Whether a read has overrun its time so far that it may never return."""
        waited_s = (self._clock.monotonic_ns() - self._returned_ns) / 1e9
        return self._thread.is_alive() and self._reading and waited_s > 2 * self._read_timeout_s + 1

    def _run(self) -> None:
        try:
            self._read_all()
        except Exception as error:
            if self._stop.is_set():
                return
            log.exception("the capture failed")
            self.error = CameraLost(f"the camera failed with {type(error).__name__}: {error}; see the log")
            self.error.__cause__ = error
        finally:
            with suppress(Exception):
                self._camera.close()
            self._handover.finish()

    def _read_all(self) -> None:
        pause_s = FIRST_PAUSE_S
        last_index: int | None = None
        losses = 0
        while not self._stop.is_set() and (self._frames is None or self.delivered < self._frames):
            self._returned_ns = self._clock.monotonic_ns()
            self._reading = True
            try:
                frame = self._camera.read(self._read_timeout_s)
            except EndOfFrames:
                return
            except FrameTimeout as error:
                if self._stop.is_set():
                    return
                self.timeouts += 1
                self._note_fault(str(error))
                continue
            except CameraError as error:
                if self._stop.is_set():
                    return
                self.losses += 1
                self._note_fault(str(error))
                self._stop.wait(pause_s)
                pause_s = min(MOST_PAUSE_S, 2 * pause_s)
                continue
            finally:
                self._reading = False
            pause_s = FIRST_PAUSE_S
            if self.fault is not None:
                log.warning("the camera delivers again", extra={"camera": frame.camera, "index": frame.index})
                self.fault = None
            if losses != self.losses:  # a timeout loses nothing: a web may stand still
                losses, frame = self.losses, replace(frame, follows=False)
            if last_index is not None and frame.index > last_index + 1:
                self.gaps += frame.index - last_index - 1
            last_index = frame.index
            self.delivered += 1
            self._ledger.came_in()
            left = self._handover.put(frame)
            if left is not None:
                self._left(left)

    def _note_fault(self, why: str) -> None:
        if self.fault is None:
            log.warning("camera fault", extra={"reason": why})
        self.fault = why
