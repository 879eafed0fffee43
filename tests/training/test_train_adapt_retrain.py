"""Training, adapting and retraining, end to end on a tiny drawn set."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edge_sdk.errors import ConfigError, DatasetError, FormatError, TruthWithheld
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.drawn import SMALL, write_set
from training.adapt import adapt
from training.checkpoint import Checkpoint, digest_of, load_checkpoint, save_checkpoint
from training.data.streams import Stream
from training.data.views import Views, views_of
from training.evaluate import evaluate
from training.fitting import NotFinite, fit
from training.methods import METHODS, Task
from training.pictures import write_pictures
from training.retrain import read_mentored, retrain
from training.statistics import statistics_of
from training.train import train


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates"))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1)


@pytest.fixture(scope="module")
def source(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(dataset, lines, SMALL)


@pytest.fixture(scope="module")
def adapted(source: Checkpoint, dataset: Dataset, lines: Lines) -> Checkpoint:
    return adapt(source, dataset, lines, SMALL).methods["adabn"]


def answered(checkpoint: Checkpoint, lines: Lines) -> Views:
    """The mentor pictures with one cell each that somebody answered."""
    views = views_of(
        lines.new[0], lines.new[0].mentor, checkpoint.preprocess, grid=checkpoint.grid, labelled=True
    )
    known = np.zeros_like(views.known)
    known[:, :, 0, 0] = 1
    return replace(views, known=known)


def test_a_tiny_set_is_learned_in_seconds(dataset: Dataset, lines: Lines) -> None:
    found = train(dataset, lines, SMALL.model_copy(update={"iterations": 150}))
    judging = lines_of(dataset, gap="lamp", seed=1, evaluating=True)
    figures = evaluate(found, judging).figures
    assert figures["original"]["ap"] > 0.6
    assert figures["original"]["unit"] == "cells"
    assert figures["original"]["ap_low"] <= figures["original"]["ap"] <= figures["original"]["ap_high"]
    assert found.figures["loss_last"] < found.figures["loss_first"]


def test_one_seed_gives_one_checkpoint(dataset: Dataset, lines: Lines, source: Checkpoint) -> None:
    assert digest_of(train(dataset, lines, SMALL)) == digest_of(source)
    other = train(dataset, lines, SMALL.model_copy(update={"seed": 2}))
    assert digest_of(other) != digest_of(source)


class Killed(Exception):
    """The process is gone."""


def test_a_training_that_was_killed_comes_out_as_if_it_had_not(
    dataset: Dataset, lines: Lines, source: Checkpoint, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"

    def kill(what: str, step: int, steps: int, terms: object) -> None:
        if what == "train" and step == 27:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, lines, SMALL, resume=state, progress=kill)
    assert state.exists()
    steps: list[int] = []

    def count(what: str, step: int, total: int, terms: object) -> None:
        if what == "train":
            steps.append(step)

    resumed = train(dataset, lines, SMALL, resume=state, progress=count)
    assert steps == [26, 27, 28, 29, 30]
    assert digest_of(resumed) == digest_of(source)
    assert not state.exists()


def test_a_state_kept_for_another_training_is_not_gone_on_from(
    dataset: Dataset, lines: Lines, source: Checkpoint, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"

    def kill(what: str, step: int, steps: int, terms: object) -> None:
        if what == "train" and step == 26:
            raise Killed

    with pytest.raises(Killed):
        train(dataset, lines, SMALL.model_copy(update={"rate": 1e-4}), resume=state, progress=kill)
    assert digest_of(train(dataset, lines, SMALL, resume=state)) == digest_of(source)


def test_a_training_on_other_pictures_does_not_go_on_from_the_state(
    dataset: Dataset, lines: Lines, adapted: Checkpoint, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"

    def kill(what: str, step: int, steps: int, terms: object) -> None:
        if step == 26 and what != "read pictures":
            raise Killed

    turned = lines_of(dataset, gap="lamp", gap_on="original", seed=1)
    with pytest.raises(Killed):
        train(dataset, turned, SMALL, resume=state, progress=kill)
    assert digest_of(train(dataset, lines, SMALL, resume=state)) == digest_of(train(dataset, lines, SMALL))

    longer = SMALL.model_copy(update={"iterations": 60})
    beside = state.with_name("state.dann.safetensors")
    with pytest.raises(Killed):
        adapt(adapted, dataset, lines, longer, methods=["dann"], resume=state, progress=kill)
    assert beside.exists()
    others = lines_of(dataset, gap="gamma", seed=1)
    fresh = adapt(adapted, dataset, others, longer, methods=["dann"]).chosen
    assert digest_of(adapt(adapted, dataset, others, longer, methods=["dann"], resume=state).chosen) == digest_of(fresh)


def test_a_retraining_of_another_model_does_not_go_on_from_the_state(
    source: Checkpoint, adapted: Checkpoint, lines: Lines, tmp_path: Path
) -> None:
    state = tmp_path / "state.safetensors"
    views = answered(adapted, lines)
    longer = SMALL.model_copy(update={"iterations": 60})
    other = replace(adapted, network=copy.deepcopy(adapted.network))
    with torch.no_grad():
        for weight in other.network.parameters():
            weight.mul_(1.1)

    def kill(what: str, step: int, steps: int, terms: object) -> None:
        if step == 26:
            raise Killed

    with pytest.raises(Killed):
        retrain(other, lines, longer, mentored=views, strategy="masked-free", resume=state, progress=kill)
    fresh = retrain(adapted, lines, longer, mentored=views, strategy="masked-free")
    found = retrain(adapted, lines, longer, mentored=views, strategy="masked-free", resume=state)
    assert digest_of(found) == digest_of(fresh)


def test_a_damaged_state_is_told(dataset: Dataset, lines: Lines, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    state.write_bytes(b"torn")
    with pytest.raises(FormatError, match=r"state.safetensors cannot be gone on from .*; delete it to begin again"):
        train(dataset, lines, SMALL, resume=state)


def test_adabn_changes_statistics_alone(source: Checkpoint, adapted: Checkpoint) -> None:
    assert adapted.line("new").method == "adabn"
    statistics = statistics_of(source.network)
    for name, tensor in source.network.state_dict().items():
        if name not in statistics:
            assert torch.equal(tensor, adapted.network.state_dict()[name])
    old, new = adapted.line("original").statistics, adapted.line("new").statistics
    assert set(old) == set(new) == set(statistics)
    assert all(torch.equal(tensor, source.line("original").statistics[name]) for name, tensor in old.items())
    assert any(not torch.allclose(tensor, new[name]) for name, tensor in old.items())


def test_every_method_is_handed_out_with_what_the_rules_saw(
    source: Checkpoint, dataset: Dataset, lines: Lines
) -> None:
    before = digest_of(source)
    found = adapt(source, dataset, lines, SMALL)
    assert set(found.methods) == set(found.decision.facts) == {"source", "adabn", "dann"}
    assert found.chosen is found.methods[found.decision.method]
    assert found.decision.why
    assert found.histories["adabn"] == () and len(found.histories["dann"]) == SMALL.iterations // 2
    assert not set(found.held.names) & set(found.reference.names)
    assert digest_of(source) == before
    assert all(set(one.lines) == {"original", "new"} for one in found.methods.values())


def test_a_named_method_is_taken_with_the_rules_opinion_beside_it(
    source: Checkpoint, dataset: Dataset, lines: Lines
) -> None:
    found = adapt(source, dataset, lines, SMALL, methods=["adabn"])
    assert set(found.methods) == {"source", "adabn"}
    assert found.chosen is found.methods["adabn"]
    assert found.decision.method == "adabn" and found.decision.advised in {"source", "adabn"}
    assert found.decision.why.startswith("adabn as asked; the rules would take ")
    with pytest.raises(ConfigError, match="there is no method named 'magic'; give one of source, adabn, mmd, "):
        adapt(source, dataset, lines, SMALL, methods=["magic"])
    with pytest.raises(ConfigError, match="no method is named; give one or more of source"):
        adapt(source, dataset, lines, SMALL, methods=[])


def test_adversarial_training_changes_the_weights_and_leaves_the_source(
    source: Checkpoint, lines: Lines
) -> None:
    before = digest_of(source)
    spec, grid = source.preprocess, source.grid
    old = views_of(lines.original, lines.original.train, spec, grid=grid, labelled=True)
    new = views_of(lines.new[0], lines.new[0].train, spec, grid=grid, labelled=False)
    found = METHODS["dann"](Task(source, lines.original, old, new, SMALL.model_copy(update={"iterations": 6})))
    assert found.original.method == "dann"
    names = [{name for name in terms if not name.startswith("grad_")} for terms in found.history]
    assert names == [{"supervised", "domain"}] * 3
    assert not torch.equal(found.network.head.weight, source.network.head.weight)
    assert digest_of(source) == before


def test_no_adaptation_sees_a_label_of_the_new_line(lines: Lines, source: Checkpoint) -> None:
    new = views_of(
        lines.new[0], lines.new[0].train, source.preprocess, grid=source.grid, labelled=False
    )
    assert not new.truth.any() and not new.known.any() and not new.maximum.any() and not new.defective.any()


def test_training_never_sees_the_truth_of_a_test_picture(lines: Lines, source: Checkpoint) -> None:
    with pytest.raises(TruthWithheld, match="is in the part test"):
        evaluate(source, lines)


def test_retraining_starts_from_the_deployed_weights_and_keeps_a_line_its_statistics(
    adapted: Checkpoint, lines: Lines
) -> None:
    before = digest_of(adapted)
    found = retrain(adapted, lines, SMALL, mentored=answered(adapted, lines), strategy="masked")
    assert digest_of(adapted) == before
    moved = (found.network.head.weight - adapted.network.head.weight).abs().max()
    assert 0 < float(moved.detach()) < 0.1
    assert found.line("new").method == "retrained"
    old, new = found.line("original").statistics, found.line("new").statistics
    assert any(not torch.allclose(tensor, new[name]) for name, tensor in old.items())


def test_full_labels_need_no_answers(adapted: Checkpoint, lines: Lines) -> None:
    found = retrain(adapted, lines, SMALL.model_copy(update={"iterations": 4}), strategy="full-labels")
    assert set(found.lines) == {"original", "new"}


def test_a_checkpoint_survives_the_disk(adapted: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(adapted, tmp_path / "one")
    again = load_checkpoint(tmp_path / "one")
    assert digest_of(again) == digest_of(adapted)
    assert again.preprocess == adapted.preprocess
    assert again.classes == adapted.classes
    assert again.line("new").thresholds.guarantee.startswith("none: ")
    files = {path.relative_to(tmp_path / "one").as_posix() for path in (tmp_path / "one").rglob("*.*")}
    assert files == {
        "weights.safetensors",
        "checkpoint.json",
        "lines/original.safetensors",
        "lines/original.json",
        "lines/new.safetensors",
        "lines/new.json",
    }


def test_a_damaged_checkpoint_is_told(source: Checkpoint, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    save_checkpoint(source, whole)

    def damaged(name: str) -> Path:
        folder = tmp_path / name
        shutil.copytree(whole, folder)
        return folder

    with pytest.raises(ConfigError, match=r"none holds no checkpoint \(no checkpoint.json\); give the folder"):
        load_checkpoint(tmp_path / "none")
    torn = damaged("torn")
    (torn / "weights.safetensors").write_bytes(b"torn")
    with pytest.raises(FormatError, match=r"weights.safetensors is no safetensors file .*missing or damaged"):
        load_checkpoint(torn)
    text = damaged("text")
    (text / "checkpoint.json").write_text("{")
    with pytest.raises(FormatError, match=r"checkpoint.json is not JSON .*; it is damaged"):
        load_checkpoint(text)
    for old, new, error, sentence in [
        ("checkpoint/1", "checkpoint/9", FormatError, "is of 'checkpoint/9'; this version reads checkpoint/1"),
        ("cellnet:cell_network", "cellnet:nothing", ConfigError, r"nothing cannot be called .*; is its package"),
        ('"width": 0.125', '"width": 0.5', FormatError, "is of another architecture than .* copy the checkpoint whole"),
        ('"cell_px"', '"cells"', FormatError, "checkpoint.json lacks 'cell_px'; it is damaged"),
    ]:
        one = damaged(f"with {abs(hash(new))}")
        said = (one / "checkpoint.json").read_text()
        assert old in said
        (one / "checkpoint.json").write_text(said.replace(old, new))
        with pytest.raises(error, match=sentence):
            load_checkpoint(one)
    with pytest.raises(ConfigError, match="the checkpoint has no line named left; it has original"):
        source.line("left")


def test_a_stream_smaller_than_a_batch_cycles(source: Checkpoint, lines: Lines) -> None:
    views = views_of(
        lines.original, lines.original.train[:3], source.preprocess, grid=source.grid, labelled=True
    )
    stream = Stream(views, source.preprocess, batch=8, jitter=True, chance=np.random.default_rng(0))
    for _ in range(3):
        batch = stream.next()
        assert batch.frame.shape == (8, 3, source.preprocess.height, source.preprocess.width)
        assert batch.truth.shape == batch.known.shape == (8, 1, *source.grid)


def test_pictures_and_cells_are_turned_together(source: Checkpoint, lines: Lines) -> None:
    views = views_of(
        lines.original, lines.original.train, source.preprocess, grid=source.grid, labelled=True
    )
    stream = Stream(views, source.preprocess, batch=16, jitter=False, chance=np.random.default_rng(0))
    batch = stream.next()
    dark = torch.nn.functional.avg_pool2d(-batch.frame.mean(1, keepdim=True), source.cell_px)
    inside = dark[batch.truth > 0].mean()
    assert float(inside) > float(dark[batch.truth == 0].mean()) + 0.3


def test_a_set_without_masks_trains_on_its_pictures(tmp_path: Path) -> None:
    bare = load_dataset(write_set(tmp_path / "bare", masks=False))
    own = lines_of(bare, gap="lamp", seed=1)
    found = train(bare, own, SMALL)
    figures = evaluate(found, lines_of(bare, gap="lamp", seed=1, evaluating=True)).figures
    assert figures["original"]["unit"] == "pictures"
    with pytest.raises(DatasetError, match=r"is defective and has no mask \(as have 12 in all\)"):
        train(bare, own, SMALL.model_copy(update={"masks": "required"}))


def test_several_classes_have_a_map_each(tmp_path: Path) -> None:
    many = load_dataset(write_set(tmp_path / "many", labels=("dent", "crack")))
    found = train(many, lines_of(many, gap="lamp", seed=1), SMALL)
    assert found.classes == ("crack", "dent")
    assert found.network.head.out_channels == 2


def test_what_there_is_too_little_of_is_told(
    source: Checkpoint, adapted: Checkpoint, dataset: Dataset, lines: Lines
) -> None:
    short = replace(lines, new=(replace(lines.new[0], train=lines.new[0].train[:1], mentor=()),))
    with pytest.raises(DatasetError, match="line new has 1 unlabelled pictures in part train; give at least 2"):
        adapt(source, dataset, short, SMALL)
    with pytest.raises(DatasetError, match="line new has no pictures in part mentor; full-labels has nothing"):
        retrain(adapted, short, SMALL, strategy="full-labels")
    with pytest.raises(DatasetError, match="strategy masked\\+omnia needs answers; give the folder of a hub's export"):
        retrain(adapted, lines, SMALL)
    healthy = replace(
        lines, original=replace(lines.original, train=tuple(s for s in lines.original.train if s.healthy))
    )
    with pytest.raises(DatasetError, match="has no defective picture; label more, or choose another seed"):
        train(dataset, healthy, SMALL)
    with pytest.raises(DatasetError, match="part train of the original line is empty; add pictures"):
        train(dataset, replace(lines, original=replace(lines.original, train=())), SMALL)


def test_an_export_that_lacks_a_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds no export.json; give a folder that `python -m mentoring export`"):
        read_mentored(tmp_path)


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    network = torch.nn.Linear(1, 1)
    with pytest.raises(NotFinite, match=r"the loss term bad is nan at step 0; lower the rate \(0.1\)"):
        fit(
            {"network": network},
            lambda done: {"bad": network(torch.ones(1, 1)).sum() * float("nan")},
            iterations=1,
            rate=0.1,
            weight_decay=0.0,
            averaging=0.0,
            chance=np.random.default_rng(0),
        )


def test_padding_is_known_healthy_where_a_map_is_not_known(tmp_path: Path) -> None:
    bare = load_dataset(write_set(tmp_path / "bare", masks=False))
    line = lines_of(bare, gap="lamp", seed=1).original
    spec = PreprocessSpec(width=64, height=128)
    views = views_of(line, line.train, spec, grid=(8, 4), labelled=True)
    assert views.defective.any() and not views.valid.all()
    assert not views.truth.any()
    for n in np.flatnonzero(views.defective):
        assert views.maximum[n] == 1
        assert np.array_equal(views.known[n, 0] == 1, ~views.valid[n])


def test_somebodys_folder_is_never_replaced_by_a_checkpoint(source: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photos.txt").write_text("dear")
    with pytest.raises(ConfigError, match="mine holds something else than a checkpoint; give an empty folder"):
        save_checkpoint(source, tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"photos.txt is a file; give a folder to write the checkpoint to"):
        save_checkpoint(source, tmp_path / "mine" / "photos.txt")
    assert (tmp_path / "mine" / "photos.txt").read_text() == "dear"
    save_checkpoint(source, tmp_path / "new")
    save_checkpoint(source, tmp_path / "new")
    assert digest_of(load_checkpoint(tmp_path / "new")) == digest_of(source)


def test_a_set_of_pictures_is_never_written_over_by_another(
    dataset: Dataset, lines: Lines, tmp_path: Path
) -> None:
    shutil.copytree(dataset.root, tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError, match="mine holds something else; give an empty folder, or a new name"):
        write_pictures(lines.new[0], "mentor", tmp_path / "mine", labelled=True)
    assert sorted(tmp_path.rglob("*")) == before
    for _ in range(2):
        count = write_pictures(lines.new[0], "mentor", tmp_path / "shown", labelled=True)
    again = load_dataset(tmp_path / "shown")
    assert len(again.samples) == count == len(lines.new[0].mentor)
    assert sum(sample.healthy is False for sample in again.samples) == sum(s.mask is not None for s in again.samples)


def test_another_answer_is_another_training(adapted: Checkpoint, lines: Lines, tmp_path: Path) -> None:
    state = tmp_path / "state.safetensors"
    views = answered(adapted, lines)
    longer = SMALL.model_copy(update={"iterations": 60})

    def kill(what: str, step: int, steps: int, terms: object) -> None:
        if step == 26:
            raise Killed

    with pytest.raises(Killed):
        retrain(adapted, lines, longer, mentored=views, resume=state, progress=kill)
    other = replace(views, truth=views.known)
    fresh = retrain(adapted, lines, longer, mentored=other)
    assert digest_of(retrain(adapted, lines, longer, mentored=other, resume=state)) == digest_of(fresh)
