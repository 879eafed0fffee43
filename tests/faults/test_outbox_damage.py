"""Rotten pages: in the index, in its log, in the items.

A damaged index is set aside and made again, a damaged item is set aside and counted, and what is intact stays.
"""

from __future__ import annotations

import random
import sqlite3
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from edge_sdk.outbox import Outbox, look
from edge_sdk.records import encode_item, item_id
from tests.outbox.making import record


def filled(folder: Path, count: int = 6, size: int = 5000) -> list[str]:
    with Outbox(folder, writing=True) as outbox:
        return [outbox.put(record(seq, value=0.9, size=size)) for seq in range(count)]


def offered(folder: Path) -> list[str]:
    with Outbox(folder, sending=True) as outbox:
        return [item.id for item in outbox.lease(1000, for_s=1)]


def test_a_lost_index_is_made_again(tmp_path: Path) -> None:
    names = filled(tmp_path)
    for path in tmp_path.glob("index*"):
        path.unlink()
    assert offered(tmp_path) == names


@pytest.mark.parametrize("damage", ["junk", "cut", "empty", "zeros", "another database", "another version"])
def test_a_damaged_index_is_set_aside_and_made_again(tmp_path: Path, damage: str) -> None:
    names = filled(tmp_path)
    index = tmp_path / "index-0001.sqlite"
    data = index.read_bytes()
    if damage == "another database":
        index.unlink()
        with sqlite3.connect(index) as other:
            other.execute("CREATE TABLE guests(name)")
        other.close()
    elif damage == "another version":
        with sqlite3.connect(index) as other:
            other.execute("PRAGMA user_version = 99")
        other.close()
    else:
        new = {"junk": b"junk" * 5000, "cut": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data))}
        index.write_bytes(new[damage])
    with Outbox(tmp_path, sending=True) as outbox:
        assert [item.id for item in outbox.lease(1000, for_s=1)] == names
        assert outbox.counters["rebuilt"] == 1
    assert (tmp_path / "index-0001.sqlite.bad").exists()
    assert (tmp_path / "index-0002.sqlite").exists()
    assert offered(tmp_path) == names


def test_only_the_newest_damaged_index_is_kept(tmp_path: Path) -> None:
    filled(tmp_path)
    for number in (1, 2, 3):
        (tmp_path / f"index-{number:04d}.sqlite").write_bytes(b"junk" * 5000)
        offered(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.bad")) == ["index-0003.sqlite.bad"]


def test_an_index_that_knows_less_or_more_than_the_folder_is_put_right(tmp_path: Path) -> None:
    names = filled(tmp_path)
    (tmp_path / "items" / names[2]).unlink()
    with sqlite3.connect(tmp_path / "index-0001.sqlite") as index:
        index.execute("DELETE FROM items WHERE id = ?", (names[4],))
    index.close()
    assert offered(tmp_path) == [name for name in names if name != names[2]]
    with Outbox(tmp_path, writing=True) as outbox:
        assert outbox.counts().waiting == 5


def test_an_index_that_rots_while_both_processes_have_it_open_costs_neither_an_item(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True) as station, Outbox(tmp_path, sending=True) as uploader:
        names = [station.put(record(seq, value=0.9)) for seq in range(200)]
        with (tmp_path / "index-0001.sqlite").open("r+b") as file:
            file.seek(4096)
            file.write(random.Random(0).randbytes(4096 * 8))
        names += [station.put(record(seq, value=0.9)) for seq in range(200, 210)]
        found = [item.id for item in uploader.lease(1000, for_s=60)]
        uploader.acknowledge(found)
        assert set(found) == set(names)
        late = station.put(record(300))
        assert [item.id for item in uploader.lease(10, for_s=60)] == [late]


def test_an_index_that_the_other_process_replaced_is_followed(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True) as station:
        station.put(record(0))
        (tmp_path / "index-0001.sqlite").rename(tmp_path / "elsewhere")
        name = station.put(record(1))
        assert station.counts().waiting == 2
    assert name in offered(tmp_path)


def test_a_put_whose_index_row_fails_is_kept_and_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock()
    with Outbox(tmp_path, writing=True) as station, Outbox(tmp_path, sending=True, clock=clock) as uploader:
        with monkeypatch.context() as broken:

            def locked(*_: object) -> None:
                raise sqlite3.OperationalError("database is locked")

            broken.setattr(station._index, "add", locked)
            name = station.put(record(0))
        assert uploader.lease(5, for_s=60) == ()
        clock.advance(31)
        assert [item.id for item in uploader.lease(5, for_s=60)] == [name], (
            "the uploader looks into the folder"
        )
        station.put(record(1))
        assert station.counts().waiting == 2


def test_a_lease_that_the_index_cannot_write_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    names = filled(tmp_path, 4)
    with Outbox(tmp_path, sending=True) as outbox:
        for call in ("take", "lease", "remove"):
            monkeypatch.setattr(outbox._index, call, full)
        first = [item.id for item in outbox.lease(2, for_s=60)]
        second = [item.id for item in outbox.lease(9, for_s=60)]
        assert first + second == names
        assert outbox.lease(9, for_s=60) == ()
        outbox.acknowledge(names)
    assert look(tmp_path).waiting == 0


# -- items -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["body", "header", "cut", "longer", "empty", "zeros"])
def test_a_damaged_item_is_set_aside_counted_and_never_offered(tmp_path: Path, damage: str) -> None:
    names = filled(tmp_path, 3)
    path = tmp_path / "items" / names[1]
    data = bytearray(path.read_bytes())
    if damage == "body":
        data[-3] ^= 1
    elif damage == "header":
        data[10] ^= 1
    others = {"cut": bytes(data[:-9]), "longer": bytes(data + b"!"), "empty": b"", "zeros": bytes(len(data))}
    changed = others.get(damage, bytes(data))
    path.write_bytes(changed)
    for index in ("kept", "lost"):
        if index == "lost":
            for file in tmp_path.glob("index*"):
                file.unlink()
        assert offered(tmp_path) == [names[0], names[2]]
        assert look(tmp_path).quarantined == 1
    assert (tmp_path / "quarantine" / names[1]).read_bytes() == changed
    why = (tmp_path / "quarantine" / f"{names[1]}.why").read_text()
    assert why.strip()
    if damage == "body":
        assert why == "its bytes are not what its name says; the disk damaged it\n"


def test_a_file_that_is_no_item_is_set_aside(tmp_path: Path) -> None:
    names = filled(tmp_path, 2)
    (tmp_path / "items" / "notes.txt").write_text("do not forget")
    assert offered(tmp_path) == names
    assert (tmp_path / "quarantine" / "notes.txt.why").read_text() == "its name is no digest\n"


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        (b'"seq":5', b'"seq":%d' % 2**70, f"its seq is {2**70}, which no station counts to\n"),
        (b'"value":0.5', b'"value":NaN', "its value is not a number\n"),
        (b'"schema":"item/1"', b'"schema":"item/2"', None),
        (b'"boot_id":"', b'"boot_id":"\\ud800', None),
        (b'"seq":5', b'"seq":' + b"[" * 50_000, None),
        (b'"seq":5', b'"seq":-1', None),
    ],
    ids=["seq", "value", "schema", "text", "depth", "negative"],
)
def test_a_header_that_no_station_writes_stops_nothing(
    tmp_path: Path, before: bytes, after: bytes, why: str | None
) -> None:
    names = filled(tmp_path, 2)
    whole = encode_item(record(5))
    assert before in whole
    data = whole.replace(before, after, 1)
    (tmp_path / "items" / item_id(data)).write_bytes(data)
    found = offered(tmp_path)
    assert set(names) <= set(found) <= {*names, item_id(data)}
    if why is not None:
        assert (tmp_path / "quarantine" / f"{item_id(data)}.why").read_text() == why


