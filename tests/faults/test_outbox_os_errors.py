"""Every system call of the outbox fails once, with every error a disk gives.

Whatever fails, what was acknowledged is there afterwards, nothing half is, and the error is a sentence.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_sdk.errors import OutboxError, OutboxFull
from edge_sdk.outbox import Outbox
from edge_sdk.records import item_id
from tests.outbox.disks import FailingDisk, memory_folder
from tests.outbox.making import record

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
PUT = ("create", "write", "fsync", "close", "rename", "fsync_folder")


def whole_items(folder: Path) -> set[str]:
    """All files that anyone could be offered; each must be what its name says."""
    found = set()
    for path in (folder / "items").iterdir():
        if not path.name.startswith("."):
            assert item_id(path.read_bytes()) == path.name
            found.add(path.name)
    return found


@dataclass
class Work:
    """What a run did."""

    kept: list[str] = field(default_factory=list)
    """Acknowledged to the station, the least valuable first."""
    sent: set[str] = field(default_factory=set)
    errors: list[OutboxError] = field(default_factory=list)
    evicted: int = 0


def work(folder: Path, disk: FailingDisk) -> Work:
    """Put more and more valuable records until some have to go, and send one."""
    done = Work()
    try:
        with Outbox(folder, writing=True, sending=True, limit_mib=1, disk=disk) as outbox:
            for seq in range(6):
                stratum = "control" if seq == 0 else "defect"
                try:
                    done.kept.append(outbox.put(record(seq, value=seq / 10, size=130_000, stratum=stratum)))
                except OutboxError as error:
                    done.errors.append(error)
            for item in outbox.lease(1, for_s=60):
                done.sent.add(item.id)
                try:
                    outbox.acknowledge([item.id])
                except OutboxError as error:
                    done.errors.append(error)
            done.evicted = outbox.counters["evicted"]
    except OutboxError as error:
        done.errors.append(error)
    return done


@pytest.fixture
def fast_path(tmp_path: Path) -> Iterator[Path]:
    with memory_folder(tmp_path) as folder:
        yield folder


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_one_failing_call_loses_nothing_that_was_acknowledged(fast_path: Path, error: int) -> None:
    disk = FailingDisk()
    usual = work(fast_path / "usual", disk)
    assert (len(usual.kept), usual.evicted, usual.errors) == (6, 2, [])
    calls = list(disk.calls)
    raised = 0
    for failing in range(len(calls)):
        folder = fast_path / str(failing)
        disk = FailingDisk(lambda number, call, failing=failing: error if number == failing else None)  # type: ignore[misc]
        done = work(folder, disk)
        raised += len(done.errors)
        for found in done.errors:
            assert os.strerror(error) in str(found) or isinstance(found, OutboxFull)
        with Outbox(folder, sending=True) as outbox:
            items = {item.id for item in outbox.lease(100, for_s=1)}
        # gone is what was sent and what was given up, and that is the least valuable
        assert set(done.kept[done.evicted :]) - done.sent <= items, (
            f"{calls[failing]} failed as call {failing}"
        )
        assert items == whole_items(folder)
    assert raised > 10


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("call", PUT)
def test_a_failed_put_leaves_nothing_and_says_why(tmp_path: Path, call: str, error: int) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, sending=True, disk=disk) as outbox:
        before = outbox.put(record(0))
        disk.when = lambda number, called: error if called == call else None
        with pytest.raises(OutboxError) as refused:
            outbox.put(record(1))
        disk.when = lambda number, called: None
        assert {path.name for path in (tmp_path / "items").iterdir()} == {before}
        assert outbox.counts().waiting == 1
        if error == errno.ENOSPC:
            assert isinstance(refused.value, OutboxFull)
            assert str(refused.value) == (
                f"the disk of {tmp_path} is full, and nothing of less value waits in the outbox; free some space"
            )
        else:
            assert str(refused.value) == (
                f"{tmp_path} could not be written ({os.strerror(error)}); nothing acknowledged is lost: see to the disk"
            )
        after = outbox.put(record(1))
        assert {item.id for item in outbox.lease(5, for_s=1)} == {before, after}


def test_a_failed_second_put_of_the_same_record_does_not_take_the_first_away(tmp_path: Path) -> None:
    for call in PUT:
        disk = FailingDisk()
        with Outbox(tmp_path / call, writing=True, disk=disk) as outbox:
            name = outbox.put(record(0))
            disk.when = lambda number, called, call=call: errno.EIO if called == call else None  # type: ignore[misc]
            with pytest.raises(OutboxError):
                outbox.put(record(0))
        assert whole_items(tmp_path / call) == {name}


def test_a_failed_fsync_is_never_tried_again_on_the_same_file(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, disk=disk) as outbox:
        outbox.put(record(0, value=0.1, size=5000))
        disk.calls.clear()
        failures = iter([errno.ENOSPC])
        disk.when = lambda number, called: next(failures, None) if called == "fsync" else None
        outbox.put(record(1, value=0.9, size=5000))
    assert disk.calls[:5] == ["create", "write", "fsync", "close", "unlink"], "the file is given up"
    assert "create" in disk.calls[5:], "and the record is written to a new one"


def test_on_a_disk_that_others_filled_the_least_valuable_make_room(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, sending=True, disk=disk) as outbox:
        names = [outbox.put(record(seq, value=seq / 10, size=5000)) for seq in range(1, 6)]
        fresh = iter([errno.ENOSPC, errno.ENOSPC])
        disk.when = lambda number, called: next(fresh, None) if called == "write" else None
        kept = outbox.put(record(9, value=0.35, size=5000))
        assert {item.id for item in outbox.lease(10, for_s=1)} == {*names[2:], kept}
        assert outbox.counters["evicted"] == 2


def test_on_a_disk_that_others_filled_nothing_better_is_given_up(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, sending=True, disk=disk) as outbox:
        names = {outbox.put(record(seq, value=0.8, size=5000)) for seq in range(3)}
        disk.when = lambda number, called: errno.ENOSPC if called == "write" else None
        with pytest.raises(OutboxFull):
            outbox.put(record(9, value=0.7, size=5000))
        assert {item.id for item in outbox.lease(10, for_s=1)} == names


def test_a_disk_that_will_not_remove_an_item_is_told_and_costs_a_repeat(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, sending=True, disk=disk) as outbox:
        name = outbox.put(record(0))
        (item,) = outbox.lease(1, for_s=60)
        disk.when = lambda number, called: errno.EIO if called == "unlink" else None
        with pytest.raises(OutboxError) as refused:
            outbox.acknowledge([item.id])
        assert str(refused.value) == (
            f"{tmp_path} could not be emptied (Input/output error); nothing acknowledged is lost: see to the disk"
        )
    with Outbox(tmp_path, sending=True) as outbox:
        assert [item.id for item in outbox.lease(1, for_s=60)] == [name]


def test_a_tombstone_that_found_no_room_is_written_with_the_next(tmp_path: Path) -> None:
    disk = FailingDisk()
    with Outbox(tmp_path, writing=True, disk=disk) as outbox:
        disk.when = lambda number, called: errno.ENOSPC if called == "write" else None
        outbox.lost("control", 0.1, why="no room", item="a" * 64)
        disk.when = lambda number, called: None
        outbox.lost("control", 0.1, why="no room", item="b" * 64)
        assert outbox.counts().tombstones == {"no room": 2}
