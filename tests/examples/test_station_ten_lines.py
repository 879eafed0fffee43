"""The ten-line program runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import stations

PROGRAM = Path(__file__).parents[2] / "examples" / "station_ten_lines.py"


@pytest.mark.system
def test_it_tells_of_every_part_whether_to_reject_it(tmp_path):
    stations.spot_bundle(tmp_path / "bundle")
    stations.picture_folder(tmp_path / "pictures", 6)
    settings = stations.settings(tmp_path)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(settings)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    # every third drawn part has a spot
    told = [line.split()[:2] for line in done.stdout.splitlines()]
    assert told == [[str(n), "reject" if n % 3 == 0 else "pass"] for n in range(6)]


def test_it_has_ten_lines():
    code = PROGRAM.read_text().partition('"""\n\n')[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
