"""Every frame in gets one counted outcome, whatever camera, engine, queue or listener do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.capture import LOSSLESS_DEPTH
from edge_sdk.detections import Detections
from edge_sdk.errors import (
    CameraError,
    CameraLost,
    DefectErased,
    EdgeError,
    EndOfFrames,
    FrameTimeout,
    RunnerError,
)
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Timing, Verdict
from edge_sdk.judge import Judge
from edge_sdk.pipeline import Pipeline


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost camera is read again at once."""
    monkeypatch.setattr("edge_sdk.capture.FIRST_PAUSE_S", 0.0005)


AT = datetime(2026, 11, 21, tzinfo=timezone.utc)


def frame(index: int, *, captured_ns: int | None = None) -> Frame:
    pixels = np.full((4, 4, 3), index % 251 + 1, np.uint8)
    return Frame(pixels, "left", index, AT, time.monotonic_ns() if captured_ns is None else captured_ns)


class Script:
    """A camera that plays frames and raises errors in the order given, then ends."""

    def __init__(self, events: Iterable[Frame | Exception], *, every_s: float = 0.0) -> None:
        self._events = iter(events)
        self._every_s = every_s
        self.closed_by: list[str] = []

    def read(self, timeout_s: float) -> Frame:
        if self._every_s:
            time.sleep(self._every_s)
        event = next(self._events, None) or EndOfFrames("the script is over")
        if isinstance(event, Exception):
            raise event
        return Frame(event.pixels, event.camera, event.index, event.captured_at, time.monotonic_ns())

    def close(self) -> None:
        self.closed_by.append(threading.current_thread().name)


class Endless(Script):
    """A camera that never ends."""

    def __init__(self) -> None:
        super().__init__(frame(n) for n in range(1_000_000_000))
        self._every_s = 0.0005


class FakeJudge:
    """Passes every frame, after an engine's time; fails where told."""

    def __init__(
        self,
        *,
        model: str = "old",
        takes_s: float = 0.0,
        fails: Callable[[int], Exception | None] | None = None,
    ):
        self.model = model
        self.manifest = None
        self.takes_s = takes_s
        self.closed = 0
        self.busy = False
        self.seen: list[int] = []
        self._fails = fails or (lambda index: None)

    def inspect(self, frame: Frame, *, taken_ns: int) -> Inspection:
        assert not self.busy and not self.closed
        self.busy = True
        try:
            if self.takes_s:
                time.sleep(self.takes_s)
            error = self._fails(frame.index)
            if error is not None:
                raise error
        finally:
            self.busy = False
        self.seen.append(frame.index)
        now_ns = time.monotonic_ns()
        timing = Timing(frame.captured_ns, taken_ns, now_ns, now_ns)
        return Inspection(frame, Detections.none(), Verdict.PASSED, "", timing, model=self.model)

    def close(self) -> None:
        self.closed += 1


class NoFault:
    def fault(self, frame: Frame) -> str | None:
        return None


class Black:
    """Finds every third frame black."""

    def fault(self, frame: Frame) -> str | None:
        return "black picture" if frame.index % 3 == 0 else None


def pipeline(judge: FakeJudge | None = None, **settings: Any) -> Pipeline:
    settings = {"photograph": NoFault(), **settings}
    return Pipeline(cast(Judge, judge or FakeJudge()), **settings)


def all_of(line: Pipeline, camera: Any, **limits: Any) -> list[Inspection]:
    return list(line.stream(camera, read_timeout_s=1.0, **limits))


def adds_up(line: Pipeline) -> dict[str, Any]:
    counts = line.ledger.snapshot()
    assert counts["frames_in"] == sum(counts["outcomes"].values())
    assert counts["outcomes"]["not_inspected"] == sum(counts["not_inspected_by"].values())
    return counts


def test_lossless_judges_every_frame_in_order_with_a_slow_engine() -> None:
    line = pipeline(FakeJudge(takes_s=0.002), lossless=True)
    found = all_of(line, Script(frame(n) for n in range(40)))
    assert [inspection.frame.index for inspection in found] == list(range(40))
    assert adds_up(line)["outcomes"]["passed"] == 40


def test_latest_keeps_the_judged_frame_fresh_and_tells_of_the_dropped_ones() -> None:
    engine_s = 0.02
    line = pipeline(FakeJudge(takes_s=engine_s))
    found = all_of(line, Script((frame(n) for n in range(100)), every_s=0.002))
    counts = adds_up(line)
    assert counts["frames_in"] == 100
    assert counts["not_inspected_by"]["queue full"] > 50
    assert sorted(inspection.frame.index for inspection in found) == list(range(100))
    judged = [inspection.timing for inspection in found if inspection.verdict is Verdict.PASSED]
    ages_ms = sorted(timing.latency_ms for timing in judged)
    engine_ms = sorted((timing.inferred_ns - timing.taken_ns) / 1e6 for timing in judged)
    assert ages_ms[len(judged) // 2] <= 1.6 * engine_ms[len(judged) // 2], (
        "a frame waits for the camera, not in a queue"
    )
    dropped = [inspection for inspection in found if inspection.reason == "queue full"]
    assert all(inspection.frame.pixels.size == 0 for inspection in dropped), "dropped pictures keep no memory"


