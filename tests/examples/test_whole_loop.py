"""The demo asked wrongly, and the demo whose children fail: one sentence, no traceback, nothing left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.quality.drawing import mvtec_set, table_set

PROGRAM = Path(__file__).parents[2] / "examples" / "whole_loop.py"


def demo(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def refused(*words: object) -> tuple[int, str]:
    done = demo(*words)
    assert "Traceback" not in done.stderr
    assert not done.stdout
    return done.returncode, done.stderr.strip().splitlines()[-1]


def test_a_folder_that_is_not_there(tmp_path):
    code, why = refused("--data", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert (code, why) == (1, f"there is no folder {tmp_path / 'nowhere'}; is the path right?")


def test_a_domain_that_is_not_there(tmp_path):
    root = mvtec_set(tmp_path / "weave")
    code, why = refused("--data", root, "--original", "weeve", "--out", tmp_path / "out")
    assert code == 2
    assert why.endswith("has no domain named weeve; did you mean weave?")


def test_a_gap_that_is_not_there(tmp_path):
    root = mvtec_set(tmp_path / "weave")
    code, why = refused("--data", root, "--gap", "fog", "--out", tmp_path / "out")
    assert code != 0
    assert "there is no gap named 'fog'; give one of" in why


def test_a_set_of_one_kind_only(tmp_path):
    root = table_set(tmp_path / "s", "image,label\na.png,good\nb.png,good\n")
    code, why = refused("--data", root, "--out", tmp_path / "out")
    assert code == 1
    assert "has no defective picture on the original line (labels: good); label some" in why


def test_a_folder_that_no_demo_wrote_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    code, why = refused("--out", tmp_path)
    assert code == 2
    assert why == f"{tmp_path} holds something that no demo wrote; give another --out, or an empty folder"
    assert (tmp_path / "thesis.txt").exists()


def test_an_unknown_option_shows_how_it_is_used():
    done = demo("--quik")
    assert done.returncode == 2
    assert "usage:" in done.stderr


@pytest.mark.system
def test_an_interrupted_demo_ends_its_programs_and_says_how_to_go_on(tmp_path):
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), "--quick", "--out", str(tmp_path / "out")],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if "train" in line:
                break
        until = time.monotonic() + 60
        while not (running := _children(process.pid)) and time.monotonic() < until:
            time.sleep(0.05)
        assert running
        time.sleep(1.5)
        running = _children(process.pid)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 130
    assert rest.strip().endswith("stopped; --resume goes on from here")
    assert not any(_alive(child) for child in running)


def _children(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(number) for number in path.read_text().split()]


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return ") Z " not in Path(f"/proc/{number}/stat").read_text()
