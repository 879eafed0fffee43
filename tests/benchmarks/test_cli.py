"""``python -m benchmarks`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from benchmarks import cli, registry
from benchmarks.results import Result, Steps, Value
from tests.benchmarks.made import content, write


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cli, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(cli, "QUICK", tmp_path / "quick")
    monkeypatch.setattr(cli, "REFERENCE", tmp_path / "reference")
    return tmp_path


def told(*words: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(cli.app, list(words))
    return done.exit_code, done.stdout, done.stderr


def measured(monkeypatch: pytest.MonkeyPatch, *, needs: tuple[str, ...] = (), fail_at: int | None = None) -> list[str]:
    """Registers a small benchmark as R4; returns the steps that were really computed."""
    computed: list[str] = []

    def run(*, quick: bool, progress: Steps) -> Result:
        count = 1 if quick else 3
        progress.expect(count)

        def compute(n: int) -> float:
            if n == fail_at:
                raise KeyboardInterrupt
            computed.append(f"round {n}")
            return 0.1 * (n + 1)

        times = [progress.step(f"round {n}", lambda n=n: compute(n)) for n in range(count)]  # type: ignore[misc]
        return Result(rows=[{"name": "ours", "import_s": min(times)}], musts={"R4.import_s": Value(min(times))})

    made: Any = SimpleNamespace(TITLE="Start", SUITE="runtime", MINUTES=0.1, NEEDS=needs, run=run)
    monkeypatch.setattr(registry, "MODULES", {"R4": "nowhere"})
    monkeypatch.setattr(registry, "benchmark", lambda identifier: made)
    return computed


def test_a_run_writes_one_file_and_says_what_each_must_came_to(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch)
    code, out, err = told("run", "R4", "--json")
    assert code == 0
    assert json.loads(out) == {"written": {"R4": str(places / "results" / "runtime" / "R4.json")}}
    assert "met   R4.import_s: 0.1, wanted at most 0.3 s" in err


def test_a_quick_run_writes_elsewhere(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch)
    assert told("run", "R4", "--quick")[0] == 0
    assert (places / "quick" / "runtime" / "R4.json").exists()
    assert not (places / "results").exists()


def test_an_interrupted_run_resumes(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, fail_at=2)
    code, _, err = told("run", "R4")
    assert (code, err.strip().splitlines()[-1]) == (1, "interrupted; the same command goes on from here")
    kept = places / "quick" / ".R4.steps"
    said = json.loads(kept.read_bytes())
    assert 0 < said["took_s"] < 60
    kept.write_text(json.dumps({**said, "took_s": 1000.0}), encoding="utf-8")
    # the same source file, so the same measurement; only what is missing is computed
    computed = measured(monkeypatch)
    code, _, err = told("run", "R4")
    assert code == 0
    assert computed == ["round 2"]
    assert "R4: going on after 2 finished steps" in err
    # the time is that of all steps, whoever ran them
    assert json.loads((places / "results/runtime/R4.json").read_bytes())["took_s"] >= 1000


def test_what_a_benchmark_needs_and_is_not_here_is_named(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, needs=("numpy", "no_such_module", "../no/such/folder"))
    code, _, err = told("run", "R4")
    assert code == 1
    assert err.strip() == (
        "R4 needs no_such_module, ../no/such/folder, which is not here; `make install` brings packages"
    )


def test_an_unknown_id_is_asked_wrongly() -> None:
    code, _, err = told("run", "R99")
    assert (code, err.strip()) == (2, f"there is no result R99; there are {', '.join(sorted(registry.MODULES))}")


def test_check_fails_where_something_is_open_and_report_does_not(places: Path) -> None:
    write(places / "results", content())
    code, out, _ = told("check")
    assert code == 1
    assert "missing R4.first_verdict_s: not stated in R4.json; wanted at most 1 s" in out
    assert told("check", "--report")[0] == 0


def test_check_fails_with_report_too_where_a_file_is_broken(places: Path) -> None:
    write(places / "results", content()).write_text("{", encoding="utf-8")
    code, out, _ = told("check", "--report", "--json")
    assert code == 1
    assert any(row["kind"] == "broken" for row in json.loads(out)["findings"])


def test_list_says_what_is_measured_and_what_is_not(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured(monkeypatch, needs=("no_such_module",))
    assert json.loads(told("list", "--json")[1])["results"] == [
        {
            "id": "R4",
            "title": "Start",
            "minutes": "0.1",
            "needs": "no_such_module (missing: no_such_module)",
            "state": "not measured",
        }
    ]
    write(places / "results", content())
    assert json.loads(told("list", "--json")[1])["results"][0]["state"] == "2026-11-21, all met"
    assert "not measured" not in told("list")[1]


def test_render_writes_the_page_and_leaves_out_what_is_broken(places: Path) -> None:
    write(places / "results", content(chart={"value": "import_s", "unit": "s"}))
    code, _, err = told("render")
    assert code == 0
    assert (places / "reference" / "results.md").exists()
    assert (places / "reference" / "results" / "R4.svg").exists()
    write(places / "results", content()).write_text("{", encoding="utf-8")
    code, _, err = told("render")
    assert code == 1
    assert "left out:" in err


def test_every_registered_benchmark_has_what_the_commands_show() -> None:
    for identifier in registry.MODULES:
        benchmark = registry.benchmark(identifier)
        assert benchmark.TITLE
        assert benchmark.MINUTES > 0
        assert callable(benchmark.run)
        assert benchmark.SUITE.islower()
