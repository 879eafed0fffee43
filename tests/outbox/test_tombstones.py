"""The file that remembers what was lost of the control sample."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.outbox import Outbox
from edge_sdk.outbox.boots import next_boot
from edge_sdk.outbox.disk import Disk, FolderLock
from edge_sdk.outbox.tombstones import Tombstone, Tombstones, read_tombstones
from tests.outbox.making import record

ONE = Tombstone("control", 0.1, "evicted", "a" * 64)
TWO = Tombstone("control", 0.1, "no room", "b" * 64)


def test_a_tombstone_is_read_as_it_was_written(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path / "stones", Disk())
    stones.add(ONE)
    stones.add(Tombstone("control", 0.25, "not put", count=7))
    assert read_tombstones(tmp_path / "stones") == (ONE, Tombstone("control", 0.25, "not put", count=7))
    assert (tmp_path / "stones").read_text().splitlines()[0] == (
        '{"count":1,"item":"' + "a" * 64 + '","probability":0.1,"stratum":"control","why":"evicted"}'
    )


def test_a_line_torn_by_a_power_cut_spoils_no_other(tmp_path: Path) -> None:
    path = tmp_path / "stones"
    Tombstones(path, Disk()).add(ONE)
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut])
        Tombstones(path, Disk()).add(TWO)
        assert read_tombstones(path) == (ONE, TWO)


def test_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "stones"
    path.write_bytes(b'hello\n[]\n{"stratum": 1}\n\xff\xfe\n{"count": "x"}\n')
    Tombstones(path, Disk()).add(ONE)
    assert read_tombstones(path) == (ONE,)


def test_an_item_counts_once(tmp_path: Path) -> None:
    stones = Tombstones(tmp_path / "stones", Disk())
    for _ in range(3):
        stones.add(ONE)
    assert read_tombstones(tmp_path / "stones") == (ONE,)


def test_an_eviction_that_a_power_cut_undid_leaves_no_tombstone(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True) as outbox:
        name = outbox.put(record(1, stratum="control", probability=0.1))
        outbox.lost("control", 0.1, why="evicted", item=name)
        outbox.lost("control", 0.1, why="evicted", item="c" * 64)
    with Outbox(tmp_path, writing=True) as outbox:
        assert outbox.counts().tombstones == {"evicted": 1}


def test_an_openings_number_survives_a_damaged_file(tmp_path: Path) -> None:
    file = tmp_path / "boots"
    assert next_boot(file, latest="", disk=Disk()).startswith("00000001-")
    file.write_bytes(b"\xff\x00")
    assert next_boot(file, latest="00000041-aaaaaaaaaaaa", disk=Disk()).startswith("00000042-")
    assert next_boot(file, latest="not ours", disk=Disk()).startswith("00000043-")


def test_asking_who_holds_a_lock_takes_it_from_no_one(tmp_path: Path) -> None:
    path = tmp_path / "writer.lock"
    assert not FolderLock.held(path)
    lock = FolderLock(path, doing="is held by", advice="wait")
    assert FolderLock.held(path)
    lock.release()
    lock.release()
    assert not FolderLock.held(path)
