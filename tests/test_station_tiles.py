"""A station whose frames are larger than the network's input: cut, judged and counted as one frame each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import pytest

from edge_sdk import Station, Verdict
from edge_sdk.arrays import Image
from edge_sdk.frames import Frame
from edge_sdk.testing import drawn_picture
from tests import stations

TILED = replace(stations.SPEC, tile_overlap_px=32)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a ``bundle`` that tiles, and six large ``pictures``, one of them across four seams."""
    stations.spot_bundle(tmp_path / "bundle", preprocess=TILED)
    (tmp_path / "pictures").mkdir()
    for n in range(6):
        assert cv2.imwrite(str(tmp_path / "pictures" / f"{n}.png"), large(n, spot=n % 2 == 0))
    return tmp_path


def large(seed: int, *, spot: bool, height: int = 300, width: int = 500) -> Image:
    """A drawn surface with a dark square around (80, 80), where four tiles meet."""
    image = drawn_picture(height, width, seed=seed)
    if spot:
        image[68:92, 68:92] = 10
    return image


def test_a_defect_on_the_seams_is_one_detection_and_every_frame_is_counted_once(place: Path) -> None:
    with Station.open(stations.settings(place)) as station:
        found = list(station)
        counts = station.summary()["station"]
    assert [one.verdict for one in found] == [Verdict.DEFECTIVE, Verdict.PASSED] * 3
    for one in found[::2]:
        assert len(one.detections) == 1
        left, top, right, bottom = one.detections.boxes[0]
        assert 64 <= left <= 72 and 64 <= top <= 72 and 88 <= right <= 96 and 88 <= bottom <= 96
        assert one.questions[0].box[0] >= 56 and one.questions[0].box[2] <= 104
    assert found[0].confidence is not None and found[0].feature is not None
    assert found[0].confidence.shape == (1, 40, 64) and found[0].feature.shape == (3,)
    assert counts["frames_in"] == 6
    assert counts["outcomes"] == {"passed": 3, "defective": 3, "uncertain": 0, "not_inspected": 0}


def test_the_maps_of_all_tiles_go_with_the_record_and_drift_is_watched(place: Path) -> None:
    stations.watched(place / "bundle")
    with Station.open(stations.settings(place, mentoring={"outbox": "./outbox"})) as station:
        found = list(station)
        status = station.status()
    assert status["drift"]["state"] != "off" and not str(status["drift"]).startswith("off")
    assert sum(1 for one in found if one.verdict is Verdict.DEFECTIVE) == 3
    assert station.summary()["outbox"]["put"] >= 1  # what looks like the item before is not asked twice


def test_a_line_scan_frame_of_any_length_ends_in_one_verdict(place: Path) -> None:
    with Station.open(stations.settings(place)) as station:
        for rows in (40, 64, 65, 96, 97, 1000, 3001):
            image = drawn_picture(rows, 70, seed=rows)
            assert station.inspect(frame_of(image)).verdict is Verdict.PASSED, rows
            image = image.copy()
            image[-32:-8, 10:40] = 5
            seen = station.inspect(frame_of(image))
            assert seen.verdict is Verdict.DEFECTIVE and len(seen.detections) == 1, rows
        counts = station.summary()["station"]
    assert counts["frames_in"] == 14
    assert counts["outcomes"] == {"passed": 7, "defective": 7, "uncertain": 0, "not_inspected": 0}


def test_a_frame_on_which_defects_would_be_lost_is_not_inspected(tmp_path: Path) -> None:
    stations.spot_bundle(tmp_path / "bundle", preprocess=replace(stations.SPEC, defect_px=3, sampling="linear"))
    with Station.open(stations.settings(tmp_path, camera={"uri": "file:nothing"})) as station:
        good = station.inspect(frame_of(drawn_picture(64, 64, seed=1)))
        lost = station.inspect(frame_of(drawn_picture(640, 640, seed=1)))
        counts = station.summary()["station"]
    assert good.verdict is Verdict.PASSED and lost.verdict is Verdict.NOT_INSPECTED
    assert lost.reason.startswith("resize refused: a defect of 3 px on a frame of 640 x 640 would keep 0 % of its con")
    assert counts["not_inspected_by"] == {"resize refused": 1}


def frame_of(image: Image) -> Frame:
    from datetime import datetime, timezone

    return Frame(pixels=image, camera="left", index=0, captured_at=datetime(2026, 11, 21, tzinfo=timezone.utc))
