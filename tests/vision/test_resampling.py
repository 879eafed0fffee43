"""What a resize leaves of a small defect: the formula against pictures with the defect at every place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk.errors import DefectErased, RangeError
from edge_sdk.vision import erasing
from edge_sdk.vision.erasing import alternatives, refusal
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask, fitted, kept_of_defect, preprocess
from edge_sdk.vision.resampling import Sampling, kept_contrast, resized
from edge_sdk.vision.tiles import pictures_of_frame

RULES: tuple[Sampling, ...] = ("area", "linear", "filtered")
FULL_HD = 1080, 1920


def slowly(length: int, wanted: int, side: int, sampling: Sampling, *, margin: int = 0) -> float:
    """Of one axis: the resize itself, once with the defect at each place; the worst place's best pixel."""
    places = range(margin, length - side + 1 - margin)
    rows = np.zeros((len(places), length), np.float32)
    for n, start in enumerate(places):
        rows[n, start : start + side] = 1
    return float(resized(rows, wanted, len(places), sampling).max(axis=1).min())


@pytest.mark.parametrize("sampling", RULES)
@given(st.integers(8, 90), st.integers(1, 90), st.integers(1, 6))
@settings(max_examples=80)
def test_what_is_kept_is_what_the_resize_itself_leaves(
    sampling: Sampling, length: int, wanted: int, side: int
) -> None:
    wanted, side = min(wanted, length), min(side, length)
    # at the border a filter mirrors the picture, and a defect there is kept better than the formula says
    margin = length // wanted + 1 if sampling == "filtered" and length > 4 * (length // wanted + 1) + side else 0
    said = kept_contrast(1, length, 1, wanted, side, sampling)
    seen = slowly(length, wanted, side, sampling, margin=margin)
    if sampling == "filtered":
        assert said <= seen + 2e-3
        if margin:
            assert said == pytest.approx(seen, abs=0.12)  # away from the border there are fewer places to be worst at
    else:
        assert said == pytest.approx(seen, abs=2e-3)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_filter_is_worked_out_exactly_where_the_border_plays_no_part(side: int) -> None:
    length, wanted = 192, 64  # every place is like the one three pixels on
    said = kept_contrast(1, length, 1, wanted, side, "filtered")
    assert said == pytest.approx(slowly(length, wanted, side, "filtered", margin=6), abs=1e-5)


@pytest.mark.parametrize(
    ("size", "sampling", "side", "kept"),
    [
        # full HD to a third: linear reads one pixel in nine, area and filter leave a ninth of one pixel
        ((640, 360), "linear", 1, 0.0),
        ((640, 360), "linear", 2, 0.0),
        ((640, 360), "linear", 3, 1.0),
        ((640, 360), "area", 1, 1 / 9),
        ((640, 360), "filtered", 1, 1 / 9),
        # half: linear lies between two pixels each way, as area does
        ((960, 540), "linear", 1, 1 / 4),
        ((960, 540), "area", 1, 1 / 4),
        ((1920, 1080), "linear", 1, 1.0),
    ],
)
def test_whole_ratios_of_full_hd(size: tuple[int, int], sampling: Sampling, side: int, kept: float) -> None:
    width, height = size
    assert kept_contrast(*FULL_HD, height, width, side, sampling) == pytest.approx(kept, abs=1e-6)


def test_a_side_that_shrinks_is_averaged_also_where_the_other_side_grows() -> None:
    spec = PreprocessSpec(width=64, height=64, resize="stretch")
    for x in range(640):
        spot = np.zeros((60, 640, 3), np.uint8)
        spot[28:32, x] = 255
        assert fitted(spot, spec).max() >= 20, x
        assert cells_of_mask(spot[:, :, 0], spec, (64, 64)).max() > 0.05, x


def test_a_resize_that_would_erase_the_smallest_defect_is_refused_with_what_would_keep_it() -> None:
    spec = PreprocessSpec(width=640, height=640, sampling="linear", defect_px=2)
    frame = np.zeros((*FULL_HD, 3), np.uint8)
    with pytest.raises(DefectErased) as caught:
        preprocess(frame, spec)
    assert caught.value.kept == 0
    lost = (
        "a defect of 2 px on a frame of 1920 x 1080 would keep 0 % of its contrast at 640 x 360 (linear), so it could "
        "be missed; "
    )
    assert str(caught.value) == (
        f"{lost}give frames of the size that the model was made for, or a model that is made for these"
    )
    said = caught.value.priced()
    assert said.startswith(lost)
    for way in ("sampling: area keeps 11 % at ", "sampling: filtered (a mean before linear) keeps ", "ms a frame"):
        assert way in said
    assert "an input of 960 x 544 (a whole ratio of 2) keeps " in said and " times the network's work" in said


