"""Every adaptation method on a tiny drawn set: what it changes, and what it leaves."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edge_sdk.errors import ConfigError, DatasetError, FormatError
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from export.exporting import export_checkpoint
from tests.training.drawn import SMALL, write_set
from training.adapt import adapt
from training.checkpoint import Checkpoint, digest_of, load_checkpoint, save_checkpoint
from training.data.views import Views, normalised, views_of
from training.fitting import NotFinite
from training.jointly import adapt_jointly
from training.lines import predicted
from training.methods import METHODS, Adapted, Task
from training.methods.dann import _segmenting
from training.methods.rebalancing import rebalanced
from training.retrain import retrain
from training.statistics import load_statistics, own_weights, statistics_of, with_statistics
from training.train import train

BRIEF = SMALL.model_copy(update={"iterations": 12})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates"))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1)


@pytest.fixture(scope="module")
def source(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(dataset, lines, BRIEF)


def seen(source: Checkpoint, lines: Lines) -> tuple[Views, Views]:
    spec, grid = source.preprocess, source.grid
    old = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    return old, views_of(lines.new[0], lines.new[0].train, spec, grid=grid, labelled=False)


def run(method: str, source: Checkpoint, lines: Lines) -> Adapted:
    old, new = seen(source, lines)
    return METHODS[method](Task(source, lines.original, old, new, BRIEF))


@pytest.mark.parametrize("method", METHODS)
def test_a_method_leaves_its_source_and_is_repeatable(method: str, source: Checkpoint, lines: Lines) -> None:
    before = digest_of(source)
    one, again = run(method, source, lines), run(method, source, lines)
    assert digest_of(source) == before
    own = one.network.state_dict()
    assert all(torch.equal(tensor, again.network.state_dict()[name]) for name, tensor in own.items())
    assert all(torch.equal(tensor, again.statistics[name]) for name, tensor in one.statistics.items())
    assert all(np.isfinite(list(terms.values())).all() for terms in one.history)
    assert len(one.history) == (0 if method in ("source", "adabn") else BRIEF.iterations // 2)


@pytest.mark.parametrize(("method", "term"), [("mmd", "discrepancy"), ("coral", "correlation"), ("dann", "domain")])
def test_joint_training_changes_the_shared_weights(
    method: str, term: str, source: Checkpoint, lines: Lines
) -> None:
    found = run(method, source, lines)
    assert set(found.history[1]) == {"supervised", term}
    assert not torch.equal(found.network.head.weight, source.network.head.weight)
    assert set(found.statistics) == set(statistics_of(source.network))
    assert found.original.method == method


def test_adda_gives_the_new_line_an_encoder_and_leaves_the_original_its_own(
    source: Checkpoint, lines: Lines
) -> None:
    found = run("adda", source, lines)
    assert set(found.history[1]) == {"discriminator", "mapping"}
    assert found.network is source.network
    assert found.original is source.line("original")
    weights = source.network.state_dict()
    assert not any(name.startswith("head.") for name in found.statistics)
    trained = [name for name in found.statistics if name.endswith("conv1.weight")]
    assert trained and all(not torch.equal(found.statistics[name], weights[name]) for name in trained)


@pytest.mark.slow
def test_an_encoder_of_its_own_survives_the_disk_and_is_exported(
    source: Checkpoint, dataset: Dataset, lines: Lines, tmp_path: Path
) -> None:
    adapted = adapt(source, dataset, lines, BRIEF, methods=["adda"]).chosen
    save_checkpoint(adapted, tmp_path / "adda")
    again = load_checkpoint(tmp_path / "adda")
    assert digest_of(again) == digest_of(adapted)
    _, new = seen(source, lines)
    logits = {
        name: predicted(again.network, again.line(name).statistics, new.images[:2], again.preprocess)[0]
        for name in ("original", "new")
    }
    kept, _ = predicted(source.network, source.line("original").statistics, new.images[:2], source.preprocess)
    assert np.array_equal(logits["original"], kept)
    assert not np.allclose(logits["new"], kept, atol=1e-3)
    for name, wanted in logits.items():
        export_checkpoint(tmp_path / "adda", line=name, out=tmp_path / name)
        session = onnxruntime.InferenceSession(tmp_path / name / "model.onnx")
        frame = normalised(new.images[:2], again.preprocess).numpy()
        cells = session.run(["cells"], {"frame": frame})[0]
        assert np.abs(cells - wanted).max() < 1e-3


def test_what_belongs_to_another_network_is_told(source: Checkpoint, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="the line overrides trunk.none, which the network does not have"):
        load_statistics(source.network, {"trunk.none": torch.zeros(1)})
    weight = source.network.head.weight
    with pytest.raises(FormatError, match=r"the line's head.weight is \(1,\), but the network's is \(1, 32, 1, 1\)"):
        load_statistics(source.network, {"head.weight": torch.zeros(1)})
    before = weight.detach().clone()
    with with_statistics(source.network, {"head.weight": torch.zeros_like(weight)}):
        assert not source.network.head.weight.any()
    assert torch.equal(source.network.head.weight, before)


def test_a_line_of_other_shapes_is_not_loaded(source: Checkpoint, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_checkpoint(source, tmp_path / "one")
    path = tmp_path / "one" / "lines" / "original.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "head.weight": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match=r"line original has head.weight as \(2,\), but the network's is"):
        load_checkpoint(tmp_path / "one")


def test_rebalanced_batches_are_half_of_what_is_thought_defective(source: Checkpoint, lines: Lines) -> None:
    old, new = seen(source, lines)
    task = Task(source, lines.original, old, new, BRIEF)
    guess = rebalanced(task)
    assert 0 < guess.defective.sum() < len(new)
    assert np.array_equal(guess.images, new.images) and not guess.truth.any() and not guess.known.any()
    statistics = METHODS["adabn"](task).statistics
    logits, _ = predicted(source.network, statistics, new.images, source.preprocess)
    strongest = np.where(new.valid, logits.max(axis=1), -np.inf).max(axis=(1, 2))
    assert strongest[guess.defective].min() >= strongest[~guess.defective].max()
    told = BRIEF.model_copy(update={"rebalance": True})
    for method in ("mmd", "adda"):
        found = METHODS[method](Task(source, lines.original, old, new, told))
        plain = METHODS[method](task)
        assert found.history != plain.history


def test_one_model_for_several_lines_has_one_set_of_tensors(
    source: Checkpoint, dataset: Dataset, lines: Lines
) -> None:
    several = replace(lines, new=(lines.new[0], replace(lines.new[0], name="new2", gap="gamma")))
    found = adapt_jointly(source, several, BRIEF, method="adabn")
    assert set(found.lines) == {"original", "new", "new2"}
    one, other, home = (found.line(name).statistics for name in ("new", "new2", "original"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    assert any(not torch.equal(tensor, home[name]) for name, tensor in one.items())
    alone = adapt(source, dataset, lines, BRIEF, methods=["adabn"]).chosen.line("new").statistics
    assert any(not torch.allclose(tensor, one[name]) for name, tensor in alone.items())
    whole = adapt_jointly(source, several, BRIEF, method="dann", with_original=True)
    assert all(
        torch.equal(tensor, whole.line("original").statistics[name])
        for name, tensor in whole.line("new2").statistics.items()
    )


def test_what_cannot_be_adapted_to_jointly_is_told(source: Checkpoint, lines: Lines) -> None:
    with pytest.raises(ConfigError, match="there is no method named 'magic'; give one of source, adabn"):
        adapt_jointly(source, lines, BRIEF, method="magic")
    with pytest.raises(ConfigError, match="there is no new line; name the domains of one or more"):
        adapt_jointly(source, replace(lines, new=()), BRIEF)
    empty = replace(lines, new=(replace(lines.new[0], train=()),))
    with pytest.raises(DatasetError, match="line new has no unlabelled pictures in part train"):
        adapt_jointly(source, empty, BRIEF)
    single = replace(lines, new=(replace(lines.new[0], train=lines.new[0].train[:1]),))
    with pytest.raises(DatasetError, match="have 1 unlabelled picture together; give at least 2"):
        adapt_jointly(source, single, BRIEF)


def test_the_original_line_is_0_and_the_new_one_1_whatever_was_drawn(source: Checkpoint) -> None:
    align, helpers = _segmenting(source.network)
    here, there = torch.randn(3, source.network.channels, 2, 2), torch.randn(2, source.network.channels, 2, 2)
    segmenter = helpers["segmenter"].eval()
    logits = segmenter(torch.cat([here, there]))
    wanted = torch.zeros_like(logits)
    wanted[3:] = 1
    for _ in range(2):
        found = align(here, there, 0.5)
        assert found.item() == pytest.approx(
            torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted).item(), rel=1e-5
        )


def test_retraining_goes_on_from_a_lines_own_encoder(source: Checkpoint, dataset: Dataset, lines: Lines) -> None:
    adapted = adapt(source, dataset, lines, BRIEF, methods=["adda"]).chosen
    still = BRIEF.model_copy(update={"rate": 1e-9, "iterations": 2})
    found = retrain(adapted, lines, still, strategy="full-labels")
    encoder, weights = adapted.line("new").statistics, found.network.state_dict()
    for name, tensor in own_weights(source.network, encoder).items():
        torch.testing.assert_close(weights[name], tensor, atol=1e-5, rtol=1e-4)
    assert set(found.line("new").statistics) == set(statistics_of(source.network))
    assert own_weights(source.network, source.line("original").statistics) == {}


def test_a_loss_that_is_no_number_names_its_term(source: Checkpoint, lines: Lines) -> None:
    old, new = seen(source, lines)
    broken = replace(source, network=copy.deepcopy(source.network))
    with torch.no_grad():
        broken.network.head.bias.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(NotFinite, match="the loss term supervised is nan at step 0; lower the rate"):
        METHODS["mmd"](Task(broken, lines.original, old, new, BRIEF))
