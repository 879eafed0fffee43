"""Hands what is worth an operator's time from the inspecting thread to the outbox, without ever waiting.

The station calls :meth:`Mentor.offer` after every verdict.  All that takes time, from the thumbnail to the
fsync, happens on a thread of the mentor's own; what does not fit into its small hand-over is counted.
"""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.config import StationConfig
from edge_sdk.errors import ConfigError, EdgeError, OutboxBusy, OutboxError, OutboxFull
from edge_sdk.inspections import Inspection, Verdict
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.manifest import Manifest, labels_of, manifest_id, thresholds_of
from edge_sdk.outbox.budget import Budget
from edge_sdk.outbox.quotas import QuotaBudgets, values_of
from edge_sdk.outbox.selection import Choice, DuplicateGate, choice, kept_as_changed, strongest
from edge_sdk.outbox.store import Outbox
from edge_sdk.outbox.tombstones import CONTROL
from edge_sdk.records import record_from_inspection
from edge_sdk.vision.preprocess import PreprocessSpec, valid_cells

__all__ = ["Mentor"]

log = logging.getLogger(__name__)

HAND_OVER = 256
HAND_OVER_BYTES = 64 * 1024 * 1024
"""Of pixels that may wait for the mentor's thread, so that a storm of doubts cannot fill the memory."""
REOPEN_S = 30.0
NO_OUTBOX = "the station has no outbox; write a section mentoring, e.g. mentoring: {outbox: ./outbox}"
COUNTED = ("offered", "put", "duplicate", "over_budget", "refused", "no_room", "failed")


