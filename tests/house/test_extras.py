"""Every extra can be installed on the oldest Python of a station; asks the package registry, installs nothing."""

from __future__ import annotations

import ast
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tests.house.places import ROOT, ask, tracked
from tests.requirements import need

pytestmark = [pytest.mark.system, pytest.mark.slow]

OLDEST = "3.10"
SOURCE_ONLY = {"pycuda"}
"""Published as source alone: it is built on the Jetson, against that board's CUDA."""


def extras() -> dict[str, list[str]]:
    """Each extra's requirements as they stand in pyproject.toml, our own extras within resolved."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = text.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    found = {
        name: re.findall(r'"([^"]+)"', listed)
        for name, listed in re.findall(r"^(\w+) = \[(.*?)\]$", section, flags=re.MULTILINE | re.DOTALL)
    }

    def whole(name: str) -> list[str]:
        wanted: list[str] = []
        for requirement in found[name]:
            ours = re.fullmatch(r"edge-sdk\[(.*)\]", requirement)
            wanted += [r for inner in ours[1].split(",") for r in whole(inner)] if ours else [requirement]
        return wanted

    return {name: whole(name) for name in found}


def base() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return re.findall(r'"([^"]+)"', text.partition("\ndependencies = [")[2].partition("]")[0])


def resolved(requirements: list[str], folder: Path) -> tuple[int, str]:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--only-binary=:all:"]
    aimed = ["--python-version", OLDEST, "--target", str(folder)]
    done = ask([*pip, *aimed, *requirements], timeout_s=600)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where no registry answers."""
    code, _ = resolved(["urllib3"], tmp_path_factory.mktemp("probe"))
    need("a package registry", found=code == 0)


def test_the_extras_are_those_that_the_readme_names() -> None:
    assert set(extras()) == {"cpu", "jetson", "workstation", "hub", "ota", "plc", "genicam", "timm", "dev"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in set(extras()) - {"dev"}:
        assert re.search(rf"\[(\w+,)*{name}(,\w+)*\]", readme), f"README does not say what {name} brings"


def test_a_station_s_extras_resolve_together_for_the_oldest_python(registry: None, tmp_path: Path) -> None:
    wanted = {r for name in ("cpu", "jetson", "ota", "plc", "genicam") for r in extras()[name]}
    kept = [r for r in wanted if re.split(r"[<>=\[]", r)[0] not in SOURCE_ONLY]
    code, said = resolved([*base(), *sorted(kept)], tmp_path)
    assert code == 0, said


def test_the_workstation_s_and_the_hub_s_extras_resolve_together_too(registry: None, tmp_path: Path) -> None:
    assert set(extras()["dev"]) >= {*extras()["workstation"], *extras()["hub"]}
    # PyTorch itself is gigabytes to look at; it publishes wheels for this Python
    code, said = resolved([*base(), *(r for r in extras()["dev"] if not r.startswith("torch"))], tmp_path)
    assert code == 0, said


def test_what_is_published_as_source_alone_is_there_in_a_version_we_take(registry: None) -> None:
    for name in SOURCE_ONLY:
        done = ask([sys.executable, "-m", "pip", "index", "versions", name])
        assert done.returncode == 0, done.stderr
        newest = re.search(rf"^{name} \((\d+)", done.stdout, flags=re.MULTILINE)
        assert newest is not None
        assert int(newest[1]) >= 2024


def test_what_make_installs_is_what_the_constraints_pin() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if "==" in line and not line.endswith('< "3.11"')]
    split = [re.split("==| ;", line) for line in lines]
    pins = {parts[0].lower().replace("_", "-"): parts[1] for parts in split}
    for requirement in sorted({*base(), *extras()["dev"]}):
        name = re.split(r"[<>=\[]", requirement)[0].lower().replace("_", "-")
        assert name in pins, f"{name} has no pin in constraints.txt"
        # a machine may have a build of its own: 2.13.0+cpu
        assert metadata.version(name).partition("+")[0] == pins[name], name


BRINGS = {
    "edge_sdk": ("cpu", "jetson", "ota", "plc", "genicam"),
    "calibration": ("workstation",),
    "export": ("workstation",),
    "training": ("workstation",),
    "benchmarks": ("workstation",),
    "mentoring": ("hub",),
    "examples": ("workstation", "hub"),
    "tests": ("dev",),
    "docs": ("dev",),
}
"""The extras that bring what a folder imports."""


def third_parties(folder: str) -> dict[str, str]:
    """Each module that a folder imports and we did not write, and a file that does."""
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()} | set(sys.stdlib_module_names)
    found = {}
    for path in tracked(f"{folder}/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module]
            found |= {name.split(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    return {name: file for name, file in found.items() if name not in ours}


@pytest.mark.parametrize("folder", sorted(BRINGS))
def test_what_a_folder_imports_is_what_its_extras_bring(folder: str) -> None:
    wanted = {*base(), *(r for name in BRINGS[folder] for r in extras()[name])}
    brought = {re.split(r"[<>=\[]", r)[0].lower().replace("_", "-") for r in wanted}
    homes = metadata.packages_distributions()
    # a Jetson's system packages, and peers that a benchmark measures where they are installed
    peers = {"ultralytics", "anomalib", "modelopt", "openvino", "nncf"}
    elsewhere = {"tensorrt", "gi", "timm", "torchvision", *peers}
    for module, file in third_parties(folder).items():
        if module in elsewhere:
            continue
        distributions = {name.lower().replace("_", "-") for name in homes.get(module, [])}
        assert distributions & brought, f"{file} imports {module}, which no extra of {BRINGS[folder]} names"
