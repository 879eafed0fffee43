"""What the outbox promises, on a real file system, without a crash."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_sdk.clock import Clock, FakeClock
from edge_sdk.errors import OutboxBusy, OutboxError, OutboxFull
from edge_sdk.outbox import Outbox, look
from edge_sdk.records import decode_item, encode_item, item_id
from tests.outbox.making import record


def both(folder: Path, *, limit_mib: float = 2048, clock: Clock | None = None) -> Outbox:
    """Station and uploader in one."""
    return Outbox(folder, writing=True, sending=True, limit_mib=limit_mib, clock=clock)


def ids_in(folder: Path) -> set[str]:
    return {path.name for path in (folder / "items").iterdir()}


def all_leased(outbox: Outbox) -> list[int]:
    return [decode_item(item.data).header.seq for item in outbox.lease(1000, for_s=60)]


def test_a_record_comes_out_as_it_went_in(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        name = outbox.put(record(7, body=b"picture"))
        (item,) = outbox.lease(5, for_s=60)
    assert item.id == name == item_id(item.data)
    assert decode_item(item.data) == record(7, body=b"picture")
    assert (tmp_path / "items" / name).read_bytes() == encode_item(record(7, body=b"picture"))


@given(body=st.binary(max_size=3000), seq=st.integers(0, 2**63 - 1), value=st.floats(-1e9, 1e9))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_survive(tmp_path: Path, body: bytes, seq: int, value: float) -> None:
    wanted = record(seq, body=body, value=value)
    with Outbox(tmp_path, writing=True) as outbox:
        name = outbox.put(wanted)
    with Outbox(tmp_path, sending=True) as outbox:
        items = {item.id: item.data for item in outbox.lease(1000, for_s=1)}
        assert decode_item(items[name]) == wanted
        outbox.acknowledge(items)
    assert ids_in(tmp_path) == set()


def test_the_same_record_is_kept_once(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        assert outbox.put(record(1)) == outbox.put(record(1))
        assert outbox.counts().waiting == 1


def test_a_record_that_is_there_but_rotten_is_written_again(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        name = outbox.put(record(1))
        (tmp_path / "items" / name).write_bytes(b"rot")
        outbox.put(record(1))
        assert [item.id for item in outbox.lease(1, for_s=1)] == [name]


# -- leases ------------------------------------------------------------------------------------------


def test_a_leased_item_is_not_handed_out_again_until_its_time_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    with both(tmp_path, clock=clock) as outbox:
        outbox.put(record(1))
        assert len(outbox.lease(5, for_s=60)) == 1
        assert outbox.lease(5, for_s=60) == ()
        clock.advance(61)
        assert len(outbox.lease(5, for_s=60)) == 1


def test_a_released_item_is_offered_at_once_or_after_the_time_asked_for(tmp_path: Path) -> None:
    clock = FakeClock()
    with both(tmp_path, clock=clock) as outbox:
        name = outbox.put(record(1))
        outbox.lease(1, for_s=60)
        outbox.release([name])
        assert len(outbox.lease(1, for_s=60)) == 1
        outbox.release([name], after_s=100)
        clock.advance(99)
        assert outbox.lease(1, for_s=60) == ()
        clock.advance(2)
        assert len(outbox.lease(1, for_s=60)) == 1


def test_a_lease_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        outbox.put(record(1))
        outbox.lease(1, for_s=1e6)
    with Outbox(tmp_path, sending=True) as outbox:
        assert len(outbox.lease(1, for_s=60)) == 1


def test_an_acknowledged_item_is_gone_and_acknowledging_twice_is_no_error(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        name = outbox.put(record(1))
        outbox.lease(1, for_s=60)
        outbox.acknowledge([name, name, "0" * 64])
        assert outbox.counts().waiting == 0
        assert outbox.counters["sent"] == 1
    assert ids_in(tmp_path) == set()


def test_the_valuable_go_first_and_within_a_lane_the_oldest(tmp_path: Path) -> None:
    with both(tmp_path) as outbox:
        for seq, value in ((5, 0.6), (3, 0.7), (4, 0.1), (2, 0.9), (1, 0.3)):
            outbox.put(record(seq, value=value))
        outbox.put(record(0, value=0.6, boot="00000002-0123456789ab"))
        found = [decode_item(item.data).header for item in outbox.lease(10, for_s=60)]
    assert [(header.boot_id[:8], header.seq) for header in found] == [
        ("00000001", 2),
        ("00000001", 3),
        ("00000001", 5),
        ("00000002", 0),
        ("00000001", 1),
        ("00000001", 4),
    ]


def test_a_clock_that_goes_back_changes_no_order_and_loses_nothing(tmp_path: Path) -> None:
    clock = FakeClock()
    when = datetime(2026, 11, 21, tzinfo=timezone.utc)
    with both(tmp_path, clock=clock) as outbox:
        first = outbox.boot_id
        for seq in range(3):
            outbox.put(record(seq, boot=first, captured_at=when - timedelta(days=7000 * seq)))
        outbox.lease(1, for_s=60)
        clock.step_wall_clock(-20 * 365 * 86400)
        assert len(outbox.lease(1, for_s=60)) == 1, "the lease of the first is not touched by the wall clock"
    clock.step_wall_clock(-86400)
    with both(tmp_path, clock=clock) as outbox:
        assert outbox.boot_id > first
        outbox.put(record(0, boot=outbox.boot_id, captured_at=when - timedelta(days=20000)))
        assert all_leased(outbox) == [0, 1, 2, 0]


def test_openings_are_numbered_even_if_their_file_is_lost(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        with Outbox(tmp_path, writing=True) as outbox:
            assert outbox.boot_id.startswith(f"{number:08d}-")
            outbox.put(record(0, boot=outbox.boot_id))
    (tmp_path / "boots").unlink()
    with Outbox(tmp_path, writing=True) as outbox:
        assert outbox.boot_id.startswith("00000004-")


# -- places ------------------------------------------------------------------------------------------


def test_a_second_writer_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True), pytest.raises(OutboxBusy) as refused:
        Outbox(tmp_path, writing=True)
    assert str(refused.value).startswith(f"{tmp_path} is already written by process ")
    assert " on " in str(refused.value)
    assert " since 20" in str(refused.value)
    assert str(refused.value).endswith(
        "; stop it, or give this station an outbox of its own (mentoring.outbox)"
    )
    with Outbox(tmp_path, writing=True):
        pass


def test_a_second_uploader_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    with Outbox(tmp_path, sending=True), pytest.raises(OutboxBusy) as refused:
        Outbox(tmp_path, sending=True)
    assert "is already uploaded by process " in str(refused.value)
    assert str(refused.value).endswith("; let it finish, or stop it first")


def test_the_places_of_station_and_uploader_do_not_shut_each_other_out(tmp_path: Path) -> None:
    with Outbox(tmp_path, writing=True) as station, Outbox(tmp_path, sending=True) as uploader:
        name = station.put(record(1))
        assert [item.id for item in uploader.lease(5, for_s=60)] == [name]
        uploader.acknowledge([name])
        assert station.counts().waiting == 0
        with pytest.raises(OutboxError) as refused:
            uploader.put(record(2))
        assert str(refused.value) == f"{tmp_path} is not open for writing; open it with writing=True"
        with pytest.raises(OutboxError) as refused:
            station.lease(1, for_s=1)
        assert str(refused.value) == f"{tmp_path} is not open for sending; open it with sending=True"


def test_an_outbox_is_opened_for_something(tmp_path: Path) -> None:
    with pytest.raises(OutboxError) as refused:
        Outbox(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} is opened for nothing; give writing=True or sending=True, or use look()"
    )


def test_a_process_that_was_killed_holds_no_place(tmp_path: Path) -> None:
    program = (
        "import sys, os, pathlib; from edge_sdk.outbox import Outbox;"
        "Outbox(pathlib.Path(sys.argv[1]), writing=True); print('in', flush=True); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.stdout == "in\n", done.stderr
    assert "process" in (tmp_path / "writer.lock").read_text()
    with Outbox(tmp_path, writing=True):
        pass


def test_a_closed_outbox_takes_nothing_and_closes_twice(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, writing=True)
    outbox.close()
    outbox.close()
    with pytest.raises(OutboxError, match="is not open for writing"):
        outbox.put(record(1))


def test_a_path_that_is_a_file_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("not a folder")
    with pytest.raises(OutboxError) as refused:
        Outbox(tmp_path / "outbox", writing=True)
    assert str(refused.value) == (
        f"{tmp_path / 'outbox'} could not be opened (File exists); nothing acknowledged is lost: see to the disk"
    )


# -- the bound ---------------------------------------------------------------------------------------

KIB = 1024


def small(folder: Path) -> Outbox:
    """One MiB, of which the index takes about half."""
    return both(folder, limit_mib=1)


def used(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def test_the_outbox_stays_within_its_bound_and_keeps_the_most_valuable(tmp_path: Path) -> None:
    values = [(n * 37 % 101) / 101 for n in range(101)]
    with small(tmp_path) as outbox:
        refused = 0
        for seq, value in enumerate(values):
            try:
                outbox.put(record(seq, value=value, size=30 * KIB))
            except OutboxFull:
                refused += 1
            assert used(tmp_path) <= 1024 * KIB
        kept = {decode_item(item.data).header.value for item in outbox.lease(1000, for_s=60)}
        assert len(kept) >= 12
        assert kept == set(sorted(values)[-len(kept) :])
        assert outbox.counters["evicted"] + refused + len(kept) == len(values)


def test_a_full_outbox_refuses_what_is_worth_less_than_all_it_holds(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        for seq in range(100):
            with suppress(OutboxFull):
                outbox.put(record(seq, value=0.9 - seq / 1000, size=30 * KIB))
        before = ids_in(tmp_path)
        with pytest.raises(OutboxFull) as refused:
            outbox.put(record(200, value=0.1, size=30 * KIB))
        assert ids_in(tmp_path) == before
    sentence = str(refused.value)
    assert sentence.startswith(f"{tmp_path} is full (")
    assert " of 1 MiB) and nothing in it is worth less than this record (0.1); see why" in sentence
    assert sentence.endswith("); see why nothing is uploaded, or raise mentoring.outbox_mib")


def test_nothing_is_given_up_for_a_record_that_would_not_fit_even_then(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        outbox.put(record(1, value=0.1))
        with pytest.raises(OutboxFull):
            outbox.put(record(2, value=0.9, size=2048 * KIB))
        assert outbox.counts().waiting == 1


def test_a_leased_item_is_not_given_up(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        leased = outbox.put(record(0, value=0.01, size=30 * KIB))
        outbox.lease(1, for_s=60)
        for seq in range(1, 40):
            outbox.put(record(seq, value=0.5 + seq / 100, size=30 * KIB))
        assert leased in ids_in(tmp_path)
        assert outbox.counters["evicted"] > 20


def test_a_lease_of_an_uploader_that_is_gone_protects_nothing(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        leased = outbox.put(record(0, value=0.01, size=30 * KIB))
        outbox.lease(1, for_s=1e9)
    with Outbox(tmp_path, writing=True, limit_mib=1) as outbox:
        for seq in range(1, 40):
            outbox.put(record(seq, value=0.5 + seq / 100, size=30 * KIB))
    assert leased not in ids_in(tmp_path)


def test_an_evicted_control_item_leaves_a_counted_tombstone_and_others_do_not(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        for seq in range(8):
            stratum = "control" if seq % 2 else "uncertain"
            outbox.put(record(seq, value=0.1, stratum=stratum, probability=0.1, size=30 * KIB))
        for seq in range(8, 60):
            outbox.put(record(seq, value=0.5 + seq / 1000, size=30 * KIB))
        assert outbox.counters["evicted"] > 8
        assert outbox.counts().tombstones == {"evicted": 4}
    assert look(tmp_path).tombstones == {"evicted": 4}
    with small(tmp_path) as outbox:
        assert outbox.counts().tombstones == {"evicted": 4}


def test_a_control_item_that_finds_no_room_leaves_a_tombstone_too(tmp_path: Path) -> None:
    with small(tmp_path) as outbox:
        with pytest.raises(OutboxFull):
            outbox.put(record(1, stratum="control", probability=0.1, size=2048 * KIB))
        with pytest.raises(OutboxFull):
            outbox.put(record(2, stratum="uncertain", size=2048 * KIB))
        assert outbox.counts().tombstones == {"no room": 1}


def test_the_control_items_that_stay_are_drawn_by_lot(tmp_path: Path) -> None:
    """Among equal values the digest decides, which knows nothing of the order or the content."""
    names = []
    with small(tmp_path) as outbox:
        for seq in range(60):
            wanted = record(seq, value=0.5, stratum="control", probability=0.1, size=30 * KIB)
            names.append(item_id(encode_item(wanted)))
            with suppress(OutboxFull):
                outbox.put(wanted)
        kept = ids_in(tmp_path)
        assert kept == set(sorted(names)[-len(kept) :])
        assert sum(outbox.counts().tombstones.values()) == 60 - len(kept)


def test_the_file_of_tombstones_stays_small_and_keeps_its_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_sdk.outbox.tombstones.MERGE_BYTES", 4 * KIB)
    with Outbox(tmp_path, writing=True) as outbox:
        for seq in range(100):
            outbox.lost("control", 0.1, why="no room", item=f"{seq:064x}")
        outbox.lost("control", 0.1, why="not put", count=500)
        assert (tmp_path / "tombstones.jsonl").stat().st_size < 5 * KIB
        assert outbox.counts().tombstones == {"no room": 100, "not put": 500}
