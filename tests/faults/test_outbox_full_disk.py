"""A disk that is really full: a small tmpfs, which only root can mount."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk.errors import OutboxError, OutboxFull
from edge_sdk.outbox import Outbox
from edge_sdk.records import decode_item, item_id
from tests.outbox.hubs import StoringHub
from tests.outbox.making import record
from tests.requirements import need

pytestmark = pytest.mark.system

MIB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    size = ["-o", "size=3m", "tmpfs", str(folder)]
    mounted = (
        subprocess.run(["mount", "-t", "tmpfs", *size], capture_output=True, check=False).returncode == 0
    )
    need("the right to mount a file system (root)", found=mounted)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(path: Path) -> None:
    """Take what is left, as somebody else's log does."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError as error:
            assert error.errno == errno.ENOSPC  # noqa: PT017 - the loop ends by it


def test_a_disk_filled_by_the_outbox_alone_is_refused_cleanly_and_used_again(small_disk: Path) -> None:
    refused = 0
    with Outbox(small_disk / "outbox", writing=True, sending=True, limit_mib=100) as outbox:
        for seq in range(200):
            try:
                outbox.put(record(seq, value=0.9 - seq / 1000, size=40_000))
            except OutboxFull:
                refused += 1
        assert refused > 100
        gone = 0
        while items := outbox.lease(8, for_s=60):
            assert all(item_id(item.data) == item.id for item in items)
            outbox.acknowledge([item.id for item in items])
            gone += len(items)
        assert gone == outbox.counters["put"] == 200 - refused
        assert outbox.put(record(999, size=40_000))


def test_on_a_disk_that_others_fill_the_best_items_are_still_taken(small_disk: Path) -> None:
    with Outbox(small_disk / "outbox", writing=True, sending=True, limit_mib=100) as outbox:
        low = [outbox.put(record(seq, value=0.1 + seq / 1000, size=40_000)) for seq in range(25)]
        fill(small_disk / "log")
        best = [outbox.put(record(100 + seq, value=0.9 + seq / 1000, size=40_000)) for seq in range(20)]
        fill(small_disk / "another log")
        with pytest.raises(OutboxFull) as refused:
            outbox.put(record(300, value=0.01, size=40_000))
        assert str(refused.value) == (
            f"the disk of {small_disk / 'outbox'} is full, and nothing of less value waits in the outbox; "
            "free some space"
        )
        found = {item.id for item in outbox.lease(1000, for_s=60)}
        assert set(best) <= found
        assert len(found & set(low)) <= 6, "they made room"
        outbox.acknowledge(found)
        assert outbox.counts().waiting == 0


def test_an_outbox_on_a_full_disk_opens_and_is_emptied(small_disk: Path, tmp_path: Path) -> None:
    with Outbox(small_disk / "outbox", writing=True) as outbox:
        names = [outbox.put(record(seq, value=0.9, size=40_000)) for seq in range(20)]
    for path in (small_disk / "outbox").glob("index*"):
        path.unlink()
    fill(small_disk / "log")
    with Outbox(small_disk / "outbox", sending=True) as outbox:
        items = outbox.lease(100, for_s=60)
        assert [decode_item(item.data).header.seq for item in items] == list(range(20))
        outbox.acknowledge([item.id for item in items])
    assert [item.id for item in items] == names
    assert not list((small_disk / "outbox" / "items").iterdir())


def test_a_small_bound_is_kept_on_a_small_disk(small_disk: Path) -> None:
    with Outbox(small_disk / "outbox", writing=True, limit_mib=2) as outbox:
        for seq in range(300):
            try:
                outbox.put(record(seq, value=(seq * 37 % 101) / 101, size=30_000))
            except OutboxFull:
                pass
            except OutboxError as error:
                raise AssertionError(f"the bound is below the disk, yet: {error}") from error
            used = sum(path.stat().st_blocks * 512 for path in small_disk.rglob("*") if path.is_file())
            assert used <= 2 * MIB


def test_a_disk_that_is_read_only_is_told(small_disk: Path) -> None:
    with Outbox(small_disk / "outbox", writing=True) as outbox:
        outbox.put(record(1))
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OutboxError) as refused:
        Outbox(small_disk / "outbox", writing=True)
    lock = small_disk / "outbox" / "writer.lock"
    assert (
        str(refused.value)
        == f"{lock} cannot be opened (Read-only file system); is the disk there and writable?"
    )
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)


def test_the_uploader_empties_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    from edge_sdk.config import HubConfig, MentoringConfig, StationConfig
    from edge_sdk.outbox.uploader import run_uploader

    with Outbox(small_disk / "outbox", writing=True, limit_mib=100) as outbox:
        for seq in range(100):
            try:
                outbox.put(record(seq, value=0.9 - seq / 1000, size=40_000))
            except OutboxFull:
                break
    with StoringHub(tmp_path / "hub") as hub:
        config = StationConfig(
            station="press-3",
            bundle=tmp_path,
            trust="unsigned",
            camera={"uri": "file:line.avi"},
            mentoring=MentoringConfig(outbox=small_disk / "outbox"),
            hub=HubConfig(url=hub.url),
            state=small_disk / "state",
        )
        state = run_uploader(config, until_empty=True)
        assert len(hub.items) == state.uploaded > 40
