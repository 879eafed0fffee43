"""The watch for drift in a station: what it says, what it keeps and uploads, and that nobody waits for it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_sdk import Station, Verdict
from edge_sdk.arrays import Image
from edge_sdk.config import load_station
from edge_sdk.errors import ConfigError
from edge_sdk.frames import Frame
from edge_sdk.manifest import read_manifest, reference_of_watch
from edge_sdk.outbox.store import Outbox
from edge_sdk.quality.drift import Watch
from edge_sdk.records import decode_item
from edge_sdk.testing import FakeCamera, drawn_picture
from edge_sdk.watching import EVERY, HAND_OVER, DriftWatch
from tests import stations
from tests.edge import Edge, caller

WINDOW = 32


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles ``feature`` and ``scores``, by what is watched of them, and ``old`` without a reference."""
    folder = tmp_path_factory.mktemp("bundles")
    stations.spot_bundle(folder / "old")
    for name in ("feature", "scores"):
        shutil.copytree(folder / "old", folder / name)
        stations.watched(folder / name, feature=name == "feature")
    return folder


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    shutil.copytree(made / "feature", tmp_path / "bundle")
    return tmp_path


@pytest.fixture
def edge(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Edge]:
    yield from caller(capfdbinary)


def pictures(windows: int, *, gain: float = 1.0, seed: int = 5000) -> list[Image]:
    """Healthy pictures, as bright as ``gain`` says."""
    drawn = (drawn_picture(seed=seed + n) for n in range(windows * WINDOW))
    return [np.clip(np.rint(one * gain), 0, 255).astype(np.uint8) for one in drawn]


def told(place: Path, frames: list[Image], **sections: Any) -> dict[str, Any]:
    """What the status says of the input after some frames."""
    path = stations.settings(place, **sections)
    with Station.open(path, camera=FakeCamera(frames)) as station:
        assert station._drift is not None
        for _ in station:
            station._drift.drain(5)  # this camera is faster than any line
        station._drift.drain(5)
        found: dict[str, Any] = station.status()["drift"]
    return found


def test_an_unchanged_line_is_said_to_be_so(place: Path) -> None:
    found = told(place, pictures(4))
    assert (found["state"], found["sentence"]) == (
        "unchanged",
        "the input is as it was when the bundle was packed",
    )
    assert (found["windows"], found["skipped"], found["unusable"], found["began"]) == (4, 0, 0, "clean")
    assert found["reference"]["of"] == "feature" and found["reference"]["pictures"] == 64


@pytest.mark.parametrize("of", ["feature", "scores"])
def test_a_darker_line_is_named(place: Path, made: Path, of: str) -> None:
    shutil.rmtree(place / "bundle")
    shutil.copytree(made / of, place / "bundle")
    found = told(place, pictures(4, gain=0.9))
    assert found["state"] in ("input changed", "alarm")
    assert "the picture became darker: gain 0.90 of the reference" in found["sentence"]
    assert found["reference"]["of"] == of and found["since"]


def test_the_stations_adjustment_brings_a_darker_line_back(place: Path) -> None:
    adjust = {"gain": [1 / 0.9] * 3}
    found = told(place, pictures(4, gain=0.9), camera={"uri": "file:pictures", "adjust": adjust})
    assert found["state"] == "unchanged", found
    assert told(place, pictures(4, gain=0.9), state="./other")["state"] != "unchanged"


def test_an_adjustment_out_of_range_is_refused(place: Path) -> None:
    for adjust, said in (
        ({"gain": [9, 1, 1]}, "a light that changed by more is a fault to mend, not to adjust"),
        ({"offset": [0, 200, 0]}, "give offsets from -128 to 128 grey levels"),
    ):
        path = stations.settings(place, camera={"uri": "file:pictures", "adjust": adjust})
        with pytest.raises(ConfigError, match=said):
            load_station(path)


def test_an_old_bundle_has_the_watch_off_and_that_is_said(place: Path, made: Path, edge: Edge) -> None:
    shutil.rmtree(place / "bundle")
    shutil.copytree(made / "old", place / "bundle")
    why = "the bundle has no drift reference for fp32; pack it again with 32 or more healthy pictures"
    assert told(place, pictures(1)) == {"state": "off", "sentence": why}
    stations.picture_folder(place / "pictures", 1)
    checks = {row["name"]: row for row in edge("doctor", place / "station.yaml", "--json").json["checks"]}
    assert checks["drift"]["level"] == "warning"
    said = edge("doctor", place / "station.yaml").out
    assert "warning drift: no reference; the watch for drift is off: the bundle has no drift reference" in said


def test_the_doctor_says_what_is_watched(place: Path, edge: Edge) -> None:
    stations.picture_folder(place / "pictures", 1)
    said = edge("doctor", stations.settings(place)).out
    assert "ok      drift: 3 numbers of 64 pictures, window 32; the input is watched; 1% of an unchanged" in said


def test_the_status_shows_the_sentence(place: Path, edge: Edge) -> None:
    told(place, pictures(4, gain=0.9))
    said = edge("status", place / "station.yaml").out
    line = next(line for line in said.splitlines() if line.startswith("  drift: "))
    metrics = edge("status", place / "station.yaml", "--metrics").out
    assert 'edge_drift_windows_total{station="press-3"} 4' in metrics and "edge_drift_statistic{" in metrics
    assert "(since 20" in line and "the picture became darker: gain 0.90 of the reference" in line


