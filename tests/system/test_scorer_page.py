"""A line that has shown good parts alone: its station asks where a part is strange, and an operator answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_sdk.records import decode_item, picture_of
from tests.export.conftest import call
from tests.mentoring.running import HubProcess
from tests.requirements import need
from tests.stations import settings
from tests.system.test_detector_page import run
from tests.system.test_operator_page import CHROMIUM, DESK, PHONE, SWITCHES, Operator, answers_at
from tests.training.scorers.normal_parts import plate, write_trunk
from training.cli import app as training_app

pytestmark = [pytest.mark.system, pytest.mark.slow]

SIZE = {"height": 192, "width": 256}
STRANGE = 6


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need("chromium", found=CHROMIUM.exists(), apt="chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A commissioned line's bundle, and what it streams: good parts, then dented ones."""
    place = tmp_path_factory.mktemp("made")
    for name, seeds, dent in (("good", range(100, 144), False), ("stream", range(500, 500 + STRANGE), True)):
        (place / name).mkdir()
        for seed in seeds:
            assert cv2.imwrite(str(place / name / f"{seed}.png"), plate(seed, dent=dent, **SIZE))
    words = ("--from", write_trunk(place / "trunk"), "--side-px", 192)
    code, _, talk = call(training_app, "commission", place / "good", "--bundle", place / "press-3-1.bundle", *words)
    assert code == 0, talk
    return place


def stream_to(hub: HubProcess, made: Path, station: Path) -> None:
    """The station inspects the line and sends what it keeps."""
    station.mkdir()
    (station / "token").write_text(hub.token)
    told = settings(
        station,
        bundle=str(made / "press-3-1.bundle"),
        camera={"uri": f"file:{made / 'stream'}", "pace": "max"},
        runner={"platform": "cpu-fp32"},
        mentoring={"outbox": "./outbox", "questions_per_shift": 200, "shift_h": 0.01},
        hub={"url": hub.url, "token_file": "./token"},
    )
    run("edge_sdk", "run", told, "--json")
    run("edge_sdk", "upload", told, "--until-empty")


def around_dents(item: bytes) -> bool:
    """Whether the first question of an item lies on the dent of its plate, which no graph was told."""
    record = decode_item(item)
    image = picture_of(record).astype(int)
    seeds = range(500, 500 + STRANGE)
    seed = min(seeds, key=lambda one: int(np.abs(image - plate(one, dent=True, **SIZE)).sum()))
    dented = np.argwhere((plate(seed, dent=True, **SIZE) != plate(seed, **SIZE)).any(axis=2))
    top, left = dented.min(axis=0)
    bottom, right = dented.max(axis=0)
    box = record.header.questions[0].box
    return bool(box[0] < right and left < box[2] and box[1] < bottom and top < box[3])


def test_an_operator_answers_where_a_part_is_strange(chromium: Any, made: Path, tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        stream_to(hub, made, tmp_path / "station")
        context = chromium.new_context(viewport=DESK)
        operator = Operator(hub, context).come()
        operator.look()
        assert operator.text("#title") == "Unlike the good parts: is it a defect?"
        # one class: nothing to choose among
        assert not operator.page.is_visible("#kinds")
        outline = operator.page.evaluate("document.querySelector('#overlay .line').getAttribute('d')")
        assert outline.count("M") == outline.count("Z") == 1 and outline.count("L") >= 3
        operator.shot("desk-scorer")
        operator.press("j", "f", " ")
        operator.saved()
        operator.look()
        operator.shot("desk-scorer-answered")
        assert operator.text("#past") == "Unsure False alarm Defect"
        said = answers_at(hub)
        assert [one["answer"] for one in said] == ["confirm", "infirm", "unsure"]
        assert [one["class"] for one in said] == [None] * 3
        items = {one["item"]: hub.call("GET", f"/v1/items/{one['item']}")[1] for one in said}
        headers = [decode_item(item).header for item in items.values()]
        assert {one.class_name for header in headers for one in header.questions} == {"novelty"}
        assert all(around_dents(item) for item in items.values())
        assert operator.troubles == []
        context.close()


def test_on_a_phone_the_strange_place_keeps_its_room(chromium: Any, made: Path, tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        stream_to(hub, made, tmp_path / "station")
        context = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
        operator = Operator(hub, context).come()
        operator.look()
        operator.shot("phone-scorer")
        stage = operator.page.locator("#stage").bounding_box()
        assert stage["height"] > 0.45 * PHONE["height"]
        assert operator.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        operator.page.locator("#confirm").tap()
        operator.saved()
        assert [one["answer"] for one in answers_at(hub)] == ["confirm"]
        assert operator.troubles == []
        context.close()
