"""The operator's page in real Chromium, before a real hub: every key, no answer lost, none doubled."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mentoring.hub import exports_of
from tests.mentoring.items import altered, drawn_item
from tests.mentoring.running import ROOT, HubProcess
from tests.requirements import need

pytestmark = [pytest.mark.system, pytest.mark.slow]

CHROMIUM = Path(shutil.which("chromium") or "/usr/bin/chromium")
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
SHOTS = ROOT / "build" / "operator-page"

ANSWERS = {"j": "confirm", "f": "infirm", " ": "unsure"}

Item = tuple[str, bytes]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    need("chromium", found=CHROMIUM.exists(), apt="chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "hub") as running:
        yield running


class Operator:
    """Anna, at the keys."""

    def __init__(self, hub: HubProcess, context: Any) -> None:
        self.hub = hub
        self.page = context.new_page()
        self.troubles: list[str] = []
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", self._hear)

    def _hear(self, message: Any) -> None:
        # a browser says itself that the hub did not answer; anything else is ours
        if message.type in ("error", "warning") and "ERR_" not in message.text:
            self.troubles.append(message.text)

    def come(self, *, name: str = "Anna") -> Operator:
        self.page.goto(f"{self.hub.page}&operator={name}")
        return self

    def look(self) -> None:
        """Until the picture has been in sight for the time that the page demands."""
        self.page.wait_for_function(
            "() => document.body.dataset.painted && performance.now() - document.body.dataset.painted > 260"
        )

    def press(self, *keys: str) -> None:
        for key in keys:
            self.look()
            self.page.keyboard.press(key)

    def text(self, selector: str) -> str:
        return " ".join(self.page.inner_text(selector).split())

    def sees(self, selector: str, text: str) -> None:
        self.page.wait_for_function(
            "([s, t]) => document.querySelector(s).textContent.includes(t)",
            arg=[selector, text],
            timeout=60_000,
        )

    def saved(self) -> None:
        self.sees("#sync-text", "All saved")

    def shot(self, name: str) -> Any:
        SHOTS.mkdir(parents=True, exist_ok=True)
        path = SHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return cv2.imread(str(path))


@pytest.fixture
def operator(chromium: Any, hub: HubProcess) -> Iterator[Operator]:
    context = chromium.new_context(viewport=DESK)
    one = Operator(hub, context)
    yield one
    context.close()
    assert one.troubles == []


def bring(hub: HubProcess, count: int, **more: Any) -> list[Item]:
    items = [drawn_item(number, **more) for number in range(count)]
    assert [hub.put(item) for item in items] == [201] * count
    return items


def answers_at(hub: HubProcess) -> list[dict[str, Any]]:
    """Everything the hub was told, in order of arrival."""
    export = exports_of(hub.data).at(settle_s=0)
    data = next(member for member in export.members if member.path == "answers.jsonl").read()
    return [json.loads(line) for line in data.splitlines()]


def test_every_key_answers(operator: Operator) -> None:
    bring(operator.hub, 3)
    operator.come()
    operator.press("j", "ArrowRight", "f", "ArrowLeft", " ")
    operator.saved()
    said = answers_at(operator.hub)
    assert [one["answer"] for one in said] == ["confirm", "confirm", "infirm", "infirm", "unsure"]
    assert {one["operator"] for one in said} == {"Anna"}
    assert all(one["after_ms"] >= 250 and one["device"].startswith("web-") for one in said)
    assert [operator.text(f"#n-{name}") for name in ("confirm", "infirm", "unsure")] == ["2", "2", "1"]
    assert operator.text(".to-go") == "1 to go"


def test_capitals_and_other_scripts_are_the_same_keys(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.come()
    operator.press("Shift+F")
    operator.look()
    operator.page.evaluate(
        "dispatchEvent(new KeyboardEvent('keydown', { key: 'о', code: 'KeyJ', bubbles: true, cancelable: true }))"
    )
    operator.saved()
    assert [one["answer"] for one in answers_at(operator.hub)] == ["infirm", "confirm"]


@pytest.mark.parametrize("key", ["Backspace", "z"])
def test_an_answer_can_be_taken_back(operator: Operator, key: str) -> None:
    bring(operator.hub, 2)
    operator.come()
    operator.look()
    first = operator.text("#title")
    operator.press("j", "f")
    operator.page.keyboard.press(key)
    operator.page.keyboard.press(key)
    operator.sees("#meta", "taken back, answer again")
    assert operator.text("#title") == first
    assert operator.text("#n-confirm") == operator.text("#n-infirm") == "0"
    operator.press("f", "f")
    operator.saved()
    said = answers_at(operator.hub)
    assert [one["withdraws"] for one in said] == [None, None, said[1]["id"], said[0]["id"], None, None]
    assert [(one["question"], one["answer"]) for one in said if not one["withdraws"]] == [
        (0, "confirm"),
        (1, "infirm"),
        (0, "infirm"),
        (1, "infirm"),
    ]
    counts = operator.hub.call("GET", "/v1/counts")[1]
    assert (counts["infirm"], counts["confirm"], counts["withdrawn"]) == (2, 0, 2)


def test_a_reload_keeps_what_can_be_taken_back(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.come()
    operator.press("j")
    operator.saved()
    operator.page.reload()
    operator.look()
    operator.page.keyboard.press("z")
    operator.sees("#meta", "taken back")
    operator.saved()
    assert operator.hub.call("GET", "/v1/counts")[1]["withdrawn"] == 1


def test_a_key_that_is_held_down_answers_once(operator: Operator) -> None:
    bring(operator.hub, 3)
    operator.come()
    operator.look()
    for _ in range(8):  # without an `up` in between the browser marks these as repeats
        operator.page.keyboard.down("j")
        operator.page.wait_for_timeout(120)
    operator.page.keyboard.up("j")
    operator.saved()
    assert len(answers_at(operator.hub)) == 1


def test_an_answer_too_soon_for_the_picture_is_not_taken_and_is_told(operator: Operator) -> None:
    bring(operator.hub, 2)
    operator.come()
    operator.press("j")
    operator.page.keyboard.press("f")
    assert operator.text("#hint") == "Too quick: look first"
    assert "shake" in operator.page.get_attribute("#stage", "class")
    operator.saved()
    assert [one["answer"] for one in answers_at(operator.hub)] == ["confirm"]


def test_hide_whole_picture_and_help_have_keys_that_answer_nothing(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.come()
    operator.look()
    outline = "document.querySelector('#overlay .line').getAttribute('d')"
    spot = operator.page.evaluate(outline)
    assert spot.startswith("M")
    operator.page.keyboard.press("h")
    assert operator.page.evaluate(outline) == ""
    assert operator.page.get_attribute("#hide", "aria-pressed") == "true"
    operator.page.keyboard.press("h")
    assert operator.page.evaluate(outline) == spot
    operator.page.keyboard.press("w")
    assert operator.page.evaluate(outline) not in ("", spot)
    operator.page.keyboard.press("w")
    operator.page.keyboard.press("?")
    assert operator.page.is_visible("#help")
    operator.page.keyboard.press("j")
    operator.page.keyboard.press("Escape")
    assert not operator.page.is_visible("#help")
    operator.saved()
    assert answers_at(operator.hub) == []


def test_space_is_unsure_even_with_the_focus_on_a_button(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.come()
    operator.look()
    operator.page.focus("#confirm")
    operator.page.keyboard.press(" ")
    operator.look()
    operator.saved()
    assert [one["answer"] for one in answers_at(operator.hub)] == ["unsure"]


def test_answers_survive_a_hub_that_is_killed_and_comes_back(operator: Operator) -> None:
    bring(operator.hub, 8)
    operator.come()
    operator.press("j", "f", "j")
    operator.hub.kill()
    operator.press("f", "j", " ", "j", "f")
    operator.sees("#sync-text", "not yet sent")
    operator.sees("#banner-text", "your answers are kept on this computer")
    operator.shot("desk-hub-away")
    operator.page.keyboard.press("z")
    operator.press("j", "j")
    operator.hub.start()
    operator.saved()
    said = answers_at(operator.hub)
    given = [one for one in said if not one["withdraws"]]
    assert len({one["id"] for one in said}) == len(said) == 11
    keys = "jfjfj jfjj"
    assert [one["answer"] for one in given] == [ANSWERS[key] for key in keys]
    stands = [one for one in given if one["id"] not in {other["withdraws"] for other in said}]
    assert len({(one["item"], one["question"]) for one in stands}) == len(stands) == 9
    assert operator.page.is_hidden("#banner")


def test_sixty_answers_over_a_bad_line_arrive_once_each_and_in_order(operator: Operator) -> None:
    bring(operator.hub, 33)
    sent, mended = 0, False

    def bad(route: Any) -> None:
        nonlocal sent
        sent += 1
        if mended:
            route.continue_()
        elif sent % 3 == 1:  # the hub has it, its answer is lost
            route.fetch()
            route.abort()
        elif sent % 3 == 2:
            route.abort()
        else:
            route.continue_()

    operator.page.route("**/v1/answers", bad)
    operator.come()
    keys = ["jf "[number % 3] for number in range(64)]
    operator.press(*keys)
    mended = True
    operator.saved()
    said = answers_at(operator.hub)
    assert sent > 3
    assert [one["answer"] for one in said] == [ANSWERS[key] for key in keys]
    assert len({one["id"] for one in said}) == 64
    assert len({(one["item"], one["question"]) for one in said}) == 64


def test_answers_survive_a_killed_browser(chromium: Any, hub: HubProcess, tmp_path: Path) -> None:
    bring(hub, 4)
    profile = tmp_path / "profile"

    def opened() -> Any:
        return chromium.browser_type.launch_persistent_context(
            str(profile), executable_path=str(CHROMIUM), args=SWITCHES, viewport=DESK
        )

    context = opened()
    operator = Operator(hub, context).come()
    operator.look()
    hub.kill()
    operator.press("j", "f", "j")
    operator.sees("#sync-text", "3 not yet sent")
    # what "3 not yet sent" promises holds for a power cut of the panel as well
    browser = int((profile / "SingletonLock").readlink().name.rpartition("-")[2])
    with context.expect_event("close"):
        os.kill(browser, signal.SIGKILL)
    for name in ("SingletonLock", "SingletonCookie", "SingletonSocket"):
        (profile / name).unlink(missing_ok=True)
    hub.start()
    context = opened()
    operator = Operator(hub, context).come()
    operator.saved()
    assert [one["answer"] for one in answers_at(hub)] == ["confirm", "infirm", "confirm"]
    context.close()


def test_two_tabs_are_never_asked_the_same(chromium: Any, hub: HubProcess) -> None:
    bring(hub, 12)
    context = chromium.new_context(viewport=DESK)
    anna, ben = Operator(hub, context).come(), Operator(hub, context).come(name="Ben")
    for _ in range(4):
        anna.press("j")
        ben.press("f")
    anna.saved()
    ben.saved()
    said = answers_at(hub)
    assert len({(one["item"], one["question"]) for one in said}) == len(said) == 8
    assert len({one["device"] for one in said}) == 2
    context.close()


def test_a_frame_without_a_spot_is_asked_as_a_whole_picture(operator: Operator) -> None:
    bring(operator.hub, 1, peaks=0, reason="control")
    operator.come()
    operator.look()
    assert operator.text("#title") == "Is there a defect anywhere in this picture?"
    assert operator.text("#infirm .says") == "No defect"
    assert operator.page.evaluate("document.querySelector('#overlay .line').getAttribute('d')") == ""
    operator.shot("desk-whole-picture")
    operator.press("f")
    operator.saved()
    assert [(one["question"], one["answer"]) for one in answers_at(operator.hub)] == [(None, "infirm")]


def test_when_all_is_answered_it_says_so_and_new_frames_appear_by_themselves(operator: Operator) -> None:
    operator.come()
    operator.sees("#note-title", "All answered")
    operator.shot("desk-all-answered")
    bring(operator.hub, 1)
    operator.press("j")
    operator.saved()
    assert len(answers_at(operator.hub)) == 1


def test_the_picture_shows_where_and_only_there(operator: Operator) -> None:
    bring(operator.hub, 1, height=768, width=1024, side=256)
    operator.come()
    operator.look()
    shown = operator.shot("desk")
    stage = operator.page.locator("#stage").bounding_box()
    picture = shown[int(stage["y"]) + 4 : int(stage["y"] + stage["height"]) - 4,
                    int(stage["x"]) + 4 : int(stage["x"] + stage["width"]) - 4].astype(int)  # fmt: skip
    yellow = (picture[..., 2] > 220) & (picture[..., 1] > 200) & (picture[..., 0] < 170)
    rows, columns = np.nonzero(yellow)
    box = rows.min(), rows.max(), columns.min(), columns.max()
    inside = yellow[box[0] + 6 : box[1] - 6, box[2] + 6 : box[3] - 6]
    assert not inside.any()  # an outline, no fill
    centre = (box[0] + box[1]) / 2 / picture.shape[0], (box[2] + box[3]) / 2 / picture.shape[1]
    assert centre == pytest.approx((0.5, 0.5), abs=0.35)  # near the middle, unless the frame ends there
    assert (box[3] - box[2]) < 0.6 * picture.shape[1]  # with its neighbourhood


@pytest.mark.parametrize(
    ("name", "size"), [("phone", PHONE), ("tablet", {"width": 800, "height": 1280}), ("desk", DESK)]
)
def test_fits_the_screen_with_large_targets(
    chromium: Any, hub: HubProcess, name: str, size: dict[str, int]
) -> None:
    bring(hub, 4, height=768, width=1024, side=256)
    context = chromium.new_context(
        viewport=size, has_touch=True, is_mobile=name != "desk", device_scale_factor=2
    )
    operator = Operator(hub, context)
    operator.page.goto(hub.page)
    operator.page.wait_for_selector("#welcome:not([hidden])")
    operator.shot(f"{name}-welcome")
    operator.page.fill("#name", "Anna")
    operator.page.tap("#welcome .go")
    operator.look()
    operator.shot(name)
    assert operator.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for button in ("confirm", "infirm", "unsure", "undo", "hide"):
        box = operator.page.locator(f"#{button}").bounding_box()
        assert min(box["width"], box["height"]) >= 64
        assert box["y"] + box["height"] <= size["height"]
        assert box["x"] + box["width"] <= size["width"]
    stage = operator.page.locator("#stage").bounding_box()
    assert stage["height"] > 0.45 * size["height"]
    for button in ("confirm", "infirm", "unsure"):
        operator.look()
        operator.page.tap(f"#{button}")
    operator.page.tap("#undo")
    operator.saved()
    assert [one["answer"] for one in answers_at(hub)] == ["confirm", "infirm", "unsure", "unsure"]
    assert operator.troubles == []
    context.close()


def test_a_wrong_token_is_asked_for_and_never_stays_in_the_address(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.page.goto(f"{operator.hub.url}/#token=wrong-token-of-some-length&operator=Anna")
    operator.sees("#welcome-error", "The hub does not know this token.")
    operator.troubles.clear()  # the browser tells of the 401 by itself
    assert operator.page.url == f"{operator.hub.url}/"
    operator.page.fill("#token", operator.hub.token)
    operator.page.keyboard.press("Enter")
    operator.press("j")
    operator.saved()
    assert len(answers_at(operator.hub)) == 1
    assert operator.page.evaluate("JSON.stringify(localStorage)").count(operator.hub.token) == 0


def test_a_name_is_asked_for_before_the_first_answer(operator: Operator) -> None:
    bring(operator.hub, 1)
    operator.page.goto(operator.hub.page)
    operator.page.wait_for_selector("#welcome:not([hidden])")
    operator.page.keyboard.press("Enter")
    operator.page.keyboard.type("Jean F.")
    operator.page.keyboard.press("Enter")
    operator.press("j")
    operator.saved()
    assert [one["operator"] for one in answers_at(operator.hub)] == ["Jean F."]


def test_a_class_name_is_text_and_nothing_else(operator: Operator) -> None:
    question = {
        "class": "<img src=x onerror=alert(1)>",
        "confidence": 0.6,
        "box": [40, 40, 80, 80],
        "cells": [[2, 2]],
    }
    assert operator.hub.put(altered(drawn_item(0)[1], questions=[question], camera="<b>left</b>")) == 201
    operator.come()
    operator.look()
    assert "<img src=x onerror=alert(1)>" in operator.text("#title")
    assert "<b>left</b>" in operator.text("#meta")
    operator.press("j")
    operator.saved()
    assert "<img" in operator.text("#past")


def test_a_picture_that_cannot_be_read_does_not_stop_the_others(operator: Operator) -> None:
    from edge_sdk.documents import sha256_hex
    from edge_sdk.records import Part, Record, decode_item, encode_item, item_id

    record = decode_item(drawn_item(0, value=0.9)[1])
    torn = record.parts["frame"][:60]
    part = Part(role="frame", type="image/png", bytes=len(torn), sha256=sha256_hex(torn))
    header = record.header.model_copy(update={"parts": (part, record.header.parts[1])})
    item = encode_item(Record(header, {**record.parts, "frame": torn}))
    assert operator.hub.put((item_id(item), item)) == 201
    whole = drawn_item(1, value=0.1)
    assert operator.hub.put(whole) == 201
    operator.come()
    operator.press("j", "f")
    operator.saved()
    assert {one["item"] for one in answers_at(operator.hub)} == {whole[0]}


def test_an_answer_that_the_hub_will_never_take_is_told_and_holds_up_none(operator: Operator) -> None:
    bring(operator.hub, 2)
    operator.come()
    operator.look()
    operator.page.route(
        "**/v1/answers",
        lambda route: route.continue_(
            post_data=json.dumps([{**one, "item": "0" * 64} for one in route.request.post_data_json])
        ),
        times=1,
    )
    operator.press("j")
    operator.sees("#banner-text", "The hub did not take an answer: answer ")
    operator.troubles.clear()  # the browser tells of the 422 by itself
    operator.press("f")
    operator.saved()
    operator.page.click("#banner-done")
    operator.page.wait_for_selector("#banner", state="hidden")
    operator.page.reload()
    operator.look()
    assert not operator.page.is_visible("#banner")
    assert [one["answer"] for one in answers_at(operator.hub)] == ["infirm"]
