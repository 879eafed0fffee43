"""Which frames are chosen, with which probability, and what the budget and the gate leave out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.detections import Detections
from edge_sdk.inspections import Verdict
from edge_sdk.labels import Thresholds
from edge_sdk.outbox.selection import Choice, DuplicateGate, choice, strongest, value_of
from tests.outbox.seeing import inspected, picture

BAND = (0.25, 0.75)


def chosen(
    verdict: Verdict, *, confidence: float = 0.6, questions: int = 2, drawn: float | None = None
) -> Choice | None:
    return choice(verdict, confidence=confidence, questions=questions, band=BAND, control_share=drawn)


def test_uncertain_and_defective_frames_are_always_chosen_with_probability_one() -> None:
    assert chosen(Verdict.UNCERTAIN, confidence=0.25) == Choice("uncertain", "uncertain", 0.5, 1.0, 2)
    assert chosen(Verdict.DEFECTIVE, confidence=1.0) == Choice("defect", "defect", 0.9, 1.0, 2)


def test_a_passed_frame_is_chosen_only_by_the_draw_and_carries_its_probability() -> None:
    assert chosen(Verdict.PASSED) is None
    assert chosen(Verdict.PASSED, drawn=0.1) == Choice("control", "control", 0.5, 0.1, 0)


def test_a_frame_that_is_both_belongs_to_the_control_sample_and_keeps_its_reason() -> None:
    assert chosen(Verdict.UNCERTAIN, drawn=0.1) == Choice("uncertain", "control", 0.5, 0.1, 0)
    assert chosen(Verdict.DEFECTIVE, drawn=0.1) == Choice("defect", "control", 0.5, 0.1, 0)


def test_the_value_of_a_control_item_says_nothing_of_its_content() -> None:
    found = {
        one.value
        for verdict in (Verdict.PASSED, Verdict.UNCERTAIN, Verdict.DEFECTIVE)
        for confidence in (0.0, 0.5, 1.0)
        if (one := chosen(verdict, confidence=confidence, drawn=0.1))
    }
    assert len(found) == 1


def test_a_camera_fault_is_never_chosen() -> None:
    assert chosen(Verdict.NOT_INSPECTED) is None
    assert chosen(Verdict.NOT_INSPECTED, drawn=0.1) is None


def test_a_frame_without_a_question_still_takes_one_from_the_budget() -> None:
    found = chosen(Verdict.DEFECTIVE, questions=0)
    assert found is not None
    assert found.questions == 1


def test_the_middle_of_the_band_and_the_surest_defect_are_worth_most() -> None:
    worth = [value_of(Verdict.UNCERTAIN, confidence, BAND) for confidence in (0.25, 0.375, 0.5, 0.625, 0.75)]
    assert worth == pytest.approx([0.5, 0.75, 1.0, 0.75, 0.5])
    assert value_of(Verdict.DEFECTIVE, 0.99, BAND) > value_of(Verdict.DEFECTIVE, 0.81, BAND)
    assert value_of(Verdict.UNCERTAIN, 0.5, (0.5, 0.5)) == 1.0


@given(
    verdict=st.sampled_from([Verdict.UNCERTAIN, Verdict.DEFECTIVE]),
    confidence=st.floats(0, 1),
    band=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted),
)
def test_a_value_lies_between_0_and_1(verdict: Verdict, confidence: float, band: list[float]) -> None:
    assert 0 <= value_of(verdict, confidence, (band[0], band[1])) <= 1


def test_the_strongest_detection_brings_the_band_of_its_class() -> None:
    thresholds = Thresholds(
        boundary=np.array([0.5, 0.6], np.float32),
        pass_below=np.array([0.25, 0.5], np.float32),
        defective_from=np.array([0.75, 0.875], np.float32),
    )
    found = Detections(
        np.zeros((2, 4), np.float32),
        np.array([0, 1], np.int32),
        np.array([0.25, 0.625], np.float32),
        np.zeros((0, 3), np.int32),
    )
    assert strongest(inspected(detections=found), thresholds) == (0.625, (0.5, 0.875))
    assert strongest(inspected(detections=Detections.none()), thresholds) == (0.0, (0.25, 0.75))


# -- duplicates --------------------------------------------------------------------------------------


def test_the_same_picture_is_seen_again_with_a_sensors_noise_on_it() -> None:
    gate = DuplicateGate()
    first = picture(1)
    gate.remember(gate.thumbnail(first))
    noise = np.random.default_rng(5).normal(0, 4, first.shape)
    assert gate.seen(gate.thumbnail(first))
    assert gate.seen(gate.thumbnail(np.clip(first + noise, 0, 255).astype(np.uint8)))


def test_another_picture_and_a_new_small_defect_are_not() -> None:
    gate = DuplicateGate()
    gate.remember(gate.thumbnail(picture(1)))
    assert not gate.seen(gate.thumbnail(picture(2)))
    spotted = picture(1).copy()
    spotted[100:110, 200:210] = 255 - spotted[100:110, 200:210] // 2
    assert not gate.seen(gate.thumbnail(spotted))


def test_nothing_is_a_duplicate_at_first_and_the_oldest_is_forgotten() -> None:
    gate = DuplicateGate(remember=3)
    thumbnails = [gate.thumbnail(picture(seed)) for seed in range(4)]
    assert not gate.seen(thumbnails[0])
    for thumbnail in thumbnails:
        gate.remember(thumbnail)
    assert [gate.seen(thumbnail) for thumbnail in thumbnails] == [False, True, True, True]


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5000, 3), (2000, 3, 3), (480, 640, 3)])
def test_any_size_of_picture_has_a_thumbnail(shape: tuple[int, int, int]) -> None:
    assert DuplicateGate().thumbnail(np.full(shape, 9, np.uint8)).shape == (32, 32)
