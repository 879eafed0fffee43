"""The whole demo, quick, on the shipped set and on two drawn ones that nothing was developed on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.loop.schema import DemoReport
from tests.quality import drawn_sets

PROGRAM = Path(__file__).parents[2] / "examples" / "whole_loop.py"

pytestmark = pytest.mark.on_demand


def whole_loop(out: Path, *words: object) -> DemoReport:
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--quick", "--out", str(out), "--json", *map(str, words)],
        capture_output=True, text=True, timeout=900, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    assert said == json.loads((out / "report.json").read_text())
    page = (out / "report.html").read_text()
    assert "How good, on both lines" in page
    return DemoReport.model_validate(said)


def check(report: DemoReport) -> None:
    assert report.station.frames_in == report.station.outcomes.total > 100
    assert report.outbox.put == report.outbox.uploaded == report.outbox.at_hub > 0
    assert report.answers.total > 0
    assert report.swap.frames_lost == 0
    assert len(report.stages) == 12


def test_the_shipped_hazelnuts(tmp_path):
    report = whole_loop(tmp_path / "out")
    check(report)
    assert report.source_only.new.unit == "cells"


def test_a_folder_of_mvtec_s_layout_without_a_word_about_it(tmp_path):
    report = whole_loop(tmp_path / "out", "--data", drawn_sets.weave(tmp_path / "weave"), "--trunk", "slim")
    check(report)
    assert report.data.new == "the same under another lamp"


def test_a_table_with_two_domains_many_sizes_sixteen_bits_and_no_masks(tmp_path):
    report = whole_loop(
        tmp_path / "out", "--data", drawn_sets.castings(tmp_path / "castings"), "--trunk", "slim"
    )
    check(report)
    assert (report.data.original, report.data.new) == ("tube_a", "tube_b")
    assert report.source_only.new.unit == "pictures"


def test_a_pair_of_folders(tmp_path):
    old = drawn_sets.weave(tmp_path / "old", good=24, bad=8)
    new = drawn_sets.weave(tmp_path / "new", good=24, bad=8, side=180)
    report = whole_loop(tmp_path / "out", "--data", old, new, "--trunk", "slim")
    check(report)
    assert (report.data.original, report.data.new) == ("old", "new")
