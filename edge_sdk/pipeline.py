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
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from edge_sdk.capture import Capture, Handover
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.detections import Detections
from edge_sdk.errors import EdgeError, RunnerError
from edge_sdk.frames import Frame
from edge_sdk.health import Latencies, Ledger
from edge_sdk.inspections import Inspection, Timing, Verdict
from edge_sdk.manifest import Manifest, labels_of, thresholds_of
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import confidence_from_logits, decode_cells, questions
from edge_sdk.vision.preprocess import Geometry, geometry, preprocess, valid_cells

if TYPE_CHECKING:
    from edge_sdk.cameras.base import Camera
    from edge_sdk.runners.base import Runner

    from edge_sdk.arrays import Array, Bools

__all__ = ["Judge", "PhotographLike", "Pipeline", "not_inspected"]

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


class Judge:
    """One bundle at work: from a frame to its inspection.  Not for two threads at once.

    Args:
        manifest: Of the bundle.
        runner: Executes its graph; belongs to the judge from here on.
        model: The bundle's id.
        clock: Times the stages.
    """

    def __init__(self, manifest: Manifest, runner: Runner, *, model: str, clock: Clock | None = None) -> None:
        self.manifest = manifest
        self.model = model
        self._runner = runner
        self._clock = clock or SystemClock()
        self._labels = labels_of(manifest)
        self._thresholds = thresholds_of(manifest)
        self._temperature = np.array([band.temperature for band in manifest.thresholds], np.float32)
        spec = manifest.preprocess
        self._input = np.zeros((1, 3, spec.height, spec.width), np.float32)
        self._feeds: dict[str, Array] = {runner.inputs[0].name: self._input}
        self._places: dict[tuple[int, ...], tuple[Geometry, Bools]] = {}

    def inspect(self, frame: Frame, *, taken_ns: int) -> Inspection:
        """Judge one frame.

        Raises:
            RunnerError: The engine failed, or answered with something that is no confidence map.
        """
        preprocess(frame.pixels, self.manifest.preprocess, out=self._input)
        outputs = self._runner.infer(self._feeds)
        inferred_ns = self._clock.monotonic_ns()
        logits = outputs.get("cells")
        if logits is None or logits.ndim != 4 or logits.shape[:2] != (1, len(self._labels)):
            told = "nothing" if logits is None else f"{logits.shape}"
            raise RunnerError(
                f"cells is {told}; the bundle promises (1, {len(self._labels)}, h, w), so pack it again"
            )
        confidence = confidence_from_logits(logits[0], self._temperature)
        if not math.isfinite(float(confidence.sum())):
            raise RunnerError("cells holds values that are no numbers; nothing can be said of this frame")
        place, valid = self._place_of(frame.pixels.shape, confidence.shape[1:])
        pass_below, cell_px = self._thresholds.pass_below, self.manifest.postprocess.cell_px
        found = decode_cells(confidence, pass_below, place=place, cell_px=cell_px)
        verdict, reason = decide(found, self._thresholds, self._labels)
        decided_ns = self._clock.monotonic_ns()
        asked = questions(confidence, pass_below, place=place, cell_px=cell_px, valid=valid) if len(found) else ()
        feature = outputs.get("feature")
        return Inspection(
            frame=frame,
            detections=found,
            verdict=verdict,
            reason=reason,
            timing=Timing(frame.captured_ns or taken_ns, taken_ns, inferred_ns, decided_ns),
            questions=asked,
            confidence=confidence,
            feature=None if feature is None else np.array(feature[0], np.float32),
            model=self.model,
        )

    def close(self) -> None:
        """Free the engine.  May be called twice."""
        self._runner.close()

    def _place_of(self, shape: tuple[int, ...], grid: tuple[int, ...]) -> tuple[Geometry, Bools]:
        known = self._places.get(shape)
        if known is None:
            spec = self.manifest.preprocess
            valid = valid_cells(spec, shape[0], shape[1], (grid[0], grid[1]))
            if len(self._places) >= 16:
                self._places.clear()
            known = self._places[shape] = geometry(spec, shape[0], shape[1]), valid
        return known


