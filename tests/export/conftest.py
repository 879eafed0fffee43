"""A trained-enough checkpoint, its export, its INT8 graphs and pictures, each made once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from calibration.cli import app as calibration_app
from edge_sdk.testing import drawn_picture
from edge_sdk.vision.preprocess import PreprocessSpec, preprocess
from export.cli import app as export_app
from tests.export.networks import residual

SIDE, CELL = 64, 8
SPEC = PreprocessSpec(width=SIDE, height=SIDE)
BAND = {"class": "defect", "boundary": 0.5, "pass_below": 0.3, "defective_from": 0.7, "temperature": 1.0}


def call(app: object, *words: object) -> tuple[int, str, str]:
    """A command in this process: exit code, stdout, stderr."""
    from typer.testing import CliRunner

    found = CliRunner().invoke(app, [str(word) for word in words])  # type: ignore[arg-type]
    if found.exception is not None and not isinstance(found.exception, SystemExit):
        raise found.exception
    return found.exit_code, found.stdout, found.stderr


def pictures(folder: Path, count: int, *, seed: int = 0) -> Path:
    """A data set of drawn surfaces, every other one with a dark spot."""
    folder.mkdir(parents=True)
    rows = ["image,label"]
    for n in range(count):
        spot = (10 + 7 * n % 44, 12 + 11 * n % 40, 8) if n % 2 else None
        cv2.imwrite(str(folder / f"{n:03d}.png"), drawn_picture(SIDE, SIDE, seed=seed + n, spot=spot))
        rows.append(f"{n:03d}.png,{'spot' if n % 2 else 'good'}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def trained() -> torch.nn.Module:
    """The residual network after a few steps on drawn pictures."""
    torch.manual_seed(0)
    network = residual()
    return taught(network, network, rate=0.01)


def taught(network: torch.nn.Module, part: torch.nn.Module, *, rate: float) -> torch.nn.Module:
    """A network after a few steps of a part of it on drawn pictures: dark spots are defects."""
    torch.set_num_threads(1)
    frames, truth = [], []
    for n in range(24):
        spot = (10 + 7 * n % 44, 12 + 11 * n % 40, 8) if n % 2 else None
        frames.append(preprocess(drawn_picture(SIDE, SIDE, seed=500 + n, spot=spot), SPEC))
        truth.append(float(n % 2))
    batch, wanted = torch.from_numpy(np.concatenate(frames)), torch.tensor(truth)
    optimiser = torch.optim.AdamW(part.parameters(), lr=rate)
    for _ in range(60):
        optimiser.zero_grad()
        found = network(batch)
        cells = found["cells"] if isinstance(found, dict) else found.cells
        loss = torch.nn.functional.binary_cross_entropy_with_logits(cells.amax((1, 2, 3)), wanted)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return network.eval()


def write_checkpoint(folder: Path, network: torch.nn.Module) -> Path:
    """A ``checkpoint/1`` folder with the lines ``original`` and ``new``."""
    (folder / "lines").mkdir(parents=True)
    state = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    own = {name: value * 1.1 for name, value in state.items() if name.endswith("running_var")}
    save_file(own, folder / "lines" / "new.safetensors")
    for line in ("original", "new"):
        said = {
            "thresholds": [BAND],
            "drift": {"mean": [0.0] * 16, "sd": [1.0] * 16, "n": 24},
            "how": "a test",
            "guarantee": "none: a test",
            "method": "statistics per line",
        }
        (folder / "lines" / f"{line}.json").write_text(json.dumps(said), encoding="utf-8")
    file = {
        "schema": "checkpoint/1",
        "factory": "tests.export.networks:residual",
        "arguments": {"width": 8, "classes": 1},
        "recipe": {},
        "preprocess": asdict(SPEC),
        "cell_px": CELL,
        "classes": ["defect"],
        "data": {"title": "drawn", "licence": "CC0"},
        "lines": ["original", "new"],
        "figures": {"new": {"ap": 0.9}},
        "versions": {"torch": torch.__version__},
    }
    (folder / "checkpoint.json").write_text(json.dumps(file), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    return trained()


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "ckpt", network)


@pytest.fixture(scope="session")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to calibrate on."""
    return pictures(tmp_path_factory.mktemp("pictures") / "typical", 20)


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures to judge on."""
    return pictures(tmp_path_factory.mktemp("pictures") / "others", 24, seed=100)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Path:
    """A work folder as ``export onnx`` leaves it."""
    out = tmp_path_factory.mktemp("work") / "new"
    code, _, talk = call(export_app, "onnx", checkpoint, "--line", "new", "--out", out)
    assert code == 0, talk
    return out


@pytest.fixture(scope="session")
def calibrated(tmp_path_factory: pytest.TempPathFactory, exported: Path, typical: Path, others: Path) -> Path:
    """The work folder after calibration."""
    work = tmp_path_factory.mktemp("calibrated") / "new"
    work.mkdir()
    for path in exported.iterdir():
        (work / path.name).write_bytes(path.read_bytes())
    model = work / "model.onnx"
    for words in (
        ("ranges", model, "--pictures", typical, "--out", work),
        ("render", model, "--ranges", work / "ranges.json", "--out", work, "--arch", "x86_64"),
        ("report", model, "--int8", work / "model.cpu.onnx", "--pictures", others, "--out", work),
    ):
        code, _, talk = call(calibration_app, *words)
        assert code == 0, talk
    return work


@pytest.fixture
def work(tmp_path: Path, calibrated: Path) -> Path:
    """A copy of the calibrated folder, to spoil."""
    return _copy(calibrated, tmp_path / "work")


@pytest.fixture
def spoiled(tmp_path: Path, checkpoint: Path) -> Callable[[Callable[[Path], object]], Path]:
    """Makes a copy of the checkpoint and spoils it."""

    def made(spoil: Callable[[Path], object]) -> Path:
        folder = _copy(checkpoint, tmp_path / "spoiled")
        spoil(folder)
        return folder

    return made


def _copy(source: Path, target: Path) -> Path:
    for path in sorted(source.rglob("*")):
        if path.is_file():
            there = target / path.relative_to(source)
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(path.read_bytes())
    return target
