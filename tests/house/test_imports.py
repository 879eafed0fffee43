"""``import edge_sdk`` is cheap, loads no engine, starts nothing and writes nothing."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import edge_sdk
from tests.house.places import ROOT, python

HEAVY = ("torch", "onnx", "onnxruntime", "tensorrt", "pycuda", "cv2", "pydantic")

LOOK = """
import json, sys, threading, time
written = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        written.append(str(arguments[0]))
    elif event in ("os.mkdir", "os.rename", "os.remove", "socket.__new__", "subprocess.Popen"):
        written.append(event)
sys.addaudithook(watch)
begun = time.process_time()
import edge_sdk
took_s = time.process_time() - begun
print(json.dumps({"took_s": took_s, "loaded": sorted(sys.modules), "threads": threading.active_count(),
                  "written": written}))
"""


def look(cwd: Path) -> dict[str, object]:
    done = python(LOOK, cwd=cwd, extra={"PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_importing_loads_no_engine_starts_no_thread_and_writes_nothing(tmp_path: Path) -> None:
    found = look(tmp_path)
    loaded = found["loaded"]
    assert isinstance(loaded, list)
    assert [name for name in HEAVY if name in loaded] == []
    assert found["threads"] == 1
    assert found["written"] == []
    assert list(tmp_path.iterdir()) == []


def test_importing_takes_at_most_a_seventh_of_a_second(tmp_path: Path) -> None:
    # of processor time, in the quickest of several: the machine's other work is not the import's
    assert min(float(str(look(tmp_path)["took_s"])) for _ in range(5)) <= 0.15


def test_every_public_name_is_there_when_it_is_used(tmp_path: Path) -> None:
    done = python("from edge_sdk import *; print(Station.__module__)", cwd=tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "edge_sdk.station"), done.stderr
    assert sorted(edge_sdk.__all__) == edge_sdk.__all__
    assert set(edge_sdk.__all__) <= set(dir(edge_sdk))
    for name in edge_sdk.__all__:
        assert getattr(edge_sdk, name) is not None


def test_a_name_that_is_not_there_says_so(tmp_path: Path) -> None:
    done = python("import edge_sdk; edge_sdk.Statoin", cwd=tmp_path)
    assert done.returncode == 1
    assert "AttributeError" in done.stderr
    assert "Statoin" in done.stderr


def test_each_public_name_has_one_home_for_the_type_checker_and_for_python() -> None:
    """The lazy table and the TYPE_CHECKING block cannot drift apart unseen."""
    tree = ast.parse((ROOT / "edge_sdk" / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.name: node.module
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    homes = next(
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "_HOMES"
    )
    assert typed == homes
    assert set(homes) | {"__version__"} == set(edge_sdk.__all__)
