"""E5 from end to end: a small fold in every form, the steps that a run announces, and the peer's side."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.adaptation import anomalib_worker, scorers
from benchmarks.adaptation.scorers_fold import FORMS, KNOWING, KNOWN, fold_of, parts_of
from benchmarks.adaptation.scorers_table import Judged, Table
from benchmarks.adaptation.scorers_time import times_of
from tests.benchmarks.made import Counted
from tests.benchmarks.plates import write_set
from training.networks.mobilenet import MobileNetV2
from training.scorers.fitting import ScorerRecipe
from training.scorers.network import METHODS

SPEC = {"width": 64, "height": 64, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}


@pytest.mark.slow
def test_a_fold_is_judged_and_timed_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(122)
    weights = tmp_path / "random.safetensors"
    save_file(MobileNetV2().state_dict(), weights)
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(weights))
    parts = parts_of(write_set(tmp_path / "set"), seed=7)
    recipe = ScorerRecipe(method="gaussian", covariance="shared", side_px=64, rank=20, seed=7)
    found = json.loads(json.dumps(fold_of(parts, recipe, keep=tmp_path / "graphs" / "gaussian, shared")))
    assert set(found["scores"]) == set(FORMS) and parts.held == 10
    assert [len(found["scores"][form]) for form in FORMS] == [14, 14, 14, 10]
    assert np.allclose(found["scores"]["torch"], found["scores"]["onnx"], rtol=1e-4)
    assert found["scores"]["int8"] != found["scores"]["onnx"] and found["mb"]["int8"] < found["mb"]["onnx"]
    assert all(0 <= value <= 1 for one in found["figures"].values() for value in one.values())
    spec = scorers.spec_of(found["spec"])
    recipes = {"gaussian, shared": recipe}
    times = times_of(recipes, tmp_path / "graphs", parts, spec, seed=7, peer=None, laps=2)
    assert {form: len(each["gaussian, shared"]) for form, each in times.items()} == dict.fromkeys(
        ("torch", "onnx", "int8"), 2
    )
    judged = {"plates": [Judged(parts.held, tuple(one.unit for one in parts.judged))]}
    ours = {"gaussian, shared": {"plates": [found]}}
    table = Table("gaussian, shared", judged, ours, {}, times)
    assert set(table.musts()) == {"E5.int8_fpr_shift_points", "E5.parity_max_abs"}
    assert table.musts()["E5.parity_max_abs"].value < 1e-3


@pytest.mark.parametrize("quick", [True, False])
def test_a_run_does_the_steps_that_it_announced(
    quick: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write_set(tmp_path / "set", bad=KNOWN + 4)
    taught = []

    def fold(parts: Any, recipe: ScorerRecipe, *, defects: Any, **_: Any) -> dict[str, Any]:
        assert not {one.unit for one in defects} & {one.unit for one in parts.judged}
        taught.append((recipe.method, len(defects)))
        chance = np.random.default_rng(recipe.seed)
        scores = chance.normal(size=len(parts.judged)) + 2 * (np.arange(len(parts.judged)) >= parts.held)
        said = {form: scores.tolist() for form in FORMS}
        figures = {form: {"pixel_auroc": 0.9, "au_pro": 0.8} for form in ("torch", "int8")}
        mb = {"torch": 2.0, "onnx": 2.0, "int8": 1.0}
        return {"scores": said, "parity": 0.0, "figures": figures, "mb": mb, "spec": SPEC}

    def times(recipes: Any, *_: Any, **__: Any) -> dict[str, Any]:
        return {form: {name: [1.0] for name in recipes} for form in ("torch", "onnx", "int8")}

    monkeypatch.setattr(scorers, "parts_of", lambda _, seed, known: parts_of(root, seed=seed, known=known))
    monkeypatch.setattr(scorers, "fold_of", fold)
    monkeypatch.setattr(scorers, "times_of", times)
    monkeypatch.setattr(scorers, "python_of", lambda _: None)
    monkeypatch.setattr(scorers.machine, "data_digest", lambda _: {})
    steps = Counted()
    result = scorers.run(quick=quick, progress=steps)
    assert len(steps.names) == len(set(steps.names)) == steps.expected
    assert set(taught) == {*((method, 0) for method in METHODS), ("supersimple", KNOWN)}
    reported = {f"seed {seed}," for seed in scorers.SEEDS}
    assert quick != any(word in name for name in steps.names for word in reported)
    absent = [row for row in result.rows if "skipped" in row]
    assert len(absent) == 4 and "python -m benchmarks peer anomalib" in str(absent[0]["skipped"])
    assert ("E5.best_image_auroc_magnetic" in result.musts) is not quick
    assert "E5.ms_vs_patchcore" not in result.musts
    best = [note for note in result.notes if note.startswith("the best scorer on magnetic of ")]
    assert (["by kind of defect: dent" in note for note in best] == [True, True]) is not quick
    assert all(KNOWING not in note for note in best[1:])


class Said(NamedTuple):
    """As anomalib's models answer."""

    pred_score: Tensor
    anomaly_map: Tensor


class Brightness(nn.Module):
    """A model of the peer's."""

    def forward(self, frames: Tensor) -> Said:
        return Said(frames.amax((1, 2, 3)), frames.mean(dim=1, keepdim=True))


def test_the_peers_side_judges_what_it_is_given_and_says_what_it_cannot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.random.default_rng(5).normal(size=(anomalib_worker.BATCH + 3, 3, 8, 6)).astype(np.float32)
    np.save(tmp_path / "frames.npy", frames)
    models = anomalib_worker.Models()
    models._models["a"] = Brightness()
    models.judge(name="a", frames=str(tmp_path / "frames.npy"), out=str(tmp_path / "found.npz"))
    with np.load(tmp_path / "found.npz") as found:
        assert np.array_equal(found["scores"], frames.max((1, 2, 3)))
        assert np.allclose(found["maps"], frames.mean(1), atol=1e-6)
    assert models.time(name="a", frames=str(tmp_path / "frames.npy"))["ms"] > 0

    answers = tmp_path / "answers"
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"do": "time", "name": "b", "frames": "nowhere.npy"}\n'))
    with answers.open("w") as file:
        monkeypatch.setattr(anomalib_worker.os, "dup", lambda _: file.fileno())
        monkeypatch.setattr(anomalib_worker.os, "dup2", lambda *_: None)
        monkeypatch.setattr(anomalib_worker.os, "fdopen", lambda *_: file)
        anomalib_worker.main()
    assert json.loads(answers.read_text())["error"].startswith("FileNotFoundError: ")
