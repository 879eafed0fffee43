"""Stages tell what they do, and are not done twice."""

from __future__ import annotations

from typing import Any

from examples.loop.stages import Stages


class Work:
    def __init__(self, found: dict[str, Any]) -> None:
        self.found, self.times = found, 0

    def __call__(self) -> dict[str, Any]:
        self.times += 1
        return self.found


def run(tmp_path, works, *, settings=None, resume=True) -> list[str]:
    lines: list[str] = []
    stages = Stages(tmp_path, settings or {"seed": 1}, count=len(works), resume=resume, say=lines.append)
    for name, work in works.items():
        stages(name, work, lambda found: f"found {found['n']}")
    assert [stage.name for stage in stages.done] == list(works)
    return lines


def test_each_stage_has_a_line_with_its_number_and_what_it_found(tmp_path):
    lines = run(tmp_path, {"data": Work({"n": 7}), "train": Work({"n": 8})})
    assert lines[0].startswith("[ 1/2] data")
    assert lines[1].endswith("s  found 7")
    assert lines[3].startswith("[ 2/2] train") and "found 8" in lines[3]


def test_a_second_run_takes_what_the_first_one_found(tmp_path):
    works = {"data": Work({"n": 7}), "train": Work({"n": 8})}
    run(tmp_path, works)
    lines = run(tmp_path, works)
    assert [work.times for work in works.values()] == [1, 1]
    assert "done before: found 7" in lines[0]


def test_other_settings_do_everything_again(tmp_path):
    work = Work({"n": 7})
    run(tmp_path, {"data": work})
    run(tmp_path, {"data": work}, settings={"seed": 2})
    run(tmp_path, {"data": work}, settings={"seed": 2}, resume=False)
    assert work.times == 3


def test_what_follows_a_stage_that_is_done_again_is_done_again(tmp_path):
    first, second = Work({"n": 7}), Work({"n": 8})
    run(tmp_path, {"data": first, "train": second})
    (tmp_path / "data.json").unlink()
    run(tmp_path, {"data": first, "train": second})
    assert (first.times, second.times) == (2, 2)


def test_a_stage_whose_processes_have_ended_is_done_again_unless_the_whole_was_finished(tmp_path):
    line, swap = Work({"n": 7}), Work({"n": 8})

    def whole(*, fails: bool) -> None:
        stages = Stages(tmp_path, {}, count=2, resume=True, say=lambda told: None)
        stages("line", line, lambda found: "", only_with="swap")
        if not fails:
            stages("swap", swap, lambda found: "", only_with="swap")

    whole(fails=True)
    whole(fails=False)
    assert (line.times, swap.times) == (2, 1)
    whole(fails=False)
    assert (line.times, swap.times) == (2, 1)
