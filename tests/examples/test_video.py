"""The demo's video: what is written is what a camera adapter reads."""

from __future__ import annotations

import csv

import cv2
import numpy as np
import pytest

from edge_sdk.cameras import open_camera
from edge_sdk.config import CameraConfig
from edge_sdk.errors import EndOfFrames
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess
from examples.loop.video import Canvas, Filmed, canvas_for, write_avi, write_line_video


def pictures(count: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        cv2.resize(generator.integers(0, 256, (6, 8, 3), np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)
        for _ in range(count)
    ]


def test_a_station_s_camera_reads_every_frame_as_it_was_written(tmp_path):
    shown = pictures(7)
    write_avi(tmp_path / "line.avi", shown, rate_hz=10)
    uri = f"file:{tmp_path / 'line.avi'}"
    camera = open_camera(uri, CameraConfig(uri=uri, pace="max"))
    for frame in shown:
        read = camera.read(5).pixels
        assert read.shape == frame.shape
        assert np.abs(read.astype(int) - frame).mean() < 3
    with pytest.raises(EndOfFrames):
        camera.read(5)
    camera.close()


def test_the_video_states_its_rate_and_length(tmp_path):
    write_avi(tmp_path / "line.avi", pictures(5), rate_hz=12.5)
    capture = cv2.VideoCapture(str(tmp_path / "line.avi"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12.5)
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5


def test_the_same_pictures_give_the_same_bytes(tmp_path):
    for name in ("a.avi", "b.avi"):
        write_avi(tmp_path / name, pictures(3), rate_hz=10)
    assert (tmp_path / "a.avi").read_bytes() == (tmp_path / "b.avi").read_bytes()


@pytest.mark.parametrize("size", [(200, 300), (300, 200), (250, 250), (37, 411)])
def test_a_picture_on_the_canvas_meets_the_network_as_it_did_in_training(size):
    spec = PreprocessSpec(64, 64)
    image = pictures(1, size)[0]
    canvas = canvas_for([(200, 300), (300, 411)], spec)
    there, plain = preprocess(canvas.picture(image), spec), preprocess(image, spec)
    assert np.abs(there - plain).mean() < 0.1


def test_the_canvas_has_the_network_s_proportions_and_holds_every_picture():
    canvas = canvas_for([(100, 300), (200, 50)], PreprocessSpec(192, 128))
    assert (canvas.width, canvas.height) == (300, 200)


def test_a_huge_picture_does_not_make_a_huge_canvas():
    canvas = canvas_for([(4000, 6000)], PreprocessSpec(192, 192))
    assert max(canvas.width, canvas.height) == 720


def test_nothing_is_marked_on_the_padding():
    mask = Canvas(100, 100).mask(np.full((20, 40), 3, np.uint8))
    assert mask[25:75].min() == mask.max() == 3
    assert not mask[:25].any()
    assert not mask[75:].any()


def test_a_line_becomes_a_video_with_a_table_of_its_frames(tmp_path):
    torn = np.zeros((24, 32), np.uint8)
    torn[:8, :8] = 1
    first, second = pictures(1, (24, 32))[0], pictures(1, (90, 30))[0]
    seen = [Filmed("a.png", first, healthy=False, mask=torn), Filmed("b.png", second, healthy=True)]
    video = write_line_video(seen, tmp_path, spec=PreprocessSpec(64, 64), rate_hz=5)
    rows = list(csv.DictReader((tmp_path / "frames.csv").read_text().splitlines()))
    assert [(row["index"], row["picture"], bool(row["mask"])) for row in rows] == [
        ("0", "a.png", True),
        ("1", "b.png", False),
    ]
    mask = cv2.imread(str(tmp_path / rows[0]["mask"]), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (video.canvas.height, video.canvas.width)
    assert set(np.unique(mask)) == {0, 1}
    assert video.path.stat().st_size > 1000
