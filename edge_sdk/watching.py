"""The watch for drift at work: fed after each verdict, on a thread of its own, never waited for.

The station calls :meth:`DriftWatch.offer` once the verdict is out.  What it takes to sum a feature and to measure a
picture happens on the watch's thread; a frame that finds the hand-over full is left out and counted.
"""

from __future__ import annotations

import json
import logging
import queue
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from edge_sdk.arrays import Floats, Image
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.documents import utc_text
from edge_sdk.errors import EdgeError, ShapeError
from edge_sdk.health import write_state
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.manifest import Manifest, WatchReference, manifest_id, reference_of_watch
from edge_sdk.quality.drift import Drift, Watch
from edge_sdk.quality.drift_reference import FEWEST, Reference, areas_of, summary_of
from edge_sdk.quality.facts import facts_of_picture
from edge_sdk.vision.preprocess import Adjustment, PreprocessSpec

__all__ = ["DriftWatch", "reference_or_why"]

log = logging.getLogger(__name__)

HAND_OVER = 32
"""Frames that may wait for the thread."""
EVERY = 4
"""One frame in so many is measured for its facts: they name a cause, they do not find it."""
PICTURES = 2
"""Pictures that may wait to be measured, so that a slow thread holds no memory."""
NO_REFERENCE = (
    f"off: the bundle has no drift reference for {{rendering}}; pack it again with {FEWEST} or more healthy pictures"
)


def reference_or_why(manifest: Manifest, rendering: str) -> tuple[WatchReference, Reference] | str:
    """What a rendering is watched against, or why it is not."""
    try:
        found = reference_of_watch(manifest, rendering)
    except ShapeError as error:
        return f"off: the bundle's drift reference cannot be used ({error}); pack it again"
    return found or NO_REFERENCE.format(rendering=rendering)


@dataclass(frozen=True, eq=False)
class _Line:
    """What is watched now; another bundle brings another one, whole."""

    model: str
    rendering: str
    preprocess: PreprocessSpec
    watch: Watch | None
    of: str = ""
    why: str = ""
    """There is no watch, or how it began."""


class _Seen(NamedTuple):
    """What is handed over of an inspection: not its picture, unless that is to be measured."""

    model: str
    feature: Floats | None
    confidence: Floats | None
    detected: bool
    pixels: Image | None


