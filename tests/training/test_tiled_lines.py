"""A new line of pictures that are cut into tiles: pictures count, answers lie on whole frames, tiles learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edge_sdk.answers import Answer
from edge_sdk.errors import DatasetError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset, read_image
from edge_sdk.quality.thresholds import calibrated_band
from edge_sdk.vision.decode import confidence_from_logits, questions
from edge_sdk.vision.preprocess import geometry, valid_cells
from edge_sdk.vision.tiles import outputs_of_frame
from tests.training.drawn import SMALL
from tests.training.test_audit import row, said
from tests.training.test_cli import done
from tests.training.test_tiled import large_set
from training.adapt import adapt
from training.api import Config
from training.api import retrain as retrained
from training.audit import Audit, audited
from training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from training.data.views import Views, line_image, views_of
from training.evaluate import judge
from training.health import health_of
from training.jointly import adapt_jointly
from training.lines import confidence, predicted
from training.mentors import Mentor, ask
from training.methods import METHODS
from training.normals import TRANSFERS, transfer
from training.retrain import Mentored, retrain
from training.rules import scores_of
from training.statistics import with_statistics
from training.strategies import STRATEGIES, strategy_named
from training.taught import new_data, pseudo_labels, teaching_no_tile
from training.train import train

RECIPE = SMALL.model_copy(update={"tile_overlap_px": 32, "head": "cells", "stages": 2})
SEEN = Mentor(ask_from=0.02, control_share=1.0)
"""Who is asked about something on nearly every picture."""


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return large_set(tmp_path_factory.mktemp("tiled") / "plates", pictures=32)


@pytest.fixture(scope="module")
def dataset(plates: Path) -> Dataset:
    return load_dataset(plates)


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1)


@pytest.fixture(scope="module")
def source(dataset: Dataset, lines: Lines) -> Checkpoint:
    return train(dataset, lines, RECIPE)


def views_on(source: Checkpoint, lines: Lines, part: str = "train", *, labelled: bool = True) -> Views:
    line = lines.original
    return views_of(line, line.part(part), source.preprocess, grid=source.grid, labelled=labelled)


def whole_frame(source: Checkpoint, image: np.ndarray, line: str = "original") -> np.ndarray:
    """``(K, h, w)`` logits of a frame by the station's way."""
    state, spec = source.lines.get(line, source.line("original")), source.preprocess

    def infer(frame: np.ndarray) -> dict[str, np.ndarray]:
        with torch.inference_mode():
            return {"cells": source.network.eval()(torch.from_numpy(frame.copy())).cells.numpy()}

    with with_statistics(source.network, state.statistics):
        return np.asarray(outputs_of_frame(image, spec, infer)["cells"][0])


def test_maps_of_tiles_and_maps_of_pictures_are_made_of_each_other(source: Checkpoint, lines: Lines) -> None:
    views = views_on(source, lines)
    assert views.tiled and views.count == len(lines.original.train) < len(views)
    wholes = views.whole(views.truth)
    assert len(wholes) == views.count and wholes[0].shape == (1, 16, 16)
    assert np.array_equal(views.pieces(wholes), views.truth)
    # in whatever order they come
    order = np.random.default_rng(1).permutation(len(views))
    mixed = views.taken(order)
    by_name = dict(zip(dict.fromkeys(views.names), wholes, strict=True))
    for name, whole in zip(dict.fromkeys(mixed.names), mixed.whole(mixed.truth), strict=True):
        assert np.array_equal(whole, by_name[name])
    # values of pictures against a loop over them
    values = np.random.default_rng(2).normal(size=(len(views), 3))
    names = list(dict.fromkeys(views.names))
    slow = np.stack([values[np.array(views.names) == name].max(axis=0) for name in names])
    assert np.array_equal(views.of_pictures(values), slow)
    assert [bool(one) for one in views.shown_defective] == [one.healthy is False for one in lines.original.train]
    assert views.picture_units == tuple(one.unit for one in lines.original.train)


def test_the_rules_compare_pictures_as_the_station_judges_them(source: Checkpoint, lines: Lines) -> None:
    views = views_on(source, lines, labelled=True)
    state, spec = source.line("original"), source.preprocess
    logits, features = predicted(source.network, state.statistics, views.images, spec)
    scores = scores_of(views, logits, features, labelled=True)
    assert len(scores) == len(scores.maxima) == views.count and scores.defective is not None
    for n, sample in enumerate(lines.original.train[:4]):
        image = read_image(sample)
        whole = whole_frame(source, image)
        valid = valid_cells(spec, image.shape[0], image.shape[1], (whole.shape[1], whole.shape[2]))
        assert scores.maxima[n] == pytest.approx(whole[0][valid].max(), abs=1e-3)
        assert (scores.pictures == n).sum() == valid.sum()
        mine = np.array(views.names) == sample.image
        np.testing.assert_allclose(scores.features[n], features[mine].mean(axis=0), atol=1e-6)


