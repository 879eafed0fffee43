"""The real thing: a process that installs and activates without end, killed in the middle."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_sdk.bundles import Slots, open_bundle
from tests.bundles.making import Parts, put_tar, seal

pytestmark = pytest.mark.system

PROGRAM = """
import itertools, sys
from pathlib import Path
from edge_sdk.bundles import Slots
slots = Slots(Path(sys.argv[1]))
print("ready", flush=True)
for bundle in itertools.cycle(sys.argv[2:]):
    slots.activate(slots.install(Path(bundle), trust="unsigned"))
    print("activated", flush=True)
"""


def test_a_killed_installer_leaves_a_whole_bundle_judging(tmp_path: Path, plain: Parts) -> None:
    shipped = [
        put_tar(seal({**plain, "card.md": b"%d" % n * 500_000}, version=str(n)), tmp_path / f"{n}.bundle")
        for n in (1, 2)
    ]
    root = tmp_path / "bundles"
    slots = Slots(root)
    slots.activate(slots.install(shipped[0], trust="unsigned"))
    drawn = random.Random(0)
    for turn in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(root), *map(str, shipped)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        if turn % 2:
            assert process.stdout.readline() == "activated\n"
        time.sleep(drawn.uniform(0, 0.15))
        process.kill()
        process.stdout.close()
        process.wait()
        fresh = Slots(root)
        assert open_bundle(fresh.link, trust="unsigned").title in ("press-3-1", "press-3-2")
        idle = fresh.idle()
        if idle.state != "installing" and idle.state != "empty":
            assert open_bundle(idle.path, trust="unsigned").title == idle.title
    slots.activate(slots.install(shipped[1], trust="unsigned"))
    assert open_bundle(slots.link, trust="unsigned").title == "press-3-2"
