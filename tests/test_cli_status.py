"""``edge-sdk status`` and ``doctor``: what runs, since when it is silent, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import pytest

import edge_sdk
from edge_sdk import console
from edge_sdk.state import StateFolder
from tests import stations
from tests.edge import Edge, caller


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return stations.three_bundles(tmp_path_factory.mktemp("bundles"))


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Path:
    return stations.place(tmp_path, made)


@pytest.fixture
def edge(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Edge]:
    yield from caller(capfdbinary)


def test_status_says_when_nothing_runs(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    said = edge("status", path, "--json")
    assert (said.code, said.last) == (1, "edge-sdk: station press-3 is not running")
    assert said.json["health"] == "not running"
    edge("run", path)
    said = edge("status", path)
    assert said.code == 1
    assert said.last.startswith("edge-sdk: station press-3 is not running; it wrote its last status ")
    assert "  passed 6 · defective 3" in said.out


def test_status_of_a_running_station_is_read_from_its_file(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    with edge_sdk.Station.open(path) as station:
        said = edge("status", path, "--json")
        assert said.code == 0
        assert (said.json["health"], said.json["model"]) == ("running", station.model)
        assert said.json["age_s"] < 60
        assert edge("status", path).out.startswith("press-3: running, bundle press-3-1 (")


def test_status_tells_a_fault_a_refused_bundle_and_a_dead_disk() -> None:
    found = {
        "model": "ab" * 32,
        "bundle": {"name": "press-3", "version": "1"},
        "station": {
            "frames_in": 0,
            "outcomes": {"passed": 0},
            "not_inspected_by": {},
            "p50_ms": None,
            "camera": {"fault": "no frame in 2 s"},
        },
        "outbox": {"put": 2, "degraded": "the disk is read-only"},
        "refused": {"why": "press-3-2 was altered"},
        "upload": {"uploaded": 1, "waiting": 1, "trouble": "the hub is away"},
    }
    assert console.status_text("press-3", "running", found).splitlines() == [
        "press-3: running, bundle press-3-1 (abababababab)",
        "  passed 0",
        "  outbox: put 2",
        "  upload: 1 sent, 1 waiting, the hub is away",
        "  camera fault: no frame in 2 s",
        "  refused bundle: press-3-2 was altered",
        "  nothing can be kept: the disk is read-only",
    ]


def test_status_says_when_a_running_station_no_longer_writes(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    folder = StateFolder(place / "state", station="press-3")
    folder.hold()
    try:
        said = edge("status", path)
        assert said.last == "edge-sdk: station press-3 is starting: it holds its lock and wrote no status yet"
        old = datetime(2026, 1, 1, tzinfo=timezone.utc).isoformat()
        folder.status_path.write_text(json.dumps({"written_at": old}))
        said = edge("status", path)
        assert said.code == 1
        assert "runs, but wrote its last status" in said.last
        assert "it hangs, or the disk of" in said.last
        folder.status_path.write_text("half a fi")
        assert "starting" in edge("status", path).last
    finally:
        folder.release()


def test_the_doctor_finds_nothing_wrong_with_a_sound_station(place: Path, edge: Edge) -> None:
    said = edge(
        "doctor", stations.settings(place, mentoring={"outbox": "./outbox", "outbox_mib": 8}), "--json"
    )
    checks = {check["name"]: check for check in said.json["checks"]}
    assert said.code == 0, said.last
    assert checks["bundle"]["sentence"] == "every byte verified, fp32 proved on its golden frames"
    assert checks["camera"]["read"] == "camera, 160 x 120"
    assert checks["trust"]["level"] == "warning"
    assert checks.keys() >= {"settings", "state", "outbox", "opencv", "numpy"}


def test_the_doctor_goes_on_after_a_finding_and_says_what_mends_it(place: Path, edge: Edge) -> None:
    (place / "bundle/model/model.onnx").write_bytes(b"x")
    said = edge("doctor", stations.settings(place, camera={"uri": "file:nowhere"}))
    assert said.code == 1
    wrong = [line for line in said.out.splitlines() if line.startswith("ERROR")]
    assert ["bundle" in wrong[0], "camera" in wrong[1]] == [True, True]
    assert said.last.startswith("edge-sdk: 2 of ")


def test_the_doctor_leaves_the_camera_of_a_running_station_alone(place: Path, edge: Edge) -> None:
    path = stations.settings(place)
    with edge_sdk.Station.open(path):
        assert "not touched, as the station is running and owns it" in edge("doctor", path).out


def test_the_doctor_examines_a_machine_without_a_station(edge: Edge) -> None:
    assert "python" in edge("doctor").out


def test_the_doctor_tells_wrong_settings_and_a_dark_camera(place: Path, edge: Edge) -> None:
    (place / "wrong.yaml").write_text("station: x\n")
    assert "bundle is missing; add it" in edge("doctor", place / "wrong.yaml").last
    import cv2
    import numpy as np

    for file in (place / "pictures").iterdir():
        cv2.imwrite(str(file), np.zeros((120, 160, 3), np.uint8))
    said = edge("doctor", stations.settings(place))
    assert "the frame is black" in said.last


def test_status_is_told_to_prometheus_too(place: Path, edge: Edge) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    path = stations.settings(place)
    assert edge("status", path, "--metrics").out.splitlines()[-1] == 'edge_station_up{station="press-3"} 0'
    edge("run", path)
    said = edge("status", path, "--metrics")
    families = {one.name: one.samples for one in text_string_to_metric_families(said.out)}
    assert {one.labels["verdict"]: one.value for one in families["edge_frames"]} == {
        "passed": 6,
        "defective": 3,
        "uncertain": 0,
        "not_inspected": 0,
    }
    states = {one.labels["state"]: one.value for one in families["edge_drift_state"]}
    assert states["off"] == 1 and sum(states.values()) == 1
    assert families["edge_latency_p99_ms"][0].value > 0
    both = edge("status", path, "--metrics", "--json")
    assert both.code == 2
    assert both.last == "edge-sdk: --json and --metrics are two ways to say the same; give one of them"
