"""A web that a line-scan camera cuts where it likes: a defect on a border is whole in one frame, and counts once."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk import Station, Verdict
from edge_sdk.arrays import Image
from edge_sdk.capture import Capture, Handover
from edge_sdk.detections import Detections
from edge_sdk.errors import CameraLost, ConfigError, FrameTimeout, RangeError
from edge_sdk.frames import Frame
from edge_sdk.health import Ledger
from edge_sdk.inspections import Inspection
from edge_sdk.labels import Thresholds
from edge_sdk.overlap import Overlap
from edge_sdk.testing import FakeCamera, drawn_picture
from tests import stations

LINES, WIDTH, ROWS = 48, 120, 100
"""Lines carried over, columns of the web, and lines of a frame: no multiple of the 8 pixels of a cell."""
MOMENT = datetime(2026, 11, 21, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("web")
    stations.spot_bundle(place / "bundle", preprocess=replace(stations.SPEC, tile_overlap_px=32))
    return place


@pytest.fixture(scope="module")
def station(folder: Path) -> Iterator[Station]:
    with Station.open(stations.settings(folder, camera={"uri": "file:none", "overlap_lines": LINES})) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """The same without an overlap."""
    place = tmp_path_factory.mktemp("plain")
    stations.spot_bundle(place / "bundle", preprocess=replace(stations.SPEC, tile_overlap_px=32))
    with Station.open(stations.settings(place, camera={"uri": "file:none"})) as opened:
        yield opened


class Webs:
    """Counts the frames of one web after the other, so that no two webs follow each other."""

    first = 0


def seen(station: Station, web: Image, cuts: Sequence[int]) -> list[Inspection]:
    """What a station says of a web that is cut before these lines."""
    edges = [0, *cuts, len(web)]
    Webs.first += 10_000
    return [
        station.inspect(frame_of(web[top:bottom], Webs.first + n))
        for n, (top, bottom) in enumerate(pairwise(edges))
    ]


def frame_of(pixels: Image, index: int, *, camera: str = "web", follows: bool = True) -> Frame:
    return Frame(pixels=pixels, camera=camera, index=index, captured_at=MOMENT, follows=follows)


def web_with(top: int, *, tall: int, wide: int = 24, left: int = 40, grey: int = 10) -> Image:
    web = drawn_picture(3 * ROWS, WIDTH, seed=5)
    web[top : top + tall, left : left + wide] = grey
    return web


def counted(found: Sequence[Inspection]) -> int:
    """Defects, as whoever counts them should."""
    return sum(len(one.detections) - len(one.continued) for one in found)


def test_a_defect_that_a_border_cuts_anywhere_is_whole_in_one_frame_and_counts_once(
    station: Station, plain: Station
) -> None:
    tall, alone = 20, []
    for top in range(ROWS - 30, ROWS + 12):
        web = web_with(top, tall=tall)
        found = seen(station, web, (ROWS, 2 * ROWS))
        assert counted(found) == 1, top
        boxes = [
            box + np.array([0, start, 0, start])
            for one, start in zip(found, (0, ROWS - LINES, 2 * ROWS - LINES), strict=True)
            for box in one.detections.boxes
        ]
        # to a cell: the network says no more of where it is
        assert any(box[1] <= top + 8 and box[3] >= top + tall - 8 for box in boxes), top
        for one, start in zip(found, (0, ROWS, 2 * ROWS), strict=True):
            shown = min(top + tall, start + ROWS) - max(top, start)
            assert shown < 15 or one.verdict is Verdict.DEFECTIVE, "who sees two thirds of it does not pass it"
            assert shown > 0 or one.verdict is Verdict.PASSED
        alone.append(sum(len(one.detections) for one in seen(plain, web, (ROWS, 2 * ROWS))))
    assert set(alone) >= {1, 2}, "without an overlap some are counted twice"


def test_a_defect_too_small_to_be_seen_in_pieces_is_seen(station: Station, plain: Station) -> None:
    alone, together = [], []
    for top in range(84, 100):
        web = web_with(top, tall=12, wide=16, grey=80)
        alone.append(counted(seen(plain, web, (99, 198))))
        together.append(counted(seen(station, web, (99, 198))))
    assert set(together) == {1} and 0 in alone


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(10, 290), max_size=8, unique=True).map(sorted), top=st.integers(0, 270))
def test_however_a_web_is_cut_its_defects_are_the_same(station: Station, cuts: list[int], top: int) -> None:
    web = web_with(top, tall=24)
    web[120:150, 84:112] = 12
    one = len(seen(station, web, ())[0].detections)
    assert one == 2
    assert counted(seen(station, web, cuts)) == one


def test_a_defect_longer_than_a_frame_makes_all_its_frames_defective_and_counts_once(station: Station) -> None:
    found = seen(station, web_with(60, tall=200), (ROWS, 2 * ROWS))
    assert [one.verdict for one in found] == [Verdict.DEFECTIVE] * 3
    assert [one.continued for one in found] == [(), (0,), (0,)]


def test_what_was_reported_is_neither_reported_nor_asked_again(station: Station) -> None:
    found = seen(station, web_with(64, tall=24), (ROWS, 2 * ROWS))
    assert [one.verdict for one in found] == [Verdict.DEFECTIVE, Verdict.PASSED, Verdict.PASSED]
    assert found[0].questions and not found[1].questions and found[1].reason == ""
    assert found[1].frame.pixels.shape[0] == ROWS + LINES, "the picture as it was judged"
    assert [one.repeated_lines for one in found] == [0, LINES, LINES]
    assert [one.reported_before for one in found] == [0, 1, 0]


def test_nothing_is_carried_over_a_gap(station: Station) -> None:
    web = drawn_picture(ROWS, WIDTH, seed=6)
    narrow = np.ascontiguousarray(web[:, :-8])
    black = np.zeros_like(web)
    Webs.first += 10_000
    one = Webs.first
    heights = {}
    for what, frame in (
        ("first", frame_of(web, one)),
        ("next", frame_of(web + 1, one + 1)),
        ("dropped before", frame_of(web, one + 3)),
        ("lost before", frame_of(web + 1, one + 4, follows=False)),
        ("after that", frame_of(web, one + 5)),
        ("narrower", frame_of(narrow, one + 6)),
        ("of another camera", frame_of(narrow, one + 7, camera="other")),
        ("no photograph", frame_of(black[:, :-8], one + 8, camera="other")),
        ("after a fault", frame_of(narrow, one + 9, camera="other")),
    ):
        found = station.inspect(frame)
        heights[what] = found.frame.pixels.shape[0]
        assert (found.verdict is Verdict.NOT_INSPECTED) == (what == "no photograph")
    assert {what for what, rows in heights.items() if rows == ROWS + LINES} == {"next", "after that"}
    assert set(heights.values()) == {ROWS, ROWS + LINES}


def test_a_bundle_that_takes_a_frame_as_one_input_is_refused(tmp_path: Path) -> None:
    stations.spot_bundle(tmp_path / "bundle")
    with pytest.raises(ConfigError, match=r"camera.overlap_lines is 48, but .* makes all of a frame fit its input"):
        Station.open(stations.settings(tmp_path, camera={"uri": "file:none", "overlap_lines": LINES}))
    with pytest.raises(RangeError, match="overlap_lines is 0; give 1 line or more, or leave it out"):
        Overlap(0)


BAND = Thresholds.uniform(2, boundary=0.5, pass_below=0.3, defective_from=0.8)


def boxes(*rows: tuple[float, float, float, float], sure: Sequence[float], kinds: Sequence[int]) -> Detections:
    numbered = np.array([(n, 0, n) for n in range(len(rows))], np.int32).reshape(-1, 3)
    return Detections(np.array(rows, np.float32), np.array(kinds, np.int32), np.array(sure, np.float32), numbered)


def test_only_the_same_defect_and_none_that_has_become_worse_is_left_out() -> None:
    overlap = Overlap(40)
    web = drawn_picture(100, 60, seed=1)
    overlap.extended(frame_of(web, 0))
    first = boxes((0, 70, 10, 80), (20, 70, 30, 80), (40, 90, 50, 100), sure=(0.9, 0.5, 0.9), kinds=(0, 0, 1))
    assert overlap.told(first, BAND, model="a", near=8).detections is first
    assert overlap.extended(frame_of(web, 1)).pixels.shape[0] == 140
    second = boxes(
        (0, 10, 10, 20),  # the first, again
        (20, 10, 30, 20),  # the second, which was uncertain and now is not
        (0, 25, 10, 35),  # another one, which was not seen before
        (20, 10, 30, 21),  # of another class
        (40, 30, 50, 60),  # the third, which goes on
        (40, 80, 50, 90),  # new
        sure=(0.6, 0.9, 0.9, 0.9, 0.9, 0.9), kinds=(0, 0, 0, 1, 1, 1),
    )  # fmt: skip
    told = overlap.told(second, BAND, model="a", near=8)
    assert told.again.boxes.tolist() == [[0, 10, 10, 20]] and len(told.detections) == 5
    assert told.detections.boxes[list(told.continued)].tolist() == [[20, 10, 30, 20], [40, 30, 50, 60]]
    # what nobody judged was not reported, and another bundle's classes are not these
    overlap.extended(frame_of(web, 2))
    overlap.extended(frame_of(web, 3))
    again = boxes((40, 20, 50, 30), sure=(0.9,), kinds=(1,))
    assert len(overlap.told(again, BAND, model="a", near=8).detections) == 1
    overlap.extended(frame_of(web, 4))
    assert len(overlap.told(boxes((40, 0, 50, 1), sure=(0.9,), kinds=(1,)), BAND, model="b", near=8).again) == 0


def test_frames_shorter_than_the_overlap_are_carried_over_more_than_once() -> None:
    overlap = Overlap(40)
    web = drawn_picture(16 * 12, 60, seed=1)
    heights = [overlap.extended(frame_of(web[n * 16 : n * 16 + 16], n)).pixels for n in range(12)]
    assert [len(one) for one in heights] == [16, 32, 48] + [56] * 9, "memory stays bounded"
    assert np.array_equal(heights[-1], web[-56:])


def test_a_frame_after_a_lost_camera_says_that_it_follows_none() -> None:
    class Faulty(FakeCamera):
        def read(self, timeout_s: float) -> Frame:
            frame = super().read(timeout_s)
            if frame.index == 2 and not self.failed:
                self.failed = True
                self.kept = frame
                raise CameraLost("the plug was pulled")
            return frame

        failed = False

    assert captured(Faulty([drawn_picture(8, 8, seed=n) for n in range(5)])) == [
        (0, True), (1, True), (3, False), (4, True)]  # fmt: skip


def test_a_frame_that_came_late_follows_since_a_web_may_stand_still() -> None:
    pictures = [drawn_picture(8, 8, seed=n) for n in range(3)]
    late = FakeCamera([*pictures[:2], FrameTimeout("nothing came"), pictures[2]])
    assert captured(late) == [(0, True), (1, True), (2, True)]


def captured(camera: FakeCamera) -> list[tuple[int, bool]]:
    """Index of each frame, and whether it follows."""
    handover = Handover(lossless=True)
    capture = Capture(camera, handover, Ledger(), left=lambda frame: None, read_timeout_s=1)
    capture.start()
    found = []
    while not handover.exhausted:
        frame = handover.take(0.5)
        if frame is not None:
            found.append((frame.index, frame.follows))
    capture.stop()
    return found


def test_a_piece_that_ends_before_the_border_is_one_with_the_whole() -> None:
    """A network sees less where a frame ends, so the first report may stop a cell or two short of it."""
    overlap, web = Overlap(48), drawn_picture(100, 60, seed=1)
    overlap.extended(frame_of(web, 0))
    overlap.told(boxes((0, 60, 10, 84), sure=(0.9,), kinds=(0,)), BAND, model="a", near=8)
    overlap.extended(frame_of(web, 1))
    whole = boxes((0, 8, 10, 60), sure=(0.9,), kinds=(0,))
    assert overlap.told(whole, BAND, model="a", near=8).continued == (0,)


def test_lines_are_kept_and_not_the_frames_they_are_of() -> None:
    overlap = Overlap(8)
    pixels = drawn_picture(64, 60, seed=1)
    kept = weakref.ref(pixels)
    overlap.extended(frame_of(pixels, 0))
    del pixels
    assert kept() is None


def test_frames_that_are_pushed_with_one_index_are_said_to_carry_nothing_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    overlap, web = Overlap(8), drawn_picture(64, 60, seed=1)
    heights = [len(overlap.extended(frame_of(web, 7)).pixels) for _ in range(3)]
    assert heights == [64] * 3
    assert [one.getMessage() for one in caplog.records] == [
        "two frames have the same index, so no lines are carried over; count index up by one a frame"
    ]


def test_another_stream_begins_anew(station: Station) -> None:
    web = drawn_picture(ROWS, WIDTH, seed=6)
    Webs.first += 10_000
    station.inspect(frame_of(web, -1, camera="camera"))
    streamed = station._pipeline.stream(FakeCamera([web + 1, web + 2]), read_timeout_s=1)
    assert [one.repeated_lines for one in streamed] == [0, LINES]


def test_a_frame_that_could_not_be_judged_is_given_back_as_it_came(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    Webs.first += 10_000
    web = web_with(180, tall=20)
    frames = [frame_of(web[n * ROWS : (n + 1) * ROWS], Webs.first + n) for n in range(3)]
    station.inspect(frames[0])
    with monkeypatch.context() as broken:
        broken.setattr(station._pipeline.judge, "_infer", lambda frame: {})
        failed = station.inspect(frames[1])
    assert failed.verdict is Verdict.NOT_INSPECTED and failed.frame is frames[1]
    after = station.inspect(frames[2])
    assert (after.repeated_lines, after.verdict) == (LINES, Verdict.DEFECTIVE), "nobody reported what it ended with"
    assert not after.continued and not after.reported_before


def test_the_line_is_not_asked_whether_a_frame_is_healthy_that_shows_what_was_reported(tmp_path: Path) -> None:
    stations.spot_bundle(tmp_path / "bundle", preprocess=replace(stations.SPEC, tile_overlap_px=32))
    settings = stations.settings(
        tmp_path, camera={"uri": "file:none", "overlap_lines": LINES}, mentoring={"outbox": "./outbox"}
    )
    asked: list[int] = []
    with Station.open(settings) as opened:
        opened.healthy_if(lambda one: asked.append(one.frame.index) or True)
        assert opened._mentor is not None
        opened._mentor._draw = lambda: 0.0  # every frame is of the control sample
        web = web_with(64, tall=24)
        found = [opened.inspect(frame_of(web[n * ROWS : (n + 1) * ROWS], n)) for n in range(3)]
        assert [one.reported_before for one in found] == [0, 1, 0]
        assert asked == [0, 2]
