from __future__ import annotations

import logging
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.arrays import Image
from edge_sdk.cameras import open_camera
from edge_sdk.cameras.playback import Playback
from edge_sdk.clock import FakeClock
from edge_sdk.errors import CameraError, ConfigError, EndOfFrames, FrameTimeout
from edge_sdk.frames import Frame
from edge_sdk.quality.pictures import read_picture
from edge_sdk.testing import drawn_picture
from tests.cameras.pictures import folder_of, settings, video_of


def played(path: Path, **changed: object) -> tuple[Playback, list[Frame], str]:
    """Play to the end; the camera, its frames and what the end said."""
    camera = open_camera(
        f"file:{path}", settings("file:unused", **{"pace": "max", **changed}), clock=FakeClock()
    )
    assert isinstance(camera, Playback)
    frames = []
    try:
        while True:
            frames.append(camera.read(1.0))
    except EndOfFrames as end:
        return camera, frames, str(end)
    finally:
        camera.close()


def test_a_folder_plays_its_pictures_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    pictures = folder_of(tmp_path, 11)
    _, frames, end = played(tmp_path)
    assert len(frames) == 11
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.array_equal(frame.pixels, picture)
    assert end == f"{tmp_path} was played to its end, 11 frames"


def test_a_single_picture_is_a_folder_of_one(tmp_path: Path) -> None:
    (picture,) = folder_of(tmp_path, 1)
    _, frames, _ = played(tmp_path / "0.png")
    assert [frame.index for frame in frames] == [0]
    assert np.array_equal(frames[0].pixels, picture)


def test_a_damaged_picture_is_said_counted_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder_of(tmp_path, 4)
    (tmp_path / "1.png").write_bytes(b"no picture")
    (tmp_path / "2.png").write_bytes((tmp_path / "2.png").read_bytes()[:-40])
    with caplog.at_level(logging.WARNING):
        camera, frames, end = played(tmp_path)
    assert [frame.index for frame in frames] == [0, 3], "an index is the place in the folder"
    assert camera.counters.skipped == 2
    assert end == f"{tmp_path} was played to its end, 4 frames of which 2 could not be read; see the log"
    reasons = [record.__dict__["reason"] for record in caplog.records]
    assert reasons[0].startswith(f"{tmp_path / '1.png'} is no picture that can be read (damaged, or another")
    assert reasons[0].endswith("; it is skipped")
    assert reasons[1].startswith(f"{tmp_path / '2.png'} is cut short (")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_that_is_cut_short_anywhere_is_never_half_shown(tmp_path: Path, suffix: str) -> None:
    cv2.imwrite(str(tmp_path / f"whole{suffix}"), drawn_picture())
    data = (tmp_path / f"whole{suffix}").read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    shutil.copy(tmp_path / f"whole{suffix}", folder / f"9{suffix}")
    for number, length in enumerate(np.linspace(1, len(data) - 13, 8).astype(int)):
        (folder / f"{number}{suffix}").write_bytes(data[:length])
    camera, frames, _ = played(folder)
    assert [frame.index for frame in frames] == [8]
    assert camera.counters.skipped == 8


def test_a_picture_that_went_away_is_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    camera = open_camera(f"file:{tmp_path}", settings(pace="max"))
    (tmp_path / "1.png").unlink()
    assert [camera.read(1).index, camera.read(1).index] == [0, 2]
    camera.close()


def test_a_folder_without_one_readable_picture_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_bytes(b"x")
    camera = open_camera(f"file:{tmp_path}", settings(pace="max", loop=True))
    with pytest.raises(CameraError, match=f"none of the 2 pictures of {tmp_path} could be read; see the log"):
        camera.read(1)
    camera.close()


def depth(name: str) -> tuple[Image, Image]:
    """A picture as it is stored, and as it must be shown."""
    grey = drawn_picture()[:, :, 0]
    as_shown = np.repeat(grey[:, :, None], 3, axis=2)
    if name == "grey":
        return grey, as_shown
    if name == "grey 16":
        return (grey.astype(np.uint16) << 8) + 77, as_shown  # type: ignore[return-value]
    alpha = np.random.default_rng(1).integers(0, 256, (*grey.shape, 1), np.uint8)
    return np.concatenate([as_shown, alpha], axis=2), as_shown


@pytest.mark.parametrize("name", ["grey", "grey 16", "alpha"])
def test_grey_deep_and_transparent_pictures_become_plain_ones(tmp_path: Path, name: str) -> None:
    stored, shown = depth(name)
    cv2.imwrite(str(tmp_path / "0.png"), stored)
    _, frames, _ = played(tmp_path)
    assert np.array_equal(frames[0].pixels, shown)


def test_a_station_sees_a_picture_as_training_reads_it(tmp_path: Path) -> None:
    stored, _ = depth("grey 16")
    cv2.imwrite(str(tmp_path / "0.png"), stored)
    cv2.imwrite(str(tmp_path / "1.jpg"), drawn_picture())
    _, frames, _ = played(tmp_path)
    for frame, name in zip(frames, ("0.png", "1.jpg"), strict=True):
        assert np.array_equal(frame.pixels, read_picture(tmp_path / name))


def test_a_dark_deep_picture_stays_dark(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.full((20, 20), 600, np.uint16))
    _, frames, _ = played(tmp_path)
    assert frames[0].pixels.max() == 2


