"""What a benchmark hands back becomes a file that stands for itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import machine
from benchmarks.render import bars, page
from benchmarks.results import (
    Benchmark,
    Chart,
    Result,
    ResultFile,
    Value,
    document,
    read_result,
    write_result,
)
from benchmarks.steps import KeptSteps
from edge_sdk.errors import FormatError
from tests.benchmarks.made import BOUNDS, content


def benchmark() -> Benchmark:
    made: Any = SimpleNamespace(TITLE="Start of a station", SUITE="runtime", MINUTES=1.0, NEEDS=(), run=None)
    whole: Benchmark = made
    return whole


def written(result: Result, *, quick: bool = False) -> dict[str, object]:
    return document("R4", benchmark(), result, bounds=BOUNDS, took_s=1.23, load_before=0.5, quick=quick)


def test_the_writer_adds_what_a_benchmark_must_not_state_for_itself(tmp_path: Path) -> None:
    result = Result(
        rows=[{"name": "ours", "import_s": 0.2}],
        musts={"R4.import_s": Value(0.2, 0.19, 0.22), "R4.help_s": Value(0.5)},
        settings={"rounds": 3},
        notes=["slow help: argparse"],
        chart=Chart("import_s", "s"),
    )
    path = write_result(tmp_path, written(result))
    assert path == tmp_path / "runtime" / "R4.json"
    found = read_result(path)
    assert [(must.key, must.met) for must in found.musts] == [("R4.help_s", False), ("R4.import_s", True)]
    assert found.command == "python -m benchmarks run R4"
    assert found.machine.cores >= 1
    assert found.machine.load_before == 0.5
    assert {"python", "numpy"} <= set(found.versions)
    assert found.chart == {"value": "import_s", "unit": "s"}


def test_a_quick_run_says_so_in_its_command() -> None:
    assert written(Result(rows=[{"name": "ours"}]), quick=True)["command"] == "python -m benchmarks run R4 --quick"


@pytest.mark.parametrize("key", ["R4.speed", "E1.gain.low"])
def test_a_must_that_is_not_this_result_s_is_refused(key: str) -> None:
    with pytest.raises(FormatError, match=f"{key} is no must of R4 in musts.csv; mind the key's spelling"):
        written(Result(rows=[{"name": "ours"}], musts={key: Value(1.0)}))


def test_a_number_that_json_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="result R4 holds NaN or infinity; leave the row's field out instead"):
        write_result(tmp_path, written(Result(rows=[{"name": "ours", "import_s": math.nan}])))
    assert list(tmp_path.iterdir()) == []


def test_a_file_too_large_for_people_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="at most 200000 are kept; put raw samples beside it as a .csv.gz"):
        write_result(tmp_path, written(Result(rows=[{"name": "x" * 200_000}])))


def test_a_benchmark_without_a_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="rows is \\[\\]"):
        write_result(tmp_path, written(Result(rows=[])))


def test_the_digest_of_a_folder_sees_every_picture_and_every_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.png").write_bytes(b"one")
    (tmp_path / "sub" / "b.JPG").write_bytes(b"two")
    (tmp_path / "notes.txt").write_bytes(b"not a picture")
    first = machine.data_digest(tmp_path)
    assert first["images"] == 2
    (tmp_path / "a.png").rename(tmp_path / "c.png")
    second = machine.data_digest(tmp_path)
    assert second["images"] == 2
    assert second["sha256"] != first["sha256"]


def counted(values: list[str]) -> Callable[[str], str]:
    def compute(name: str) -> str:
        values.append(name)
        return name.upper()

    return compute


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path) -> None:
    done: list[str] = []
    compute = counted(done)
    with KeptSteps(tmp_path / "s", same="x", title="R4") as steps:
        steps.expect(3)
        assert steps.step("a", lambda: compute("a")) == "A"
        assert steps.step("b", lambda: compute("b")) == "B"
    with KeptSteps(tmp_path / "s", same="x", title="R4") as steps:
        assert steps.kept == 2
        assert [steps.step(name, lambda name=name: compute(name)) for name in "abc"] == ["A", "B", "C"]  # type: ignore[misc]
    assert done == ["a", "b", "c"]


def test_other_code_or_settings_begin_anew(tmp_path: Path) -> None:
    with KeptSteps(tmp_path / "s", same="x", title="R4") as steps:
        steps.step("a", lambda: 1)
    with KeptSteps(tmp_path / "s", same="y", title="R4") as steps:
        assert steps.step("a", lambda: 2) == 2


def test_a_torn_memory_is_no_memory(tmp_path: Path) -> None:
    (tmp_path / "s").write_text('{"same": "x", "st', encoding="utf-8")
    assert KeptSteps(tmp_path / "s", same="x", title="R4").kept == 0


def test_a_finished_run_is_forgotten(tmp_path: Path) -> None:
    with KeptSteps(tmp_path / "s", same="x", title="R4") as steps:
        steps.step("a", lambda: 1)
    steps.forget()
    assert KeptSteps(tmp_path / "s", same="x", title="R4").kept == 0
    steps.forget()


def test_two_steps_of_one_name_are_refused(tmp_path: Path) -> None:
    with KeptSteps(tmp_path / "s", same="x", title="R4") as steps:
        steps.step("a", lambda: 1)
        with pytest.raises(ValueError, match="two steps are called 'a'; give each a name of its own"):
            steps.step("a", lambda: 1)


def test_the_page_marks_what_is_unmet_and_shows_intervals() -> None:
    musts = [{"key": "R4.import_s", "value": 0.41, "low": 0.4, "high": 0.42, "met": False}]
    result = ResultFile.model_validate(content(musts=musts, notes=["cv2 takes 0.3 s"]))
    piped = {**BOUNDS, "R4.import_s": replace(BOUNDS["R4.import_s"], what="|a| of b")}
    assert r"| \|a\| of b | at most 0.3 s |" in page({"R4": result}, piped)
    said = page({"R4": result}, BOUNDS)
    assert "| time to import | at most 0.3 s | 0.41 (0.4 to 0.42) | **UNMET** |" in said
    assert "- cv2 takes 0.3 s" in said
    assert "Of 3 bounds 1 are measured so far, 0 of them met." in said


def test_the_picture_has_a_bar_a_row_and_no_bar_for_what_was_skipped() -> None:
    rows = [*content()["rows"], {"name": "a & b", "import_s": 0.4}, {"name": "peer", "skipped": "not installed"}]
    drawn = bars(ResultFile.model_validate(content(rows=rows, chart={"value": "import_s", "unit": "s"})))
    assert drawn.count("<rect") == 3  # the ground and two bars
    assert "a &amp; b" in drawn
    assert "peer" not in drawn
    assert bars(ResultFile.model_validate(content())) == ""


def test_a_file_of_a_later_writer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "R4.json"
    path.write_text(json.dumps(content(weather="fine")), encoding="utf-8")
    assert read_result(path).id == "R4"
