"""``import edge_sdk`` is cheap, starts nothing, and offers the dozen names that it promises."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edge_sdk

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "cv2", "pydantic", "numpy", "yaml", "argparse")


def fresh(program: str) -> str:
    """What a program prints in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_every_public_name_can_be_used() -> None:
    for name in edge_sdk.__all__:
        assert getattr(edge_sdk, name) is not None
    assert set(edge_sdk.__all__) == {*edge_sdk._HOMES, "__version__"}
    assert dir(edge_sdk) == sorted(edge_sdk.__all__)


def test_a_name_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(AttributeError, match=r"edge_sdk has no 'Statoin'; it has BundleError, Camera, "):
        edge_sdk.Statoin  # noqa: B018


def test_importing_the_package_loads_no_engine_and_starts_nothing() -> None:
    program = (
        "import sys, threading, json; before = set(sys.modules); import edge_sdk; "
        "print(json.dumps([sorted(set(sys.modules) - before), threading.active_count()]))"
    )
    modules, threads = json.loads(fresh(program))
    assert [name for name in modules if name.split(".")[0] in HEAVY] == []
    assert len(modules) < 10
    assert threads == 1


def test_importing_the_command_line_loads_no_more_than_argparse() -> None:
    program = "import sys, json; import edge_sdk.cli; print(json.dumps(sorted(sys.modules)))"
    heavy = set(HEAVY) - {"argparse"}
    assert [name for name in json.loads(fresh(program)) if name.split(".")[0] in heavy] == []


def test_importing_writes_nothing(tmp_path: Path) -> None:
    program = "import sys; sys.dont_write_bytecode = True; import edge_sdk.station"
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        check=True,
        timeout=60,
        env={"HOME": str(tmp_path), "PYTHONPATH": str(Path(edge_sdk.__file__).parent.parent)},
    )
    assert list(tmp_path.iterdir()) == []