def test_a_line_of_tiles_is_adapted_and_its_health_counts_pictures(
    source: Checkpoint, dataset: Dataset, lines: Lines
) -> None:
    brief = RECIPE.model_copy(update={"iterations": 6})
    found = adapt(source, dataset, lines, brief, methods=["adabn", "dann", "adda"])
    assert set(found.decision.facts) == {"source", "adabn", "dann", "adda"}
    new = lines.new[0].train
    held = found.held
    assert 0 < held.count < len(new) and held.tiled
    assert all(held.names.count(name) == 9 for name in set(held.names)), "a picture is in one half with all its tiles"
    health = health_of(found)
    assert health.signs["dann"].pictures_new == held.count
    assert health.signs["dann"].kept.defective == int(found.reference.shown_defective.sum())
    assert found.held_out == len(lines.original.validate)
    # AdaBN measures on tiles: another line, other statistics
    old, now = (found.methods["adabn"].line(name).statistics for name in ("original", "new"))
    assert any(not torch.allclose(tensor, now[name]) for name, tensor in old.items())


def test_an_operator_is_asked_about_places_on_the_frame(source: Checkpoint, lines: Lines) -> None:
    line, spec = lines.new[0], source.preprocess
    asked = ask(source, line, SEEN, seed=1)
    assert len(asked.headers) == len(line.mentor) and any(one.questions for one in asked.headers)
    below = np.full(1, SEEN.ask_from, np.float32)
    for header, sample in zip(asked.headers, line.mentor, strict=True):
        image = line_image(line, sample)
        sure = confidence(whole_frame(source, image)[None], source.line("original"))[0]
        valid = valid_cells(spec, image.shape[0], image.shape[1], (sure.shape[1], sure.shape[2]))
        place = geometry(spec, image.shape[0], image.shape[1])
        there = questions(sure, below, place=place, cell_px=source.cell_px, valid=valid)
        assert [set(one.cells) for one in header.questions] == [set(one.cells) for one in there]
    # what is taught lies in the tiles that speak for the answered cells, and nowhere else
    taught = asked.taught("masked-free")
    assert taught.tiles is not None and len(taught) < len(asked.views)
    assert taught.known.any(axis=(1, 2, 3)).all() and (taught.known <= taught.tiles.cores[:, None]).all()
    cells = 0
    for header, given in zip(asked.headers, asked.answers, strict=True):
        places = [header.questions[one.question].cells for one in given
                  if one.question is not None and one.answer != "unsure"]  # fmt: skip
        whole = any(one.question is None and one.answer == "infirm" for one in given)
        cells += 256 if whole else len({cell for some in places for cell in some})
    assert taught.known.sum() == cells > 0


def test_answers_from_a_hub_teach_the_tiles_that_they_lie_in(
    source: Checkpoint, lines: Lines, plates: Path, tmp_path: Path
) -> None:
    line = lines.new[0]
    (tmp_path / "pictures").mkdir()
    about = [row(n, classes=("dent",) if n < 3 else ()) for n in range(5)]
    for one, sample in zip(about, line.mentor * 2, strict=False):
        cv2.imwrite(str(tmp_path / one.picture), line_image(line, sample))
    # (5, 7) and (9, 12) of 16 x 16 cells: the one is spoken for by a tile of the first row, the other by one below it
    places = [[(5, 7), (5, 8)], [(9, 12)], [(15, 15)]]
    about = [
        one if n > 2 else one.model_copy(update={"header": one.header.model_copy(update={"questions": (
            one.header.questions[0].model_copy(update={"cells": tuple(places[n])}),)})})
        for n, one in enumerate(about)
    ]  # fmt: skip
    words = ["confirm", "infirm", "unsure", "infirm", "confirm"]
    answers: dict[str, tuple[Answer, ...]] = {
        one.item: (said(one, words[n], 0 if n < 3 else None),) for n, one in enumerate(about)
    }
    export = Mentored(tmp_path, tuple(about), answers)
    taught = new_data(source, line, export, "masked-free", strategy_named("masked-free")[1])
    assert taught is not None and taught.tiles is not None
    # the unsure one and the one confirmed as a whole teach nothing, the healthy one all of its cells
    assert set(taught.names) == {about[n].item for n in (0, 1, 3)}
    defects, known = (taught.of_pictures(maps.sum(axis=(1, 2, 3)), np.add) for maps in (taught.truth, taught.known))
    found = dict(zip(dict.fromkeys(taught.names), zip(defects, known, strict=True), strict=True))
    assert found == {about[0].item: (2, 2), about[1].item: (0, 1), about[3].item: (0, 256)}
    for n, (name, corner) in enumerate(zip(taught.names, taught.tiles.corners, strict=True)):
        if name == about[0].item:
            there = {(int(y + corner[0]), int(x + corner[1])) for _, y, x in np.argwhere(taught.truth[n])}
            assert there and there <= set(places[0])
    assert teaching_no_tile(source, export) == 1
    told: list[str] = []
    config = Config(data=(plates,), gap="lamp", seed=1, strategy="masked-free", iterations=4)
    better = retrained(config, source, mentored=export, tell=told.append)
    assert better.line("new").method == "retrained"
    assert any(one.startswith("1 pictures were confirmed as a whole, and nothing says in which of ") for one in told)
    nothing = replace(export, rows=export.rows[4:], answers={about[4].item: answers[about[4].item]})
    with pytest.raises(DatasetError, match="confirmed as a whole, nothing says which tile is defective"):
        retrained(config, source, mentored=nothing)


