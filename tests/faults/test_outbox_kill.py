"""Real processes, killed with SIGKILL at any moment: the station while it puts, the uploader while it sends.

``EDGE_SDK_KILLS`` kills more often.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_sdk.outbox import Outbox, look
from edge_sdk.outbox.uploader import read_upload_state
from edge_sdk.records import decode_item, item_id
from tests.outbox.hubs import Fault, StoringHub

pytestmark = [pytest.mark.system, pytest.mark.slow]

KILLS = int(os.environ.get("EDGE_SDK_KILLS", "24"))
ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys, pathlib
from edge_sdk.outbox import Outbox
from tests.outbox.making import record
with Outbox(pathlib.Path(sys.argv[1]), writing=True) as outbox:
    for seq in range(10**6):
        wanted = record(seq, boot=outbox.boot_id, value=seq * 7 % 10 / 10, size=500 + seq * 7919 % 60_000)
        print(outbox.put(wanted), flush=True)
"""

UPLOADER = """
import sys, pathlib
from edge_sdk.config import HubConfig, MentoringConfig, StationConfig
from edge_sdk.outbox.uploader import run_uploader
folder = pathlib.Path(sys.argv[1])
config = StationConfig(
    station="press-3", bundle=folder, trust="unsigned", camera={"uri": "file:line.avi"},
    mentoring=MentoringConfig(outbox=folder), hub=HubConfig(url=sys.argv[2]), state=folder / "state",
)
print("started", flush=True)
run_uploader(config, until_empty="empty" in sys.argv, say=lambda line: print(line, file=sys.stderr))
"""


def start(program: str, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def killed(process: subprocess.Popen[str]) -> list[str]:
    """Kill a process; the whole lines it had printed."""
    process.kill()
    out, problems = process.communicate(timeout=60)
    assert process.returncode == -9, problems
    return [line for line in out.splitlines(keepends=True) if line.endswith("\n")]


def acknowledged(lines: list[str]) -> set[str]:
    return {line.strip() for line in lines if len(line) == 65}


def test_a_station_killed_while_it_puts_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    lot = random.Random(1)
    kept: set[str] = set()
    for _ in range(KILLS // 2):
        station = start(WRITER, tmp_path)
        assert station.stdout is not None
        lines = [station.stdout.readline()]
        time.sleep(lot.random() * 0.15)
        kept |= acknowledged(lines + killed(station))
    orphans = len(list((tmp_path / "items").glob(".*.tmp")))
    with Outbox(tmp_path, writing=True, sending=True) as outbox:
        items = {item.id: item.data for item in outbox.lease(10**6, for_s=60)}
        assert outbox.counters["orphans"] == orphans
        assert outbox.counters["quarantined"] == 0
    assert len(kept) > KILLS
    assert kept <= set(items), f"{len(kept - set(items))} of {len(kept)} acknowledged items are lost"
    headers = [decode_item(data).header for data in items.values()]
    assert len({(header.boot_id, header.seq) for header in headers}) == len(items)
    assert not list((tmp_path / "items").glob(".*"))


def test_with_both_killed_and_connections_cut_every_acknowledged_item_reaches_the_hub_once(
    tmp_path: Path,
) -> None:
    lot = random.Random(2)
    folder = tmp_path / "outbox"
    kept: set[str] = set()
    kills = 0

    def trouble(number: int) -> Fault:
        if lot.random() < 0.8:
            return None
        faults: list[Fault] = ["cut up", "cut down", "bit", (503, {}, b""), (429, {"Retry-After": "0"}, b"")]
        return lot.choice(faults)

    with StoringHub(tmp_path / "hub", fault=trouble) as hub:
        while kills < KILLS * 2 // 3:
            station, uploader = start(WRITER, folder), start(UPLOADER, folder, hub.url)
            lines: list[str] = []
            for process in (station, uploader):
                assert process.stdout is not None
                lines.append(process.stdout.readline())
            time.sleep(0.2 + lot.random() * 0.5)
            first, second = lot.sample([station, uploader], 2)
            for process in (first, second):
                printed = killed(process)
                kept |= acknowledged(lines[:1] + printed) if process is station else set()
                kills += 1
        hub.fault = lambda number: None
        last = start(UPLOADER, folder, hub.url, "empty")
        _, said = last.communicate(timeout=300)
        assert last.returncode == 0, said
        assert "Traceback" not in said
        items = hub.items
        assert hub.puts > len(kept)
    assert len(kept) > KILLS
    assert kept <= set(items), f"{len(kept - set(items))} of {len(kept)} acknowledged items never arrived"
    assert all(item_id(data) == name for name, data in items.items())
    counts = look(folder)
    assert (counts.waiting, counts.quarantined) == (0, 0)
    state = read_upload_state(folder / "state" / "upload.json")
    assert state is not None
    assert state.waiting == 0