def test_a_consumer_that_stops_asking_costs_bounded_memory_and_the_ledger_still_adds_up() -> None:
    line = pipeline()
    camera = Script(frame(n) for n in range(3000))
    stream = line.stream(camera, read_timeout_s=1.0)
    next(stream)
    while not camera.closed_by:
        time.sleep(0.001)
    told = 1 + sum(1 for _ in stream)
    counts = adds_up(line)
    assert counts["frames_in"] == 3000
    assert told < 1200


def test_frames_that_waited_when_the_station_stopped_are_told_in_their_order() -> None:
    line = pipeline(lossless=True)
    stream = line.stream(Endless(), read_timeout_s=1.0)
    found = [next(stream)]
    while line.ledger.snapshot()["frames_in"] < 1 + LOSSLESS_DEPTH + 1:  # the camera's thread holds one more
        time.sleep(0.001)
    line.stop()
    found += stream
    assert [inspection.frame.index for inspection in found] == list(range(LOSSLESS_DEPTH + 2))
    assert [inspection.reason for inspection in found[1:]] == ["station stopped"] * (LOSSLESS_DEPTH + 1)
    assert adds_up(line)["frames_in"] == LOSSLESS_DEPTH + 2


def test_no_photograph_is_a_camera_fault_and_never_a_pass() -> None:
    line = pipeline(photograph=Black(), lossless=True)
    found = all_of(line, Script(frame(n) for n in range(9)))
    reasons = {inspection.frame.index: (inspection.verdict, inspection.reason) for inspection in found}
    assert reasons[0] == reasons[3] == reasons[6] == (Verdict.NOT_INSPECTED, "camera fault: black picture")
    assert adds_up(line)["not_inspected_by"] == {"camera fault": 3}


def test_an_engine_that_fails_costs_its_frame_and_not_the_line(caplog: pytest.LogCaptureFixture) -> None:
    def fails(index: int) -> Exception | None:
        return {
            2: RunnerError("the engine is out of memory; use a smaller model"),
            3: ZeroDivisionError("x"),
        }.get(index)

    line = pipeline(FakeJudge(fails=fails), lossless=True)
    with caplog.at_level(logging.ERROR):
        found = all_of(line, Script(frame(n) for n in range(6)))
    assert [inspection.reason for inspection in found if inspection.verdict is Verdict.NOT_INSPECTED] == [
        "runner failed: the engine is out of memory; use a smaller model",
        "runner failed: ZeroDivisionError: x",
    ]
    assert adds_up(line)["not_inspected_by"] == {"runner failed": 2}
    assert len(caplog.records) == 2


def test_a_frame_whose_resize_would_erase_a_defect_is_never_a_pass(caplog: pytest.LogCaptureFixture) -> None:
    said = "a defect of 2 px would keep 0 % of its contrast; give a larger input"
    line = pipeline(
        FakeJudge(fails=lambda n: DefectErased(said, kept=0.0) if n % 2 else None), lossless=True
    )
    with caplog.at_level(logging.ERROR):
        found = all_of(line, Script(frame(n) for n in range(6)))
    refused = [one for one in found if one.verdict is Verdict.NOT_INSPECTED]
    assert [one.reason for one in refused] == [f"resize refused: {said}"] * 3
    assert adds_up(line)["not_inspected_by"] == {"resize refused": 3}
    assert [record.message for record in caplog.records] == ["a frame could not be resized"]


def test_a_listener_that_raises_is_counted_logged_once_and_called_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = pipeline(lossless=True)
    heard: list[int] = []

    def bad(inspection: Inspection) -> None:
        raise ValueError("the lamp is off")

    line.listeners += [bad, lambda inspection: heard.append(inspection.frame.index)]
    with caplog.at_level(logging.ERROR):
        all_of(line, Script(frame(n) for n in range(5)))
    assert heard == list(range(5))
    assert line.listener_errors == 5
    assert [record.message for record in caplog.records] == ["a verdict listener failed"]
    assert adds_up(line)["outcomes"]["passed"] == 5


