"""Programs that the demo runs end with it, and their failures are told."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from examples.loop.processes import ChildFailedError, Job, Processes


def python(name: str, code: str) -> Job:
    return Job(name, sys.executable, "-c", code)


def test_what_a_program_prints_as_json_is_its_answer(tmp_path):
    with Processes(tmp_path) as run:
        assert run.run(python("one", "print('{\"ap\": 0.5}')")) == {"ap": 0.5}


def test_the_last_line_counts_where_other_lines_stand_before_it(tmp_path):
    with Processes(tmp_path) as run:
        assert run.run(python("one", "print('hello'); print('{\"ap\": 0.5}')")) == {"ap": 0.5}


def test_a_failure_names_the_program_and_shows_the_end_of_its_log(tmp_path):
    failing = python(
        "bad", "import sys; print('first', file=sys.stderr); sys.exit('the disk is full; make room')"
    )
    with (
        Processes(tmp_path) as run,
        pytest.raises(ChildFailedError, match="ended with code 1: the disk is full") as caught,
    ):
        run.run(failing)
    assert "first" in caught.value.tail


def test_of_several_programs_the_answers_come_in_order(tmp_path):
    jobs = [
        python(f"n{n}", f"import time; time.sleep({0.2 * (n == 0)}); print('{{\"n\": {n}}}')")
        for n in range(4)
    ]
    with Processes(tmp_path) as run:
        assert [found["n"] for found in run.run_all(jobs)] == [0, 1, 2, 3]


def test_no_program_is_left_behind(tmp_path):
    with Processes(tmp_path) as run:
        code = "import subprocess, time; print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
        child = run.start(python("long", code))
        grandchild = int(child.first_line())
    assert not child.running
    assert _gone(grandchild)
    with pytest.raises(ProcessLookupError):
        os.kill(child.process.pid, 0)


def test_a_program_that_dies_instead_of_listening_is_told_at_once(tmp_path):
    with (
        Processes(tmp_path) as run,
        pytest.raises(ChildFailedError, match="ended with code 3 before it could say that"),
    ):
        run.start(python("dead", "import sys; sys.exit(3)")).first_line(timeout_s=30)


def test_a_program_that_is_not_there_is_told(tmp_path):
    with (
        Processes(tmp_path) as run,
        pytest.raises(ChildFailedError, match="no-such cannot be started .No such file"),
    ):
        run.run(Job("none", str(tmp_path / "no-such")))


def test_modules_run_under_this_python(tmp_path):
    with Processes(tmp_path) as run:
        assert run.run(Job("version", "-m", "json.tool", "--help")) == {}
    assert "$ python -m json.tool --help" in (tmp_path / "version.log").read_text()


def _gone(pid: int) -> bool:
    """Whether a process has ended, or does so now; one that nobody has asked about yet is a zombie."""
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or ") Z " in state.read_text():
            return True
        time.sleep(0.02)
    return False
