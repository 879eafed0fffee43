"""A whole station on a laptop: real bundle, real engine, fake or file camera."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk import Station, Verdict
from edge_sdk.clock import FakeClock
from edge_sdk.errors import (
    CameraError,
    ConfigError,
    OutboxBusy,
    RunnerError,
    StationBusy,
)
from edge_sdk.frames import Frame
from edge_sdk.judge import Judge
from edge_sdk.manifest import read_manifest
from edge_sdk.state import StateFolder
from edge_sdk.testing import FakeCamera, FakeRunner, drawn_picture
from tests import stations


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``first``, ``second`` (also as a file), and ``bad``, which fails on its golden frames."""
    return stations.three_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    """A folder with ``bundle`` and nine ``pictures``; tests write their own ``station.yaml``."""
    return stations.place(tmp_path, made)


def test_a_station_judges_every_picture_of_a_folder_and_says_why(place: Path) -> None:
    with Station.open(stations.settings(place)) as station:
        found = list(station)
        reasons = [(inspection.verdict, inspection.reason) for inspection in found]
    assert reasons == [(Verdict.DEFECTIVE, "spot 1.00"), (Verdict.PASSED, ""), (Verdict.PASSED, "")] * 3
    defective = found[0]
    assert (defective.detections.boxes == [[60, 40, 100, 80]]).all()
    assert defective.confidence is not None
    assert defective.confidence.shape == (1, 8, 8)
    assert defective.feature is not None
    assert defective.feature.shape == (3,)
    assert len(defective.questions) >= 1
    assert defective.model == station.model
    assert station.labels_of(defective).names == ("spot",)


def test_push_gives_the_same_answer_as_pull(place: Path) -> None:
    path = stations.settings(place)
    pictures = stations.pictures(9)
    with Station.open(path) as station:
        pulled = list(station)
    clock = FakeClock()
    with Station.open(path) as station:
        pushed = []
        for number, picture in enumerate(pictures):
            pushed.append(station.inspect(Frame(picture, "mine", number, clock.now())))
        counts = station.summary()["station"]
    assert [inspection.verdict for inspection in pushed] == [inspection.verdict for inspection in pulled]
    for one, other in zip(pushed, pulled, strict=True):
        assert one.confidence is not None
        assert other.confidence is not None
        assert np.array_equal(one.confidence, other.confidence)
    assert counts["frames_in"] == 9
    assert all(inspection.timing.latency_ms > 0 for inspection in pushed)


def test_a_picture_of_a_dark_lens_is_a_camera_fault_and_never_a_pass(place: Path) -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    frozen = drawn_picture(seed=5)
    camera = FakeCamera([drawn_picture(seed=1), black, *[frozen] * 8], rate_hz=10, clock=FakeClock())
    settings = stations.settings(place, camera={"uri": "file:pictures", "frozen_frames": 3, "frozen_s": 0.25})
    with Station.open(settings, camera=camera) as station:
        found = list(station)
    assert found[1].verdict is Verdict.NOT_INSPECTED
    assert found[1].reason == "camera fault: the frame is black: its brightest part is 0.0 of 255"
    assert found[-1].verdict is Verdict.NOT_INSPECTED
    assert "frozen" in found[-1].reason
    counts = station.summary()["station"]
    assert counts["not_inspected_by"]["camera fault"] == counts["outcomes"]["not_inspected"]
    assert counts["frames_in"] == 10 == sum(counts["outcomes"].values())


def test_a_camera_that_is_missing_is_one_sentence(place: Path) -> None:
    with Station.open(stations.settings(place, camera={"uri": "file:nowhere.avi"})) as station:
        with pytest.raises(CameraError, match=r"there is no file or folder .*nowhere.avi"):
            list(station)


def test_the_verdict_is_out_before_a_record_is_on_the_disk(place: Path) -> None:
    path = stations.settings(place, mentoring={"outbox": "./outbox"})
    kept_at_verdict: list[int] = []

    def kept() -> int:
        return sum(1 for file in (place / "outbox").rglob("*") if len(file.stem) == 64)

    with Station.open(path) as station:
        station.on_verdict(lambda inspection: kept_at_verdict.append(kept()))
        for inspection in station:
            assert inspection.verdict is Verdict.DEFECTIVE
            time.sleep(0.05)
            assert kept() == 0, "not even while the integrator is at work with the verdict"
            break
    assert kept_at_verdict[0] == 0
    assert kept() == 1


def test_a_second_station_on_the_same_state_is_refused_and_told_who_has_it(place: Path) -> None:
    path = stations.settings(place)
    with Station.open(path):
        with pytest.raises(
            StationBusy, match=r"station press-3 is already run by process \d+ .*; stop that one first"
        ):
            Station.open(path)
    Station.open(path).close()


def test_a_second_writer_on_the_outbox_is_refused_and_the_state_is_let_go(place: Path) -> None:
    one = stations.settings(place, mentoring={"outbox": "./outbox"})
    with Station.open(one):
        other = stations.settings(place, state="./state-2", mentoring={"outbox": "./outbox"})
        with pytest.raises(OutboxBusy):
            Station.open(other)
        assert not StateFolder(place / "state-2", station="press-3").held


def test_a_rehearsal_beside_the_running_station_holds_and_writes_nothing(place: Path) -> None:
    path = stations.settings(place, mentoring={"outbox": "./outbox"})
    with Station.open(path):
        with Station.open(path, rehearsal=True) as rehearsal:
            assert len(list(rehearsal)) == 9
        assert rehearsal.summary()["outbox"] == {}