class DriftWatch:
    """Watches the bundle that judges.

    Args:
        manifest: Of that bundle.
        rendering: Role of the graph that judges.
        path: Where whole windows are kept, so that a restart does not forget them; ``None`` keeps nothing.
        adjust: The station's gain and offset: facts are those of the picture that the graph sees.
        clock: Stamps what happened.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        rendering: str = "fp32",
        path: Path | None = None,
        adjust: Adjustment | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._adjust = adjust
        self._clock = clock or SystemClock()
        self._waiting: queue.SimpleQueue[_Seen | threading.Event | None] = queue.SimpleQueue()
        self._offering = threading.Lock()
        """Taken by offers alone, which meet here only where several threads inspect."""
        self._offered = self._pictures_in = self._pictures_out = 0
        self.skipped = 0
        """Frames that found the hand-over full."""
        self._wanted = False
        self._since: str | None = None
        self._failed = False
        self._closed = False
        self._line = self._begun(manifest, rendering)
        self._thread = threading.Thread(target=self._run, name="edge-sdk-drift", daemon=True)
        self._thread.start()

    def use(self, manifest: Manifest, *, rendering: str = "fp32") -> None:
        """Another bundle judges from now on: its own reference counts, and the watch starts clean."""
        self.drain(1.0)
        self._since, self._wanted = None, False
        self._line = self._begun(manifest, rendering)

    def offer(self, inspection: Inspection) -> bool:
        """Hand over an inspection.  Never waits.

        Nothing is learnt of a frame whose repeated lines show what the frame before has reported: it passed, and its
        features are those of a defect that has been counted.

        Returns:
            Whether the frame should be kept as the record of a change that the watch has just found.
        """
        if self._closed or self._line.watch is None or inspection.verdict is Verdict.NOT_INSPECTED:
            return False
        if inspection.reported_before and inspection.verdict is Verdict.PASSED:
            return False
        with self._offering:
            wanted, self._wanted = self._wanted, False
            if self._waiting.qsize() >= HAND_OVER:
                self.skipped += 1
                return wanted
            measured = self._offered % EVERY == 0 and self._pictures_in - self._pictures_out < PICTURES
            self._offered += 1
            self._pictures_in += measured
        self._waiting.put(
            _Seen(
                model=inspection.model,
                feature=inspection.feature,
                confidence=inspection.confidence,
                detected=inspection.verdict is not Verdict.PASSED,
                pixels=inspection.frame.pixels if measured else None,
            )
        )
        return wanted

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far has been dealt with; whether that was in time."""
        done = threading.Event()
        self._waiting.put(done)
        return done.wait(timeout_s)

    def note(self) -> dict[str, Any] | None:
        """What an item says of the input at its time; ``None`` while nothing has changed."""
        watch = self._line.watch
        last = None if watch is None else watch.last
        if last is None or last.state in ("starting", "unchanged"):
            return None
        return {"state": last.state, "sentence": last.sentence, "since": self._since or ""}

    def snapshot(self) -> dict[str, Any]:
        """For the station's status: ``state``, ``sentence``, ``since`` when, and the figures behind them."""
        line = self._line
        watch = line.watch
        if watch is None:
            return {"state": "off", "sentence": line.why.removeprefix("off: ")}
        last = watch.last
        found: dict[str, Any] = {
            "state": "starting" if last is None else last.state,
            "sentence": "no window of frames that pass is full yet" if last is None else last.sentence,
            "since": self._since,
            "began": line.why,
            "reference": {"of": line.of, "pictures": watch.reference.n, "threshold": watch.reference.threshold},
            "skipped": self.skipped,
            "unusable": watch.unusable,
        }
        if last is not None:
            found |= {
                "statistic": None if last.statistic is None else round(last.statistic, 3),
                "over": last.over,
                "windows": last.windows,
                "score_shift": round(last.score_shift, 3),
                "detected": round(last.detected, 4),
                "causes": list(last.causes),
            }
        return found

    def close(self, timeout_s: float = 2.0) -> None:
        """Deal with what was handed over.  May be called twice."""
        if not self._closed:
            self._closed = True
            self._waiting.put(None)
            self._thread.join(timeout_s)

    def _begun(self, manifest: Manifest, rendering: str) -> _Line:
        """The watch of a bundle; it goes on from what was kept of the same one."""
        model, spec = manifest_id(manifest), manifest.preprocess
        found = reference_or_why(manifest, rendering)
        if isinstance(found, str):
            return _Line(model, rendering, spec, None, why=found)
        said, reference = found
        watch = Watch(reference)
        return _Line(model, rendering, spec, watch, of=said.of, why=self._resumed(watch, model, rendering))

    def _resumed(self, watch: Watch, model: str, rendering: str) -> str:
        """How the watch began, a clause."""
        if self._path is None:
            return "clean"
        try:
            said = json.loads(self._path.read_bytes())
            if (said["model"], said["rendering"]) != (model, rendering):
                return "clean, as another bundle judged before"
            watch.resume(said["watch"])
            self._since = said["since"]
            return f"from the {said['watch']['windows']} windows it had seen by {said['written_at']}"
        except FileNotFoundError:
            return "clean"
        except (OSError, ValueError, KeyError, TypeError, EdgeError) as error:
            why = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}"
            log.warning("the drift watch starts clean", extra={"path": str(self._path), "why": why})
            return f"clean, as what was kept of it cannot be read ({why})"

    # -- on the watch's thread -------------------------------------------------------------------

    def _run(self) -> None:
        while (seen := self._waiting.get()) is not None:
            if isinstance(seen, threading.Event):
                seen.set()
                continue
            try:
                self._see(seen)
            except Exception as error:
                if not self._failed:
                    self._failed = True
                    log.error("the drift watch failed on a frame", exc_info=error)
            finally:
                self._pictures_out += seen.pixels is not None

    def _see(self, seen: _Seen) -> None:
        line = self._line
        watch = line.watch
        if watch is None or seen.model != line.model or seen.confidence is None:
            return
        vector = summary_of(seen.confidence) if line.of == "scores" else seen.feature
        if vector is None:
            watch.unusable += 1
            return
        score = float(areas_of(seen.confidence).max(initial=0.0))
        facts = None
        if seen.pixels is not None:
            facts = facts_of_picture(seen.pixels, line.preprocess, adjust=self._adjust)
        before = "unchanged" if watch.last is None else watch.last.state
        found = watch.see(vector, score, detected=seen.detected, facts=facts)
        if found is not None:
            self._told(found, "unchanged" if before == "starting" else before)
            self._keep(line)

    def _told(self, found: Drift, before: str) -> None:
        """A window has ended: note a change of state, log it, and ask for a record of it."""
        if found.state in (before, "starting"):
            return
        self._since = utc_text(self._clock.now())
        if found.state == "unchanged":
            log.info("the input is as it was again")
            return
        self._wanted = True
        tell = log.warning if found.state == "alarm" else log.info
        tell("the input changed", extra={"state": found.state, "sentence": found.sentence})

    def _keep(self, line: _Line) -> None:
        """Whole windows only: one that is under way when the power goes is counted anew."""
        if self._path is None or line.watch is None:
            return
        told: Mapping[str, Any] = {
            "schema": "drift/1",
            "model": line.model,
            "rendering": line.rendering,
            "written_at": utc_text(self._clock.now()),
            "since": self._since,
            "watch": line.watch.document(),
        }
        with suppress(OSError):  # a full disk: a restart then starts from older windows, or clean
            write_state(self._path, told)
