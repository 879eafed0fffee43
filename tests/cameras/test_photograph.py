from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.arrays import Image
from edge_sdk.cameras.photograph import PhotographCheck
from edge_sdk.clock import FakeClock
from edge_sdk.frames import Frame
from edge_sdk.testing import drawn_picture
from tests.cameras.pictures import settings


def frame(pixels: Image, *, at_s: float = 0.0) -> Frame:
    return Frame(pixels, "left", 0, FakeClock().now(), captured_ns=1 + round(at_s * 1e9))


def noise(level: float, sigma: float = 1.5, *, seed: int = 0) -> Image:
    drawn = np.random.default_rng(seed).normal(level, sigma, (120, 160, 3))
    return np.clip(drawn, 0, 255).astype(np.uint8)


@given(st.integers(0, 2**16), st.sampled_from([(48, 64), (120, 160), (17, 301), (1080, 1920), (1, 4096)]))
def test_a_photograph_is_a_photograph(seed: int, size: tuple[int, int]) -> None:
    assert PhotographCheck(settings()).fault(frame(drawn_picture(*size, seed=seed))) is None


def test_a_black_frame_is_a_camera_fault() -> None:
    check = PhotographCheck(settings())
    assert check.fault(frame(noise(0.5))) == "the frame is black: its brightest part is 0.7 of 255"
    assert check.fault(frame(np.zeros((40, 40, 3), np.uint8))) == (
        "the frame is black: its brightest part is 0.0 of 255"
    )


def test_a_hot_pixel_lights_up_no_black_frame() -> None:
    pixels = noise(0.5)
    pixels[8, 8] = 255
    found = PhotographCheck(settings()).fault(frame(pixels))
    assert found is not None
    assert found.startswith("the frame is black")


def test_a_dark_frame_with_a_lit_part_is_a_photograph() -> None:
    pixels = noise(0.5)
    pixels[40:60, 40:60] = noise(60)[40:60, 40:60]
    assert PhotographCheck(settings()).fault(frame(pixels)) is None


def test_how_dark_is_black_is_a_setting() -> None:
    assert PhotographCheck(settings(black_below=0)).fault(frame(noise(0.5))) is None
    assert PhotographCheck(settings(black_below=20)).fault(frame(noise(10))) is not None


def test_a_saturated_frame_is_a_camera_fault() -> None:
    assert PhotographCheck(settings()).fault(frame(np.full((40, 40, 3), 255, np.uint8))) == (
        "the frame is white: its darkest part is 255.0 of 255"
    )


def test_a_flat_frame_was_taken_by_no_camera() -> None:
    assert PhotographCheck(settings()).fault(frame(np.full((40, 40, 3), 128, np.uint8))) == (
        "the frame is flat: every pixel is 128 of 255"
    )


def test_a_frame_of_another_size_is_a_camera_fault() -> None:
    check = PhotographCheck(settings(width=160, height=120))
    assert check.fault(frame(drawn_picture())) is None
    assert check.fault(frame(drawn_picture(60, 80))) == (
        "the frame is 80 x 60, not the 160 x 120 of camera.width and camera.height"
    )
    only_width = PhotographCheck(settings(width=80))
    assert only_width.fault(frame(drawn_picture(60, 80))) is None
    assert only_width.fault(frame(drawn_picture())) is not None
    assert check.fault(frame(np.zeros((0, 0, 3), np.uint8))) == "the frame is 0 x 0: no picture"


def faults(times_s: list[float], *, same: bool = True) -> list[str | None]:
    check = PhotographCheck(settings(frozen_frames=5, frozen_s=1.0))
    return [
        check.fault(frame(drawn_picture(seed=0 if same else n), at_s=at_s)) for n, at_s in enumerate(times_s)
    ]


def test_frozen_needs_enough_identical_frames_and_enough_time() -> None:
    assert faults([0, 0.1, 0.2, 0.3, 0.4, 0.5]) == [None] * 6, "six frames in half a second"
    assert faults([0, 10, 20, 30]) == [None] * 4, "four frames in half a minute"
    assert faults([0, 0.25, 0.5, 0.75, 1.0]) == [None] * 5, "exactly a second is not more"
    assert faults([0, 0.3, 0.6, 0.9, 1.2]) == [None] * 4 + [
        "the camera is frozen: 5 identical frames in 1.2 s"
    ]


def test_a_camera_that_moves_is_not_frozen() -> None:
    assert faults([0, 1, 2, 3, 4, 5, 6], same=False) == [None] * 7


def test_one_other_frame_ends_the_freeze() -> None:
    check = PhotographCheck(settings(frozen_frames=3, frozen_s=1))
    seeds = [0, 0, 0, 0, 1, 0, 0, 0]
    found = [check.fault(frame(drawn_picture(seed=seed), at_s=n)) for n, seed in enumerate(seeds)]
    assert [reason is not None for reason in found] == [False, False, True, True, False, False, False, True]


def test_what_moves_between_the_samples_is_seen() -> None:
    """A large still picture with one pixel that changes, off the grid that is looked at first."""
    check = PhotographCheck(settings(frozen_frames=3, frozen_s=1))
    still = drawn_picture(720, 1280)
    for n in range(12):
        moved = still.copy()
        moved[3, 3] = n
        assert check.fault(frame(moved, at_s=n)) is None


def test_a_buffer_that_is_used_again_does_not_look_frozen() -> None:
    check = PhotographCheck(settings(frozen_frames=3, frozen_s=1))
    buffer = drawn_picture()
    for n in range(8):
        buffer[:] = drawn_picture(seed=n)
        assert check.fault(frame(buffer, at_s=n)) is None


def test_frames_without_a_capture_time_are_timed_on_arrival() -> None:
    clock = FakeClock()
    check = PhotographCheck(settings(frozen_frames=3, frozen_s=1), clock=clock)
    found = []
    for _ in range(3):
        found.append(check.judge(Frame(drawn_picture(), "left", 0, clock.now())))
        clock.advance(1.0)
    assert found == [None, None, "the camera is frozen: 3 identical frames in 2.0 s"]


def test_a_wall_clock_that_steps_freezes_nothing() -> None:
    clock = FakeClock()
    check = PhotographCheck(settings(frozen_frames=2, frozen_s=1), clock=clock)
    assert check.fault(Frame(drawn_picture(), "left", 0, clock.now(), clock.monotonic_ns())) is None
    clock.step_wall_clock(3600)
    assert check.fault(Frame(drawn_picture(), "left", 1, clock.now(), clock.monotonic_ns())) is None
