"""Capture → infer → deliver, bounded, every frame accounted for.

One thread owns the camera and hands frames over; the thread that iterates judges them and hands on
the verdict first, everything else afterwards.  Nothing here opens files: the station brings the
camera, the judge and what is to be called.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_sdk.capture import Capture, Handover
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import DefectErased, EdgeError
from edge_sdk.frames import Frame
from edge_sdk.health import Latencies, Ledger
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.judge import Judge, not_inspected
from edge_sdk.overlap import Overlap

if TYPE_CHECKING:
    from edge_sdk.cameras.base import Camera

__all__ = ["PhotographLike", "Pipeline"]

log = logging.getLogger(__name__)

NO_PIXELS = np.zeros((0, 0, 3), np.uint8)
"""What a frame that left the queue keeps of its picture."""
IDLE_S = 0.1
"""How long the deciding thread waits for a frame before it looks round."""
SKIPPED_KEPT = 1000
"""Dropped frames that wait to be told to a consumer that stopped asking."""
STOPPED = "station stopped"


class PhotographLike(Protocol):
    """Says whether a frame is a photograph worth judging."""

    def fault(self, frame: Frame) -> str | None:
        """Why the frame shows nothing to judge, or ``None``."""
        ...


class Pipeline:
    """Judges frames, one after the other, and tells everybody in the right order.

    Order for each frame: counted, told to the listeners, handed to who iterates, then ``after``.

    Args:
        judge: The bundle that starts; ``swap`` brings another.
        photograph: Says which frames are no photographs.
        lossless: Whether the camera waits, or the older frame leaves.
        overlap: Shows a line-scan camera's last lines again above its next frame.
        deadline_ms: Later verdicts are counted as late.
        beat: Called by the deciding loop while all is well or the reason is known.
        clock: For every stamp.
    """

    def __init__(
        self,
        judge: Judge,
        *,
        photograph: PhotographLike,
        lossless: bool = False,
        overlap: Overlap | None = None,
        deadline_ms: float | None = None,
        beat: Callable[[int], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.latencies = Latencies()
        self.listeners: list[Callable[[Inspection], object]] = []
        self.listener_errors = 0
        self.after: Callable[[Inspection], object] | None = None
        """What is done once the verdict on an inspected frame is out, e.g. the hand-over to the outbox."""
        self.capture: Capture | None = None
        """Of the stream under way, or of the last one."""
        self._judge = judge
        self._next_judge: Judge | None = None
        self._left_judge: Judge | None = None
        self._judging = threading.Lock()
        self._swapping = threading.Lock()
        self._photograph = photograph
        self._lossless = lossless
        self._overlap = overlap
        self._deadline_ms = math.inf if deadline_ms is None else deadline_ms
        self._beat = beat or (lambda now_ns: None)
        self._clock = clock or SystemClock()
        self._skipped: deque[tuple[Frame, str]] = deque(maxlen=SKIPPED_KEPT)
        self._stopping = False
        self._iterated = False
        self._stream: Generator[Inspection, None, None] | None = None
        self._complained: set[str] = set()

    @property
    def model(self) -> str:
        """Id of the bundle that judges."""
        return self._judge.model

    @property
    def judge(self) -> Judge:
        """The bundle that judges."""
        return self._judge

    def swap(self, judge: Judge) -> Judge:
        """Let another bundle judge from the next frame on; a frame under way is finished first.

        Returns:
            The judge that left; the caller closes it.
        """
        with self._swapping:
            self._next_judge = judge
            # the deciding thread takes the lock again at once, so it adopts the next judge itself; this
            # thread does it where no frame comes
            while self._next_judge is not None:
                if self._judging.acquire(timeout=0.05):
                    try:
                        self._adopt()
                    finally:
                        self._judging.release()
            left, self._left_judge = self._left_judge, None
        assert left is not None
        return left

    @property
    def stopping(self) -> bool:
        """Whether somebody asked for the end."""
        return self._stopping

    def stop(self) -> None:
        """End the stream after the frame under way, for good.  Safe to call from a signal handler."""
        self._stopping = True

    def inspect(self, frame: Frame) -> Inspection:
        """Judge a frame that somebody else captured; listeners are told, then ``after`` is done."""
        self.ledger.came_in()
        inspection = self._inspect(frame)
        self._finish(inspection)
        return inspection

    def stream(
        self,
        camera: Camera,
        *,
        read_timeout_s: float,
        frames: int | None = None,
        seconds: float | None = None,
    ) -> Iterator[Inspection]:
        """Every frame of a camera with its verdict, also those that nobody could judge.

        Ends with the camera's last frame, after ``frames`` frames, ``seconds`` seconds, or ``stop``.

        Raises:
            CameraLost: The camera's adapter has a bug and failed.
            EdgeError: The station is iterated already.
        """
        if self._iterated:
            raise EdgeError("the station is iterated already; use that iteration, or close it first")
        stream = self._stream = self._streaming(camera, read_timeout_s, frames, seconds)
        return stream

    def _streaming(
        self, camera: Camera, read_timeout_s: float, frames: int | None, seconds: float | None
    ) -> Generator[Inspection, None, None]:
        handover = Handover(lossless=self._lossless)
        capture = self.capture = Capture(
            camera,
            handover,
            self.ledger,
            left=self._leave_queue,
            read_timeout_s=read_timeout_s,
            frames=frames,
            clock=self._clock,
        )
        until_ns = math.inf if seconds is None else self._clock.monotonic_ns() + seconds * 1e9
        self._iterated = True
        if self._overlap is not None:
            with self._judging:
                self._overlap.forget()  # another stream counts anew
        frame: Frame | None = None
        capture.start()
        try:
            while not self._stopping and self._clock.monotonic_ns() < until_ns:
                frame = handover.take(IDLE_S)
                yield from self._skipped_until_now()
                if frame is not None:
                    taken, frame = frame, None
                    yield from self._told(self._inspect(taken))
                elif handover.exhausted:
                    break
                elif not capture.stuck:
                    self._beat(self._clock.monotonic_ns())
            capture.stop()
            yield from self._leftovers(handover)
            if capture.error is not None:
                raise capture.error
        finally:
            self._iterated = False
            capture.stop()
            if frame is not None:  # taken, and the consumer left before its turn
                self._drop(frame, STOPPED)
            for _ in self._leftovers(handover):
                pass

    def close(self) -> None:
        """End a stream that its consumer left half-way, and count what still waited."""
        self.stop()
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(ValueError):  # called from inside it, e.g. by a listener: it ends by itself
                stream.close()

    def snapshot(self) -> dict[str, Any]:
        """The ledger, the latencies and the faults, ready for JSON."""
        found = {
            **self.ledger.snapshot(),
            **self.latencies.snapshot(),
            "listener_errors": self.listener_errors,
        }
        if self.capture is not None:
            found["camera"] = self.capture.snapshot()
        return found

    def _inspect(self, frame: Frame) -> Inspection:
        """Judge, count and tell the listeners; whatever happens, the frame is counted once."""
        taken_ns = self._clock.monotonic_ns()
        inspection = None
        try:
            inspection = self._judged(frame, taken_ns)
        finally:
            if inspection is None:  # interrupted, e.g. by Ctrl-C
                self.ledger.left(Verdict.NOT_INSPECTED, STOPPED)
        timing = inspection.timing
        late = timing.latency_ms > self._deadline_ms
        self.ledger.left(inspection.verdict, inspection.reason, late=late)
        if inspection.verdict is not Verdict.NOT_INSPECTED:
            self.latencies.add(timing.latency_ms, timing.decided_ns)
        self._tell(inspection)
        self._beat(timing.decided_ns)
        return inspection

    def _judged(self, frame: Frame, taken_ns: int) -> Inspection:
        with self._judging:
            self._adopt()
            try:
                fault = self._photograph.fault(frame)
                if fault is None:
                    if self._overlap is None:
                        return self._judge.inspect(frame, taken_ns=taken_ns)
                    longer = self._overlap.extended(frame)
                    return self._judge.inspect(longer, taken_ns=taken_ns, overlap=self._overlap)
                reason = f"camera fault: {fault}"
                if self._overlap is not None:
                    self._overlap.forget()
            except DefectErased as error:
                reason = f"resize refused: {error}"
                self._complain("resize", "a frame could not be resized", error)
            except Exception as error:  # noqa: BLE001 - counted as a reason, logged once
                reason = f"runner failed: {_sentence(error)}"
                self._complain("runner", "a frame could not be judged", error)
        return not_inspected(frame, reason, taken_ns=taken_ns, decided_ns=self._clock.monotonic_ns())

    def _adopt(self) -> None:
        """Between two frames, holding the lock."""
        if self._next_judge is not None:
            self._left_judge, self._judge, self._next_judge = self._judge, self._next_judge, None

    def _tell(self, inspection: Inspection) -> None:
        for number, listener in enumerate(self.listeners):
            try:
                listener(inspection)
            except Exception as error:  # noqa: BLE001 - counted, logged once, the line goes on
                self.listener_errors += 1
                self._complain(f"listener {number}", "a verdict listener failed", error)

    def _told(self, inspection: Inspection) -> Iterator[Inspection]:
        """To who iterates; then, also if they break off here, what comes after the verdict."""
        try:
            yield inspection
        finally:
            self._finish(inspection)

    def _finish(self, inspection: Inspection) -> None:
        if self.after is None or inspection.verdict is Verdict.NOT_INSPECTED:
            return
        try:
            self.after(inspection)
        except Exception as error:  # noqa: BLE001 - logged once, the line goes on
            self._complain("after", "the hand-over after a verdict failed", error)

    def _leave_queue(self, frame: Frame) -> None:
        """On the capture's thread: a frame had to leave for a newer one."""
        self._drop(frame, STOPPED if self._stopping else "queue full")

    def _drop(self, frame: Frame, reason: str) -> None:
        """Count a frame that nobody judges, and keep what is told of it: all but its picture."""
        self.ledger.left(Verdict.NOT_INSPECTED, reason)
        self._skipped.append((replace(frame, pixels=NO_PIXELS), reason))

    def _skipped_until_now(self) -> Iterator[Inspection]:
        while self._skipped:
            frame, reason = self._skipped.popleft()
            inspection = not_inspected(frame, reason, decided_ns=self._clock.monotonic_ns())
            self._tell(inspection)
            yield inspection

    def _leftovers(self, handover: Handover) -> Iterator[Inspection]:
        """What still waits when the stream ends: told and counted, not judged."""
        while (frame := handover.take(0)) is not None:
            self._drop(frame, STOPPED)
        # what the camera's thread still held was dropped before those in the queue, which are older
        waiting = sorted((self._skipped.popleft() for _ in range(len(self._skipped))), key=lambda one: one[0].index)
        self._skipped.extend(waiting)
        yield from self._skipped_until_now()

    def _complain(self, who: str, what: str, error: Exception) -> None:
        """Log the first failure of each kind with its traceback; the rest is counted."""
        kind = f"{who}: {type(error).__name__}"
        if kind not in self._complained and len(self._complained) < 100:
            self._complained.add(kind)
            log.error(what, exc_info=error, extra={"who": who})


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
