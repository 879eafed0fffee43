"""The programs that the README and the how-tos show really run, against a small real station."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import cv2
import pytest

from tests import stations
from tests.house.places import ROOT, ask

pytestmark = pytest.mark.system


@pytest.fixture
def station(tmp_path: Path) -> Path:
    stations.spot_bundle(tmp_path / "bundle")
    stations.picture_folder(tmp_path / "pictures", 6)
    assert cv2.imwrite(str(tmp_path / "part.png"), stations.pictures(1)[0])
    return stations.settings(tmp_path)


def run(program: str, station: Path) -> list[str]:
    path = station.parent / "program.py"
    path.write_text(program, encoding="utf-8")
    done = ask([sys.executable, str(path), station.name], cwd=station.parent)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout.splitlines()


def test_the_ten_lines_reject_the_parts_with_a_spot_and_pass_the_others(station: Path) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", readme, flags=re.MULTILINE | re.DOTALL)
    said = [line.split()[:2] for line in run(program, station)]
    # every third drawn part has a spot
    assert said == [[str(n), "reject" if n % 3 == 0 else "pass"] for n in range(6)]


def test_the_how_to_s_two_programs_run_as_they_are_shown(station: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "embed-the-station.md").read_text(encoding="utf-8")
    pull, push = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert [line.split()[1] for line in run(pull, station)] == ["reject", "pass", "pass"] * 2
    (said,) = run(push, station)
    assert said.startswith(("defective", "uncertain"))
