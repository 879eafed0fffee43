"""Several processes train what one would: the same losses, the same weights.  Here threads stand in for processes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError
from tests.training.drawn import write_set
from training import team as teams
from training.data.streams import Stream
from training.data.views import views_of
from training.fitting import Terms, backbone, fit, loss_of
from training.losses.masked import masked_bce
from training.losses.supervised import supervised_loss
from training.networks.cellnet import CellNetwork, cell_network
from training.team import Team, dealt, device_of, joined_norm

CPU = torch.device("cpu")


@dataclass
class Post:
    """What Fabric does between processes, between threads."""

    size: int
    slots: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.slots = [None] * self.size
        self._barrier = threading.Barrier(self.size, timeout=60)

    def exchanged(self, rank: int, value: Any) -> list[Any]:
        self.slots[rank] = value
        self._barrier.wait()
        found = list(self.slots)
        self._barrier.wait()
        return found


@dataclass
class Member:
    """One thread's end of it."""

    post: Post
    rank: int

    def all_reduce(self, tensor: Tensor, *, reduce_op: str) -> Tensor:
        assert reduce_op == "sum"
        first, *others = self.post.exchanged(self.rank, tensor)
        return sum(others, start=first.clone())

    def broadcast(self, value: Any) -> Any:
        return self.post.exchanged(self.rank, value)[0]


def together(size: int, work: Callable[[Team], Any], dtype: torch.dtype = torch.float32) -> list[Any]:
    """What every member of a team comes to."""
    post = Post(size)

    def one(rank: int) -> Any:
        member = Team(CPU, rank, size, dtype, Member(post, rank)) if size > 1 else Team(CPU, dtype=dtype)
        token = teams._NOW.set(member)
        try:
            return work(member)
        finally:
            teams._NOW.reset(token)

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


def small() -> CellNetwork:
    torch.manual_seed(0)
    return cell_network(width=0.125, stages=2)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_team_of_one_normalises_as_torch_does(momentum: float | None) -> None:
    ours, theirs = nn.BatchNorm2d(4, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    x = (torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(1)) * 3 + 100).requires_grad_()
    y = x.detach().clone().requires_grad_()
    weight = torch.randn(6, 4, 3, 5, generator=torch.Generator().manual_seed(2))
    for _ in range(2):
        (joined_norm(ours, Team(CPU), x) * weight).sum().backward()
        (theirs(y) * weight).sum().backward()
    torch.testing.assert_close(x.grad, y.grad, atol=1e-4, rtol=1e-4)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(joined_norm(ours.eval(), Team(CPU), x), theirs.eval()(y), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("size", "batch"), [(2, 6), (2, 5), (3, 4), (3, 2)])
