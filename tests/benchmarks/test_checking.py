"""A result file cannot claim what it does not hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.checking import Finding, check
from benchmarks.musts import MUSTS, musts_from_csv
from edge_sdk.errors import FormatError
from tests.benchmarks.made import BOUNDS, content, write

R4 = {key: must for key, must in BOUNDS.items() if must.identifier == "R4"}


def findings(folder: Path, **changed: Any) -> list[Finding]:
    write(folder, content(**changed))
    return check(folder, bounds=R4, registered=["R4"])


def test_a_result_that_meets_its_bounds_says_nothing(tmp_path: Path) -> None:
    assert findings(tmp_path) == []


def test_a_bound_is_kept_by_the_value_that_equals_it() -> None:
    assert BOUNDS["R4.help_s"].met_by(0.12)
    assert not BOUNDS["R4.help_s"].met_by(0.1200001)
    assert BOUNDS["E1.gain.low"].met_by(0.0)
    assert not BOUNDS["E1.gain.low"].met_by(-1e-9)


def test_what_is_not_measured_is_missing_and_says_how_to_measure_it(tmp_path: Path) -> None:
    found = check(tmp_path, bounds=BOUNDS, registered=["R4"])
    assert [(f.kind, f.subject) for f in found] == [("missing", "E1"), ("missing", "R4")]
    assert found[0].text == "no result file, 1 musts are open: no benchmark measures it yet"
    assert found[1].text == "no result file, 2 musts are open: python -m benchmarks run R4"


def test_a_must_that_the_file_leaves_out_is_missing(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, musts=content()["musts"][:1])
    assert (finding.kind, finding.subject) == ("missing", "R4.import_s")
    assert finding.text == "not stated in R4.json; wanted at most 0.3 s"


def test_an_unmet_bound_is_said_and_is_no_fault_of_the_file(tmp_path: Path) -> None:
    musts = [content()["musts"][0], {"key": "R4.import_s", "value": 0.41, "met": False}]
    (finding,) = findings(tmp_path, musts=musts)
    assert finding == Finding("unmet", "R4.import_s", "0.41, wanted at most 0.3 s")


def test_a_bound_that_is_marked_met_and_is_not_breaks_the_file(tmp_path: Path) -> None:
    musts = [content()["musts"][0], {"key": "R4.import_s", "value": 0.41, "met": True}]
    (finding,) = findings(tmp_path, musts=musts)
    assert finding == Finding("broken", "R4.import_s", "0.41, wanted at most 0.3 s (and is marked met)")


def test_a_must_that_nobody_asked_for_breaks_the_file(tmp_path: Path) -> None:
    musts = [*content()["musts"], {"key": "R4.bogus", "value": 1.0, "met": True}]
    (finding,) = findings(tmp_path, musts=musts)
    assert finding == Finding("broken", "R4.bogus", "R4.json states a must that musts.csv does not list")


def test_the_value_of_a_lower_end_is_the_lower_end(tmp_path: Path) -> None:
    made = content(id="E1", suite="adaptation", musts=[{"key": "E1.gain.low", "value": 0.1, "low": 0.02, "met": True}])
    write(tmp_path, made)
    bounds = {"E1.gain.low": BOUNDS["E1.gain.low"]}
    (finding,) = check(tmp_path, bounds=bounds, registered=[])
    assert finding == Finding("broken", "E1.gain.low", "value 0.1 is not the lower end 0.02")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"schema": "edge-sdk/result/2"}, 'schema is "edge-sdk/result/2"'),
        ({"rows": []}, "rows is []"),
        ({"took_s": -1}, "took_s is -1; give at least 0"),
        ({"machine": {"cpu": "x"}}, "machine.cores is missing"),
        ({"musts": [{"key": "R4.import_s", "value": "quick", "met": True}]}, "musts[0].value"),
    ],
)
def test_a_file_of_another_shape_is_broken(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    (finding,) = findings(tmp_path, **changed)
    assert finding.kind == "broken"
    assert said in finding.text


def test_a_torn_file_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    path.write_bytes(path.read_bytes()[:100])
    (finding,) = check(tmp_path, bounds=R4, registered=["R4"])
    assert (finding.kind, finding.subject) == ("broken", "R4")
    assert "is not JSON" in finding.text


def test_a_renamed_file_is_broken(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    path.rename(path.with_name("R5.json"))
    kinds = {(f.kind, f.subject) for f in check(tmp_path, bounds=R4, registered=[])}
    assert ("broken", "R5") in kinds


def test_the_committed_results_are_whole() -> None:
    from benchmarks.cli import RESULTS
    from benchmarks.registry import MODULES

    found = check(RESULTS, bounds=musts_from_csv(), registered=MODULES)
    assert [finding for finding in found if finding.kind == "broken"] == []


def test_the_list_of_musts_is_whole() -> None:
    musts = musts_from_csv(MUSTS)
    assert len(musts) == 87
    assert musts["R1.linear_640_over_floor"].words == "at most 1.5 ratio"
    assert musts["R1.linear_640_over_floor"].identifier == "R1"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A.b,at_least,much,x,y", "musts.csv:2: not `key,bound,value,unit,what` with a number"),
        ("A.b,around,1,x,y", "musts.csv:2: bound is 'around'; give at_least or at_most"),
        ("A.b,at_most,1,x,y\nA.b,at_most,2,x,y", "musts.csv:3: A.b stands there twice; keep one"),
    ],
)
def test_a_wrong_line_of_musts_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "musts.csv"
    path.write_text(f"key,bound,value,unit,what\n{line}\n", encoding="utf-8")
    with pytest.raises(FormatError) as caught:
        musts_from_csv(path)
    assert str(caught.value).startswith(said)
