"""A whole station on a laptop: real bundle, real engine, fake or file camera."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk import Inspection, Station, Verdict
from edge_sdk.bundles import Slots
from edge_sdk.clock import FakeClock
from edge_sdk.errors import (
    BundleDamaged,
    BundleError,
    BundleUntrusted,
    CameraError,
    ConfigError,
    GateError,
    OutboxBusy,
    RunnerError,
)
from edge_sdk.frames import Frame
from edge_sdk.judge import Judge
from edge_sdk.loading import activated, judge_from
from edge_sdk.manifest import read_manifest
from edge_sdk.state import StateFolder, StationBusy
from edge_sdk.swap import identity
from edge_sdk.testing import FakeCamera, FakeRunner, drawn_picture
from tests import stations


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles, ``first`` and ``second``, and one that fails on its golden frames, ``bad``."""
    folder = tmp_path_factory.mktemp("bundles")
    stations.spot_bundle(folder / "first")
    stations.spot_bundle(folder / "second", version="2", dark_below=0.36)
    stations.spot_bundle(folder / "bad", version="3", golden_off=9.0)
    stations.packed(folder / "second", folder / "second.bundle")
    return folder


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    """A folder with ``bundle`` and nine ``pictures``; tests write their own ``station.yaml``."""
    shutil.copytree(made / "first", tmp_path / "bundle")
    stations.picture_folder(tmp_path / "pictures", 9)
    return tmp_path


def wait_until(true: Callable[[], bool], *, within_s: float = 20.0) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it did not happen in time"
        time.sleep(0.01)


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


def test_a_threshold_out_of_range_stops_at_the_door(place: Path) -> None:
    manifest = json.loads((place / "bundle/manifest.json").read_bytes())
    manifest["thresholds"][0]["pass_below"] = 1.5
    (place / "bundle/manifest.json").write_bytes(
        json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
    )
    with pytest.raises(BundleError, match=r"thresholds\[0\].pass_below is 1.5; give at most 1"):
        Station.open(stations.settings(place))


def test_an_altered_file_is_named_and_nothing_starts(place: Path) -> None:
    model = place / "bundle/model/model.onnx"
    data = bytearray(model.read_bytes())
    data[100] ^= 1
    model.write_bytes(data)
    with pytest.raises(BundleDamaged, match=r"model/model.onnx was altered"):
        Station.open(stations.settings(place))
    assert not StateFolder(place / "state", station="press-3").held


def test_an_unsigned_bundle_is_refused_where_a_key_is_demanded(place: Path) -> None:
    import base64

    (place / "release.pub").write_text(base64.b64encode(bytes(32)).decode())
    with pytest.raises(BundleUntrusted, match="not signed"):
        Station.open(stations.settings(place, trust=["release.pub"]))


def test_a_bundle_that_fails_on_its_golden_frames_does_not_judge(place: Path, made: Path) -> None:
    with pytest.raises(
        GateError, match=r"press-3-3 failed on its golden frames as fp32: \d+ of 16 pictures got another"
    ):
        Station.open(stations.settings(place, bundle=str(made / "bad")))


