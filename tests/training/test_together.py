"""Real processes: two of them come to the weights of one, and a killed one to the weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.house.places import ROOT
from tests.training.drawn import write_set

pytestmark = [pytest.mark.slow, pytest.mark.system]

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


# in double precision: in single, training may make 1e-3 of a rounding within ten steps, whoever rounded
RECIPE = "data: plates\ntrunk: slim\nside_px: 64\nwidth: 0.125\niterations: 40\nprecision: double\nseed: 1\n"


def command(out: Path, *words: str) -> list[str]:
    recipe = out.parent / "recipe.yaml"
    return [sys.executable, *words, "-m", "training", "train", "--recipe", str(recipe), "--out", str(out), "--json"]


def done(out: Path, *words: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], str]:
    """What was printed, the weights, and the talk."""
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        command(out, *words), capture_output=True, text=True, timeout=240, cwd=ROOT, env=env, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout), load_file(out / "weights.safetensors"), found.stderr


def curve(out: Path) -> dict[str, list[list[float]]]:
    found: dict[str, list[list[float]]] = json.loads((out / "figures.json").read_text())["curves"]["train"]
    return found


def near(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert float((tensor.double() - other[name].double()).abs().max()) < 1e-6, name


def test_two_processes_and_a_killed_one_come_to_the_same(tmp_path: Path) -> None:
    write_set(tmp_path / "plates")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    said, weights, _ = done(tmp_path / "alone")
    loss = curve(tmp_path / "alone")

    # two processes, the same global batch
    told, shared, talk = done(tmp_path / "two", *TORCHRUN)  # stdout parses as one object: only the first one speaks
    near(weights, shared)
    for term, points in curve(tmp_path / "two").items():
        assert [step for step, _ in points] == [step for step, _ in loss[term]]
        assert [value for _, value in points] == pytest.approx([value for _, value in loss[term]], abs=1e-6)
    assert told["loss_last"] == pytest.approx(said["loss_last"], abs=1e-6)
    assert talk.count("original line: plates") == 1
    assert not list(tmp_path.glob(".*"))

    # killed without a word once a state was kept
    state = tmp_path / ".killed.resume.safetensors"
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command(tmp_path / "killed"), cwd=ROOT, stdout=nowhere, stderr=nowhere) as one:
        began = time.monotonic()
        while not state.exists() and one.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.005)
        one.send_signal(signal.SIGKILL)
    assert state.exists() and not (tmp_path / "killed").exists()
    _, resumed, _ = done(tmp_path / "killed")
    assert all(torch.equal(tensor, resumed[name]) for name, tensor in weights.items())
    assert curve(tmp_path / "killed")["supervised"][0][0] > 25
    assert not state.exists()