def test_a_change_is_kept_as_a_record_with_its_sentence(place: Path) -> None:
    mentoring = {"outbox": "./outbox", "outbox_mib": 8, "control_share": 0.0}
    told(place, [*pictures(3), *pictures(4, gain=0.9), *pictures(1, gain=0.9, seed=9000)], mentoring=mentoring)
    with Outbox(place / "outbox", sending=True) as outbox:
        items = [one.data for one in outbox.lease(100, for_s=60)]
    kept = [header for item in items if (header := decode_item(item).header).stratum == "drift"]
    assert 1 <= len(kept) <= 2  # one a change of state
    first = kept[0]
    assert (first.reason, first.inclusion_probability) == ("novelty", 1.0)
    assert first.drift is not None and "the picture became darker" in first.drift.sentence


def test_items_of_an_unchanged_line_say_nothing_of_drift(place: Path) -> None:
    mentoring = {"outbox": "./outbox", "outbox_mib": 8, "control_share": 1.0}
    told(place, pictures(1), mentoring=mentoring)
    with Outbox(place / "outbox", sending=True) as outbox:
        assert b'"drift"' not in outbox.lease(1, for_s=60)[0].data


def test_a_restart_goes_on_and_another_bundle_starts_clean(place: Path) -> None:
    assert told(place, pictures(2, gain=0.9))["windows"] == 2
    found = told(place, pictures(1, gain=0.9, seed=7000))
    assert found["windows"] == 3 and found["state"] in ("input changed", "alarm")
    assert found["began"].startswith("from the 2 windows it had seen by 20")
    stations.watched(place / "bundle", count=80)
    found = told(place, pictures(1))
    assert (found["windows"], found["began"]) == (1, "clean, as another bundle judged before")


@pytest.mark.parametrize("kept", ["{", "[]", '{"model": 1}'])
def test_a_torn_state_starts_clean_and_that_is_said(place: Path, kept: str) -> None:
    (place / "state").mkdir()
    (place / "state/drift.json").write_text(kept)
    assert told(place, pictures(1))["began"].startswith("clean, as what was kept of it cannot be read (")


def test_a_window_of_another_reference_is_not_gone_on_from(place: Path) -> None:
    told(place, pictures(1))
    path = place / "state/drift.json"
    said = json.loads(path.read_bytes())
    said["watch"]["kept"][0]["below"] = [1.0]
    path.write_text(json.dumps(said))
    assert "of another reference; it starts clean" in told(place, pictures(1))["began"]


def test_a_slow_watch_delays_no_verdict(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Watch, "see", lambda *_, **__: go_on.wait(20) and None)
    with Station.open(stations.settings(place), camera=FakeCamera(pictures(2))) as station:
        began = time.monotonic()
        assert sum(1 for _ in station) == 2 * WINDOW
        assert time.monotonic() - began < 10
        assert station.status()["drift"]["skipped"] >= 2 * WINDOW - HAND_OVER - 2
        go_on.set()


def test_a_watch_that_fails_stops_no_frame_and_is_logged_once(
    place: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Watch, "see", failing)
    told(place, pictures(1))
    assert [record.message for record in caplog.records] == ["the drift watch failed on a frame"]


def test_the_reference_survives_the_manifest(made: Path) -> None:
    manifest = read_manifest(made / "feature/manifest.json")
    found = reference_of_watch(manifest, "fp32")
    assert found is not None and reference_of_watch(manifest, "int8-cpu") is None
    said, reference = found
    assert reference.mean.tolist() == pytest.approx(said.mean) and reference.threshold == said.threshold
    assert reference.n == 64 and reference.detected is None


def test_a_frame_that_passed_with_the_defect_of_the_one_before_in_sight_is_left_out(made: Path) -> None:
    """``camera.overlap_lines``: its features are those of a defect that was reported and counted."""
    watch = DriftWatch(read_manifest(made / "feature/manifest.json"))
    try:
        with Station.open(stations.settings(made, bundle="./feature"), rehearsal=True) as station:
            one = station.inspect(Frame(drawn_picture(seed=1), "camera", 0, station._started_at))
            assert one.verdict is Verdict.PASSED
            for again, windows in ((1, None), (0, 1)):
                for _ in range(WINDOW):
                    watch.offer(replace(one, reported_before=again))
                watch.drain(5)
                assert watch.snapshot().get("windows") == windows
    finally:
        watch.close()


def test_frames_of_the_bundle_before_are_left_out(made: Path) -> None:
    manifest = read_manifest(made / "feature/manifest.json")
    watch = DriftWatch(manifest)
    try:
        with Station.open(stations.settings(made, bundle="./old"), rehearsal=True) as station:
            picture = drawn_picture(seed=1)
            for n in range(WINDOW):
                watch.offer(station.inspect(Frame(picture, "camera", n, station._started_at)))
        watch.drain(5)
        assert "windows" not in watch.snapshot() and watch.snapshot()["state"] == "starting"
        assert EVERY > 1
    finally:
        watch.close()
        watch.close()
