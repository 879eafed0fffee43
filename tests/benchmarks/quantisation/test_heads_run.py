"""Q4 from end to end: drawn plates judged by both heads in every form, and what a full run states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.adaptation.scorers_fold import FORMS, Parts, parts_of
from benchmarks.quantisation import heads
from tests.benchmarks.made import Counted
from tests.benchmarks.plates import write_set
from training.networks.mobilenet import MobileNetV2
from training.scorers.fitting import ScorerRecipe


@pytest.fixture
def plates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The one set that there is, of 24 good plates and four dented ones."""
    monkeypatch.setattr(heads, "SHARED", tmp_path)
    monkeypatch.setattr(heads, "SETS", {"hazelnut": "plates"})
    return write_set(tmp_path / "plates", good=24)


def shifted(scores: dict[str, list[float]], first: list[bool], form: str) -> tuple[int, int]:
    """Good parts that only INT8 stops, and only FP32, part by part."""
    up = down = 0
    for n, own in enumerate(first):
        others = [scores["onnx"][m] for m, one in enumerate(first) if one != own]
        threshold = np.quantile(others, 0.95)
        before, after = scores["onnx"][n] > threshold, scores[form][n] > threshold
        up, down = up + int(after and not before), down + int(before and not after)
    return up, down


@pytest.mark.slow
def test_both_heads_are_fitted_quantised_and_judged_at_the_other_halfs_threshold(
    plates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(122)
    weights = tmp_path / "random.safetensors"
    save_file(MobileNetV2().state_dict(), weights)
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(weights))
    steps = Counted()
    result = heads.run(quick=True, progress=steps)
    assert steps.names == [f"hazelnut, seed 100, {head}" for head in heads.HEADS] and steps.expected == 2
    assert result.musts == {} and result.data["plates"]["images"] == 28 + 4
    parts = parts_of(plates, seed=100)
    first = heads.halves("hazelnut", parts.judged[: parts.held], seed=100).first.tolist()
    rows = {str(row["name"]): row for row in result.rows}
    said = [steps.found[name]["scores"] for name in steps.names]
    assert said[0]["onnx"] != said[1]["onnx"]
    for scores, title in zip(said, heads.HEADS.values(), strict=True):
        for form, where in heads.RENDERINGS.items():
            assert scores[form][:12] != scores["onnx"][:12]
            up, down = shifted(scores, first, form)
            for name in (f"{title}, {where}", f"hazelnut: {title}, {where}"):
                row = rows.pop(name)
                assert (row["up"], row["down"], row["judged"]) == (up, down, 12)
                assert row["shift_points"] == pytest.approx(100 * (up - down) / 12, abs=1e-3)
                # a dent is far from every good plate, whatever the rendering
                assert row["auroc_fp32"] == 1.0 and row.get("auroc_int8", 1.0) == 1.0
    assert list(rows) == [f"hazelnut: {title}, AUROC, CPU - FP32" for title in heads.HEADS.values()]


@pytest.mark.parametrize("enough", [True, False])
def test_a_full_run_states_the_largest_shift_where_enough_good_parts_were_judged(
    plates: Path, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    def fold(parts: Parts, recipe: ScorerRecipe) -> dict[str, Any]:
        assert parts.judged == parts_of(plates, seed=recipe.seed).judged
        scores = np.arange(len(parts.judged), dtype=np.float64)
        said = {form: scores.tolist() for form in FORMS}
        said["int8_trt"] = (scores[: parts.held] + (100 if recipe.method == "patchcore" else 0)).tolist()
        return {"scores": said}

    monkeypatch.setattr(heads, "fold_of", fold)
    monkeypatch.setattr(heads, "FEWEST", 12 if enough else 13)
    steps = Counted()
    result = heads.run(quick=False, progress=steps)
    assert len(steps.names) == len(set(steps.names)) == steps.expected == 2 * len(heads.SEEDS)
    assert all(seed < 100 for seed in heads.SEEDS) and result.settings["seeds"] == list(heads.SEEDS)
    rows = {str(row["name"]): row for row in result.rows}
    assert rows["PatchCore, CPU"]["shift_points"] == rows["Mahalanobis, TensorRT"]["shift_points"] == 0
    moved = rows["PatchCore, TensorRT"]
    assert (moved["judged"], moved["down"]) == (24, 0)
    assert moved["up"] == 22 and moved["shift_points"] == pytest.approx(100 * 22 / 24, abs=1e-3)
    musts = {key: value.value for key, value in result.musts.items()}
    assert musts == ({"Q4.int8_fpr_shift_points": moved["shift_points"]} if enough else {})
