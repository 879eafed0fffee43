"""A detector trained, asked, retrained and judged, end to end on a tiny drawn set with boxes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edge_sdk.detections import Question
from edge_sdk.errors import ConfigError, DatasetError, TruthWithheld
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.training.boxed import SMALL_BOXES, write_boxed_set
from tests.training.drawn import SMALL, write_set
from training.checkpoint import Checkpoint, digest_of, load_checkpoint, save_checkpoint
from training.data.boxes import FLIPS, BoxStream, Drawn, box_views
from training.data.views import normalised
from training.detector import FACTORY, detector_of, train_detector
from training.detector_evaluate import evaluate_detector
from training.detector_mentors import AskedBoxes, ask_boxes, said_of_box
from training.detector_retrain import retrain_detector
from training.losses.anchors import matched
from training.networks.anchornet import anchor_network
from training.networks.resnet import ResNet18
from training.trunk_file import save_trunk

pytestmark = pytest.mark.slow
SHORT = SMALL_BOXES.model_copy(update={"iterations": 6, "batch": 4, "width": 0.125})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_boxed_set(tmp_path_factory.mktemp("boxed") / "plates"))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1)


@pytest.fixture(scope="module")
def detector(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train_detector(dataset, lines, SMALL_BOXES)


@pytest.fixture(scope="module")
def short(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train_detector(dataset, lines, SHORT)


@pytest.fixture(scope="module")
def asked(short: Checkpoint, lines: Lines) -> AskedBoxes:
    low = np.full(2, 0.01, np.float32)
    state = short.line("original")
    eager = short.with_line("new", replace(state, thresholds=replace(state.thresholds, pass_below=low)))
    return ask_boxes(eager, lines.new[0], SHORT)


def test_a_detector_starts_from_a_pretrained_trunk_as_cells_do(dataset: Dataset, lines: Lines, tmp_path: Path) -> None:
    torch.manual_seed(8)
    trunk = ResNet18(width=0.125, stages=3)
    save_trunk(trunk, tmp_path / "t", width=0.125, stages=3, told={})
    begun = SHORT.model_copy(update={"start": str(tmp_path / "t"), "iterations": 1, "rate": 1e-6})
    found = train_detector(dataset, lines, begun).network.trunk.state_dict()
    assert all(torch.allclose(found[name], one, atol=1e-4) for name, one in trunk.named_parameters())


def test_a_tiny_set_of_boxes_is_learned_in_seconds(dataset: Dataset, detector: Checkpoint) -> None:
    judging = lines_of(dataset, gap="lamp", seed=1, evaluating=True)
    figures = evaluate_detector(detector, judging)["original"]
    assert figures["ap"] > 0.4
    assert figures["unit"] == "boxes"
    assert set(figures["classes"]) == {"dent", "scratch"}
    assert figures["ap_low"] <= figures["ap"] <= figures["ap_high"]
    assert detector.figures["loss_last"] < detector.figures["loss_first"] / 3


def test_one_seed_gives_one_detector(dataset: Dataset, lines: Lines, short: Checkpoint) -> None:
    assert digest_of(train_detector(dataset, lines, SHORT)) == digest_of(short)
    other = train_detector(dataset, lines, SHORT.model_copy(update={"seed": 2}))
    assert digest_of(other) != digest_of(short)


def test_a_detector_comes_back_from_disk_with_its_factory(short: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(short, tmp_path / "ckpt")
    again = load_checkpoint(tmp_path / "ckpt")
    assert again.factory == FACTORY
    assert digest_of(again) == digest_of(short)
    torch.testing.assert_close(detector_of(again).anchors, detector_of(short).anchors)


def test_training_never_sees_a_box_of_the_test_part(short: Checkpoint, lines: Lines) -> None:
    with pytest.raises(TruthWithheld):
        evaluate_detector(short, lines)


def test_a_set_without_boxes_is_refused_in_a_sentence(tmp_path: Path) -> None:
    plain = load_dataset(write_set(tmp_path / "plates"))
    with pytest.raises(DatasetError, match="nobody has drawn a box .*; write a boxes.csv"):
        train_detector(plain, lines_of(plain, gap="lamp"), SHORT)


def test_a_map_of_cells_is_no_detector(tmp_path: Path, lines: Lines) -> None:
    from training.train import train

    plain = load_dataset(write_set(tmp_path / "plates"))
    cells = train(plain, lines_of(plain, gap="lamp", seed=1), SMALL.model_copy(update={"iterations": 1}))
    with pytest.raises(ConfigError, match="is no detector; train one: --head anchors"):
        retrain_detector(cells, lines, SHORT)


def test_a_mirrored_picture_has_the_truth_of_its_mirrored_boxes(dataset: Dataset, lines: Lines) -> None:
    network = anchor_network(shapes=[[16.0, 16.0], [32.0, 8.0]], height=64, width_px=64, classes=2, width=0.125)

    spec = PreprocessSpec(width=64, height=64)
    anchors = network.anchors.numpy()
    views = box_views(lines.original, lines.original.train, spec, anchors=anchors, classes=2, labelled=True)
    one = next(n for n in range(len(views)) if views.truth[n].any())
    chance = np.random.default_rng(0)
    stream = BoxStream(views[np.array([one])], network, spec, batch=32, jitter=False, chance=chance)
    batch = stream.next()
    drawn = views.drawn[one]
    assert drawn is not None
    seen = set()
    for frame, truth, known, wanted in zip(batch.seen, batch.truth, batch.known, batch.wanted, strict=True):
        for across, down in FLIPS:
            left, top, right, bottom = drawn.boxes.T
            if across:
                left, right = 64 - right, 64 - left
            if down:
                top, bottom = 64 - bottom, 64 - top
            slow = matched(anchors, np.stack([left, top, right, bottom], axis=1), drawn.classes, count=2)
            image = views.images[one][:: -1 if down else 1, :: -1 if across else 1]

            if torch.equal(frame, normalised(image[None].copy(), spec)[0]):
                seen.add((across, down))
                np.testing.assert_array_equal(known, slow.known)
                assert float(truth.sum()) == slow.truth.sum()
                hit = slow.positive & (truth.numpy().any(axis=1))
                np.testing.assert_allclose(wanted.numpy()[hit], slow.box[hit])
    assert len(seen) == 4


def test_the_operator_confirms_a_box_that_fits_and_infirms_one_that_does_not() -> None:
    drawn = Drawn(np.array([[0, 0, 10, 10]], np.float32), np.array([1], np.int32))

    def said(box: tuple[float, float, float, float], k: int = 1) -> str:
        return said_of_box(drawn, Question(k, 0.5, box, ((0, 0),)))

    assert said((0, 0, 10, 10)) == "confirm"
    assert said((0, 0, 10, 20)) == "confirm"
    assert said((0, 4, 10, 14)) == "unsure"
    assert said((0, 8, 10, 18)) == "infirm"
    assert said((0, 0, 10, 10), k=0) == "infirm"


def test_an_answer_teaches_the_anchor_of_its_box_and_no_other(asked: AskedBoxes) -> None:
    taught = asked.taught("masked")
    told = sum(answer.answer != "unsure" for given in asked.answers for answer in given)
    assert told > 0
    assert taught.known.sum() == told == asked.counts["confirm"] + asked.counts["infirm"]
    assert taught.truth.sum() == asked.counts["confirm"]
    assert (taught.truth <= taught.known).all()
    assert not taught.wanted.any()
    assert all(one is None for one in taught.drawn)
    whole = asked.taught("masked+omnia")
    assert (whole.known >= taught.known).all()
    assert asked.taught("unmasked").known.all()


def test_retraining_on_answers_leaves_the_edges_of_boxes_to_the_original_pictures(
    short: Checkpoint, lines: Lines, asked: AskedBoxes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With L_S gone, what is left of the loss must not move the offsets' head."""
    from training import detector_retrain

    def nothing(network: Any, batch: Any) -> dict[str, torch.Tensor]:
        return {"supervised": network.neck[0].weight.sum() * 0}

    monkeypatch.setattr(detector_retrain, "supervised_terms", nothing)
    still = SHORT.model_copy(update={"weight_decay": 0.0})
    found = retrain_detector(short, lines, still, mentored=asked.taught("masked"))
    before, after = detector_of(short), detector_of(found)
    torch.testing.assert_close(after.offset.weight, before.offset.weight, rtol=0, atol=0)
    assert not torch.equal(after.score.weight, before.score.weight)


def test_every_strategy_for_boxes_trains_and_the_others_are_refused(
    short: Checkpoint, lines: Lines, asked: AskedBoxes
) -> None:
    digests = set()
    for name in ("masked", "masked+omnia", "unmasked", "longer", "full-labels", "scratch"):
        taught = asked.taught(name) if name not in ("longer", "full-labels") else None
        found = retrain_detector(short, lines, SHORT, mentored=taught, strategy=name)
        assert set(found.lines) == {"original", "new"}
        digests.add(digest_of(found))
    assert len(digests) == 6
    for name in ("masked+dann", "masked+distil", "pseudo-labels", "scratch-unbalanced"):
        with pytest.raises(ConfigError, match="which a detector is not trained by; give one like masked"):
            retrain_detector(short, lines, SHORT, mentored=asked.taught("masked"), strategy=name)
    with pytest.raises(DatasetError, match="strategy masked needs answers"):
        retrain_detector(short, lines, SHORT)
