"""Station's records over loopback to the real hub, which is killed in the middle."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_sdk.clock import SystemClock
from edge_sdk.outbox import Mentor, Outbox
from edge_sdk.outbox.hub_client import HubClient
from edge_sdk.outbox.uploader import Uploader
from tests.outbox.seeing import inspected
from tests.outbox.test_mentor import manifest, station

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


class Hub:
    """``python -m mentoring serve`` on one port, however often it is started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.token = folder / "token"
        folder.mkdir()
        self.token.write_text("a token that is long enough for everyone".replace(" ", "-"))
        self.port = "0"
        self.start()

    def start(self) -> None:
        command = [
            "serve",
            "--data",
            str(self.folder / "data"),
            "--port",
            self.port,
            "--token-file",
            str(self.token),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mentoring", *command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = next(
            found for line in self.process.stdout if (found := re.search(r"http://127\.0\.0\.1:(\d+)", line))
        )
        self.url, self.port = found[0], found[1]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def items(self) -> set[str]:
        return {path.stem for path in (self.folder / "data" / "items").rglob("*.item")}


def test_every_record_reaches_a_hub_that_is_killed_in_the_middle(tmp_path: Path) -> None:
    mentor = Mentor(station(tmp_path, questions_per_shift=1000), manifest("crack"), draw=lambda: 1.0)
    for seed in range(60):
        mentor.offer(inspected(seed))
    mentor.close()
    put = mentor.snapshot()["put"]
    assert put == 60

    hub = Hub(tmp_path / "hub")
    said: list[str] = []
    try:
        with (
            Outbox(tmp_path / "outbox", sending=True) as outbox,
            HubClient(hub.url, token_file=hub.token) as client,
        ):
            names = set(outbox.waiting_ids(1000))
            uploader = Uploader(
                outbox, client, state_path=tmp_path / "upload.json", clock=SystemClock(), say=said.append
            )
            thread = threading.Thread(target=uploader.run, kwargs={"until_empty": True}, daemon=True)
            thread.start()
            while uploader.state.uploaded < 15:
                thread.join(0.01)
                assert thread.is_alive(), said
            hub.kill()
            while uploader.state.trouble is None:
                thread.join(0.01)
                assert thread.is_alive(), said
            hub.start()
            thread.join(60)
            assert not thread.is_alive(), said
    finally:
        hub.kill()
    assert len(names) == put
    assert hub.items() == names
    assert uploader.state.uploaded == put
    assert any("nothing is lost, trying on" in line for line in said)
    assert any(" is back after " in line for line in said)
    assert said[-1] == f"uploaded {put}, waiting 0"
