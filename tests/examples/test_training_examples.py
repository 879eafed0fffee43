"""The three programs on the training side run as they stand, on the shipped pictures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples import adapt, evaluate, retrain
from training.checkpoint import load_checkpoint

pytestmark = pytest.mark.slow


def test_they_run_one_after_the_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapt.main(tmp_path / "adapted", iterations=40)
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"(source|adabn|dann|mmd|coral|adda): .+", said[0])
    assert [line.split(":")[0] for line in said[1:3]] == ["before", "after"]
    assert said[3] == str(tmp_path / "adapted")
    assert set(load_checkpoint(tmp_path / "adapted").lines) == {"original", "new"}

    evaluate.main(tmp_path / "adapted")
    told = capsys.readouterr().out
    assert re.findall(r"^(\w+): AP 0\.\d+ \[", told, flags=re.MULTILINE) == ["original", "new"]
    assert re.search(r"^  (false alarm|missed): images/\w+\.jpg, surest cell [01]\.\d\d$", told, flags=re.MULTILINE)
    after = re.search(r"after: AP (0\.\d+) .+, (0\.\d+) on the new", "\n".join(said))
    assert after is not None
    assert re.findall(r"AP (0\.\d+)", told) == [after[1], after[2]]

    retrain.main(tmp_path / "retrained", iterations=40)
    said = capsys.readouterr().out.splitlines()
    assert re.match(r"\{'confirm': \d+, 'infirm': \d+, 'unsure': \d+\} in \d+\.\d minutes", said[0])
    assert load_checkpoint(tmp_path / "retrained").line("new").method == "retrained"