def test_listeners_and_consumer_come_before_what_is_done_afterwards() -> None:
    line = pipeline(lossless=True)
    order: list[str] = []
    line.listeners.append(lambda inspection: order.append("listener"))
    line.after = lambda inspection: order.append("after")
    for _ in line.stream(Script([frame(0), frame(1)]), read_timeout_s=1.0):
        order.append("consumer")
    assert order == ["listener", "consumer", "after"] * 2


def test_what_comes_afterwards_is_done_even_if_the_consumer_breaks_off_and_its_failure_stops_nobody() -> None:
    line = pipeline(lossless=True)
    kept: list[int] = []

    def after(inspection: Inspection) -> None:
        kept.append(inspection.frame.index)
        raise OSError("no space left")

    line.after = after
    for _ in line.stream(Script(frame(n) for n in range(9)), read_timeout_s=1.0):
        break
    line.close()
    assert kept == [0]
    assert adds_up(line)["outcomes"]["passed"] == 1


def test_frames_nobody_judged_are_not_handed_on() -> None:
    line = pipeline(photograph=Black(), lossless=True)
    kept: list[int] = []
    line.after = lambda inspection: kept.append(inspection.frame.index)
    all_of(line, Script(frame(n) for n in range(4)))
    assert kept == [1, 2]


def test_the_end_of_a_file_ends_the_iteration_and_the_camera_is_closed_by_its_own_thread() -> None:
    camera = Script([frame(0)])
    assert len(all_of(pipeline(), camera)) == 1
    assert camera.closed_by == ["edge-sdk-capture"]


def test_a_camera_that_starts_later_than_its_station_is_waited_for() -> None:
    line = pipeline(lossless=True)
    found = all_of(line, Script([CameraLost("no answer from 10.0.0.7; is it on?"), frame(0)]))
    assert len(found) == 1
    assert line.snapshot()["camera"]["losses"] == 1


def test_a_camera_lost_later_is_a_fault_that_ends_when_it_comes_back() -> None:
    events: list[Frame | Exception] = [
        frame(0),
        CameraLost("cable"),
        CameraLost("cable"),
        frame(1),
        FrameTimeout("no frame in 1 s"),
        frame(5),
    ]
    line = pipeline(lossless=True)
    faults: list[str | None] = []
    line.listeners.append(lambda inspection: faults.append(line.snapshot()["camera"]["fault"]))
    found = all_of(line, Script(events))
    assert [inspection.frame.index for inspection in found] == [0, 1, 5]
    camera = line.snapshot()["camera"]
    assert camera == {"fault": None, "timeouts": 1, "losses": 2, "gaps": 3}


def test_an_adapter_with_a_bug_ends_the_iteration_with_a_sentence_and_nobody_waits_for_ever() -> None:
    with pytest.raises(CameraLost, match=r"the camera failed with TypeError: no; see the log"):
        all_of(pipeline(), Script(cast("list[Frame | Exception]", [frame(0), TypeError("no")])))


def test_the_ledger_counts_frames_given_by_hand_too() -> None:
    line = pipeline(photograph=Black())
    assert line.inspect(frame(0)).verdict is Verdict.NOT_INSPECTED
    assert line.inspect(frame(1)).verdict is Verdict.PASSED
    assert adds_up(line)["frames_in"] == 2


def test_a_late_verdict_stays_a_verdict_and_is_counted() -> None:
    line = pipeline(FakeJudge(takes_s=0.005), deadline_ms=1.0, lossless=True)
    all_of(line, Script([frame(0)]))
    assert (adds_up(line)["late"], adds_up(line)["outcomes"]["passed"]) == (1, 1)


def test_frames_limits_what_comes_in_and_every_one_of_them_leaves() -> None:
    line = pipeline(FakeJudge(takes_s=0.001))
    all_of(line, Endless(), frames=25)
    assert adds_up(line)["frames_in"] == 25


def test_seconds_end_an_endless_camera() -> None:
    line = pipeline()
    all_of(line, Endless(), seconds=0.05)
    assert adds_up(line)["frames_in"] > 0


@pytest.mark.parametrize("lossless", [True, False])
def test_a_stop_ends_after_the_frame_under_way_and_accounts_for_those_that_wait(lossless: bool) -> None:
    line = pipeline(FakeJudge(takes_s=0.002), lossless=lossless)
    line.listeners.append(lambda inspection: line.stop())
    camera = Endless()
    found = all_of(line, camera)
    judged = [inspection for inspection in found if inspection.verdict is Verdict.PASSED]
    assert len(judged) == 1
    counts = adds_up(line)
    assert counts["frames_in"] == len(found)
    assert set(counts["not_inspected_by"]) <= {"station stopped", "queue full"}
    assert camera.closed_by == ["edge-sdk-capture"]