def not_inspected(frame: Frame, reason: str, *, taken_ns: int = 0, decided_ns: int = 0) -> Inspection:
    """The inspection of a frame that nobody judged."""
    timing = Timing(frame.captured_ns or taken_ns, taken_ns, 0, decided_ns)
    return Inspection(frame, Detections.none(), Verdict.NOT_INSPECTED, reason, timing)


class Pipeline:
    """Judges frames, one after the other, and tells everybody in the right order.

    Order for each frame: counted, told to the listeners, handed to who iterates, then ``after``.

    Args:
        judge: The bundle that starts; ``swap`` brings another.
        photograph: Says which frames are no photographs.
        lossless: Whether the camera waits, or the older frame leaves.
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
        deadline_ms: float | None = None,
        beat: Callable[[int], None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.ledger = Ledger()
        self.latencies = Latencies()
        self.listeners: list[Callable[[Inspection], None]] = []
        self.listener_errors = 0
        self.after: Callable[[Inspection], None] | None = None
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
        self._deadline_ms = math.inf if deadline_ms is None else deadline_ms
        self._beat = beat or (lambda now_ns: None)
        self._clock = clock or SystemClock()
        self._skipped: deque[tuple[Frame, str]] = deque(maxlen=SKIPPED_KEPT)
        self._stopping = False
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
        self, camera: Camera, *, read_timeout_s: float, frames: int | None = None, seconds: float | None = None
    ) -> Iterator[Inspection]:
        """Every frame of a camera with its verdict, also those that nobody could judge.

        Ends with the camera's last frame, after ``frames`` frames, ``seconds`` seconds, or ``stop``.

        Raises:
            CameraError: The camera was lost before its first frame, or its adapter failed.
            EdgeError: The station is iterated already.
        """
        if self._stream is not None and self._stream.gi_frame is not None:
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
        capture.start()
        try:
            while not self._stopping and self._clock.monotonic_ns() < until_ns:
                frame = handover.take(IDLE_S)
                yield from self._skipped_until_now()
                if frame is not None:
                    yield from self._told(self._inspect(frame))
                elif handover.exhausted:
                    break
                elif not capture.stuck:
                    self._beat(self._clock.monotonic_ns())
            capture.stop()
            yield from self._leftovers(handover)
            if capture.error is not None:
                raise capture.error
        finally:
            capture.stop()
            for _ in self._leftovers(handover):
                pass

    def close(self) -> None:
        """End a stream that its consumer left half-way, and count what still waited."""
        self.stop()
        stream, self._stream = self._stream, None
        if stream is not None and not stream.gi_running:
            stream.close()

    def snapshot(self) -> dict[str, Any]:
        """The ledger, the latencies and the faults, ready for JSON."""
        found = {**self.ledger.snapshot(), **self.latencies.snapshot(), "listener_errors": self.listener_errors}
        capture = self.capture
        if capture is not None:
            found["camera"] = {
                "fault": capture.fault,
                "timeouts": capture.timeouts,
                "losses": capture.losses,
                "gaps": capture.gaps,
            }
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
                    return self._judge.inspect(frame, taken_ns=taken_ns)
                reason = f"camera fault: {fault}"
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
        reason = STOPPED if self._stopping else "queue full"
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
            self.ledger.left(Verdict.NOT_INSPECTED, STOPPED)
            self._skipped.append((replace(frame, pixels=NO_PIXELS), STOPPED))
        yield from self._skipped_until_now()

    def _complain(self, who: str, what: str, error: Exception) -> None:
        """Log the first failure of each kind with its traceback; the rest is counted."""
        kind = f"{who}: {type(error).__name__}"
        if kind not in self._complained and len(self._complained) < 100:
            self._complained.add(kind)
            log.error(what, exc_info=error, extra={"who": who})


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
