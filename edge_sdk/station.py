"""Station: what an integrator holds.

It puts a ``station.yaml`` to work: opens and proves the bundle, owns the camera while it is iterated,
hands records to the outbox, writes its status, and lets another bundle in between two frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edge_sdk.bundles.slots import LINK
from edge_sdk.cameras import open_camera
from edge_sdk.cameras.photograph import PhotographCheck
from edge_sdk.clock import Clock, SystemClock
from edge_sdk.config import StationConfig, load_station
from edge_sdk.documents import utc_text
from edge_sdk.errors import ConfigError
from edge_sdk.health import Heartbeat, StatusWriter
from edge_sdk.inspections import Inspection
from edge_sdk.judge import Judge
from edge_sdk.labels import Labels
from edge_sdk.loading import judge_from
from edge_sdk.overlap import Overlap
from edge_sdk.pipeline import Pipeline
from edge_sdk.state import StateFolder
from edge_sdk.swap import BundleWatch, identity
from edge_sdk.watching import DriftWatch

if TYPE_CHECKING:
    from edge_sdk.cameras import Camera
    from edge_sdk.frames import Frame
    from edge_sdk.outbox.mentor import Mentor

__all__ = ["Station"]

KEEP_S = 8.0
"""For what waits for the outbox when the station ends; the rest is counted as refused."""


class Station:
    """One inspection point at work.

        with Station.open("station.yaml") as station:      # pull: the station owns the camera
            for inspection in station:
                plc.send(inspection.frame.index, reject=inspection.verdict is not Verdict.PASSED)

        inspection = station.inspect(frame)                 # push: the integrator owns it

    Every frame ends in exactly one counted verdict, also one that nobody could judge; whoever sorts
    parts should pass those alone whose verdict is ``PASSED``.
    """

    def __init__(
        self,
        config: StationConfig,
        *,
        pipeline: Pipeline,
        camera: Camera | None = None,
        mentor: Mentor | None = None,
        watch: BundleWatch | None = None,
        drift: DriftWatch | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = config
        self._pipeline = pipeline
        self._camera = camera
        self._mentor = mentor
        self._watch = watch
        self._drift = drift
        self._clock = clock or SystemClock()
        self._labels = {pipeline.model: pipeline.judge.labels}
        self._started_at = self._clock.now()
        self._state = "open"
        self._closing = ExitStack()

    @classmethod
    def open(
        cls,
        path: str | Path | StationConfig,
        *,
        camera: Camera | None = None,
        rehearsal: bool = False,
        clock: Clock | None = None,
    ) -> Station:
        """Open the station that a ``station.yaml`` describes.

        The bundle is verified and proved on its golden frames before this returns.  Where the settings name
        ``bundles/current``, a bundle that is activated later is let in between two frames; a bundle's own
        folder or file is used until the station stops.

        Args:
            path: The file, or settings already read.
            camera: Used instead of the one in the settings; belongs to the station from here on.
            rehearsal: Hold no lock, write no status, keep no records, ignore newly activated
                bundles: a station beside the real one, as ``replay`` needs it.
            clock: For every stamp; tests turn it by hand.

        Raises:
            ConfigError: A setting is wrong.
            BundleError: The bundle is missing, damaged or not trusted.
            GateError: The bundle failed on its golden frames.
            StationBusy: Another process runs this station.
            OutboxBusy: Another process writes to the outbox.
        """
        config = path if isinstance(path, StationConfig) else load_station(path)
        clock = clock or SystemClock()
        if config.verdicts and not rehearsal:
            raise ConfigError(
                f"verdicts[0].to is {config.verdicts[0].to!r}, which nothing here answers to; leave verdicts out and "
                "send them from the program that embeds the station: station.on_verdict(...)"
            )
        with ExitStack() as opened:
            folder = StateFolder(config.state, station=config.station)
            if not rehearsal:
                folder.hold()
                opened.callback(folder.release)
            status = StatusWriter(folder.status_path, lambda: station.status())
            opened.callback(status.close)
            seen = identity(config.bundle)
            judge = judge_from(config.bundle, config, clock=clock)
            pipeline = Pipeline(
                judge,
                photograph=PhotographCheck(config.camera),
                lossless=config.pipeline.policy == "lossless",
                overlap=None if config.camera.overlap_lines is None else Overlap(config.camera.overlap_lines),
                deadline_ms=config.pipeline.deadline_ms,
                beat=None if rehearsal else Heartbeat().beat,
                clock=clock,
            )
            opened.callback(lambda: pipeline.judge.close())
            mentor = watch = drift = None
            if not rehearsal:
                drift = DriftWatch(
                    judge.manifest,
                    rendering=judge.rendering,
                    path=config.state / "drift.json",
                    adjust=judge.adjust,
                    clock=clock,
                )
                opened.callback(drift.close)
                pipeline.after = drift.offer
            if config.mentoring is not None and not rehearsal:
                from edge_sdk.outbox.mentor import Mentor

                assert drift is not None
                mentor = Mentor(
                    config, judge.manifest, rendering=judge.rendering, clock=clock, drift=drift.note
                )
                opened.callback(mentor.close, KEEP_S)
                pipeline.after = _after(drift, mentor)
            if config.bundle.name == LINK and not rehearsal:
                watch = BundleWatch(
                    config.bundle,
                    lambda: judge_from(config.bundle, config, clock=clock),
                    pipeline,
                    announce=lambda judge: station._announce(judge),
                    seen=seen,
                    clock=clock,
                )
                opened.callback(watch.close)
            station = cls(
                config, pipeline=pipeline, camera=camera, mentor=mentor, watch=watch, drift=drift, clock=clock
            )
            if not rehearsal:
                status.start()
            if watch is not None:
                watch.start()
            station._closing = opened.pop_all()
        return station

    @property
    def model(self) -> str:
        """Id of the bundle that judges now: sha256 of its manifest."""
        return self._pipeline.model

    def labels_of(self, inspection: Inspection) -> Labels:
        """The classes of the bundle that judged a frame, also after another one took over."""
        return self._labels.get(inspection.model, self._pipeline.judge.labels)

    def on_verdict(self, listener: Callable[[Inspection], object]) -> None:
        """Have every inspection told, before anything is written to a disk.

        Listeners are called in order, on the thread that decides; one that raises is counted, logged
        once, and called again for the next frame.
        """
        self._pipeline.listeners.append(listener)

    def healthy_if(self, says: Callable[[Inspection], object]) -> None:
        """Have the line's own knowledge that a part is healthy go with its record, for retraining.

        ``says`` is asked of each frame that may be kept for the operator, after the listeners, on the thread that
        decides; it must not wait, and answer false where it does not know.  It changes neither verdict nor choice.
        The picture is ``frame.pixels``: with ``camera.overlap_lines`` its first ``repeated_lines`` are of the frame
        before.

        Raises:
            ConfigError: The station keeps no records.
        """
        if self._mentor is None:
            from edge_sdk.outbox.mentor import NO_OUTBOX

            raise ConfigError(NO_OUTBOX)
        self._mentor.healthy_if = says

    def __iter__(self) -> Iterator[Inspection]:
        return self.stream()

    def stream(self, *, frames: int | None = None, seconds: float | None = None) -> Iterator[Inspection]:
        """Every frame of the station's camera with its verdict.

        Args:
            frames: End after so many frames came in.
            seconds: End after this time.

        Raises:
            CameraError: The camera cannot be opened.
        """
        camera, self._camera = self._camera, None
        if camera is None:
            camera = open_camera(self.config.camera.uri, self.config.camera)
        self._state = "running"
        yield from self._pipeline.stream(
            camera, read_timeout_s=self.config.camera.read_timeout_s, frames=frames, seconds=seconds
        )
        self._state = "open"

    def inspect(self, frame: Frame) -> Inspection:
        """Judge a frame that the integrator captured.  May be called from several threads."""
        return self._pipeline.inspect(frame)

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._pipeline.stopping

    def stop(self) -> None:
        """End the iteration after the frame under way, for good.  Safe in a signal handler."""
        self._pipeline.stop()

    def summary(self) -> dict[str, Any]:
        """What became of the frames, as the demo's report states it: ``station``, ``outbox``, ``swaps``."""
        found: dict[str, Any] = {"station": self._pipeline.snapshot(), "outbox": {}, "swaps": []}
        if self._mentor is not None:
            found["outbox"] = self._mentor.snapshot()
        if self._watch is not None:
            found["swaps"] = self._watch.swaps
        return found

    def status(self) -> dict[str, Any]:
        """What ``status.json`` says (``status/1``)."""
        judge = self._pipeline.judge
        manifest = judge.manifest
        return {
            "schema": "status/1",
            "name": self.config.station,
            "state": self._state,
            "pid": os.getpid(),
            "started_at": utc_text(self._started_at),
            "written_at": utc_text(self._clock.now()),
            "model": judge.model,
            "bundle": {"name": manifest.name, "version": manifest.version, "line": manifest.line},
            "rendering": judge.rendering,
            "refused": None if self._watch is None else self._watch.refused,
            "drift": None if self._drift is None else self._drift.snapshot(),
            **self.summary(),
        }

    def _announce(self, judge: Judge) -> None:
        """Another bundle judges from the next frame on."""
        kept = {model: self._labels[model] for model in list(self._labels)[-3:]}
        self._labels = {**kept, judge.model: judge.labels}
        if self._mentor is not None:
            self._mentor.use(judge.manifest, rendering=judge.rendering)
        if self._drift is not None:
            self._drift.use(judge.manifest, rendering=judge.rendering)

    def close(self) -> None:
        """Stop, keep what was handed to the outbox, write the status once more.  May be called twice."""
        self._pipeline.stop()
        self._pipeline.close()
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()
        self._state = "stopped"
        self._closing.close()

    def __enter__(self) -> Station:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _after(drift: DriftWatch, mentor: Mentor) -> Callable[[Inspection], object]:
    """What is done once a verdict is out."""

    def after(inspection: Inspection) -> None:
        mentor.offer(inspection, changed=drift.offer(inspection))

    return after
