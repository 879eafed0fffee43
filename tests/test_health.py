"""The ledger adds up, percentiles are exact, the watchdog is pinged from one loop."""

from __future__ import annotations

import json
import logging
import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.health import LATENCY_BOUNDS_MS, Heartbeat, Latencies, Ledger, StatusWriter, notify, write_state
from edge_sdk.inspections import Verdict


@given(
    st.lists(
        st.tuples(st.sampled_from(list(Verdict)), st.sampled_from(["queue full", "runner failed: a", ""]))
    )
)
def test_every_frame_in_is_one_outcome(frames: list[tuple[Verdict, str]]) -> None:
    ledger = Ledger()
    for verdict, reason in frames:
        ledger.came_in()
        assert ledger.in_flight == 1
        ledger.left(verdict, reason)
    counts = ledger.snapshot()
    assert counts["frames_in"] == len(frames) == sum(counts["outcomes"].values())
    assert sum(counts["not_inspected_by"].values()) == counts["outcomes"]["not_inspected"]
    assert counts["in_flight"] == 0


def test_reasons_are_counted_by_the_words_before_the_colon() -> None:
    ledger = Ledger()
    for reason in ("runner failed: cells is (1, 2)", "runner failed: out of memory", "queue full"):
        ledger.came_in()
        ledger.left(Verdict.NOT_INSPECTED, reason)
    assert ledger.snapshot()["not_inspected_by"] == {"queue full": 1, "runner failed": 2}


def test_a_late_verdict_is_counted_beside_its_outcome() -> None:
    ledger = Ledger()
    ledger.came_in()
    ledger.left(Verdict.PASSED, late=True)
    counts = ledger.snapshot()
    assert (counts["late"], counts["outcomes"]["passed"], counts["frames_in"]) == (1, 1, 1)


def test_the_ledger_adds_up_under_several_threads() -> None:
    ledger = Ledger()

    def work() -> None:
        for _ in range(500):
            ledger.came_in()
            ledger.left(Verdict.NOT_INSPECTED, "queue full")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts = ledger.snapshot()
    assert (
        counts["frames_in"]
        == counts["outcomes"]["not_inspected"]
        == counts["not_inspected_by"]["queue full"]
        == 2000
    )


@given(st.lists(st.floats(0, 5000), min_size=1, max_size=200))
def test_percentiles_are_those_of_a_sorted_list(latencies_ms: list[float]) -> None:
    kept = Latencies()
    for number, latency_ms in enumerate(latencies_ms):
        kept.add(latency_ms, number * 10_000_000)
    found = kept.snapshot()
    in_order = sorted(latencies_ms)
    for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99)):
        assert found[name] == round(float(np.percentile(in_order, share * 100, method="inverted_cdf")), 3)
    assert sum(found["latency_histogram"]["counts"]) == len(latencies_ms)
    if len(latencies_ms) > 1:
        assert found["fps"] == 100.0


def test_a_latency_on_an_edge_falls_into_the_bucket_that_ends_there() -> None:
    kept = Latencies()
    kept.add(LATENCY_BOUNDS_MS[0], 0)
    kept.add(LATENCY_BOUNDS_MS[-1] + 1, 1)
    counts = kept.snapshot()["latency_histogram"]["counts"]
    assert (counts[0], counts[-1], len(counts)) == (1, 1, len(LATENCY_BOUNDS_MS) + 1)


def test_percentiles_forget_old_frames_and_the_histogram_does_not() -> None:
    kept = Latencies(keep=4)
    for number, latency_ms in enumerate([900, 900, 900, 900, 10, 10, 10, 10]):
        kept.add(latency_ms, number)
    found = kept.snapshot()
    assert (found["p50_ms"], found["p99_ms"]) == (10, 10)
    assert sum(found["latency_histogram"]["counts"]) == 8


def test_before_the_first_frame_there_are_no_figures() -> None:
    found = Latencies().snapshot()
    assert (found["fps"], found["p50_ms"], found["p99_ms"]) == (None, None, None)


@pytest.fixture(params=["path", "abstract"])
def systemd(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """A socket like systemd's, and its address as it stands in the environment."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@edge-sdk-test-{tmp_path.name}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + address[1:] if address.startswith("@") else address)
        receiver.settimeout(5)
        yield receiver, address


def test_systemd_hears_us_on_both_kinds_of_socket(systemd: tuple[socket.socket, str]) -> None:
    receiver, address = systemd
    assert notify("READY=1", address=address)
    assert receiver.recv(100) == b"READY=1"


def test_the_first_beat_says_ready_and_beats_are_not_sent_too_often(
    systemd: tuple[socket.socket, str],
) -> None:
    receiver, address = systemd
    heart = Heartbeat(address=address, watchdog_us=2_000_000)
    for now_ns in (0, 100_000_000, 499_000_000, 500_000_000, 600_000_000):
        heart.beat(now_ns)
    assert receiver.recv(100) == b"READY=1\nWATCHDOG=1"
    assert receiver.recv(100) == b"WATCHDOG=1"
    receiver.setblocking(False)
    with pytest.raises(BlockingIOError):
        receiver.recv(100)


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    assert not notify("READY=1", address=str(tmp_path / "nobody"))


def test_a_state_file_is_replaced_in_one_step_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    write_state(path, {"n": 1})
    write_state(path, {"n": 2})
    assert json.loads(path.read_text()) == {"n": 2}
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]


def test_the_writer_writes_at_start_and_for_the_last_time_at_close(tmp_path: Path) -> None:
    numbers = iter(range(100))
    writer = StatusWriter(tmp_path / "status.json", lambda: {"n": next(numbers)}, every_s=3600)
    writer.start()
    assert json.loads((tmp_path / "status.json").read_text()) == {"n": 0}
    writer.close()
    writer.close()
    assert json.loads((tmp_path / "status.json").read_text()) == {"n": 1}


def test_a_disk_that_refuses_is_counted_and_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = StatusWriter(tmp_path / "missing" / "status.json", dict, every_s=3600)
    with caplog.at_level(logging.WARNING):
        writer.start()
        writer.close()
    assert writer.refused == 2
    assert [record.message for record in caplog.records] == ["the state file cannot be written"]
