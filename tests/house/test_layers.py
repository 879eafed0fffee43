"""Who may import whom is a contract that holds, and that a breach really breaks."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from tests.house.places import PACKAGES, ROOT, ask

LINTER = Path(sys.executable).with_name("lint-imports")


def lint(folder: Path) -> tuple[int, str]:
    config = str(folder / ".importlinter")
    done = ask([str(LINTER), "--no-cache", "--no-logo", "--config", config], cwd=folder)
    return done.returncode, done.stdout + done.stderr


def test_the_layers_of_the_house_hold() -> None:
    code, said = lint(ROOT)
    assert code == 0, said
    assert " 0 broken" in said


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


BREACHES = [
    ("edge_sdk/labels.py", "import edge_sdk.station", "The device, from the command line down"),
    ("edge_sdk/vision/decode.py", "from edge_sdk.quality import measures", "The device, from the command line down"),
    ("edge_sdk/runners/base.py", "import edge_sdk.cameras", "The device, from the command line down"),
    ("edge_sdk/outbox/store.py", "import edge_sdk.bundles", "The device, from the command line down"),
    ("edge_sdk/health.py", "import export", "Packages: the device below"),
    ("calibration/observers.py", "import training", "Packages: the device below"),
    ("export/__init__.py", "import mentoring", "Packages: the device below"),
    ("training/__init__.py", "import export", "Packages: the device below"),
    ("mentoring/__init__.py", "import benchmarks", "Packages: the device below"),
    ("edge_sdk/journal.py", "import torch", "torch only in"),
    ("calibration/__init__.py", "def late():\n    import torch", "torch only in"),
    ("edge_sdk/manifest.py", "import onnx", "onnx only in"),
    ("training/__init__.py", "import onnx", "onnx only in"),
    ("edge_sdk/cameras/base.py", "import onnxruntime", "onnxruntime only in"),
    ("edge_sdk/runners/ort.py", "import tensorrt", "tensorrt only in"),
    ("export/__init__.py", "import pycuda", "pycuda only in"),
    ("edge_sdk/config.py", "import typer", "The device needs no package"),
    ("edge_sdk/station.py", "import edge_sdk.testing", "The fakes of edge_sdk.testing"),
]


@pytest.mark.parametrize(("file", "line", "contract"), BREACHES, ids=[f"{f}: {x}" for f, x, _ in BREACHES])
def test_a_planted_breach_is_found_and_named(copy: Path, file: str, line: str, contract: str) -> None:
    path = copy / file
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        code, said = lint(copy)
    finally:
        path.write_text(before, encoding="utf-8")
    assert code == 1
    broken = [row for row in said.splitlines() if " BROKEN" in row]
    assert any(row.startswith(contract) for row in broken), said


def test_a_module_without_a_place_is_found(copy: Path) -> None:
    path = copy / "edge_sdk" / "newcomer.py"
    path.write_text('"""Nobody gave it a place."""\n', encoding="utf-8")
    try:
        code, said = lint(copy)
    finally:
        path.unlink()
    assert code == 1
    assert "newcomer" in said
