"""A detector's whole loop: a station asks about its boxes, an operator answers at the page, training takes it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_sdk.labels import Thresholds
from edge_sdk.quality.datasets import lines_of, load_dataset
from edge_sdk.records import decode_item
from export.cli import app as export_app
from tests.export.conftest import call
from tests.mentoring.running import ROOT, HubProcess
from tests.requirements import need
from tests.stations import settings
from tests.system.test_operator_page import CHROMIUM, DESK, PHONE, SWITCHES, Operator, answers_at
from tests.training.boxed import SMALL_BOXES, write_boxed_set
from training.checkpoint import digest_of, load_checkpoint, save_checkpoint
from training.cli import app as training_app
from training.detector import train_detector
from training.pictures import write_pictures

pytestmark = [pytest.mark.system, pytest.mark.slow]

BAND = (0.05, 0.5, 0.98)
"""Wide: nearly every box is asked about."""
KEYS = {"dent": "1", "scratch": "2"}
OTHER = {"dent": "scratch", "scratch": "dent"}


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
    """A set, a detector's checkpoint, its bundle, and the pictures that the new line streams."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("made")
    dataset = load_dataset(write_boxed_set(place / "plates"))
    lines = lines_of(dataset, gap="lamp", seed=1)
    found = train_detector(dataset, lines, SMALL_BOXES)
    low, middle, high = (np.full(2, value, np.float32) for value in BAND)
    state = replace(found.line("original"), thresholds=Thresholds(middle, low, high, "a test", "none: a test"))
    save_checkpoint(found.with_line("original", state), place / "ckpt")
    write_pictures(lines.new[0], "mentor", place / "stream", labelled=False)
    named = ("--golden", place / "plates", "--name", "plates", "--version", "1", "--out", place / "bundles")
    for words in (
        ("onnx", place / "ckpt", "--line", "original", "--out", place / "work"),
        ("pack", place / "work", "--ckpt", place / "ckpt", "--line", "original", *named),
    ):
        code, _, talk = call(export_app, *words)
        assert code == 0, talk
    return place


def run(*words: object) -> str:
    told = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], capture_output=True, text=True, timeout=120, check=False, env=told
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stream_to(hub: HubProcess, made: Path, station: Path) -> None:
    """The station inspects the new line and sends what it keeps."""
    station.mkdir()
    (station / "token").write_text(hub.token)
    told = settings(
        station,
        bundle=str(next((made / "bundles").glob("*.bundle"))),
        camera={"uri": f"file:{made / 'stream' / 'images'}", "pace": "max"},
        runner={"platform": "cpu-fp32"},
        mentoring={"outbox": "./outbox", "questions_per_shift": 200, "shift_h": 0.01},
        hub={"url": hub.url, "token_file": "./token"},
    )
    run("edge_sdk", "run", told, "--json")
    run("edge_sdk", "upload", told, "--until-empty")


def test_an_operator_answers_boxes_and_the_detector_learns_from_them(
    chromium: Any, made: Path, tmp_path: Path
) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        stream_to(hub, made, tmp_path / "station")
        context = chromium.new_context(viewport=DESK)
        operator = Operator(hub, context).come()
        operator.look()
        named = operator.text("#title em")
        assert named in OTHER
        assert operator.text("#kinds") == "1 dent 2 scratch"
        assert operator.text('#kinds [aria-current="true"]').endswith(named)
        # one rectangle of four corners: a box, no cells
        outline = operator.page.evaluate("document.querySelector('#overlay .line').getAttribute('d')")
        assert (outline.count("M"), outline.count("L"), outline.count("Z")) == (1, 3, 1)
        operator.shot("desk-detector")
        operator.press("j", "f")
        operator.look()
        corrected = OTHER[operator.text("#title em")]
        operator.press(KEYS[corrected])
        operator.sees("#past", f"Defect · {corrected}")
        operator.look()
        operator.press(KEYS[operator.text("#title em")], " ")
        operator.saved()
        operator.shot("desk-detector-answered")
        said = answers_at(hub)
        assert [one["answer"] for one in said] == ["confirm", "infirm", "confirm", "confirm", "unsure"]
        assert [one["class"] for one in said] == [None, None, corrected, None, None]
        # no class has the number 7
        operator.look()
        operator.page.keyboard.press("7")
        operator.saved()
        assert len(answers_at(hub)) == 5
        assert operator.troubles == []
        context.close()

        item = hub.call("GET", f"/v1/items/{said[0]['item']}")[1]
        question = decode_item(item).header.questions[said[0]["question"]]
        ((anchor, zero),) = question.cells
        assert zero == 0 and anchor < 32
        run("mentoring", "export", "--data", hub.data, "--out", tmp_path / "mentored", "--include-recent")
    words = ("--data", made / "plates", "--gap", "lamp", "--seed", 1)
    code, told, talk = call(
        training_app, "retrain", made / "ckpt", *words, "--mentored", tmp_path / "mentored",
        "--out", tmp_path / "retrained", "--json",
    )  # fmt: skip
    assert code == 0, talk
    facts = json.loads(told)
    assert facts["strategy"] == "masked"
    assert (facts["answers"]["confirm"], facts["answers"]["infirm"]) == (3, 1)
    found = load_checkpoint(tmp_path / "retrained")
    assert set(found.lines) == {"original", "new"}
    assert digest_of(found) != digest_of(load_checkpoint(made / "ckpt"))


def test_on_a_phone_a_class_is_a_tap_and_the_box_keeps_its_room(chromium: Any, made: Path, tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub") as hub:
        stream_to(hub, made, tmp_path / "station")
        context = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
        operator = Operator(hub, context).come()
        operator.look()
        operator.shot("phone-detector")
        stage = operator.page.locator("#stage").bounding_box()
        assert stage["height"] > 0.45 * PHONE["height"]
        assert operator.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        corrected = OTHER[operator.text("#title em")]
        button = operator.page.locator("#kinds button", has_text=corrected)
        assert button.bounding_box()["height"] >= 44
        button.tap()
        operator.saved()
        assert [one["class"] for one in answers_at(hub)] == [corrected]
        assert operator.troubles == []
        context.close()
