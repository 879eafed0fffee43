"""What must be true of every file of the tree."""

from __future__ import annotations

import ast
import csv
import os
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.musts import MUSTS, musts_from_csv
from tests.house.places import PACKAGES, ROOT, tracked
from tests.requirements import need

SOURCES = tracked("*.py")
PICTURES = {".png", ".jpg", ".gz", ".npz", ".npy", ".ico", ".woff2"}
TEXTS = [path for path in tracked() if path.suffix not in PICTURES]
OURS = [path for path in SOURCES if path.relative_to(ROOT).parts[0] in PACKAGES]
LONG: set[str] = set()
"""Over 400 lines and still one noun each; the list only shrinks."""


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def found(pattern: str, paths: list[Path]) -> list[str]:
    """``file:line`` wherever a pattern stands."""
    wanted = re.compile(pattern)
    return [
        f"{name(path)}:{number}"
        for path in paths
        if path.name != Path(__file__).name
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if wanted.search(line)
    ]


def test_no_file_names_a_folder_of_the_machine_it_was_written_on() -> None:
    places = {str(ROOT.parent), str(Path.home())} - {"/", "/root", "/home", "/tmp"}
    assert found("|".join(f"{re.escape(place)}(?![a-zA-Z])" for place in places) + r"|/root/\w|/home/\w", TEXTS) == []


def test_no_file_names_a_package_registry() -> None:
    hosts = ["py" + "pi.org", "python" + "hosted.org", "npm" + "js.org", "npm" + "js.com", "download.py" + "torch.org"]
    assert found("|".join(map(re.escape, hosts)), TEXTS) == []


def test_nothing_is_marked_as_unfinished() -> None:
    assert found(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b", SOURCES) == []
    assert found(r"\bNotImplemented" + "Error", [path for path in SOURCES if not name(path).startswith("tests/")]) == []


def test_a_module_stays_one_noun_long() -> None:
    long = {
        name(path)
        for path in OURS
        if len(path.read_text(encoding="utf-8").splitlines()) > 400
    }
    assert long <= LONG, f"over 400 lines: {sorted(long - LONG)}; is each still one noun?"


def test_most_modules_are_short() -> None:
    lengths = [len(path.read_text(encoding="utf-8").splitlines()) for path in OURS]
    assert sum(length <= 300 for length in lengths) / len(lengths) >= 5 / 6


def test_every_module_says_why_it_exists_and_names_what_is_public() -> None:
    for path in OURS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not tree.body and path.name == "__init__.py":
            continue
        assert ast.get_docstring(tree), f"{name(path)} has no docstring"
        made = [node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))]
        public = [one for one in made if not one.startswith("_")]
        names = [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
        if public and "migrations/" not in name(path) and path.name != "__main__.py":
            assert "__all__" in names, f"{name(path)} has no __all__"


def test_everything_public_that_a_module_lists_is_in_it() -> None:
    for path in OURS:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                listed = ast.literal_eval(node.value)
                assert len(listed) == len(set(listed)), f"{name(path)}: __all__ names something twice"


def test_the_device_is_written_for_the_oldest_python_it_runs_on() -> None:
    for path in SOURCES:
        ast.parse(path.read_text(encoding="utf-8"), filename=name(path), feature_version=(3, 10))
    device = [path for path in SOURCES if name(path).startswith("edge_sdk/")]
    newer = r"import tomllib|import.*\bUTC\b|datetime\.UTC|from typing import.*\b(Self|override|assert_never)\b"
    assert found(newer, device) == []


def test_results_are_written_for_every_reader_and_stay_small() -> None:
    for path in tracked("benchmarks/results"):
        assert path.stat().st_size <= (1_000_000 if path.name.endswith(".csv.gz") else 200_000), name(path)


def test_example_data_stays_small_and_says_whose_it_is() -> None:
    folder = ROOT / "examples" / "data" / "hazelnut"
    assert sum(path.stat().st_size for path in tracked("examples/data")) <= 3_000_000
    said = (folder / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in said or "Creative Commons Attribution 4.0" in said


def test_no_bound_is_looser_than_it_was_handed_over() -> None:
    handed_over = ROOT.parent / "shared" / "spec" / "musts.csv"
    need("../shared/spec/musts.csv", found=handed_over.exists())
    ours = musts_from_csv(MUSTS)
    for key, must in musts_from_csv(handed_over).items():
        assert ours[key].bound == must.bound, key
        tighter = ours[key].value >= must.value if must.bound == "at_least" else ours[key].value <= must.value
        assert tighter, f"{key} is {ours[key].value}, handed over as {must.value}"


def test_the_musts_are_sorted_into_one_header() -> None:
    with MUSTS.open(newline="", encoding="utf-8") as file:
        assert next(csv.reader(file)) == ["key", "bound", "value", "unit", "what"]


def apt_names(tree: ast.Module) -> set[str]:
    """Debian packages that a test file gives to ``need(..., apt=...)``, directly or by a constant's name."""
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "need":
            for keyword in node.keywords:
                if keyword.arg != "apt":
                    continue
                if isinstance(keyword.value, ast.Constant):
                    names |= set(str(keyword.value.value).split())
                elif isinstance(keyword.value, ast.Name):
                    names |= set(constants[keyword.value.id].split())
    return names


def test_continuous_integration_installs_every_package_that_a_test_asks_for() -> None:
    asked = set()
    for path in SOURCES:
        if name(path).startswith("tests/"):
            asked |= apt_names(ast.parse(path.read_text(encoding="utf-8")))
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    listed = re.search(r"^PACKAGES=\(\n(.*?)^\)", script, re.MULTILINE | re.DOTALL)
    assert listed is not None
    installed = {word for line in listed[1].splitlines() for word in line.partition("#")[0].split()}
    assert asked <= installed, f"missing in .ci/run: {sorted(asked - installed)}"
    assert "chromium" in installed


@pytest.mark.parametrize("script", [".ci/run", ".ci/venv.sh", ".ci/test-pythons.sh"])
def test_scripts_are_scripts(script: str) -> None:
    done = subprocess.run(["bash", "-n", str(ROOT / script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_every_version_that_is_installed_is_pinned_once_a_python() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert len(pins) == len(set(pins))
    for pin in pins:
        assert re.fullmatch(r'[\w.-]+==[\w.]+( ; python_version (>=|<) "3\.11")?', pin), pin
    assert "torch==2.13.0" in pins
