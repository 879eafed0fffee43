"""The normals' statistics: exact when pooled, and refused when they cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edge_sdk.errors import ConfigError, FormatError, RangeError
from training.moments import (
    Moment,
    Moments,
    load_moments,
    moments_of,
    pooled,
    save_moments,
    statistics_from,
)
from training.networks.cellnet import CellNetwork, batch_norms, cell_network
from training.statistics import statistics_of


def network(width: float = 0.125, seed: int = 0) -> CellNetwork:
    torch.manual_seed(seed)
    return cell_network(width=width, stages=2)


def pictures(count: int, seed: int, *, mean: float = 0.0) -> Tensor:
    return mean + torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_pooled_moments_are_those_of_the_union() -> None:
    net = network()
    lines = [pictures(5, 1), pictures(3, 2, mean=40.0), pictures(9, 3, mean=-7.0)]
    under = statistics_of(net)
    parts = [moments_of(net, [one], under=under) for one in lines]
    whole, union = pooled(parts), moments_of(net, [torch.cat(lines)], under=under)
    assert (whole.pictures, whole.of.keys()) == (17, union.of.keys())
    for name, one in whole.of.items():
        other = union.of[name]
        assert one.count == other.count
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(one.variance, other.variance, rtol=1e-6, atol=1e-6)


def test_lines_whitened_by_their_own_normals_pool_to_the_moments_of_all_that_entered() -> None:
    net = network()
    lines = [pictures(4, 1), pictures(6, 2, mean=3.0)]
    entered: dict[str, list[Tensor]] = {}
    for name, module in batch_norms(net):
        module.register_forward_pre_hook(lambda _, given, name=name: entered.setdefault(name, []).append(given[0]))
    whole = pooled([moments_of(net, [one]) for one in lines])
    for name, seen in entered.items():
        rows = torch.cat([one.double().movedim(1, -1).flatten(0, 2) for one in seen])
        torch.testing.assert_close(whole.of[name].mean, rows.mean(0), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(whole.of[name].variance, rows.var(0, unbiased=False), rtol=1e-6, atol=1e-6)


def test_exchanges_come_to_the_statistics_of_one_line_that_holds_all_pictures() -> None:
    net = network()
    lines = [pictures(4, 1), pictures(6, 2, mean=3.0)]
    at_once = here = statistics_of(net)
    for _ in batch_norms(net):
        at_once = statistics_from(moments_of(net, [torch.cat(lines)], under=at_once), net)
        here = statistics_from(pooled([moments_of(net, [one], under=here) for one in lines]), net)
    again = statistics_from(moments_of(net, [torch.cat(lines)], under=here), net)
    for name, tensor in here.items():
        torch.testing.assert_close(tensor, at_once[name], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(tensor, again[name], rtol=1e-5, atol=1e-5)  # nothing is left to settle


def test_a_variance_loses_no_digits_to_a_large_mean() -> None:
    values = torch.randn(1000, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 1e7
    parts = [Moment(len(one), one.mean(0), one.var(0, unbiased=False)) for one in values.split([1, 299, 700])]
    whole = parts[0].joined(parts[1]).joined(parts[2])
    torch.testing.assert_close(whole.variance, values.var(0, unbiased=False), rtol=1e-6, atol=0)


def test_measuring_leaves_the_network_and_repeats() -> None:
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first, again = (moments_of(net, [pictures(4, 1)]) for _ in range(2))
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in before.items())
    assert all(torch.equal(one.mean, again.of[name].mean) for name, one in first.of.items())
    net.train()
    with torch.no_grad():
        net(pictures(4, 1))
    own = statistics_from(first, net)
    scale = next(module for _, module in batch_norms(net))
    share = (statistics_of(net)["trunk.bn1.running_mean"] - before["trunk.bn1.running_mean"]) / (scale.momentum or 1)
    torch.testing.assert_close(own["trunk.bn1.running_mean"], share, rtol=1e-4, atol=1e-5)


def test_a_file_holds_what_was_measured_and_no_picture(tmp_path: Path) -> None:
    measured = moments_of(network(), [pictures(4, 1)])
    path = tmp_path / "away" / "a.safetensors"
    save_moments(measured, path)
    read = load_moments(path)
    assert (read.weights, read.under, read.pictures) == (measured.weights, "own", 4)
    assert all(torch.equal(one.variance, read.of[name].variance) for name, one in measured.of.items())
    assert path.stat().st_size < 20_000


def test_statistics_of_something_else_are_refused(tmp_path: Path) -> None:
    net = network()
    small, wide, other = (
        moments_of(one, [pictures(4, 1)]) for one in (net, network(width=0.25), network(seed=1))
    )
    with pytest.raises(FormatError, match=r"statistics 1 and 2 are of different architectures \(feature\)"):
        pooled([small, wide])
    with pytest.raises(FormatError, match="statistics 1 and 2 were measured with different weights"):
        pooled([small, other])
    with pytest.raises(FormatError, match="under different normalisations; measure all alike"):
        pooled([small, moments_of(net, [pictures(4, 1)], under=statistics_of(net))])
    with pytest.raises(FormatError, match="of another architecture: trunk.bn1 with 8 channels"):
        statistics_from(small, network(width=0.25))
    with pytest.raises(FormatError, match="with other weights than this checkpoint's"):
        statistics_from(other, net)
    with pytest.raises(RangeError, match="no statistics are given to pool"):
        pooled([])
    with pytest.raises(ConfigError, match="there is no file .*gone"):
        load_moments(tmp_path / "gone")
    (tmp_path / "text").write_text("no statistics")
    with pytest.raises(FormatError, match="holds no statistics of a line"):
        load_moments(tmp_path / "text")


def test_statistics_that_count_nothing_are_refused(tmp_path: Path) -> None:
    net = network()
    measured = moments_of(net, [pictures(4, 1)])
    nothing = replace(measured, pictures=0, of={n: Moment(0, m.mean, m.variance) for n, m in measured.of.items()})
    with pytest.raises(RangeError, match="statistics 2 of 2 count no picture; measure some, or leave them out"):
        pooled([measured, nothing])
    save_moments(nothing, tmp_path / "none.safetensors")
    with pytest.raises(RangeError, match=r"none\.safetensors counts no picture"):
        load_moments(tmp_path / "none.safetensors")
    one = measured.of["trunk.bn1"]
    below = Moment(one.count, one.mean, -one.variance)
    wrong = Moments(measured.weights, "own", 4, {**measured.of, "trunk.bn1": below})
    save_moments(wrong, tmp_path / "wrong.safetensors")
    with pytest.raises(RangeError, match="trunk.bn1 has a variance below 0"):
        load_moments(tmp_path / "wrong.safetensors")
    lacking = replace(measured, of={name: one for name, one in measured.of.items() if name != "feature"})
    save_moments(lacking, tmp_path / "lacking.safetensors")
    with pytest.raises(FormatError, match=r"lacking\.safetensors holds no moments of the feature, .*; measure again"):
        load_moments(tmp_path / "lacking.safetensors")
    with pytest.raises(ConfigError, match="there is no picture to measure"):
        moments_of(net, [])
    with pytest.raises(ConfigError, match="the network has no normalisation"):
        moments_of(nn.Conv2d(3, 1, 1), [])  # type: ignore[arg-type]