class Mentor:
    """Chooses frames and keeps them in the outbox, beside the inspection.

    A dead disk never stops the line: the mentor then counts what it could not keep, says so in
    :meth:`snapshot`, and tries to open the outbox again.
    """

    def __init__(
        self,
        config: StationConfig,
        manifest: Manifest,
        *,
        rendering: str = "fp32",
        clock: Clock | None = None,
        draw: Callable[[], float] = random.random,
        drift: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        """Open the outbox and start the thread.

        Args:
            config: Of the station; its section ``mentoring`` says what is kept.
            manifest: Of the bundle that judges now.
            rendering: Role of the graph that it judges with.
            clock: For the budget.
            draw: Uniform in [0, 1), for the control sample.
            drift: Asked for what each item says of the input.

        Raises:
            OutboxBusy: Another process writes to the outbox.
            ConfigError: There is no section ``mentoring``.
        """
        if config.mentoring is None:
            raise ConfigError(NO_OUTBOX)
        self._config = config.mentoring
        self._station = config.station
        self._clock = clock or SystemClock()
        self._draw = draw
        self._drift = drift
        self._budget = Budget(
            self._config.questions_per_shift, shift_h=self._config.shift_h, clock=self._clock
        )
        self._quotas = (
            QuotaBudgets(
                self._config.questions_per_shift, shift_h=self._config.shift_h, clock=self._clock
            )
            if self._config.choose_by == "quotas"
            else None
        )
        self._gate = DuplicateGate()
        self._judges: dict[str, tuple[Labels, Thresholds]] = {}
        self._seen_as: dict[str, tuple[PreprocessSpec, tuple[Array, Array] | None]] = {}
        """By model: how it sees a frame; the drift reference, mean and standard deviation of the line's features."""
        self._handed: Counter[str] = Counter()
        self._handled: Counter[str] = Counter()
        """Two, so that the mentor's thread never holds a lock that an offer might wait for."""
        self._written_off = 0
        self._seq = 0
        self._degraded: str | None = None
        self._failing: set[str] = set()
        self._waiting: queue.SimpleQueue[tuple[Inspection, bool, bool, bool] | threading.Event | None] = (
            queue.SimpleQueue()
        )
        self.healthy_if: Callable[[Inspection], object] | None = None
        """Whether the line itself knows a part to be healthy; asked on the inspecting thread, so it must not wait."""
        self._bytes_in = self._bytes_out = 0
        self._offering = threading.Lock()
        """Taken by offers alone, which meet here only where several threads inspect."""
        self._closed = False
        self._hurry = threading.Event()
        self.use(manifest, rendering=rendering)
        self._outbox: Outbox | None = None
        self._tried_ns = self._clock.monotonic_ns()
        self._open()
        self._thread = threading.Thread(target=self._run, name="edge-sdk-mentor", daemon=True)
        self._thread.start()

    def use(self, manifest: Manifest, *, rendering: str = "fp32") -> None:
        """Another bundle judges from now on; inspections of the one before may still come in."""
        model = manifest_id(manifest)
        kept = {name: self._judges[name] for name in list(self._judges)[-3:] if name != model}
        self._judges = {**kept, model: (labels_of(manifest), thresholds_of(manifest, rendering))}
        drift = manifest.drift
        usual = None if drift is None else (np.array(drift.mean, np.float32), np.array(drift.sd, np.float32))
        self._seen_as = {name: self._seen_as[name] for name in kept} | {model: (manifest.preprocess, usual)}

    def offer(self, inspection: Inspection, *, changed: bool = False) -> bool:
        """Hand over an inspection if it is worth keeping.  Never waits, never raises for want of room.

        Args:
            inspection: As the judge gave it.
            changed: Keep it whatever it shows: the input has just been found to have changed.

        Returns:
            Whether it was handed over; it may still prove a duplicate, or over the budget.
        """
        if self._closed or inspection.verdict is Verdict.NOT_INSPECTED:
            return False
        with self._offering:
            self._handed["offered"] += 1
            drawn = self._draw() < self._config.control_share
            if inspection.verdict is Verdict.PASSED and not (drawn or changed):
                return False
            size = _bytes(inspection)
            backlog = self._bytes_in - self._bytes_out
            if self._waiting.qsize() >= HAND_OVER or (backlog and backlog + size > HAND_OVER_BYTES):
                self._handed["refused"] += 1
                self._handed["drawn and lost"] += drawn
                return False
            self._bytes_in += size
        self._waiting.put((inspection, drawn, self._known_healthy(inspection), changed))
        return True

    def _known_healthy(self, inspection: Inspection) -> bool:
        """What the line says of a part; where it cannot say, nothing is known.

        Retraining takes every cell of such a picture for healthy, the repeated lines of the frame before too: where
        those show what was reported, the line is not asked.
        """
        if inspection.reported_before or inspection.continued:
            return False
        try:
            return self.healthy_if is not None and bool(self.healthy_if(inspection))
        except Exception as error:  # noqa: BLE001 - the integrator's code must not stop the line
            self._say("healthy_if", error, "the line could not say whether a part is healthy")
            return False

    def drain(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far has been dealt with; whether that was in time."""
        done = threading.Event()
        self._waiting.put(done)
        return done.wait(timeout_s)

    def snapshot(self) -> dict[str, Any]:
        """Figures for the station's status.

        ``offered`` inspections; ``put`` into the outbox, ``duplicate`` of one queued lately, ``over_budget``,
        ``refused`` because the hand-over was full, ``no_room`` in a full outbox, ``failed``; ``evicted`` for
        better ones; then ``waiting`` items and their ``bytes``, ``quarantined``, ``tombstones`` of the control
        sample by why, ``questions_left`` in the budget, and ``degraded``: why nothing can be kept, or ``None``.
        """
        found: dict[str, Any] = {name: self._handed[name] + self._handled[name] for name in COUNTED}
        found["questions_left"] = int((self._quotas or self._budget).left)
        found["degraded"] = self._degraded
        outbox = self._outbox
        if outbox is not None:
            counts = outbox.counts()
            found.update(
                evicted=outbox.counters["evicted"],
                waiting=counts.waiting,
                bytes=counts.bytes,
                quarantined=counts.quarantined,
                tombstones=counts.tombstones,
            )
        return found

    def close(self, timeout_s: float = 20.0) -> None:
        """Keep what was handed over, then close the outbox.  May be called twice.

        What is not kept within ``timeout_s`` is counted as refused.
        """
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self._hurry.set()
            self._thread.join(5.0)
        if self._outbox is not None and not self._thread.is_alive():
            self._outbox.close()

    # -- on the mentor's thread ------------------------------------------------------------------

    def _run(self) -> None:
        while (taken := self._waiting.get()) is not None:
            if isinstance(taken, threading.Event):
                taken.set()
                continue
            inspection, drawn, healthy, changed = taken
            try:
                if self._hurry.is_set():
                    self._count("refused", drawn=drawn)
                else:
                    self._keep(inspection, drawn, healthy, changed)
            except OutboxFull as error:  # the outbox has left the tombstone
                self._count("no_room")
                self._say("full", error)
            except OutboxError as error:
                self._count("failed")
                self._degraded = str(error)
                self._say("disk", error)
            except Exception as error:  # noqa: BLE001 - a thread's edge: counted, said once, and on
                self._count("failed", drawn=drawn)
                self._say(type(error).__name__, error)
            finally:
                self._bytes_out += _bytes(inspection)
            self._write_off()

    def _keep(self, inspection: Inspection, drawn: bool, healthy: bool, changed: bool) -> None:
        labels, thresholds = self._judge_of(inspection.model)
        record_of_change = changed and not drawn
        chosen = kept_as_changed(healthy) if record_of_change else self._choose(inspection, thresholds, drawn, healthy)
        if chosen is None:
            return
        thumbnail = self._gate.thumbnail(inspection.frame.pixels)
        if not record_of_change and self._gate.seen(thumbnail):
            self._count("duplicate")
            return
        stratum = self._afforded(chosen, inspection)
        if stratum is None:
            self._count("over_budget")
            return
        outbox = self._open()
        if outbox is None:
            self._count("failed", drawn=drawn)
            return
        record = record_from_inspection(
            inspection,
            station=self._station,
            boot_id=outbox.boot_id,
            seq=self._seq,
            reason=chosen.reason,
            stratum=stratum,
            value=chosen.value,
            inclusion_probability=chosen.inclusion_probability,
            labels=labels,
            thresholds=thresholds,
            drift=self._drift(),
        )
        self._seq += 1
        outbox.put(record)
        self._count("put")
        self._gate.remember(thumbnail)
        if chosen.questions and self._quotas is not None:
            self._quotas.spend(stratum, chosen.questions)
        elif chosen.questions:
            self._budget.spend(chosen.questions)
        self._degraded = None
        self._failing.clear()

    def _afforded(self, chosen: Choice, inspection: Inspection) -> str | None:
        """The stratum that the frame is queued in, if the budget allows it."""
        if not chosen.questions:
            return chosen.stratum
        if self._quotas is None:
            return chosen.stratum if self._budget.affords(chosen.questions, chosen.value) else None
        confidence = inspection.confidence
        if confidence is None:
            return None
        spec, usual = self._seen_as.get(inspection.model, (None, None))
        valid = None
        if spec is not None and confidence.ndim == 3:  # a detector's anchors are not in rows and columns
            height, width = inspection.frame.pixels.shape[:2]
            valid = valid_cells(spec, height, width, (confidence.shape[1], confidence.shape[2]))
        values = values_of(confidence, feature=inspection.feature, reference=usual, valid=valid)
        return self._quotas.affords(chosen.questions, values)

    def _choose(
        self, inspection: Inspection, thresholds: Thresholds, drawn: bool, healthy: bool
    ) -> Choice | None:
        confidence, band = strongest(inspection, thresholds)
        return choice(
            inspection.verdict,
            confidence=confidence,
            questions=len(inspection.questions),
            band=band,
            control_share=self._config.control_share if drawn else None,
            healthy=healthy,
        )

    def _judge_of(self, model: str) -> tuple[Labels, Thresholds]:
        found = self._judges.get(model)
        if found is None:
            self._say("model", EdgeError(f"the mentor was not told of bundle {model[:12]}, which inspects"))
            found = list(self._judges.values())[-1]
        return found

    def _open(self) -> Outbox | None:
        """The outbox; opened again after trouble, but not at every frame."""
        if self._outbox is not None:
            return self._outbox
        now = self._clock.monotonic_ns()
        if self._degraded is not None and now - self._tried_ns < REOPEN_S * 1e9:
            return None
        self._tried_ns = now
        try:
            self._outbox = Outbox(
                self._config.outbox, writing=True, limit_mib=self._config.outbox_mib, clock=self._clock
            )
            self._seq = 0
            self._degraded = None
        except OutboxBusy:
            raise
        except OutboxError as error:
            self._degraded = str(error)
            self._say("disk", error)
        return self._outbox

    def _count(self, name: str, *, drawn: bool = False) -> None:
        self._handled[name] += 1
        self._handled["drawn and lost"] += drawn

    def _write_off(self) -> None:
        """Leave tombstones for what was drawn for the control sample and never became an item."""
        lost = self._handed["drawn and lost"] + self._handled["drawn and lost"] - self._written_off
        if lost > 0 and self._outbox is not None:
            self._outbox.lost(CONTROL, self._config.control_share, why="not put", count=lost)
            self._written_off += lost

    def _say(self, kind: str, error: Exception, what: str = "frames are not kept") -> None:
        """Log a kind of trouble once, until something has been kept again."""
        if kind not in self._failing:
            self._failing.add(kind)
            expected = isinstance(error, EdgeError)
            log.warning(
                what, exc_info=None if expected else error, extra={"error": str(error)}
            )


def _bytes(inspection: Inspection) -> int:
    return inspection.frame.pixels.nbytes + (
        0 if inspection.confidence is None else inspection.confidence.nbytes
    )
