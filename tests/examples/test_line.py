"""The new line at work: real station, uploader and hub, a bundle that needs no training, an operator who knows."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from threading import Event, Thread
from typing import Any

import cv2
import numpy as np
import pytest

from calibration.exported import preprocess_bytes
from edge_sdk.errors import EdgeError
from edge_sdk.quality.datasets import lines_of, load_dataset
from edge_sdk.testing import drawn_picture
from examples.loop import line as line_module
from examples.loop.line import ProductionLine
from examples.loop.operator import Hub, Operator, answer_all
from examples.loop.processes import ChildFailedError, Processes
from tests import stations


def spotted(root: Path, count: int = 40) -> Path:
    """Every second picture has a dark spot, each at another place."""
    chance = np.random.default_rng(3)
    rows = []
    for number in range(count):
        spot = (int(chance.integers(30, 90)), int(chance.integers(30, 130)), 22) if number % 2 else None
        image = drawn_picture(seed=number, spot=spot)
        image = np.clip(image.astype(int) + int(chance.integers(0, 60)) * (image > 60), 0, 255).astype(
            np.uint8
        )
        mask = np.zeros(image.shape[:2], np.uint8)
        if spot is not None:
            cv2.circle(mask, (spot[1], spot[0]), spot[2], 255, -1)
            (root / "masks").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(root / "masks" / f"{number}.png"), mask)
        (root / "images").mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / "images" / f"{number}.png"), image)
        rows.append(
            [f"images/{number}.png", "spot" if spot else "good", f"masks/{number}.png" if spot else ""]
        )
    with (root / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "mask"], *rows])
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """What the demo has made by the time the line starts."""
    spotted(tmp_path / "set")
    (tmp_path / "model" / "adapted").mkdir(parents=True)
    (tmp_path / "model" / "adapted" / "preprocess.json").write_bytes(preprocess_bytes(stations.SPEC))
    stations.spot_bundle(tmp_path / "first")
    stations.spot_bundle(tmp_path / "second", version="2", dark_below=0.36)
    return tmp_path


def line_of(out: Path, run: Processes) -> ProductionLine:
    seen = lines_of(load_dataset(out / "set")).new[0]
    images = out / "pictures" / "mentor" / "images"
    images.mkdir(parents=True)
    for number, sample in enumerate(seen.mentor):
        (images / f"{number:05d}.png").write_bytes(sample.path.read_bytes())
    return ProductionLine(run, out, seen, name="spots")


@pytest.mark.system
@pytest.mark.slow
def test_nothing_is_lost_between_the_camera_and_the_operator_s_answers(out, monkeypatch):
    monkeypatch.setattr(line_module, "STREAM_S", 4.0)
    monkeypatch.setattr(line_module, "AFTER_SWAP_S", 2.0)
    with Processes(out / "logs") as run:
        line = line_of(out, run)
        started = line.start(str(out / "first"))
        told = line.answers(started)
        swapped = line.swap(str(out / "second"))
        children = [line.hub, line.station, line.uploader]
    station, outbox = swapped["summary"]["station"], swapped["summary"]["outbox"]

    assert station["frames_in"] == sum(station["outcomes"].values()) >= 60
    assert (
        station["outcomes"]["passed"] and station["outcomes"]["defective"] + station["outcomes"]["uncertain"]
    )
    assert outbox["put"] == swapped["uploaded"] == swapped["at_hub"] >= 3
    assert sum(swap["frames_lost"] for swap in swapped["summary"]["swaps"]) == 0
    assert len(swapped["summary"]["swaps"]) == 1
    # the graph finds every spot and nothing else, so every question about cells is confirmed
    assert told["answers"]["confirm"] >= 3
    assert told["questions"][0]["answer"] == "confirm"
    assert Path(told["questions"][0]["jpeg"]).stat().st_size > 1000
    assert len(line.latencies_ms()) == station["frames_in"] - station["outcomes"]["not_inspected"]
    assert all(child is not None and not child.running for child in children)


@pytest.mark.system
@pytest.mark.slow
def test_a_person_may_answer_on_the_page_instead(out, monkeypatch, capsys):
    monkeypatch.setattr(line_module, "STREAM_S", 3.0)
    opened: list[str] = []
    done = Event()
    with Processes(out / "logs") as run:
        line = line_of(out, run)
        started = line.start(str(out / "first"))

        def person(page: str) -> bool:
            opened.append(page)
            token = page.partition("#token=")[2]
            hub = Hub(started["hub"]["url"], token)
            assert line.video is not None
            operator = Operator(line.video, stations.SPEC, classes=line.seen.classes)

            def keep_answering() -> None:
                # the control sample may send one more picture at any time, as a person would see
                while not done.wait(0.2):
                    answer_all(hub, operator, expected=started["put"], timeout_s=30)

            Thread(target=keep_answering, daemon=True).start()
            return True

        monkeypatch.setattr(line_module.webbrowser, "open", person)
        told = line.answers(started, interactive=True)
        done.set()
    assert opened[0] in capsys.readouterr().err
    assert told["answers"]["confirm"] >= 3
    assert told["asked_of"] >= started["put"]


@pytest.mark.system
@pytest.mark.slow
def test_a_bundle_that_cannot_be_used_is_told_with_the_station_s_own_words(out):
    (out / "first" / "model" / "model.onnx").write_bytes(b"altered")
    with Processes(out / "logs") as run, pytest.raises(ChildFailedError, match="model/model.onnx") as caught:
        line_of(out, run).start(str(out / "first"))
    assert "activate" in str(caught.value)


def test_pictures_that_are_not_those_of_the_line_are_noticed(out, tmp_path):
    with Processes(out / "logs") as run:
        line = line_of(out, run)
        next((out / "pictures" / "mentor" / "images").glob("*.png")).unlink()
        with pytest.raises(EdgeError, match=r"7 pictures were written of the 8 that the line shows"):
            line._film()


def journal(out: Path, rows: list[dict[str, Any]], run: Processes) -> ProductionLine:
    line = line_of(out, run)
    line.journal.parent.mkdir(parents=True)
    line.journal.write_text("".join(json.dumps({"reason": "", **row}) + "\n" for row in rows))
    return line


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (
            [{"index": 0, "verdict": "passed"}, {"index": 2, "verdict": "passed"}],
            "misses a frame or tells one twice",
        ),
        (
            [{"index": 0, "verdict": "passed"}, {"index": 0, "verdict": "passed"}],
            "misses a frame or tells one twice",
        ),
        (
            [{"index": 0, "verdict": "passed"}, {"index": 1, "verdict": "defective"}],
            "the station counted .* but .* tells",
        ),
    ],
)
def test_a_ledger_that_the_journal_contradicts_is_not_reported(out, rows, sentence):
    said = {"station": {"outcomes": {"passed": 2, "defective": 0, "uncertain": 0, "not_inspected": 0}}}
    with Processes(out / "logs") as run:
        line = journal(out, rows, run)
        with pytest.raises(EdgeError, match=sentence):
            line._check_journal(said)
