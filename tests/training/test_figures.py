"""Pictures of feature spaces: what they are made of, and that a seed gives the same bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_sdk.errors import DatasetError, RangeError, ShapeError, TruthWithheld
from edge_sdk.quality.datasets import lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training.checkpoint import Checkpoint
from training.evaluate import Evaluation, evaluate
from training.figures import MOST, Cloud, _thinned, alignment_picture, plane_of
from training.figures_clouds import areas_cloud, features_picture, pictures_cloud
from training.train import train


def cloud(shift: float, *, kinds: Sequence[str] | None = None, count: int = 30) -> Cloud:
    chance = np.random.default_rng(2)
    features = np.r_[chance.normal(0, 1, (count, 9)), chance.normal(shift, 1, (count, 9))]
    return Cloud("a model", features, ["original line"] * count + ["new line"] * count, kinds=kinds)


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Evaluation]:
    torch.set_num_threads(1)
    folder = write_set(tmp_path_factory.mktemp("figures") / "plates", pictures=40, labels=("dent", "crack"))
    dataset = load_dataset(folder)
    found = train(dataset, lines_of(dataset, gap="lamp", seed=1), SMALL)
    return found, evaluate(found, lines_of(dataset, gap="lamp", seed=1, evaluating=True))


def test_one_seed_gives_one_file_and_another_seed_another() -> None:
    one = cloud(1.0)
    for form in ("svg", "png"):
        drawn = alignment_picture([one], form=form)  # type: ignore[arg-type]
        assert drawn == alignment_picture([one], form=form)  # type: ignore[arg-type]
        assert drawn != alignment_picture([one], form=form, seed=7)  # type: ignore[arg-type]
    assert alignment_picture([one], form="png").startswith(b"\x89PNG")


def test_the_a_distance_is_printed_beside_every_model() -> None:
    near, far = cloud(0.0), cloud(4.0)
    text = alignment_picture([far, near]).decode()
    assert re.findall(r"A-distance [\d.]+ of 2", text) == [
        f"A-distance {far.distance():.2f} of 2",
        f"A-distance {near.distance():.2f} of 2",
    ]
    assert (far.distance() or 0) > 1.8 > 0.8 > (near.distance() or 0)
    few = alignment_picture([cloud(1.0, count=4)]).decode()
    assert "A-distance too few to say" in few


def test_neighbours_stay_neighbours_in_the_plane() -> None:
    features = cloud(9.0).features
    plane = plane_of(features)
    assert plane.shape == (60, 2)
    one, other = plane[:30].mean(axis=0), plane[30:].mean(axis=0)
    assert np.linalg.norm(one - other) > 2 * plane[:30].std()
    assert np.array_equal(plane, plane_of(features))


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9])
def test_a_handful_of_points_is_drawn_too(count: int) -> None:
    features = np.random.default_rng(0).normal(size=(count, 5))
    assert np.isfinite(plane_of(features)).all()
    assert np.array_equal(plane_of(np.ones((count, 5))), np.zeros((count, 2)))
    assert np.isfinite(plane_of(features[:, :1])).all()


def test_classes_are_a_second_row_where_they_are_known() -> None:
    kinds = ["healthy", "dent"] * 30
    plain, classed = alignment_picture([cloud(1.0)]).decode(), alignment_picture([cloud(1.0, kinds=kinds)]).decode()
    assert "by class" in classed and "dent" in classed
    assert "by class" not in plain and "dent" not in plain


def test_of_many_points_some_are_drawn() -> None:
    many = cloud(0.0, count=MOST + 50, kinds=["healthy"] * 2 * (MOST + 50))
    some = _thinned(many, seed=0)
    assert len(some.lines) == 2 * MOST and int(some.is_new.sum()) == MOST
    assert some.kinds is not None and len(some.kinds) == 2 * MOST


def test_pictures_of_both_lines_have_their_class(evaluated: tuple[Checkpoint, Evaluation]) -> None:
    checkpoint, evaluation = evaluated
    found = pictures_cloud(evaluation, checkpoint, title="source")
    judged = evaluation.judged
    assert found.features.shape[0] == len(judged["original"].views) + len(judged["new"].views)
    assert found.kinds is not None and set(found.kinds) <= {"healthy", "dent", "crack"}
    defective = [kind != "healthy" for kind in found.kinds]
    assert defective == [*judged["original"].views.defective, *judged["new"].views.defective]


def test_defective_areas_are_known_where_the_model_would_ask_or_somebody_answered(
    evaluated: tuple[Checkpoint, Evaluation],
) -> None:
    checkpoint, evaluation = evaluated
    new = evaluation.judged["new"]
    counts = [int((one.views.truth * one.views.known).sum()) for one in evaluation.judged.values()]

    def lines(answered: np.ndarray | None) -> list[str]:
        return list(areas_cloud(evaluation, checkpoint, title="areas", answered=answered).lines)

    shape = new.views.valid.shape
    assert lines(np.ones(shape, bool)) == ["original line"] * counts[0] + ["new line, known"] * counts[1]
    assert lines(np.zeros(shape, bool)) == ["original line"] * counts[0] + ["new line, missed"] * counts[1]
    at = checkpoint.line("new" if "new" in checkpoint.lines else "original").thresholds.pass_below
    reported = int(((new.confidence >= at[None, :, None, None]) & (new.views.truth > 0)).sum())
    assert lines(None).count("new line, known") == reported
    text = alignment_picture([areas_cloud(evaluation, checkpoint, title="areas")]).decode()
    assert "original line" in text and "A-distance" in text


def test_the_features_of_areas_are_those_of_the_picture(evaluated: tuple[Checkpoint, Evaluation]) -> None:
    """Over all cells of a picture, the mean of the map is the pooled feature."""
    checkpoint, evaluation = evaluated
    original = evaluation.judged["original"]
    whole = replace(original.views, truth=np.ones_like(original.views.truth), known=np.ones_like(original.views.known),
                    valid=np.ones_like(original.views.valid))  # fmt: skip
    everything = {name: replace(one, views=whole if name == "original" else one.views)
                  for name, one in evaluation.judged.items()}  # fmt: skip
    found = areas_cloud(Evaluation(evaluation.figures, everything), checkpoint, title="all")
    cells = whole.truth.shape[1] * whole.truth.shape[2] * whole.truth.shape[3]
    first = found.features[:cells].mean(axis=0)
    assert first == pytest.approx(original.features[0], rel=1e-4, abs=1e-5)


def test_what_cannot_be_drawn_is_told(evaluated: tuple[Checkpoint, Evaluation]) -> None:
    checkpoint, evaluation = evaluated
    with pytest.raises(RangeError, match="no feature space to draw; give at least one"):
        alignment_picture([])
    with pytest.raises(RangeError, match="empty: no point to draw; give at least one"):
        Cloud("empty", np.zeros((0, 3)), [])
    with pytest.raises(ShapeError, match=r"features are \(2, 3\) for 1 points; give \(n, F\)"):
        Cloud("torn", np.zeros((2, 3)), ["new line"])
    bare = {
        name: replace(one, views=replace(one.views, truth=np.zeros_like(one.views.truth)))
        for name, one in evaluation.judged.items()
    }
    with pytest.raises(DatasetError, match="line original has no defective cell in its part test; .* needs masks"):
        areas_cloud(Evaluation(evaluation.figures, bare), checkpoint, title="none")


def test_one_call_draws_models_side_by_side(
    evaluated: tuple[Checkpoint, Evaluation], tmp_path_factory: pytest.TempPathFactory
) -> None:
    checkpoint, _ = evaluated
    folder = write_set(tmp_path_factory.mktemp("call") / "plates", pictures=40, labels=("dent", "crack"))
    lines = lines_of(load_dataset(folder), gap="lamp", seed=1, evaluating=True)
    drawn = features_picture({"before": checkpoint, "after": checkpoint}, lines).decode()
    assert drawn.count("A-distance") == 2 and "before" in drawn and "after" in drawn and "by class" in drawn
    assert features_picture({"areas": checkpoint}, lines, areas=True) != features_picture({"areas": checkpoint}, lines)
    with pytest.raises(TruthWithheld, match="only an evaluation may ask"):
        features_picture({"before": checkpoint}, lines_of(load_dataset(folder), gap="lamp", seed=1))
    with pytest.raises(RangeError, match="no feature space to draw; give at least one"):
        features_picture({}, lines)
