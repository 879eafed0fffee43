"""Q1 measures what it says: a process of its own, its memory, and the line through two counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from benchmarks.machine import ROOT
from benchmarks.quantisation.calibrating import at_count
from benchmarks.quantisation.measuring import WHATS
from edge_sdk.testing import drawn_picture
from tests.calibration.networks import residual_model, save

SIDE = 128


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("measuring")
    save(residual_model(side=SIDE), root / "model.onnx")
    (root / "pictures").mkdir()
    for n in range(40):
        cv2.imwrite(str(root / "pictures" / f"{n:02d}.png"), drawn_picture(SIDE, SIDE, seed=n))
    return root


def measured(work: Path, what: str, count: int, calibrated: int) -> dict[str, float]:
    words = [what, work / "model.onnx", work / "pictures", count, calibrated]
    command = [sys.executable, "-m", "benchmarks.quantisation.measuring", *map(str, words)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_line_through_two_counts() -> None:
    seen = [
        {"pictures": 2, "cpu_s": 1.5, "growth_mb": 100.0},
        {"pictures": 6, "cpu_s": 3.5, "growth_mb": 260.0},
    ]
    assert at_count(512, seen) == {"cpu_s": 1.5 + 0.5 * 510, "growth_mb": 100 + 40 * 510}
    flat = [{**seen[0], "growth_mb": 90.0}, {**seen[1], "growth_mb": 80.0}]
    assert at_count(512, flat)["growth_mb"] == 80.0


@pytest.mark.slow
def test_a_calibrator_that_keeps_everything_is_seen_to_and_ours_is_not(work: Path) -> None:
    kept = [measured(work, "onnxruntime Percentile", count, count)["growth_mb"] for count in (4, 36)]
    ours = [measured(work, "ours, nothing chosen", count, count)["growth_mb"] for count in (4, 36)]
    # 0.9 MB of activations a picture
    assert kept[1] - kept[0] > 20
    assert ours[1] - ours[0] < 8


@pytest.mark.slow
def test_ours_calibrates_on_as_many_as_it_says_and_the_others_choose(work: Path) -> None:
    found = measured(work, "ours", 40, 32)
    assert found["calibrated"] == 32 and found["chose_on"] == 8
    assert found["cpu_s"] > 0 and found["growth_mb"] > 0


def test_all_that_are_compared_are_there() -> None:
    assert list(WHATS) == [
        "forward", "ours", "ours, nothing chosen",
        "onnxruntime MinMax", "onnxruntime Percentile", "onnxruntime Entropy",
    ]  # fmt: skip