def test_ctrl_c_inside_the_engine_leaves_a_ledger_that_adds_up() -> None:
    line = pipeline(FakeJudge(fails=lambda index: cast(Exception, KeyboardInterrupt())), lossless=True)
    with pytest.raises(KeyboardInterrupt):
        all_of(line, Script(frame(n) for n in range(10)))
    assert adds_up(line)["outcomes"]["passed"] == 0


def test_a_second_iteration_at_the_same_time_is_refused() -> None:
    line = pipeline()
    first = line.stream(Endless(), read_timeout_s=1.0)
    next(first)
    with pytest.raises(
        EdgeError, match="the station is iterated already; use that iteration, or close it first"
    ):
        line.stream(Endless(), read_timeout_s=1.0)
    line.close()


@settings(max_examples=15, deadline=None)
@given(swaps=st.lists(st.floats(0, 0.004), min_size=1, max_size=5), takes_s=st.sampled_from([0.0, 0.0005]))
def test_swaps_under_load_lose_no_frame(swaps: list[float], takes_s: float) -> None:
    judges = [FakeJudge(model="0", takes_s=takes_s)]
    line = pipeline(judges[0], lossless=True)
    found: list[Inspection] = []

    def consume() -> None:
        found.extend(line.stream(Endless(), read_timeout_s=1.0))

    thread = threading.Thread(target=consume)
    thread.start()
    for number, pause_s in enumerate(swaps, start=1):
        time.sleep(pause_s)
        judges.append(FakeJudge(model=str(number), takes_s=takes_s))
        line.swap(cast(Judge, judges[-1])).close()
    time.sleep(0.005)
    line.stop()
    thread.join(timeout=10)
    counts = adds_up(line)
    assert counts["not_inspected_by"].keys() <= {"station stopped"}
    judged = [inspection for inspection in found if inspection.verdict is Verdict.PASSED]
    assert [inspection.frame.index for inspection in judged] == list(range(len(judged)))
    models = [int(inspection.model) for inspection in judged]
    assert models == sorted(models)
    assert all(judge.closed == 1 for judge in judges[:-1])


EVENTS = st.lists(st.sampled_from(["frame", "frame", "frame", "skip", "timeout", "lost"]), max_size=25)


@settings(max_examples=60, deadline=None)
@given(
    events=EVENTS,
    lossless=st.booleans(),
    failing=st.sets(st.integers(0, 25)),
    stop_after=st.none() | st.integers(1, 10),
    leave_after=st.none() | st.integers(1, 10),
)
def test_whatever_happens_every_frame_in_is_told_once_and_counted_once(
    events: list[str], lossless: bool, failing: set[int], stop_after: int | None, leave_after: int | None
) -> None:
    script: list[Frame | Exception] = []
    index = 0
    for event in events:
        index += event in ("frame", "skip")
        if event == "frame":
            script.append(frame(index))
        elif event != "skip":
            script.append(FrameTimeout("none") if event == "timeout" else CameraError("half a picture"))
    judge = FakeJudge(fails=lambda index: RunnerError("no") if index in failing else None)
    line = pipeline(judge, lossless=lossless, photograph=Black())
    told: list[int] = []
    line.listeners.append(lambda inspection: told.append(inspection.frame.index))
    line.listeners.append(lambda inspection: line.stop() if len(told) == stop_after else None)
    for seen, _ in enumerate(line.stream(Script(script), read_timeout_s=1.0), start=1):
        if seen == leave_after:
            break
    line.close()
    counts = adds_up(line)
    assert len(told) == counts["frames_in"]
    assert sorted(told) == sorted(set(told))
    if stop_after is None and leave_after is None:
        assert counts["frames_in"] == sum(isinstance(event, Frame) for event in script)


def test_a_swap_is_done_while_no_frame_comes() -> None:
    line = pipeline()
    left = line.swap(cast(Judge, FakeJudge(model="new")))
    assert (left.model, line.model) == ("old", "new")


def test_frames_given_from_several_threads_are_judged_one_at_a_time() -> None:
    judge = FakeJudge(takes_s=0.0002)
    line = pipeline(judge)
    threads = [threading.Thread(target=lambda: [line.inspect(frame(n)) for n in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert adds_up(line)["outcomes"]["passed"] == 200


def test_the_heart_beats_with_each_verdict_and_while_the_line_stands_still() -> None:
    beats: list[int] = []
    line = pipeline(beat=beats.append)
    all_of(line, Script([frame(0), FrameTimeout("belt stopped"), frame(1)], every_s=0.15))
    assert len(beats) > 2


def test_any_other_camera_error_is_a_fault_too() -> None:
    line = pipeline(lossless=True)
    found = all_of(line, Script([frame(0), CameraError("half a picture"), frame(1)]))
    assert len(found) == 2
