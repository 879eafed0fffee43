"""The demo's operator says what a careful person would."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_sdk.vision.preprocess import PreprocessSpec
from examples.loop.operator import Operator, Said, say
from examples.loop.video import Canvas, Filmed, LineVideo

GRID = (4, 4)


def truth(*cells: tuple[int, int], name: str = "tear", classes: tuple[str, ...] = ("tear",)):
    maps = {one: np.zeros(GRID, bool) for one in classes}
    for cell in cells:
        maps[name][cell] = True
    return {GRID: maps}


def question(*cells: tuple[int, int], number: int | None = 0, name: str = "tear"):
    return {"question": number, "cells": [list(cell) for cell in cells], "grid": list(GRID), "class": name}


FOUR = ((0, 0), (0, 1), (1, 0), (1, 1))


@pytest.mark.parametrize(
    ("defective", "answer"),
    [((), "infirm"), (((0, 0),), "confirm"), (FOUR, "confirm"), (((3, 3),), "infirm")],
)
def test_a_quarter_of_the_cells_confirms_and_none_infirms(defective, answer):
    assert say(False, truth(*defective), [question(*FOUR)], classes=["tear"]) == [Said(0, answer)]


def test_less_than_a_quarter_is_unsure():
    cells = [(0, column) for column in range(4)] + [(1, 0)]
    assert say(False, truth((0, 0)), [question(*cells)], classes=["tear"]) == [Said(0, "unsure")]


def test_a_defect_of_another_class_is_confirmed_as_that_class():
    maps = truth(*FOUR, name="blot", classes=("blot", "tear"))
    assert say(False, maps, [question(*FOUR)], classes=["blot", "tear"]) == [Said(0, "confirm", "blot")]


def test_every_question_about_a_healthy_picture_is_a_false_alarm():
    asked = [question((0, 0), number=0), question((3, 3), number=1)]
    assert [said.answer for said in say(True, {}, asked, classes=["tear"])] == ["infirm", "infirm"]


def test_a_whole_picture_is_said_to_be_what_it_is():
    asked = [question(number=None)]
    assert say(True, {}, asked, classes=["tear"]) == [Said(None, "infirm")]
    assert say(False, truth((0, 0)), asked, classes=["tear"]) == [Said(None, "confirm")]


def test_without_masks_the_picture_as_a_whole_is_answered_and_its_cells_are_unsure():
    said = say(False, {}, [question((0, 0)), question((1, 1), number=1)], classes=["tear"])
    assert said == [Said(None, "confirm"), Said(0, "unsure"), Said(1, "unsure")]


def test_of_a_picture_that_nobody_knows_nothing_is_claimed():
    assert say(None, {}, [question((0, 0))], classes=["tear"]) == [Said(0, "unsure")]


def filmed(*masks: np.ndarray | None) -> LineVideo:
    generator = np.random.default_rng(0)
    pictures = []
    for number, mask in enumerate(masks):
        coarse = generator.integers(0, 256, (5, 7, 3), np.uint8)
        image = cv2.resize(coarse, (32, 24), interpolation=cv2.INTER_LINEAR)
        pictures.append(
            Filmed(f"{number}.png", image, mask is None, mask, "good" if mask is None else "tear")
        )
    return LineVideo(Path("line.avi"), Canvas(64, 64), tuple(pictures))


def test_a_picture_is_recognised_after_its_way_through_the_video():
    video = filmed(None, None, None)
    operator = Operator(video, PreprocessSpec(64, 64), classes=["tear"])
    for number, one in enumerate(video.pictures):
        shown = video.canvas.picture(one.image)
        jpeg = cv2.imencode(".jpg", shown, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        assert operator.recognise(jpeg) == number


def test_the_mask_of_a_picture_decides_which_cells_are_defective():
    torn = np.zeros((24, 32), np.uint8)
    torn[:8, :8] = 1
    operator = Operator(filmed(torn, None), PreprocessSpec(64, 64), classes=["tear"])
    # the picture is 32 x 24, so it fills columns 0 to 63 and rows 8 to 55; its upper left corner is torn
    asked = [question((0, 0), (1, 0), number=0), question((3, 3), number=1)]
    assert [said.answer for said in operator.say(0, asked)] == ["confirm", "infirm"]
    assert [said.answer for said in operator.say(1, asked)] == ["infirm", "infirm"]


def test_of_several_classes_the_whole_picture_is_confirmed_as_its_own():
    said = say(False, {}, [question(number=None)], classes=["blot", "tear"], label="tear")
    assert said == [Said(None, "confirm", "tear")]
