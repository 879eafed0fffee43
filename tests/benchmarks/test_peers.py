"""Environments of peers, without making one."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import peers
from edge_sdk.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(peers.VARIABLE, str(tmp_path))
    return tmp_path / "anomalib"


def answered(monkeypatch: pytest.MonkeyPatch, *, code: int = 0, said: str = "") -> list[list[str]]:
    """pip and venv play along; what they were asked."""
    asked: list[list[str]] = []

    def run(words: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(words)
        if "venv" in words:
            python = Path(words[-1]) / "bin" / "python"
            python.parent.mkdir(parents=True)
            python.touch()
        return subprocess.CompletedProcess(words, code if "pip" in words else 0, "", said)

    monkeypatch.setattr(subprocess, "run", run)
    return asked


def test_a_peer_is_made_once_and_with_the_pinned_versions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peers.python_of("anomalib") is None
    asked = answered(monkeypatch)
    python = peers.make_peer("anomalib")
    assert python == folder / "bin" / "python" == peers.python_of("anomalib")
    assert asked[1][-len(peers.PEERS["anomalib"]) :] == list(peers.PEERS["anomalib"])
    assert asked[1][asked[1].index("-c") + 1].endswith("constraints.txt")
    assert peers.make_peer("anomalib") == python and len(asked) == 2


def test_one_that_failed_half_way_or_is_of_other_versions_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(monkeypatch, code=1, said="noise\nERROR: no matching distribution")
    with pytest.raises(peers.PeerError, match=r"anomalib could not be installed \(ERROR: no matching distribution\)"):
        peers.make_peer("anomalib")
    assert (folder / "bin" / "python").exists() and peers.python_of("anomalib") is None
    (folder / "complete.txt").write_text("anomalib==1.0\ntorch\n", encoding="utf-8")
    assert peers.python_of("anomalib") is None


def test_what_a_peer_wants_in_another_version_is_not_pinned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answered(monkeypatch)
    peers.make_peer("modelopt")
    pins = Path(asked[1][asked[1].index("-c") + 1]).read_text(encoding="utf-8").splitlines()
    ours = (peers.machine.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert {line for line in ours if line not in pins} == {line for line in ours if line.startswith("onnx==")} != set()


def test_an_unknown_peer_is_refused() -> None:
    with pytest.raises(ConfigError, match="there is no peer named 'nobody'; there is anomalib, modelopt, openvino"):
        peers.make_peer("nobody")