@given(data=st.binary(max_size=300))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_file_among_the_items_stops_nothing(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "items").mkdir(exist_ok=True)
    (tmp_path / "items" / item_id(data)).write_bytes(data)
    with Outbox(tmp_path, sending=True) as outbox:
        assert outbox.lease(10, for_s=1) == ()


def test_what_is_set_aside_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_sdk.outbox.items.KEPT_ASIDE", 3)
    (tmp_path / "items").mkdir(parents=True)
    for number in range(8):
        (tmp_path / "items" / f"{number:064x}").write_bytes(b"junk")
    with Outbox(tmp_path, sending=True) as outbox:
        assert outbox.counters["quarantined"] == 8
    assert look(tmp_path).quarantined == 3


def test_what_is_set_aside_is_the_first_to_go_when_room_is_needed(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True, limit_mib=1) as outbox:
        (tmp_path / "quarantine" / ("a" * 64)).write_bytes(bytes(600 * 1024))
        outbox.put(record(0, size=200 * 1024))
    assert look(tmp_path).quarantined == 0


def test_a_bad_item_in_the_middle_of_a_lease_is_replaced_by_a_good_one(tmp_path: Path) -> None:
    names = filled(tmp_path, 4)
    (tmp_path / "items" / names[0]).write_bytes(b"rot")
    with Outbox(tmp_path, sending=True) as outbox:
        assert [item.id for item in outbox.lease(2, for_s=60)] == names[1:3]


def test_random_damage_never_hands_out_wrong_bytes_nor_loses_an_intact_item(tmp_path: Path) -> None:
    for seed in range(25):
        lot = random.Random(seed)
        folder = tmp_path / str(seed)
        names = filled(folder, 5, size=3000)
        hurt = set()
        for path in sorted([*(folder / "items").iterdir(), *folder.glob("index*")]):
            if lot.random() < 0.4:
                data = bytearray(path.read_bytes())
                for _ in range(lot.randint(1, 3)):
                    at = lot.randrange(len(data) + 1)
                    data[at : at + 512] = lot.randbytes(len(data[at : at + 512]))
                path.write_bytes(data[: lot.choice((len(data), len(data) // 3))])
                hurt.add(path.name)
        with Outbox(folder, writing=True, sending=True) as outbox:
            found = outbox.lease(1000, for_s=1)
            assert all(item_id(item.data) == item.id for item in found)
            assert set(names) - hurt <= {item.id for item in found} <= set(names)
            outbox.put(record(99))


def test_threads_of_one_process_may_share_an_outbox(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True, sending=True) as outbox:
        errors: list[Exception] = []

        def put(first: int) -> None:
            try:
                for seq in range(first, first + 15):
                    outbox.put(record(seq))
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=put, args=(100 * n,)) for n in range(3)]
        for thread in threads:
            thread.start()
        sent = 0
        while any(thread.is_alive() for thread in threads) or outbox.counts().waiting:
            items = outbox.lease(4, for_s=60)
            outbox.acknowledge([item.id for item in items])
            sent += len(items)
        assert (errors, sent) == ([], 45)