def test_a_team_trains_what_one_process_trains(size: int, batch: int) -> None:
    """Also where only one process's pictures have known cells, and where one has no picture at all.

    In double precision, where what is left is no rounding that training made larger.
    """
    chance = np.random.default_rng(0)
    frames = torch.from_numpy(chance.normal(size=(8, batch, 3, 32, 32)).astype(np.float64))
    truth = torch.from_numpy((chance.random((8, batch, 1, 4, 4)) < 0.3).astype(np.float64))
    known = torch.zeros_like(truth)
    known[:, ::2] = torch.from_numpy((chance.random((8, (batch + 1) // 2, 1, 4, 4)) < 0.5).astype(np.float64))

    def trained(_: Team) -> tuple[CellNetwork, list[dict[str, float]]]:
        network, places = small_ones.pop(), iter(range(8))

        def losses(done: float) -> Terms:
            n = next(places)
            maps = network.features(frames[n])
            assert len(maps) == batch
            weak = masked_bce(network.head(maps), truth[n], known[n])
            return {"weak": weak, "moments": (maps.mean(0) - maps.detach().mean(0) ** 2).square().mean()}

        history = fit(
            {"network": network}, losses, iterations=8, rate=1e-2, weight_decay=0.0, averaging=0.5,
            chance=np.random.default_rng(0), measure_every=3,
        )  # fmt: skip
        return network, history

    small_ones = [small() for _ in range(size + 1)]
    (alone, curve), *_ = together(1, trained, torch.float64)
    for network, history in together(size, trained, torch.float64):
        assert [set(entry) for entry in history] == [set(entry) for entry in curve]
        for entry, wanted in zip(history, curve, strict=True):
            assert entry == pytest.approx(wanted, abs=1e-9)
        torch.testing.assert_close(network.state_dict(), alone.state_dict(), atol=1e-9, rtol=0)
        assert not any("forward" in module.__dict__ for module in network.modules())
    assert any(not torch.equal(p, q) for p, q in zip(alone.parameters(), small().parameters(), strict=True))


def test_each_process_works_on_its_own_pictures_alone() -> None:
    seen: dict[int, list[int]] = {}

    def work(member: Team) -> Tensor:
        network = nn.Module()
        network.trunk = nn.Identity()
        network.trunk.forward = lambda x: (seen.setdefault(member.rank, []).append(len(x)), x)[1]  # type: ignore[assignment]
        made = member.pictures((5, 2, 2, 3), lambda n: np.full((2, 2, 3), 10 * member.rank + n, np.uint8))
        assert made[:, 0, 0, 0].tolist() == [0, 11, 2, 13, 4]
        with dealt([network], member):
            return network.trunk(torch.arange(5.0)[:, None])

    for found in together(2, work):
        assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert seen == {0: [3], 1: [2]}


def test_the_pictures_of_a_batch_do_not_hang_on_the_team(tmp_path: Path) -> None:
    from edge_sdk.quality.datasets import lines_of, load_dataset
    from edge_sdk.vision.preprocess import PreprocessSpec

    line = lines_of(load_dataset(write_set(tmp_path / "plates", pictures=12)), gap="lamp", seed=1).original
    spec = PreprocessSpec(width=64, height=64)
    views = views_of(line, line.train, spec, grid=(4, 4), labelled=True)

    def drawn(_: Team) -> list[Tensor]:
        stream = Stream(views, spec, batch=5, jitter=True, chance=np.random.default_rng(7))
        stream.next()
        batch = stream.next()
        return [batch.frame, batch.truth, batch.known, batch.maximum, batch.shown]

    (alone,) = together(1, drawn)
    for found in together(2, drawn):
        assert all(torch.equal(one, other) for one, other in zip(found, alone, strict=True))


def test_a_gradient_is_measured_a_term_and_below_the_head() -> None:
    network = small()
    frame = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    truth = torch.ones(4, 1, 4, 4)
    before = copy.deepcopy(network).train()

    def losses(done: float) -> Terms:
        cells = network(frame).cells
        supervised = supervised_loss(cells, truth, truth, torch.zeros(4, 1))
        bias = network.head.bias
        assert bias is not None
        return {"supervised": supervised, "twice": 2 * supervised, "head": bias.square().sum()}

    history = fit(
        {"network": network}, losses, iterations=3, rate=1e-3, weight_decay=0.0, averaging=0.0,
        chance=np.random.default_rng(0), measure_every=2,
    )  # fmt: skip
    supervised_loss(before(frame).cells, truth, truth, torch.zeros(4, 1)).backward()
    squares = [p.grad.square().sum() for p in backbone(before) if p.grad is not None]
    wanted = float(torch.stack(squares).sum().sqrt())
    assert wanted > 0
    assert history[0]["grad_supervised"] == pytest.approx(wanted, rel=1e-4)
    assert history[0]["grad_twice"] == pytest.approx(2 * wanted, rel=1e-4)
    assert history[0]["grad_head"] == 0
    assert [any(name.startswith("grad_") for name in entry) for entry in history] == [True, False, True]
    assert loss_of(history[0]) == pytest.approx(sum(history[0][name] for name in ("supervised", "twice", "head")))


def test_measuring_gradients_changes_nothing_that_is_trained() -> None:
    found = []
    for every in (0, 1):
        network = small()
        frame = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))

        def losses(done: float, network: CellNetwork = network, frame: Tensor = frame) -> Terms:
            return {"one": network(frame).cells.square().mean()}

        history = fit(
            {"network": network}, losses, iterations=3, rate=1e-2, weight_decay=0.0, averaging=0.0,
            chance=np.random.default_rng(0), measure_every=every,
        )  # fmt: skip
        found.append((network.state_dict(), [entry["one"] for entry in history]))
        assert ("grad_one" in history[0]) == bool(every)
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert device_of("cpu") == CPU
    with pytest.raises(ConfigError, match="device is cuda, but no CUDA GPU is to be seen here; give cpu"):
        device_of("cuda")
    for name in ("gpu", "cuda:x", "cpu:1", ""):
        with pytest.raises(ConfigError, match=f"there is no device named '{name}'; give cpu, cuda or, of several GPUs"):
            device_of(name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    assert device_of("cuda") == torch.device("cuda")
    with pytest.raises(ConfigError, match="device is cuda:1, but there is only cuda:0; give one of these, or cpu"):
        device_of("cuda:1")
