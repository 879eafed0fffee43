"""The built wheel holds the device alone and works where the checkout is not."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from tests.house.places import ROOT, ask

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = ask([*pip, "--wheel-dir", str(folder), str(ROOT)])
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment that sees the wheel and third parties, and not the checkout."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site)]
    done = ask([*pip, str(wheel)])
    assert done.returncode == 0, done.stderr
    # with -S no .pth file is read, so an editable install leads nowhere
    return {"PYTHONPATH": os.pathsep.join([str(site), sysconfig.get_path("purelib")]), "SITE": str(site)}


def run(installed: dict[str, str], tmp_path: Path, *arguments: str) -> tuple[int, str]:
    done = ask([sys.executable, "-S", *arguments], cwd=tmp_path, extra=installed)
    return done.returncode, done.stdout + done.stderr


def test_the_wheel_holds_edge_sdk_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"edge_sdk"}
    assert "edge_sdk/py.typed" in names
    wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "edge_sdk").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == wanted
    assert wheel.stat().st_size < 1_000_000


def test_the_wheel_says_what_it_needs_and_offers(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (path,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = Parser().parsestr(archive.read(path).decode())
        entries = archive.read(path.replace("METADATA", "entry_points.txt")).decode()
        licences = [name for name in archive.namelist() if name.endswith("licenses/LICENSE")]
    assert metadata["Name"] == "edge-sdk"
    assert metadata["Requires-Python"] == ">=3.10"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert licences
    extras = set(metadata.get_all("Provides-Extra") or [])
    assert extras == {"cpu", "jetson", "workstation", "hub", "ota", "plc", "genicam", "timm", "dev"}
    needed = [line for line in metadata.get_all("Requires-Dist") or [] if "extra ==" not in line]
    bare = {re.match(r"[\w-]+", line)[0] for line in needed}  # type: ignore[index]
    assert bare == {"numpy", "pyyaml", "pydantic", "urllib3"}
    assert "edge-sdk = edge_sdk.cli:main" in entries


def test_every_module_of_the_wheel_imports_without_the_checkout(installed: dict[str, str], tmp_path: Path) -> None:
    program = (
        "import importlib, pkgutil, os, edge_sdk\n"
        "assert edge_sdk.__file__.startswith(os.environ['SITE']), edge_sdk.__file__\n"
        "names = [m.name for m in pkgutil.walk_packages(edge_sdk.__path__, 'edge_sdk.')]\n"
        "[importlib.import_module(name) for name in names if not name.endswith('__main__')]\n"
        "print(len(names))"
    )
    code, said = run(installed, tmp_path, "-c", program)
    assert code == 0, said
    assert int(said) > 20


@pytest.mark.parametrize("package", ["export", "training", "calibration", "mentoring", "benchmarks", "tests"])
def test_the_workstation_is_not_in_it(installed: dict[str, str], tmp_path: Path, package: str) -> None:
    code, said = run(installed, tmp_path, "-c", f"import {package}")
    assert code == 1
    assert f"No module named '{package}'" in said


def test_the_command_runs_from_the_wheel(installed: dict[str, str], tmp_path: Path) -> None:
    code, said = run(installed, tmp_path, "-m", "edge_sdk", "--help")
    assert code == 0
    assert "station.yaml" in said
    code, said = run(installed, tmp_path, "-m", "edge_sdk", "status", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml cannot be read" in said
    assert "Traceback" not in said
