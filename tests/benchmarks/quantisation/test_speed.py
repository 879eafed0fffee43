"""Q3's arithmetic, its forms, and its way to the peer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.asking import Asked
from benchmarks.peers import PeerError
from benchmarks.quantisation.speed import agreement, rows_of, times_of
from benchmarks.quantisation.speed_graphs import FP32, OURS, graphs_of
from calibration.sessions import open_session

WORKER = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked["do"] == "end":
        print("broken pipe of the kernel", file=sys.stderr)
        break
    said = {"hello": {"it": "1.0"}, "add": {"sum": asked.get("a", 0) + 1}}.get(asked["do"], {"error": "ValueError: no"})
    print(json.dumps(said), flush=True)
"""


@pytest.fixture
def worker(tmp_path: Path) -> Path:
    path = tmp_path / "worker.py"
    path.write_text(WORKER, encoding="utf-8")
    return path


def test_every_form_takes_its_turn_in_every_round() -> None:
    asked: list[str] = []

    def clock(name: str, took: float) -> object:
        def take(runs: int) -> dict[str, list[float]]:
            asked.append(name)
            # one run of a round was disturbed
            return {"wall": [took + 0.5] * (runs - 1) + [90.0], "cpu": [took] * (runs - 1) + [70.0]}

        return take

    found = times_of({"a": clock("a", 4.0), "b": clock("b", 2.0)}, rounds=3, runs=3)  # type: ignore[dict-item]
    assert asked == ["a", "b", "b", "a", "a", "b"]
    assert found == {
        "a": {"wall": [4.5] * 3, "cpu": [4.0] * 3},
        "b": {"wall": [2.5] * 3, "cpu": [2.0] * 3},
    }


def test_a_speed_up_is_paired_by_rounds_and_stated_block_by_block() -> None:
    # the machine is half as fast in the second block: that moves no ratio
    fp32 = [[10.0, 11.0, 12.0], [20.0, 22.0, 24.0]]
    times = {
        FP32: {"cpu": fp32, "wall": fp32},
        OURS: {"cpu": [[one / 2.5 for one in block] for block in fp32], "wall": fp32},
    }
    facts = {"times": times, "quality": {FP32: {}, OURS: {"sqnr_db": 30}}}
    rows = {str(row["name"]): row for row in rows_of("net", facts)}
    ours = rows[f"net: {OURS}"]
    assert ours["speedup"] == ours["low"] == ours["high"] == 2.5 and ours["blocks"] == [2.5, 2.5]
    assert ours["wall_speedup"] == 1 and ours["cpu_ms"] == pytest.approx(6.4) and ours["sqnr_db"] == 30
    assert rows[f"net: {FP32}"]["speedup"] == 1 and "low" not in rows[f"net: {FP32}"]


def test_agreement_is_held_against_the_median_that_is_wanted() -> None:
    wanted = np.array([0.0, 1.0, 2.0, 3.0])
    assert agreement(wanted, wanted + 0.4) == 1
    assert agreement(wanted, wanted + 1) == 0.75
    assert agreement(wanted, -wanted) == 0.5


@pytest.mark.slow
def test_all_forms_are_of_one_network_and_answer_as_it_does(tmp_path: Path) -> None:
    graphs = graphs_of("unet", tmp_path, calibrated=8, judged=2, side=64)
    assert len(graphs.files) == 5 and graphs.frames.shape == (2, 3, 64, 64) and len(graphs.calibrating) == 8
    assert not any((graphs.calibrating == frame).all(axis=(1, 2, 3)).any() for frame in graphs.frames)
    wanted = open_session(graphs.files[FP32]).run(graphs.frames)["cells"]
    for form, path in graphs.files.items():
        found = open_session(path).run(graphs.frames)["cells"]
        assert agreement(wanted, found) > 0.9, form
        assert (path.read_bytes() == graphs.files[FP32].read_bytes()) == (form == FP32)


def test_a_worker_is_kept_and_says_what_went_wrong(worker: Path) -> None:
    with Asked(Path(sys.executable), worker, name="Peer") as peer:
        assert peer.versions == {"it": "1.0"}
        assert [peer.ask("add", a=n)["sum"] for n in range(3)] == [1, 2, 3]
        with pytest.raises(PeerError, match="Peer could not multiply: ValueError: no"):
            peer.ask("multiply")
        with pytest.raises(PeerError, match=r"Peer ended while asked to end \(broken pipe of the kernel\)"):
            peer.ask("end")


def test_a_worker_that_does_not_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="Peer ended while asked to hello"):
        Asked(Path(sys.executable), tmp_path / "absent.py", name="Peer")
