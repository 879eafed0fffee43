"""Networks of other kinds, exported and fine-tuned: a U-Net, and one that normalises by groups."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.cli import app as calibration_app
from export.cli import app
from tests.export.conftest import call


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factory", "arguments"),
    [
        ("benchmarks.quantisation.networks:UNet", {"width": 4, "levels": 3}),
        ("tests.export.networks:grouped", {}),
    ],
)
def test_it_is_fine_tuned_and_comes_to_no_harm(
    factory: str, arguments: dict[str, int], typical: Path, tmp_path: Path
) -> None:
    recipe = {"schema": "module/1", "module": factory, "arguments": arguments, "classes": ["spot"],
              "preprocess": {"width": 32, "height": 32}}  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe), encoding="utf-8")
    model, out = tmp_path / "model.onnx", ""
    for command, words in (
        (app, ("onnx", tmp_path / "recipe.yaml", "--out", tmp_path)),
        (calibration_app, ("ranges", model, "--pictures", typical, "--out", tmp_path, "--max", 40)),
        (app, ("qat", model, "--pictures", typical, "--out", tmp_path, "--epochs", 2, "--json")),
    ):
        code, out, talk = call(command, *words)
        assert code == 0, talk
    said = json.loads(out)
    assert len(said["losses"]) == 2 and said["pictures"] == 48
    for kind in ("trt", "cpu"):
        assert said[kind]["before_db"] > 15 and said[kind]["after_db"] > said[kind]["before_db"] - 1