def test_a_video_plays_every_frame_once_in_order(tmp_path: Path) -> None:
    _, frames, end = played(video_of(tmp_path / "line.avi", 8))
    assert [frame.index for frame in frames] == list(range(8))
    assert np.allclose([frame.pixels.mean() for frame in frames], [4.5 + 20 * n for n in range(8)], atol=3)
    assert end == f"{tmp_path / 'line.avi'} was played to its end, 8 frames"


def test_a_video_that_is_cut_short_says_how_many_frames_are_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = video_of(tmp_path / "line.avi", 40).read_bytes()
    short = tmp_path / "short.avi"
    short.write_bytes(data[: len(data) * 6 // 10])
    with caplog.at_level(logging.WARNING):
        camera, frames, end = played(short)
    assert 10 < len(frames) < 40
    assert camera.counters.missing == 40 - len(frames)
    assert end == f"{short} ended after {len(frames)} of 40 frames; it is cut short, copy it again"
    assert [record.getMessage() for record in caplog.records] == ["video is cut short"]


def test_an_unreadable_video_is_one_clear_sentence(tmp_path: Path) -> None:
    video = tmp_path / "line.avi"
    video.write_bytes(b"this is not a video" * 100)
    with pytest.raises(CameraError, match=f"{video} \\(1900 bytes\\) cannot be read as a video; give an AVI"):
        open_camera(f"file:{video}", settings())


def test_an_empty_video_is_one_clear_sentence(tmp_path: Path) -> None:
    video = tmp_path / "line.mp4"
    video.touch()
    with pytest.raises(CameraError, match="\\(0 bytes\\) cannot be read as a video"):
        open_camera(f"file:{video}", settings())


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(f"file:{tmp_path}/line.avi", settings())
    assert str(caught.value) == f"there is no file or folder {tmp_path}/line.avi; is camera.uri right?"
    with pytest.raises(CameraError) as caught:
        open_camera(f"file:{tmp_path}/disk/line.avi", settings())
    assert f"nor a folder {tmp_path}/disk; is camera.uri right?" in str(caught.value)


def test_an_empty_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(CameraError) as caught:
        open_camera(f"file:{tmp_path}", settings())
    assert str(caught.value) == (
        f"folder {tmp_path} has no picture in it; give a folder with .png, .jpg, .jpeg, .bmp files"
    )


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("flie:x.avi", "camera.uri is 'flie:x.avi', which no camera answers to; did you mean file:?"),
        ("usb0", "camera.uri is 'usb0', which no camera answers to; give one of file, rtsp, rtsps"),
        ("csi://0", "camera.uri is 'csi://0', which no camera answers to; give one of file, rtsp, rtsps"),
    ],
)
def test_a_uri_that_no_camera_answers_to_is_a_wrong_setting(uri: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_camera(uri, settings("file:x"))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("file:", "camera.uri is file: without a path; e.g. file:line.avi"),
        ("file://host/line.avi", "a file on the machine 'host'; write file:host/line.avi"),
    ],
)
def test_a_file_uri_that_names_no_file_here_is_one_clear_sentence(uri: str, sentence: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(uri, settings("file:x"))
    assert sentence in str(caught.value)


def test_a_file_uri_with_three_slashes_is_an_absolute_path(tmp_path: Path) -> None:
    folder_of(tmp_path / "a b", 1)
    camera = open_camera(f"file://{tmp_path}/a%20b", settings(pace="max"))
    assert camera.read(1).index == 0
    camera.close()


def test_real_pace_hands_frames_out_when_they_are_due(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    clock = FakeClock()
    camera = open_camera(f"file:{tmp_path}", settings(rate_hz=4), clock=clock)
    stamps = [camera.read(1.0).captured_ns for _ in range(3)]
    assert np.diff(stamps).tolist() == [250_000_000, 250_000_000]
    camera.close()


def test_a_video_plays_at_its_own_rate(tmp_path: Path) -> None:
    camera = open_camera(f"file:{video_of(tmp_path / 'line.avi')}", settings(), clock=FakeClock())
    first, second = camera.read(1.0), camera.read(1.0)
    assert second.captured_ns - first.captured_ns == 50_000_000
    camera.close()


def test_a_late_reader_gets_the_next_frame_at_once_and_no_burst(tmp_path: Path) -> None:
    folder_of(tmp_path, 4)
    clock = FakeClock()
    camera = open_camera(f"file:{tmp_path}", settings(rate_hz=10), clock=clock)
    camera.read(1.0)
    clock.advance(5.0)
    late = camera.read(1.0)
    after = camera.read(1.0)
    assert late.captured_ns == 6_000_000_000
    assert after.captured_ns - late.captured_ns == 100_000_000
    camera.close()


def test_a_frame_that_is_not_due_in_time_is_a_timeout_and_comes_later(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    clock = FakeClock()
    camera = open_camera(f"file:{tmp_path}", settings(rate_hz=0.5), clock=clock)
    camera.read(1.0)
    with pytest.raises(FrameTimeout) as caught:
        camera.read(1.5)
    assert str(caught.value) == (f"no frame within 1.5 s: the next of {tmp_path} is due in 2 s; read again")
    assert camera.read(1.5).index == 1
    camera.close()


def test_a_loop_goes_on_counting(tmp_path: Path) -> None:
    folder_of(tmp_path, 2)
    camera = open_camera(f"file:{tmp_path}", settings(pace="max", loop=True))
    read = [camera.read(1) for _ in range(5)]
    assert [one.index for one in read] == [0, 1, 2, 3, 4]
    assert [one.follows for one in read] == [True, True, False, True, False], "its beginning follows no end"
    camera.close()
