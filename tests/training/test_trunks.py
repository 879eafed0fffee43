"""Which trunk a training starts from: judged on groups of the original line that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import average_precision_score, roc_auc_score

from edge_sdk.quality.datasets import Dataset, lines_of, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.drawn import SMALL, write_set
from training import train as training
from training.data.views import Views, views_of
from training.lines import predicted
from training.networks.cellnet import CellNetwork, cell_network
from training.networks.mobilenet import MobileNetV2
from training.recipe import Recipe
from training.statistics import statistics_of
from training.train import train
from training.trunks import Start, best_trunk, held_out_score

SPEC = PreprocessSpec(width=64, height=64)
SLIM = Start({"trunk": "resnet18", "classes": 1, "width": 0.125, "stages": 3, "pooled": True}, None)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates"))


def seen(dataset: Dataset, grid: tuple[int, int] = (1, 1)) -> Views:
    line = lines_of(dataset, gap="lamp", seed=1).original
    return views_of(line, line.train, SPEC, grid=grid, labelled=True)


def test_no_group_is_on_both_sides_and_each_side_has_both_kinds(dataset: Dataset) -> None:
    views = seen(dataset)
    views = replace(views, units=tuple(f"g{n // 2}" for n in range(len(views))))
    trained: list[Views] = []
    best_trunk({"a": views}, {"a": SLIM}, {"a": SPEC}, lambda net, some, spec, what: trained.append(some), seed=0)
    one, other = trained
    assert not set(one.units) & set(other.units)
    assert sorted(one.names + other.names) == sorted(views.names)
    for some in trained:
        assert some.defective.any() and not some.defective.all()


def test_groups_that_cannot_be_dealt_choose_nothing(dataset: Dataset) -> None:
    views = replace(seen(dataset), units=("all",) * len(seen(dataset)))
    assert best_trunk({"a": views}, {"a": SLIM}, {"a": SPEC}, lambda *_: None, seed=0) == {}


def test_the_score_is_of_cells_where_a_map_is_known_else_of_pictures(dataset: Dataset) -> None:
    torch.manual_seed(0)
    frozen = cell_network(width=0.125, frozen=True).eval()
    views = seen(dataset, grid=(4, 4))
    logits, _ = predicted(frozen, statistics_of(frozen), views.images, SPEC)
    wanted = average_precision_score(views.truth.ravel(), logits.ravel())
    assert held_out_score(frozen, views, views, SPEC) == pytest.approx(wanted, abs=1e-6)
    bare = replace(views, truth=np.zeros_like(views.truth))
    wanted = roc_auc_score(views.defective, logits.max(axis=(1, 2, 3)))
    assert held_out_score(frozen, views, bare, SPEC) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(("slim", "taken"), [(0.80, "mobilenetv2"), (0.90, "resnet18")])
def test_the_better_trunk_is_taken_and_both_scores_are_kept(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slim: float, taken: str
) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(MobileNetV2(stages=5).state_dict(), path)
    monkeypatch.setenv("EDGE_SDK_MOBILENETV2", str(path))
    asked: list[set[str]] = []

    def said(views: dict[str, Views], *_: object, seed: int) -> dict[str, float]:
        asked.append(set(views))
        return {"mobilenetv2": 0.79, "slim": slim}

    monkeypatch.setattr(training, "best_trunk", said)
    recipe = Recipe(trunk="auto", width=0.125, side_px=64, iterations=2, batch=4)
    found = train(dataset, lines_of(dataset, gap="lamp", seed=1), recipe)
    assert asked == [{"mobilenetv2", "slim"}]
    assert found.arguments["trunk"] == taken
    assert found.figures["held_out_slim"] == slim and found.figures["held_out_mobilenetv2"] == 0.79
    named = train(dataset, lines_of(dataset, gap="lamp", seed=1), SMALL.model_copy(update={"iterations": 2}))
    assert "held_out_slim" not in named.figures and len(asked) == 1


def test_each_trunk_is_trained_on_one_half_and_judged_on_the_other(dataset: Dataset) -> None:
    views = seen(dataset)
    what: list[str] = []

    def learns(network: CellNetwork, some: Views, spec: PreprocessSpec, told: str) -> None:
        what.append(told)
        training._fitted(network, some, spec, SMALL, told, lambda *_: None)

    found = best_trunk({"slim": views}, {"slim": SLIM}, {"slim": SPEC}, learns, seed=0)
    assert what == ["choose trunk: slim 1 of 2", "choose trunk: slim 2 of 2"]
    assert found["slim"] > 0.8
