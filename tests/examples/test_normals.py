"""The demo's line that has shown good parts alone: commissioned by the command, judged by the station's code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from examples.loop.demo import Demo, Settings
from examples.loop.normals import commissioned, strange_parts
from examples.loop.processes import Processes
from tests.training.scorers.normal_parts import plate, write_trunk

SIZE = {"height": 192, "width": 256}


def plates(folder: Path, *, good: int, dented: int = 6) -> Path:
    """A set of drawn plates; the files' names say what they show."""
    folder.mkdir(parents=True)
    rows = ["image,label"]
    for number in range(good + dented):
        name, dent = f"{number:03d}.png", number >= good
        cv2.imwrite(str(folder / name), plate(300 + number, dent=dent, **SIZE))
        rows.append(f"{name},{'dent' if dent else 'good'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[Demo]:
    settings = Settings(data=(plates(tmp_path / "plates", good=40),), out=tmp_path / "out", gap="lamp")
    with Processes(tmp_path / "logs") as run:
        yield Demo(settings, run)


@pytest.mark.slow
def test_a_line_is_commissioned_from_its_good_parts_and_shown_with_its_map_and_verdict(demo: Demo) -> None:
    write_trunk(demo.out / "source")
    found = commissioned(demo)
    test = demo.lines(evaluating=True)[1].original.test
    healthy = [one.healthy for one in test]
    assert (found["good"], found["defective"]) == (healthy.count(True), healthy.count(False))
    assert found["found"] == found["defective"] > 0
    assert found["alpha"] >= 0.05 and found["parts"] < 40
    copied = {cv2.imread(str(path)).tobytes() for path in (demo.out / "good-parts" / "pictures").glob("*.png")}
    assert len(copied) == found["parts"] and not copied & {cv2.imread(str(one.path)).tobytes() for one in test}
    rows = strange_parts(demo, found)
    assert [row.defective for row in rows] == sorted((row.defective for row in rows), reverse=True)
    assert all(row.verdict != "passed" for row in rows if row.defective)
    one = rows[0]
    jpegs = (one.part, one.heat, one.cells)
    part, heat, cells = (cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).astype(int) for jpeg in jpegs)
    redder = (heat - part)[..., 2] - (heat - part)[..., 1]
    assert redder.max() > 60 and np.median(redder) < 10
    assert np.abs(cells - part).max() > 60


def test_too_few_good_parts_are_told_and_end_no_demo(tmp_path: Path) -> None:
    settings = Settings(data=(plates(tmp_path / "plates", good=8),), out=tmp_path / "out", gap="lamp")
    with Processes(tmp_path / "logs") as run:
        demo = Demo(settings, run)
        found = commissioned(demo)
        assert "good parts to commission from; 8 are needed" in found["left_out"]
        assert strange_parts(demo, found) == ()


@pytest.mark.slow
def test_what_the_command_refuses_is_told_and_ends_no_demo(demo: Demo) -> None:
    found = commissioned(demo)  # there is no checkpoint that could lend its trunk
    assert set(found) == {"left_out"} and "source" in found["left_out"]