def test_each_alternative_does_what_it_says() -> None:
    spec = PreprocessSpec(width=640, height=640, sampling="linear", defect_px=2)
    found = alternatives(spec, *FULL_HD)
    assert len(found) == 4
    rng = np.random.default_rng(0)
    for one in found:
        assert one.ms > 0 and one.kept >= 0.1 and kept_of_defect(one.spec, *FULL_HD) == one.kept
        for _ in range(20):
            y, x = rng.integers(0, FULL_HD[0] - 2), rng.integers(0, FULL_HD[1] - 2)
            frame = np.full((*FULL_HD, 3), 100, np.uint8)
            frame[y : y + 2, x : x + 2] = 200
            seen = pictures_of_frame(frame, replace(one.spec, pad=(100, 100, 100)))
            assert max(picture.max() for _, picture in seen) - 100 >= 10


def test_a_line_whose_frames_have_a_new_length_each_pays_for_no_price(monkeypatch: pytest.MonkeyPatch) -> None:
    def priced(*_: object) -> tuple[()]:
        raise AssertionError("a line waits for this")

    monkeypatch.setattr(erasing, "alternatives", priced)
    spec = PreprocessSpec(width=64, height=64, sampling="linear", defect_px=1)
    for rows in range(1000, 1040):
        with pytest.raises(DefectErased, match=f"on a frame of 512 x {rows} would keep 0 % .* could be missed; give"):
            fitted(np.zeros((rows, 512, 3), np.uint8), spec)


def test_a_slow_alternative_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, timed = [0.0], list[PreprocessSpec]()

    def slowly_made(image: object, spec: PreprocessSpec) -> tuple[()]:
        timed.append(spec)
        now[0] += 0.001 if spec.sampling == "area" else 0.2
        return ()

    monkeypatch.setattr(erasing, "pictures_of_frame", slowly_made)
    monkeypatch.setattr(erasing.time, "perf_counter", lambda: now[0])
    found = alternatives(PreprocessSpec(width=640, height=640, sampling="linear", defect_px=2), *FULL_HD)
    rounds = {one.words: timed.count(one.spec) for one in found}
    assert rounds.pop("sampling: area") == 4 and set(rounds.values()) == {1}
    assert {round(one.ms) for one in found} == {1, 200}


def test_what_keeps_the_defect_is_let_through() -> None:
    frame = np.zeros((*FULL_HD, 3), np.uint8)
    for spec in (
        PreprocessSpec(width=640, height=640, defect_px=1),
        PreprocessSpec(width=640, height=640, sampling="filtered", defect_px=1),
        PreprocessSpec(width=640, height=640, sampling="linear", defect_px=3),
        PreprocessSpec(width=640, height=640, sampling="linear"),
        PreprocessSpec(width=1920, height=1088, sampling="linear", defect_px=1),
    ):
        assert preprocess(frame, spec).shape == (1, 3, spec.height, spec.width)


def test_a_frame_whose_smallest_defect_is_lost_at_any_price_is_told_so() -> None:
    spec = PreprocessSpec(width=8, height=8, sampling="linear", defect_px=1)
    said = refusal(spec, 97, 101)  # neither side can be divided
    assert "an input of 101 x 97 (a whole ratio of 1) keeps 100 %" in said


def test_a_defect_without_a_size_is_refused() -> None:
    with pytest.raises(RangeError, match="^defect_px is 0; give the smallest defect's side, 1 pixel or more$"):
        PreprocessSpec(width=8, height=8, defect_px=0)


def test_what_was_written_before_says_the_same() -> None:
    document = PreprocessSpec(width=64, height=32).document()
    assert sorted(document) == ["colour", "height", "mean", "pad", "resize", "std", "width"]
    said = PreprocessSpec(width=64, height=32, defect_px=3, sampling="filtered")
    assert PreprocessSpec(**said.document()) == said


