"""The power goes at every moment of the outbox's work, and the disk keeps what it was not made to keep, or not.

The calls of a run are recorded once.  From every beginning of them the states are drawn that a power cut may leave,
under two models of a file system, and the outbox is opened on each.  ``EDGE_SDK_POWER_CUTS`` draws more states.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.errors import OutboxFull
from edge_sdk.outbox import Outbox
from edge_sdk.outbox.disk import write_durably
from edge_sdk.records import item_id
from tests.outbox.disks import Call, RecordingDisk, after_power_cut, memory_folder
from tests.outbox.making import record

STATES = int(os.environ.get("EDGE_SDK_POWER_CUTS", "2000"))


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


def recorded_run(folder: Path) -> list[Call]:
    """Put, refuse, give up, send: with a note after each promise and before each removal."""
    disk = RecordingDisk(folder)
    lot = random.Random(7)
    with Outbox(folder, writing=True, sending=True, limit_mib=0.6, disk=disk) as outbox:
        for seq in range(16):
            wanted = record(
                seq,
                value=lot.random(),
                size=lot.choice((700, 20_000, 50_000)),
                stratum=lot.choice(("control", "defect")),
                probability=0.1,
            )
            try:
                disk.note(f"kept {outbox.put(wanted)}")
            except OutboxFull:
                pass
            if seq % 5 == 4:
                for item in outbox.lease(1, for_s=60):
                    disk.note(f"sent {item.id}")
                    outbox.acknowledge([item.id])
        assert outbox.counters["evicted"] > 1
    return disk.calls


def lay_out(folder: Path, files: dict[tuple[str, str], bytes], index: bytes | None) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("items", "quarantine"):
        (folder / name).mkdir(parents=True)
    for (where, name), data in files.items():
        (folder / where / name).write_bytes(data)
    if index is not None:
        (folder / "index-0001.sqlite").write_bytes(index)


@pytest.mark.parametrize("in_order", [True, False], ids=["journal", "posix"])
def test_a_power_cut_at_any_moment_loses_nothing_that_was_acknowledged(
    fast_path: Path, in_order: bool
) -> None:
    calls = recorded_run(fast_path / "run")
    last_index = (fast_path / "run" / "index-0001.sqlite").read_bytes()
    lot = random.Random(11 + in_order)
    for state in range(STATES // 2):
        done = calls[: lot.randint(0, len(calls))]
        told = [call.old.split() for call in done if call.kind == "note"]
        # an item counts as given up from the moment its removal was asked for
        removed = {call.name for call in done if call.kind == "unlink"}
        promised = {name for what, name in told if what == "kept"} - removed
        files = after_power_cut(done, lot, in_order=in_order)
        index = lot.choice((None, last_index, last_index[:5000], b"rot" * 3000, b""))
        lay_out(fast_path / "cut", files, index)
        with Outbox(fast_path / "cut", writing=True, sending=True) as outbox:
            offered = {item.id: item.data for item in outbox.lease(1000, for_s=60)}
            assert promised <= set(offered), f"state {state}: lost {promised - set(offered)}"
            assert all(item_id(data) == name for name, data in offered.items())
            assert outbox.put(record(99, boot=outbox.boot_id)), f"state {state}: takes nothing any more"
            # a control item is waiting, was sent, or left a tombstone; never two of these
            assert outbox.counts().tombstones.keys() <= {"evicted", "no room"}
        assert not list((fast_path / "cut" / "items").glob(".*"))


@pytest.mark.parametrize("forgotten", ["fsync", "fsync_folder"])
def test_the_explorer_finds_a_forgotten_fsync(tmp_path: Path, forgotten: str) -> None:
    disk = RecordingDisk(tmp_path)
    (tmp_path / "items").mkdir()
    write_durably(disk, tmp_path / "items" / "a", b"x" * 3000)
    careless = [call for call in disk.calls if call.kind != forgotten]
    lot = random.Random(3)
    whole = {("items", "a"): b"x" * 3000}
    assert all(
        after_power_cut(disk.calls, lot, in_order=order) == whole
        for order in (True, False)
        for _ in range(50)
    )
    assert any(after_power_cut(careless, lot, in_order=False) != whole for _ in range(50))
