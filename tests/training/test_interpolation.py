"""Weights between deployed and retrained: the formula, the share the original line bears, statistics measured anew."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_sdk.errors import ConfigError, FormatError, RangeError
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training import interpolation
from training import retrain as retraining
from training.checkpoint import Checkpoint, digest_of
from training.data.views import Views, batches_of, views_of
from training.evaluate import figures_of, judge
from training.interpolation import (
    FEW,
    SHARES,
    UNMEASURED,
    borne,
    borne_share,
    in_words,
    interpolate,
    weights_of,
)
from training.mentors import Mentor, ask
from training.retrain import retrain
from training.statistics import estimated
from training.strategies import SHIPPED, SHIPPED_WITH_FLAGS, STRATEGIES, Strategy
from training.train import train

FAST = SMALL.model_copy(update={"iterations": 30, "rate": 0.02})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates", pictures=80))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1, shares=(0.3, 0.4, 0.2, 0.1))


@pytest.fixture(scope="module")
def baseline(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(dataset, lines, SMALL.model_copy(update={"iterations": 60}))


@pytest.fixture(scope="module")
def taught(baseline: Checkpoint, lines: Lines) -> Views:
    return ask(baseline, lines.new[0], Mentor(ask_from=0.02), seed=1).taught("masked")


def part(baseline: Checkpoint, lines: Lines, name: str) -> Views:
    line = lines.original
    return views_of(line, line.part(name), baseline.preprocess, grid=baseline.grid, labelled=True)


def shaken(baseline: Checkpoint, amount: float) -> torch.nn.Module:
    """Weights beside the deployed ones, as after a training that forgot."""
    torch.manual_seed(5)
    network = copy.deepcopy(baseline.network)
    with torch.no_grad():
        for p in network.parameters():
            p.add_(amount * p.abs().mean() * torch.randn_like(p))
    return network


# the formula


def test_weights_between_are_the_formula_and_the_ends_are_exact() -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3)
    network = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), norm)
    assert norm.running_mean is not None
    start = weights_of(network)
    end = {name: torch.randn_like(one) for name, one in start.items()}
    means = norm.running_mean.clone()
    for share in (0.0, 0.3, 0.5, 0.8, 1.0):
        interpolate(network, start, end, share)
        for name, found in weights_of(network).items():
            for place in np.ndindex(*found.shape):
                slow = (1 - share) * start[name][place].item() + share * end[name][place].item()
                assert found[place].item() == pytest.approx(slow, abs=1e-6)
        if share in (0, 1):
            assert all(torch.equal(one, (end if share else start)[name]) for name, one in weights_of(network).items())
    assert torch.equal(norm.running_mean, means)


def test_a_share_outside_and_another_network_are_told() -> None:
    network = torch.nn.Linear(2, 2)
    here = weights_of(network)
    with pytest.raises(RangeError, match=r"the share of the retrained weights is 1.2; give one from 0 to 1"):
        interpolate(network, here, here, 1.2)
    with pytest.raises(FormatError, match="are of different networks; retrain from the deployed one"):
        interpolate(network, here, weights_of(torch.nn.Linear(3, 2)), 0.5)
    with pytest.raises(RangeError, match=r"may_lose is -0.1; give an average precision of 0 or more, or none"):
        Strategy(init="baseline", may_lose=-0.1)
    with pytest.raises(ConfigError, match="fresh weights have no way back to the deployed ones"):
        Strategy(may_lose=0.1)


# the share


def test_the_share_is_the_largest_that_loses_no_more_than_it_may() -> None:
    chance = np.random.default_rng(0)
    for _ in range(200):
        curve = {share: float(chance.random()) for share in SHARES}
        before, may_lose = float(chance.random()), float(chance.random() / 2)
        good = [share for share in SHARES if before - curve[share] <= may_lose]
        share, after = borne_share(curve.__getitem__, before, may_lose=may_lose)
        assert share == max(good, default=0.0) and after == curve[share]


def test_the_chosen_share_obeys_the_tolerance_and_a_larger_one_does_not(baseline: Checkpoint, lines: Lines) -> None:
    original, held_out = part(baseline, lines, "train"), part(baseline, lines, "validate")
    assert held_out.defective.sum() >= FEW
    before = digest_of(baseline)
    home, end = baseline.line("original").statistics, weights_of(shaken(baseline, 0.7))

    def precision(share: float) -> float:
        network = copy.deepcopy(baseline.network)
        interpolate(network, weights_of(baseline.network), end, share)
        own = estimated(network, batches_of(original.images, baseline.preprocess, flips=True))
        one = replace(baseline, network=network, lines={})
        state = replace(baseline.line("original"), statistics=own)
        found = figures_of(judge(one.with_line("original", state), "original", held_out), boundary=0.5, rounds=0)
        return float(found["ap"])

    shares = {}
    for may_lose in (0.0, 0.02, 2.0):
        network = shaken(baseline, 0.7)
        held = borne(network, baseline.network, home, original, held_out, baseline.preprocess, may_lose=may_lose)  # type: ignore[arg-type]
        assert held.before is not None and held.after is not None
        assert held.after == pytest.approx(precision(held.share), abs=1e-4)
        assert held.share == 0 or held.before - held.after <= may_lose
        for larger in (share for share in SHARES if share > held.share):
            assert held.before - precision(larger) > may_lose
        between = weights_of(copy.deepcopy(baseline.network))
        slow = {name: torch.lerp(one, end[name], held.share) for name, one in between.items()}
        assert all(torch.equal(one, slow[name]) for name, one in weights_of(network).items())
        shares[may_lose] = held.share
    assert shares[2.0] == SHARES[0] and shares[0.02] < SHARES[0]
    assert digest_of(baseline) == before


def test_where_too_little_is_held_out_the_way_is_fixed_and_said(baseline: Checkpoint, lines: Lines) -> None:
    original, held_out = part(baseline, lines, "train"), part(baseline, lines, "validate")
    defective = held_out.taken(held_out.defective)
    home, network = baseline.line("original").statistics, shaken(baseline, 0.7)
    for less in (defective.taken(np.arange(FEW - 1)), defective):
        held = borne(network, baseline.network, home, original, less, baseline.preprocess, may_lose=0.01)  # type: ignore[arg-type]
        assert (held.share, held.before, held.after) == (UNMEASURED, None, None)
    assert in_words(**held.document()).endswith(  # type: ignore[arg-type]
        ": of its held-out pictures fewer than 10 are defective or none is healthy, too few to measure by."
    )


# inside a retraining


def test_both_lines_have_the_statistics_of_the_weights_between(
    baseline: Checkpoint, lines: Lines, taught: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(interpolation, "SHARES", (0.4, 0.0))
    found = retrain(baseline, lines, FAST, mentored=taught, strategy=Strategy(init="baseline", may_lose=2.0))
    free = retrain(baseline, lines, FAST, mentored=taught, strategy=Strategy(init="baseline"))
    assert found.figures["share_of_retrained"] == 0.4 and "share_of_retrained" not in free.figures
    start, end = weights_of(baseline.network), weights_of(free.network)
    for name, one in weights_of(found.network).items():
        assert torch.equal(one, torch.lerp(start[name], end[name], 0.4))
    images = part(baseline, lines, "train").images
    anew = estimated(found.network, batches_of(images, baseline.preprocess, flips=True))
    for name, one in found.line("original").statistics.items():
        assert torch.allclose(one, anew[name], atol=1e-6)
    moved = [name for name in anew if not torch.allclose(anew[name], free.line("original").statistics[name], atol=1e-3)]
    assert moved
    there, now = found.line("new").statistics, free.line("new").statistics
    assert any(not torch.allclose(there[name], now[name], atol=1e-3) for name in there)


def test_killed_after_the_last_step_it_does_not_train_again(
    baseline: Checkpoint, lines: Lines, taught: Views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = retrain(baseline, lines, FAST, mentored=taught, strategy="masked")
    state = tmp_path / "state.safetensors"

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr(retraining, "borne", killed)
        with pytest.raises(KeyboardInterrupt):
            retrain(baseline, lines, FAST, mentored=taught, strategy="masked", resume=state)
    assert state.exists()
    steps: list[int] = []
    resumed = retrain(
        baseline, lines, FAST, mentored=taught, strategy="masked", resume=state,
        progress=lambda _, step, __, ___: steps.append(step),
    )  # fmt: skip
    assert not steps and not state.exists()
    assert digest_of(resumed) == digest_of(whole)


def test_what_is_shipped_spares_the_original_line_and_controls_do_not() -> None:
    assert all(STRATEGIES[name].may_lose is not None for name in (SHIPPED, SHIPPED_WITH_FLAGS))
    assert all(way.may_lose is None for way in STRATEGIES.values() if way.init == "scratch")
    assert STRATEGIES["masked-free"].may_lose is None
