"""The recipe of the networks that INT8 is judged on: seeded, in whole groups, and it learns."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.quantisation.nets import NETS, SHARED, inputs_of, parts_of, small, trained, truth_of
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, load_dataset
from tests.requirements import need

torch = pytest.importorskip("torch")
torch.set_num_threads(1)


def test_no_group_is_in_two_parts_and_the_seed_deals_them(drawn: Dataset) -> None:
    parts = parts_of(drawn, seed=100)
    groups = [{one.unit for one in part} for part in (parts.training, parts.calibrating, parts.held_out)]
    assert all(groups) and len(set.union(*groups)) == sum(map(len, groups)) == 24
    assert parts_of(drawn, seed=100) == parts != parts_of(drawn, seed=101)


@pytest.mark.parametrize("name", list(NETS))
def test_every_net_is_trained_to_the_same_weights_by_the_same_seed(name: str, drawn: Dataset) -> None:
    net = replace(small(NETS[name]), iterations=3)
    parts = parts_of(drawn, seed=100)
    first, second, other = (trained(net, parts.training, parts.classes, seed=seed) for seed in (100, 100, 101))
    weights = [torch.cat([p.flatten() for p in one.parameters()]) for one in (first, second, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.slow
def test_the_unet_finds_what_it_was_trained_to_find(drawn: Dataset) -> None:
    net = replace(small(NETS["unet"]), iterations=60)
    parts = parts_of(drawn, seed=100)
    network = trained(net, parts.training, parts.classes, seed=100)
    overlap = both = 0
    for sample in parts.held_out:
        truth = truth_of(net, sample, parts.classes)
        assert truth is not None
        with torch.no_grad():
            found = network(torch.from_numpy(inputs_of(net, sample)))["cells"][0, 0].numpy() > 0
        overlap, both = overlap + 2 * (found & (truth > 0.5)).sum(), both + found.sum() + (truth > 0.5).sum()
    assert overlap / both > 0.5


def test_a_set_with_healthy_pictures_is_judged_by_that_and_another_by_kinds_of_defects(drawn: Dataset) -> None:
    net = NETS["resnet18"]
    judged = parts_of(drawn, seed=100).classes
    assert {one.label: int(truth_of(net, one, judged)) for one in drawn.samples} == {"free": 0, "scratch": 1, "spot": 1}  # type: ignore[arg-type]
    wrong = replace(drawn, samples=tuple(one for one in drawn.samples if not one.healthy))
    kinds = parts_of(wrong, seed=100).classes
    assert {one.label: int(truth_of(net, one, kinds)) for one in wrong.samples} == {"scratch": 0, "spot": 1}  # type: ignore[arg-type]


def test_pictures_that_say_nothing_are_refused(drawn: Dataset) -> None:
    healthy = [one for one in drawn.samples if one.healthy]
    with pytest.raises(DatasetError, match="none of the 24 pictures says what ResNet-18 learns; give labels or masks"):
        trained(small(NETS["resnet18"]), healthy, ("scratch", "spot"), seed=100)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETS))
def test_a_moment_on_the_real_pictures(name: str) -> None:
    net = replace(small(NETS[name]), iterations=2)
    need(f"../shared/data/{net.folder.name}", found=SHARED.joinpath(net.folder.name).is_dir())
    parts = parts_of(load_dataset(net.folder), seed=100)
    network = trained(net, parts.training[::10], parts.classes, seed=100)
    with torch.no_grad():
        found = network(torch.from_numpy(inputs_of(net, parts.held_out[0])))
    cells = found["cells"] if isinstance(found, dict) else found.cells
    assert cells.shape == ((1, 1, 64, 64) if net.task == "segment" else (1, len(parts.classes), 1, 1))
