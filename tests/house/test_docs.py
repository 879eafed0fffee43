"""Documentation that falls behind the code fails here."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

import edge_sdk
from edge_sdk.config import load_station
from tests.house.places import ROOT, tracked

PAGES = tracked("*.md")


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """Every command and what its ``--help`` says."""
    return dict(generator().helps())


def options_in(text: str) -> set[str]:
    return set(re.findall(r"--[a-z][a-z-]+", text))


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def test_the_generated_pages_are_what_make_docs_writes() -> None:
    for path, text in generator().pages().items():
        written = path.read_text(encoding="utf-8") if path.exists() else ""
        # how argparse breaks its lines differs between Pythons, what it says does not
        assert written.split() == text.split(), f"{path.relative_to(ROOT)} has fallen behind; run: make docs"


def test_the_results_page_is_what_the_result_files_say() -> None:
    from benchmarks.checking import read_all
    from benchmarks.musts import musts_from_csv
    from benchmarks.render import bars, page

    results, broken = read_all(ROOT / "benchmarks" / "results")
    assert broken == []
    folder = ROOT / "docs" / "reference"
    assert (folder / "results.md").read_text(encoding="utf-8") == page(results, musts_from_csv()), "run: make docs"
    drawn = {name for name, result in results.items() if bars(result)}
    assert {path.stem for path in (folder / "results").glob("*.svg")} == drawn
    for name in drawn:
        assert (folder / "results" / f"{name}.svg").read_text(encoding="utf-8") == bars(results[name]), "run: make docs"


def test_every_command_is_in_the_reference_with_every_option(helps: dict[str, str]) -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^##+ ([^:\n]+).*?\n```text\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL))
    assert set(sections) == set(helps)
    for command, text in helps.items():
        assert options_in(text) == options_in(sections[command]), command


def test_every_command_shows_an_example_of_itself(helps: dict[str, str]) -> None:
    for command, text in helps.items():
        if command not in generator().PROGRAMS:
            assert re.search(r"[Ee]xamples?:", text), f"{command} --help shows no example"
            assert re.search(rf"^\s*(Examples?: )?{re.escape(command)} ?", text, flags=re.MULTILINE), command


def test_every_command_offers_json(helps: dict[str, str]) -> None:
    for command, text in helps.items():
        if command not in generator().PROGRAMS:
            assert "--json" in text, f"{command} has no --json"


def test_every_public_name_is_described() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in edge_sdk.__all__:
        assert re.search(rf"^## `?{name}`?$", page, flags=re.MULTILINE), name


def test_the_schemas_are_json_schemas_of_what_is_written() -> None:
    schemas = sorted((ROOT / "docs" / "reference" / "schemas").glob("*.json"))
    assert [path.stem for path in schemas] == sorted(generator().DOCUMENTS)
    for path in schemas:
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["$id"] == path.name
        assert found["type"] == "object"
    station = json.loads((schemas[0].parent / "station-1.json").read_text(encoding="utf-8"))
    assert station["additionalProperties"] is False
    assert "control sample" in station["$defs"]["MentoringConfig"]["properties"]["control_share"]["description"]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{page.relative_to(ROOT)} links to {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-") for title in titles}


def commands_in(page: Path) -> list[str]:
    """Each line of a page's console blocks that calls one of our programs."""
    lines = [line.strip() for block in blocks(page, "console") for line in block.splitlines()]
    ours = re.compile(r"(edge-sdk|python -m (training|export|calibration|mentoring|benchmarks)) ")
    return [line for line in lines if ours.match(line)]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands_in(page)], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_commands_in_the_docs_exist_with_the_options_they_are_given(page: Path, helps: dict[str, str]) -> None:
    for line in commands_in(page):
        words = shlex.split(line, comments=True)
        command = " ".join(words[:2] if words[0] == "edge-sdk" else words[:4])
        assert command in helps, f"{page.name}: no command {command}"
        for word in words:
            if word.startswith("--"):
                assert re.search(rf"{re.escape(word)}\b", helps[command]), f"{page.name}: {command} has no {word}"


def test_the_readme_names_the_goals_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    goals = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for page in PAGES:
        for line in (line.strip() for block in blocks(page, "console") for line in block.splitlines()):
            if line.startswith("make "):
                assert line.split()[1] in goals, f"{page.name}: {line}"


def test_continuous_integration_runs_the_readmes_commands() -> None:
    (asked,) = [block for block in blocks(ROOT / "README.md", "console") if "make demo" in block]
    runs = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in asked.split("\n"):
        if command:
            assert re.search(rf"^step {command}( QUICK=1)?$", runs, flags=re.MULTILINE), command
    assert "EDGE_SDK_REQUIRE=all" in runs


def test_the_readme_shows_the_ten_line_program_as_it_is() -> None:
    program = (ROOT / "examples" / "station_ten_lines.py").read_text(encoding="utf-8")
    assert program in blocks(ROOT / "README.md", "python")
    lines = [line for line in program.partition('"""\n\n')[2].splitlines() if line]
    assert len(lines) <= 10


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_python_in_the_docs_is_python(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


def test_the_shortest_settings_of_the_how_to_are_taken(tmp_path: Path) -> None:
    (shortest, *_) = blocks(ROOT / "docs" / "how-to" / "write-station-yaml.md", "yaml")
    (tmp_path / "station.yaml").write_text(shortest, encoding="utf-8")
    assert load_station(tmp_path / "station.yaml").station == "press-3"


def test_the_data_set_file_of_the_how_to_is_taken(tmp_path: Path) -> None:
    from edge_sdk.documents import read_yaml
    from edge_sdk.quality.layouts import DatasetFile

    (shown,) = blocks(ROOT / "docs" / "how-to" / "add-a-data-set.md", "yaml")
    (tmp_path / "dataset.yaml").write_text(shown, encoding="utf-8")
    assert read_yaml(tmp_path / "dataset.yaml", DatasetFile).title == "Castings, two shifts"


def test_decisions_are_numbered_without_a_gap_and_listed() -> None:
    folder = ROOT / "docs" / "explanation" / "decisions"
    names = sorted(path.name for path in folder.glob("[0-9]*.md"))
    assert [int(name[:4]) for name in names] == list(range(1, len(names) + 1))
    listed = (folder / "README.md").read_text(encoding="utf-8")
    for name in names:
        text = (folder / name).read_text(encoding="utf-8")
        assert name in listed
        for part in ("**Question.**", "**Options.**", "**Choice.**", "**Price.**"):
            assert part in text, f"{name} lacks {part}"


def test_the_shipped_version_has_its_place_in_the_changelog() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "## [Unreleased]" in text or f"## [{edge_sdk.__version__}]" in text