def test_a_proof_is_not_repeated_on_the_same_machine(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stations.settings(place)
    Station.open(path).close()
    assert len(list((place / "bundle/engines").glob("*/proof.json"))) == 1
    monkeypatch.setattr("edge_sdk.loading.prove", lambda *_, **__: pytest.fail("proved again"))
    Station.open(path).close()


def test_a_bundle_file_is_used_without_being_installed(place: Path, made: Path) -> None:
    with Station.open(stations.settings(place, bundle=str(made / "second.bundle"))) as station:
        assert len(list(station)) == 9


def test_the_first_bundle_is_installed_into_empty_slots(place: Path, made: Path) -> None:
    path = stations.settings(place, bundle="./bundles/current")
    with pytest.raises(BundleError, match=r"current leads to no bundle yet; install one: edge-sdk activate"):
        Station.open(path)
    said: list[str] = []
    from edge_sdk.config import load_station

    config = load_station(path)
    first = activated(made / "first", config, talk=said.append)
    assert (first["slot"], first["name"], first["was_active"]) == ("a", "press-3-1", False)
    assert said == [
        "press-3-1: every byte verified",
        "press-3-1: installed in slot a",
        "press-3-1: proved on its golden frames",
    ]
    assert activated(made / "first", config, talk=said.append)["was_active"] is True
    second = activated(made / "second.bundle", config, talk=said.append)
    assert second["slot"] == "b"
    with Station.open(path) as station:
        assert station.model == second["model"]


def test_a_bundle_that_fails_its_proof_is_marked_bad_and_the_old_one_stays(place: Path, made: Path) -> None:
    from edge_sdk.config import load_station

    config = load_station(stations.settings(place, bundle="./bundles/current"))
    activated(made / "first", config, talk=lambda line: None)
    with pytest.raises(GateError, match="press-3-3 failed on its golden frames"):
        activated(made / "bad", config, talk=lambda line: None)
    slots = Slots(place / "bundles")
    current = slots.current()
    assert current is not None
    assert current.title == "press-3-1"
    assert slots.idle().state == "bad"


def test_a_bundle_used_where_it_lies_cannot_be_replaced_by_activate(place: Path, made: Path) -> None:
    from edge_sdk.config import load_station

    config = load_station(stations.settings(place))
    with pytest.raises(
        ConfigError, match=r"which is used as it lies; write bundle: ./bundles/current so that"
    ):
        activated(made / "second", config, talk=lambda line: None)


def endless(count: int = 1_000_000) -> FakeCamera:
    """As many drawn pictures as anybody reads, made when they are read."""
    few = stations.pictures(30, seed=50)

    class Many(FakeCamera):
        def read(self, timeout_s: float) -> Frame:
            self._pictures.append(few[self._index % len(few)])
            return super().read(timeout_s)

    return Many([], rate_hz=400)


def test_a_swap_under_load_loses_no_frame_and_the_status_says_which_model_runs(
    place: Path, made: Path
) -> None:
    from edge_sdk.config import load_station

    path = stations.settings(place, bundle="./bundles/current", mentoring={"outbox": "./outbox"})
    config = load_station(path)
    first = activated(made / "first", config, talk=lambda line: None)
    with Station.open(path, camera=endless()) as station:
        found: list[Inspection] = []
        thread = threading.Thread(target=lambda: found.extend(station))
        thread.start()
        wait_until(lambda: len(station.summary()["station"]["camera"]) > 0)
        second = activated(made / "second", config, talk=lambda line: None)
        wait_until(lambda: station.model == second["model"])
        wait_until(lambda: json.loads((place / "state/status.json").read_bytes())["model"] == second["model"])
        station.stop()
        thread.join(timeout=20)
    judged = [inspection for inspection in found if inspection.reason != "station stopped"]
    assert [inspection.frame.index for inspection in judged] == list(range(len(judged)))
    assert all(inspection.verdict is not Verdict.NOT_INSPECTED for inspection in judged)
    models = [inspection.model for inspection in judged]
    assert set(models) == {first["model"], second["model"]}
    assert models == sorted(models, key=[first["model"], second["model"]].index)
    status = json.loads((place / "state/status.json").read_bytes())
    assert status["swaps"][0] | {"at": ""} == {
        "at": "",
        "from": first["model"],
        "to": second["model"],
        "name": "press-3-2",
        "frames_lost": 0,
    }
    assert status["state"] == "stopped"
    assert status["station"]["frames_in"] == sum(status["station"]["outcomes"].values())
    assert not status["outbox"]["failed"]


def test_a_running_station_refuses_a_bundle_that_fails_and_says_why(
    place: Path, made: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (place / "bundles").mkdir()
    shutil.copytree(made / "first", place / "bundles/a")
    shutil.copytree(made / "bad", place / "bundles/b")
    (place / "bundles/current").symlink_to("a")
    path = stations.settings(place, bundle="./bundles/current")
    with caplog.at_level(logging.ERROR), Station.open(path) as station:
        before = station.model
        (place / "bundles/new").symlink_to("b")
        (place / "bundles/new").rename(place / "bundles/current")
        wait_until(lambda: station.status()["refused"] is not None)
        assert station.model == before
        assert "press-3-3 failed on its golden frames as fp32" in station.status()["refused"]["why"]
        assert station.inspect(Frame(drawn_picture(), "left", 0, FakeClock().now())).verdict is Verdict.PASSED
    assert [record.message for record in caplog.records] == ["a bundle was refused; the one before goes on"]


def test_the_identity_of_a_bundle_changes_with_the_link_and_with_its_manifest(
    place: Path, made: Path
) -> None:
    assert identity(place / "nowhere") is None
    first = identity(place / "bundle")
    assert first == identity(place / "bundle")
    shutil.rmtree(place / "bundle")
    shutil.copytree(made / "second", place / "bundle")
    assert identity(place / "bundle") not in (None, first)


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
    with Station.open(path, camera=endless()) as station:
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


def test_a_judge_is_closed_with_its_engine_when_its_proof_fails(place: Path, made: Path) -> None:
    from edge_sdk.config import load_station

    config = load_station(stations.settings(place))
    with pytest.raises(GateError):
        judge_from(made / "bad", config)