def test_what_the_model_says_is_taken_for_truth_picture_by_picture(source: Checkpoint, lines: Lines) -> None:
    line = lines.new[0]
    views = views_of(line, line.mentor, source.preprocess, grid=source.grid, labelled=False)
    eager = replace(source.line("original"), thresholds=Thresholds.uniform(1, boundary=0.02, pass_below=0.01))
    found = pseudo_labels(source.with_line("new", eager), views, "new")
    assert found.tiles is not None and found.truth.any()
    assert np.array_equal(found.known, np.broadcast_to(found.tiles.cores[:, None], found.known.shape))
    assert found.shown_defective.all(), "of a picture with a defect all tiles are taken, of another none"
    assert all(found.names.count(name) == 9 for name in found.names)


def test_a_guarantee_on_tiles_is_one_of_pictures(source: Checkpoint, dataset: Dataset, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    samples = dataset.samples[:24]
    rows = tuple(row(n) for n in range(24))
    for one, sample in zip(rows, samples, strict=True):
        cv2.imwrite(str(tmp_path / one.picture), read_image(sample))
    shows = np.array([[sample.healthy is False] for sample in samples])
    state = source.line("original")
    found = audited(source, state.statistics, Mentored(tmp_path, rows, {}), Audit(rows, shows))
    maxima = []
    for sample in samples:
        whole = whole_frame(source, read_image(sample))
        valid = valid_cells(source.preprocess, 120, 128, (whole.shape[1], whole.shape[2]))
        maxima.append(whole[0][valid].max())
    sure = confidence_from_logits(np.array(maxima, np.float32)[:, None, None, None], found.temperature)[:, :, 0, 0]
    band = calibrated_band(sure, ~shows[:, 0], shows, source="the answered control sample")
    np.testing.assert_allclose(found.thresholds.pass_below, band.pass_below, atol=1e-4)
    assert found.thresholds.how == band.how and " of 24 pictures " in band.how


@pytest.mark.slow
def test_every_method_and_strategy_takes_tiles(source: Checkpoint, dataset: Dataset, lines: Lines) -> None:
    brief = RECIPE.model_copy(update={"iterations": 2})
    new, old = lines.new[0], lines.original
    found = dict(adapt(source, dataset, lines, brief, methods=[name for name in METHODS if name != "source"]).methods)
    rebalanced = brief.model_copy(update={"rebalance": True})
    found["rebalanced"] = adapt(source, dataset, lines, rebalanced, methods=["dann"]).chosen
    found["jointly"] = adapt_jointly(source, lines, brief, with_original=True)
    asked = ask(source, new, SEEN, seed=1)
    for name, way in STRATEGIES.items():
        answers = asked.taught(name) if way.asks else None
        found[name] = retrain(source, lines, brief, mentored=answers, strategy=name)
    spec, grid = source.preprocess, source.grid
    normals = views_of(new, [one for one in new.train if one.healthy], spec, grid=grid, labelled=True)
    original = old, views_of(old, old.train, spec, grid=grid, labelled=True)
    for name in TRANSFERS:
        found[f"transfer {name}"] = transfer(source, normals, brief, methods=[name], original=original).chosen
    assert len(found) == len(METHODS) + 2 + len(STRATEGIES) + len(TRANSFERS)
    held = views_of(new, new.mentor, spec, grid=grid, labelled=True)
    for name, one in found.items():
        assert np.isfinite(judge(one, "new", held).logits).all(), name


def test_a_tiled_line_goes_round_the_commands(source: Checkpoint, plates: Path, tmp_path: Path) -> None:
    save_checkpoint(source, tmp_path / "source")
    roles = ("--data", plates, "--gap", "lamp", "--seed", "1")
    adapted = tmp_path / "adapted"
    told = done("adapt", tmp_path / "source", *roles, "--method", "adabn", "--out", adapted)
    assert told["decision"]["method"] == "adabn"
    figures = done("evaluate", adapted, *roles)
    assert figures["new"]["n"] == len(lines_of(load_dataset(plates), gap="lamp", seed=1).new[0].withheld)
    normals = tmp_path / "normals"
    normals.mkdir()
    for n in range(0, 32, 2):
        (normals / f"{n:02d}.png").write_bytes((plates / "images" / f"{n:02d}.png").read_bytes())
    out = tmp_path / "taken"
    taken = done("transfer", tmp_path / "source", "--normals", normals, "--method", "statistics", "--out", out)
    assert taken["normals"] == 16
    assert load_checkpoint(out).preprocess.tile_overlap_px == 32
    # with an audit of whole pictures, of which nobody has drawn where the defect is
    chosen = done("transfer", tmp_path / "source", *roles, "--audit", "6", "--method", "statistics",
                  "--method", "mixed", "--iterations", "4", "--out", tmp_path / "chosen")  # fmt: skip
    assert chosen["audit"]["pictures"] <= 6 and set(chosen["audit"]["auroc"]) == {"statistics", "mixed"}
