"""Which bundle judges: verified, proved, installed, activated, swapped under load, refused."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge_sdk import Inspection, Station, Verdict
from edge_sdk.bundles import Slots
from edge_sdk.cameras.photograph import PhotographCheck
from edge_sdk.clock import FakeClock
from edge_sdk.config import CameraConfig
from edge_sdk.errors import (
    BundleDamaged,
    BundleError,
    BundleUntrusted,
    ConfigError,
    GateError,
)
from edge_sdk.frames import Frame
from edge_sdk.judge import Judge
from edge_sdk.loading import activated, judge_from
from edge_sdk.manifest import read_manifest
from edge_sdk.pipeline import Pipeline
from edge_sdk.state import StateFolder
from edge_sdk.swap import BundleWatch, identity
from edge_sdk.testing import FakeRunner, drawn_picture
from tests import stations


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``first``, ``second`` (also as a file), and ``bad``, which fails on its golden frames."""
    return stations.three_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    """A folder with ``bundle`` and nine ``pictures``; tests write their own ``station.yaml``."""
    return stations.place(tmp_path, made)


def wait_until(true: Callable[[], bool], *, within_s: float = 20.0) -> None:
    began = time.monotonic()
    while not true():
        assert time.monotonic() - began < within_s, "it did not happen in time"
        time.sleep(0.01)


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


def test_a_swap_under_load_loses_no_frame_and_the_status_says_which_model_runs(
    place: Path, made: Path
) -> None:
    from edge_sdk.config import load_station

    path = stations.settings(place, bundle="./bundles/current", mentoring={"outbox": "./outbox"})
    config = load_station(path)
    first = activated(made / "first", config, talk=lambda line: None)
    with Station.open(path, camera=stations.endless()) as station:
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


class FakeLoad:
    """A loader that counts its judges and can wait."""

    def __init__(self, place: Path, *, model: str, wait: threading.Event | None = None) -> None:
        self._manifest = read_manifest(place / "bundle/manifest.json")
        self._model = model
        self._wait = wait
        self.entered = threading.Event()
        self.runners: list[FakeRunner] = []

    def __call__(self) -> Judge:
        self.entered.set()
        if self._wait is not None:
            self._wait.wait(20)
        self.runners.append(FakeRunner({"cells": np.full((1, 1, 8, 8), -9, np.float32)}))
        return Judge(self._manifest, self.runners[-1], model=self._model)


def test_a_bundle_proved_too_late_is_not_used_and_its_engine_is_freed(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.swap.CLOSE_S", 0.01)
    go = threading.Event()
    load = FakeLoad(place, model="late", wait=go)
    pipeline = Pipeline(
        FakeLoad(place, model="first")(), photograph=PhotographCheck(CameraConfig(uri="file:x"))
    )
    watch = BundleWatch(place / "bundle", load, pipeline, seen=None, clock=FakeClock(), every_s=0.001)
    watch.start()
    load.entered.wait(20)
    watch.close()
    go.set()
    wait_until(lambda: bool(load.runners) and load.runners[0].closed)
    assert pipeline.model == "first"
    assert watch.swaps == []


def test_the_same_bundle_again_is_no_swap(place: Path) -> None:
    load = FakeLoad(place, model="same")
    pipeline = Pipeline(
        FakeLoad(place, model="same")(), photograph=PhotographCheck(CameraConfig(uri="file:x"))
    )
    watch = BundleWatch(place / "bundle", load, pipeline, seen=None, clock=FakeClock())
    watch.look()
    watch.look()
    assert watch.swaps == []
    assert [runner.closed for runner in load.runners] == [True]


def test_the_identity_of_a_bundle_changes_with_the_link_and_with_its_manifest(
    place: Path, made: Path
) -> None:
    assert identity(place / "nowhere") is None
    first = identity(place / "bundle")
    assert first == identity(place / "bundle")
    shutil.rmtree(place / "bundle")
    shutil.copytree(made / "second", place / "bundle")
    assert identity(place / "bundle") not in (None, first)


def test_a_judge_is_closed_with_its_engine_when_its_proof_fails(place: Path, made: Path) -> None:
    from edge_sdk.config import load_station

    config = load_station(stations.settings(place))
    with pytest.raises(GateError):
        judge_from(made / "bad", config)
