"""Everything that a step of training touches lies on the team's device.

The device ``meta`` stands in for a GPU: it has shapes but no numbers, and refuses a tensor of another device.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training import team as teams
from training.checkpoint import Checkpoint
from training.data.views import views_of
from training.fitting import Terms
from training.methods import METHODS, Task
from training.retrain import retrain
from training.strategies import STRATEGIES
from training.team import Team
from training.train import train

META = torch.device("meta")
MODULES = ("train", "retrain", "methods.joint", "methods.adda")


class Stepped(Exception):
    """A step was taken."""


def one_step(modules: Mapping[str, nn.Module], losses: Callable[[float], Terms], **_: Any) -> None:
    for module in modules.values():
        module.to(META)
    with META:
        terms = losses(0.3)
        assert {name: term.device for name, term in terms.items()} == dict.fromkeys(terms, META)
        sum(terms.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
    assert any(p.grad is not None and p.grad.device == META for p in modules["network"].parameters())
    raise Stepped


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Lines, Checkpoint]:
    dataset = load_dataset(write_set(tmp_path_factory.mktemp("devices") / "plates"))
    lines = lines_of(dataset, gap="lamp", seed=1)
    return dataset, lines, train(dataset, lines, SMALL.model_copy(update={"iterations": 2}))


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, made: object) -> Iterator[None]:
    for name in MODULES:
        monkeypatch.setattr(sys.modules[f"training.{name}"], "fit", one_step)
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda self: True)  # "is there any?" has no answer on meta
    token = teams._NOW.set(Team(META))
    yield
    teams._NOW.reset(token)


def test_source_training(made: tuple[Dataset, Lines, Checkpoint], elsewhere: None) -> None:
    with pytest.raises(Stepped):
        train(made[0], made[1], SMALL)


@pytest.mark.parametrize("method", [name for name in METHODS if name not in ("source", "adabn")])
def test_methods(made: tuple[Dataset, Lines, Checkpoint], method: str, monkeypatch: pytest.MonkeyPatch,
                 elsewhere: None) -> None:
    _, lines, source = made
    # which pictures are drawn more often is judged before the training, where numbers are needed
    monkeypatch.setattr(sys.modules["training.methods.joint"], "rebalanced", lambda task: task.new, raising=False)
    monkeypatch.setattr(sys.modules["training.methods.adda"], "rebalanced", lambda task: task.new, raising=False)
    old, new = (
        views_of(line, line.train, source.preprocess, grid=source.grid, labelled=known)
        for line, known in ((lines.original, True), (lines.new[0], False))
    )
    with pytest.raises(Stepped):
        METHODS[method](Task(source, lines.original, old, new, SMALL))


@pytest.mark.parametrize("strategy", ["masked+omnia", "masked+dann", "masked+distil", "scratch-unbalanced", "longer"])
def test_strategies(made: tuple[Dataset, Lines, Checkpoint], strategy: str, elsewhere: None) -> None:
    _, lines, source = made
    line = lines.new[0]
    taught = views_of(line, line.mentor, source.preprocess, grid=source.grid, labelled=True)
    assert strategy in STRATEGIES and taught.truth.dtype == np.float32
    with pytest.raises(Stepped):
        retrain(source, lines, SMALL, mentored=taught, strategy=strategy)