@pytest.mark.parametrize(
    ("section", "told"),
    [
        (
            {"pipline": {"policy": "latest"}},
            r"station.yaml:1: no setting named pipline; did you mean pipeline\?",
        ),
        (
            {"camera": {"uri": "file:x", "exposure": 3}},
            r"no setting named camera.exposure; did you mean exposure_us\?",
        ),
        ({"pipeline": {"deadline_ms": 0}}, r"pipeline.deadline_ms is 0; give a number above 0"),
        ({"mentoring": {"control_share": 1.5}}, r"mentoring.control_share is 1.5; give at most 1"),
        ({"pipeline": {"policy": "newest"}}, r"pipeline.policy is \"newest\"; give 'latest' or 'lossless'"),
        ({"trust": None}, r"trust is missing; name the public keys"),
        (
            {"verdicts": [{"to": "modbus://10.0.0.5:502"}]},
            r"verdicts\[0\].to is 'modbus://10.0.0.5:502', which nothing here answers to; leave verdicts out",
        ),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(place: Path, section: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Station.open(stations.settings(place, **section))


def test_status_of_a_station_that_was_never_iterated_is_whole(place: Path) -> None:
    with Station.open(stations.settings(place)) as station:
        status = json.loads((place / "state/status.json").read_bytes())
    assert status["schema"] == "status/1"
    assert (status["state"], status["model"], status["rendering"]) == ("open", station.model, "fp32")
    assert status["bundle"] == {"name": "press-3", "version": "1", "line": "new"}
    assert status["station"]["frames_in"] == 0
    assert json.loads((place / "state/status.json").read_bytes())["state"] == "stopped"


def test_no_password_of_a_camera_is_written_anywhere(place: Path) -> None:
    path = stations.settings(place, camera={"uri": "rtsp://operator:secret@127.0.0.1:9/x", "name": "left"})
    with Station.open(path):
        pass
    assert "secret" not in (place / "state/status.json").read_text()


def test_a_state_folder_that_cannot_be_made_is_one_sentence(place: Path) -> None:
    (place / "file").write_text("")
    with pytest.raises(
        Exception, match=r"the state folder .* cannot be written \(Not a directory\); make it writable"
    ):
        Station.open(stations.settings(place, state="./file/state"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_full_or_dying_disk_under_the_state_does_not_keep_the_line_from_starting(
    place: Path, number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = stations.settings(place)
    Station.open(path).close()
    before = (place / "state/status.json").read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(number, "no")

    real_open = os.open

    def read_only(path: Any, flags: int, *more: Any, **other: Any) -> int:
        if flags & os.O_CREAT:
            refuse()
        return real_open(path, flags, *more, **other)

    with monkeypatch.context() as broken:
        broken.setattr("edge_sdk.state.os.open", read_only)
        broken.setattr("edge_sdk.health.os.replace", refuse)
        with caplog.at_level(logging.WARNING), Station.open(path) as station:
            assert len(list(station)) == 9
            with pytest.raises(StationBusy):
                Station.open(path)
    assert (place / "state/status.json").read_bytes() == before
    assert {record.message for record in caplog.records} == {
        "the state folder cannot be written",
        "the state file cannot be written",
    }


def test_a_station_may_be_closed_twice_and_its_own_camera_with_it(place: Path) -> None:
    camera = FakeCamera([drawn_picture()])
    station = Station.open(stations.settings(place), camera=camera)
    station.close()
    station.close()
    assert camera.closed


def test_closing_inside_the_loop_ends_it_in_order(place: Path) -> None:
    station = Station.open(stations.settings(place))
    for _ in station:
        station.close()
    counts = station.summary()["station"]
    assert counts["frames_in"] == sum(counts["outcomes"].values())


def test_threads_are_named_and_gone_after_close(place: Path) -> None:
    first = shutil.copytree(place / "bundle", place / "bundles/a")
    (place / "bundles/current").symlink_to(first.name)
    path = stations.settings(place, bundle="./bundles/current", mentoring={"outbox": "./outbox"})
    with Station.open(path, camera=stations.endless()) as station:
        stream = iter(station)
        next(stream)
        names = {thread.name for thread in threading.enumerate()}
        assert names >= {"edge-sdk-capture", "edge-sdk-status", "edge-sdk-bundles", "edge-sdk-mentor"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edge-sdk")]


def judge_with(place: Path, answer: Any) -> Judge:
    manifest = read_manifest(place / "bundle/manifest.json")
    return Judge(manifest, FakeRunner(answer), model="m")


@pytest.mark.parametrize("answer", [{"novelty": np.zeros((1, 1, 8, 8))}, {"cells": np.zeros((1, 2, 8, 8))}])
def test_an_engine_whose_answer_is_no_map_of_the_classes_is_refused(place: Path, answer: Any) -> None:
    judge = judge_with(place, answer)
    with pytest.raises(
        RunnerError, match=r"cells is .*; the bundle promises \(1, 1, h, w\), so pack it again"
    ):
        judge.inspect(Frame(drawn_picture(), "left", 0, FakeClock().now()), taken_ns=1)


def test_an_engine_that_gives_no_numbers_never_passes_a_frame(place: Path) -> None:
    judge = judge_with(place, {"cells": np.full((1, 1, 8, 8), np.nan, np.float32)})
    with pytest.raises(RunnerError, match="NaN or infinite"):
        judge.inspect(Frame(drawn_picture(), "left", 0, FakeClock().now()), taken_ns=1)


def test_judging_writes_into_the_same_input_memory_and_knows_many_sizes(place: Path) -> None:
    fed: list[int] = []

    def answer(feeds: Any) -> Any:
        fed.append(feeds["frame"].ctypes.data)
        return {"cells": np.full((1, 1, 8, 8), -9, np.float32)}

    judge = judge_with(place, answer)
    for height in range(40, 80):
        judge.inspect(Frame(drawn_picture(height=height), "left", height, FakeClock().now()), taken_ns=1)
    assert len(set(fed)) == 1
    judge.close()
