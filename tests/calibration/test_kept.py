"""A calibration that is killed goes on where it was, and ends with the bytes of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calibration.collect import ranges_from_pictures
from calibration.exported import preprocess_bytes
from calibration.graphs import Graph
from calibration.kept import Kept
from calibration.observers import Observer
from calibration.pictures import pictures_in
from calibration.ranges import read_ranges
from edge_sdk.arrays import Array
from edge_sdk.testing import drawn_picture
from tests.calibration.conftest import SPEC
from tests.calibration.networks import SIDE, residual_model, save


class Ended(Exception):
    pass


def drawn(folder: Path, count: int) -> Path:
    folder.mkdir()
    for n in range(count):
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=n))
    return folder


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-(2.0**60), 2.0**60, width=32)),
)
def test_an_observer_goes_on_from_its_histogram(first: Array, second: Array) -> None:
    whole = Observer()
    whole.see(first)
    resumed = Observer.of(whole.histogram())
    for observer in (whole, resumed):
        observer.see(second)
    one, other = whole.histogram(), resumed.histogram()
    assert (one.lo, one.hi, one.width, one.first) == (other.lo, other.hi, other.width, other.first)
    assert np.array_equal(one.counts, other.counts)


@pytest.mark.parametrize("at", [1, 3, 6])
def test_what_was_ended_goes_on_and_comes_to_the_same_bytes(
    residual: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    monkeypatch.setattr(Kept.__init__, "__kwdefaults__", {"every_s": 0.0})
    samples = pictures_in(drawn(tmp_path / "pictures", 6))
    part = tmp_path / "part.npz"
    steps = 0

    def end() -> None:
        nonlocal steps
        steps += 1
        if steps == at:
            raise Ended

    with pytest.raises(Ended):
        ranges_from_pictures(residual, samples, SPEC, kept=part, progress=end)
    assert part.exists() == (at > 1), "kept after each picture, before it is told of the next"
    looked = 0
    real = Observer.see

    def count(self: Observer, values: Array) -> None:
        nonlocal looked
        looked += self.name == "frame"
        real(self, values)

    monkeypatch.setattr(Observer, "see", count)
    told: list[None] = []
    again = ranges_from_pictures(residual, samples, SPEC, kept=part, progress=lambda: told.append(None))
    assert looked == 6 - (at - 1) and len(told) == 6
    assert again.digest() == ranges_from_pictures(residual, samples, SPEC).digest()


def test_what_is_of_other_pictures_or_damaged_is_not_gone_on_from(residual: Graph, tmp_path: Path) -> None:
    samples = pictures_in(drawn(tmp_path / "pictures", 4))
    part = tmp_path / "part.npz"
    ranges_from_pictures(residual, samples[:2], SPEC, kept=part)
    fresh = ranges_from_pictures(residual, samples, SPEC)
    assert ranges_from_pictures(residual, samples, SPEC, kept=part) == fresh
    for damage in (b"", b"PK\x03\x04 no archive", part.read_bytes()[:200]):
        part.write_bytes(damage)
        assert ranges_from_pictures(residual, samples, SPEC, kept=part) == fresh


@pytest.mark.slow
def test_a_command_that_was_killed_goes_on(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    save(residual_model(), work / "model.onnx")
    (work / "preprocess.json").write_bytes(preprocess_bytes(SPEC))
    drawn(tmp_path / "pictures", 60)
    # every picture is kept at once, and each takes its time, so that the kill finds it in the midst
    slow = (
        "import time; from calibration import collect, kept; kept.Kept.__init__.__kwdefaults__['every_s'] = 0.0; "
        "see = collect._see; collect._see = lambda *w: (time.sleep({pause}), see(*w)); "
        "from calibration.cli import main; main()"
    )
    words = ["ranges", str(work / "model.onnx"), "--pictures", str(tmp_path / "pictures"), "--out", str(work)]

    def start(pause: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", slow.format(pause=pause), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    first = start(0.2)
    deadline = time.monotonic() + 60
    while not (work / "ranges.part.npz").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL
    assert sorted(path.name for path in work.iterdir() if not path.name.startswith(".")) == [
        "model.onnx", "preprocess.json", "ranges.part.npz",
    ]  # fmt: skip
    second = start(0.0)
    _, talk = second.communicate(timeout=120)
    assert second.returncode == 0, talk
    assert "a calibration was ended in the midst; going on from there" in talk
    assert not (work / "ranges.part.npz").exists()
    resumed = read_ranges(work / "ranges.json")
    (work / "ranges.json").unlink()
    third = start(0.0)
    _, talk = third.communicate(timeout=120)
    assert third.returncode == 0, talk
    assert read_ranges(work / "ranges.json").digest() == resumed.digest()
