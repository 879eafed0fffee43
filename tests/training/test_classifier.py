"""The classifier of whole pictures: a cell network whose map is one cell, and frozen trunks asked once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Dataset, lines_of, load_dataset
from edge_sdk.vision.decode import decode_cells
from edge_sdk.vision.preprocess import PreprocessSpec, geometry
from export.exporting import export_checkpoint
from tests.training.drawn import SMALL, write_set
from training.adapt import adapt
from training.checkpoint import Checkpoint, save_checkpoint
from training.data.frozen import Feed, FrozenStream, trunk_maps
from training.data.streams import Stream
from training.data.views import normalised, views_of
from training.evaluate import evaluate
from training.lines import confidence, predicted
from training.networks.cellnet import MeanMax, cell_network
from training.train import train


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "bare", masks=False))


@pytest.fixture(scope="module")
def source(bare: Dataset) -> Checkpoint:
    torch.set_num_threads(1)
    return train(bare, lines_of(bare, gap="lamp", seed=1), SMALL.model_copy(update={"iterations": 60}))


def test_pooling_keeps_the_mean_and_the_maximum_of_each_channel() -> None:
    maps = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]], [[0.0, -1.0], [-2.0, -1.0]]]])
    assert MeanMax()(maps).flatten().tolist() == [3.0, -1.0, 6.0, 0.0]
    network = cell_network(width=0.125, pooled=True, classes=2).eval()
    out = network(torch.randn(3, 3, 64, 64))
    assert out.cells.shape == (3, 2, 1, 1) and out.feature.shape == (3, network.channels)
    assert network.channels == 2 * 32


def test_a_set_without_masks_gets_a_classifier_and_one_with_masks_cells(source: Checkpoint, tmp_path: Path) -> None:
    assert source.grid == (1, 1) and source.cell_px == source.preprocess.width == source.preprocess.height
    masked = load_dataset(write_set(tmp_path / "masked"))
    own = lines_of(masked, gap="lamp", seed=1)
    brief = SMALL.model_copy(update={"iterations": 2})
    assert train(masked, own, brief).grid == (4, 4)
    assert train(masked, own, brief.model_copy(update={"head": "classifier"})).grid == (1, 1)


def test_a_picture_is_judged_as_a_whole(source: Checkpoint, bare: Dataset) -> None:
    judged = evaluate(source, lines_of(bare, gap="lamp", seed=1, evaluating=True))
    figures = judged.figures["original"]
    assert figures["unit"] == "pictures"
    assert figures["ap"] > 0.9
    assert figures["ap"] == figures["picture_ap"] and figures["auroc"] == figures["picture_auroc"]


def test_a_masked_defect_counts_however_small_it_is(tmp_path: Path) -> None:
    masked = load_dataset(write_set(tmp_path / "masked", labels=("dent", "crack")))
    line = lines_of(masked, gap="lamp", seed=1).original
    views = views_of(line, line.train, PreprocessSpec(width=64, height=64), grid=(1, 1), labelled=True)
    assert views.known.all() and not views.maximum.any()
    assert np.array_equal(views.truth.any(axis=(1, 2, 3)), views.defective)
    assert set(views.truth.sum(axis=(1, 2, 3))) == {0, 1}


@pytest.mark.slow
def test_a_classifier_is_adapted_exported_and_decoded_as_cells_are(
    source: Checkpoint, bare: Dataset, tmp_path: Path
) -> None:
    lines = lines_of(bare, gap="lamp", seed=1)
    brief = SMALL.model_copy(update={"iterations": 8})
    found = adapt(source, bare, lines, brief, methods=["adda", "mmd", "dann"])
    save_checkpoint(found.methods["adda"], tmp_path / "one")
    export_checkpoint(tmp_path / "one", line="new", out=tmp_path / "new")
    session = onnxruntime.InferenceSession(tmp_path / "new" / "model.onnx")
    spec, state = source.preprocess, found.methods["adda"].line("new")
    cells, feature = session.run(["cells", "feature"], {"frame": normalised(found.held.images[:2], spec).numpy()})
    logits, features = predicted(source.network, state.statistics, found.held.images[:2], spec)
    assert cells.shape == (2, 1, 1, 1) and np.abs(cells - logits).max() < 1e-3
    assert np.abs(feature - features).max() < 1e-3
    place = geometry(spec, 60, 64)
    low = np.full(1, 1e-6, np.float32)
    whole = decode_cells(confidence(cells, state)[0], low, place=place, cell_px=source.cell_px)
    assert whole.boxes.tolist() == [[0, 0, 64, 60]]


def test_a_frozen_trunk_is_asked_once_a_picture(source: Checkpoint, bare: Dataset) -> None:
    line = lines_of(bare, gap="lamp", seed=1).original
    spec = PreprocessSpec(width=64, height=64)
    views = views_of(line, line.train, spec, grid=(4, 4), labelled=True)
    torch.manual_seed(0)
    network = cell_network(trunk="resnet18", width=0.125, frozen=True).eval()
    maps = trunk_maps(network.trunk, views.images, spec)
    torch.testing.assert_close(maps, network.trunk(normalised(views.images, spec)).detach())
    asked = []
    network.trunk.register_forward_hook(lambda *_: asked.append(1))
    assert torch.equal(trunk_maps(network.trunk, views.images[::-1].copy(), spec), maps.flip(0)) and not asked
    stream = FrozenStream(
        network.trunk, views, spec, batch=4, jitter=False, chance=np.random.default_rng(0), balanced=False
    )
    batch = stream.next()
    assert batch.frame.shape == (4, 32, 4, 4) and not asked
    with torch.no_grad():
        next(iter(network.trunk.parameters())).add_(1)
    assert not torch.equal(trunk_maps(network.trunk, views.images, spec), maps) and asked
    plain = Stream(views, spec, batch=4, jitter=False, chance=np.random.default_rng(0), balanced=False).next()
    assert batch.truth.shape == plain.truth.shape and batch.shown.dtype == plain.shown.dtype


def test_a_frozen_trunk_sees_what_is_drawn_and_no_more(bare: Dataset) -> None:
    line = lines_of(bare, gap="lamp", seed=1).original
    spec = PreprocessSpec(width=64, height=64)
    views = views_of(line, line.train, spec, grid=(4, 4), labelled=True)
    torch.manual_seed(1)
    network = cell_network(trunk="resnet18", width=0.125, frozen=True).eval()
    seen: list[int] = []
    network.trunk.register_forward_hook(lambda module, taken, given: seen.append(len(taken[0])))
    stream = FrozenStream(network.trunk, views, spec, batch=4, jitter=True, chance=np.random.default_rng(0))
    stream.next()
    assert 0 < sum(seen) <= 4 < len(views)
    for _ in range(60):
        stream.next()
    assert sum(seen) <= 3 * len(views), "each of three variants once"


def test_maps_are_turned_with_their_truth(bare: Dataset) -> None:
    line = lines_of(bare, gap="lamp", seed=1).original
    views = views_of(line, line.train[:1], PreprocessSpec(width=64, height=64), grid=(2, 2), labelled=True)
    truth = np.array([[[[1, 0], [0, 0]]]], np.float32)
    class Marks(torch.nn.Module):
        """A trunk that marks the place that the truth marks."""

        def __init__(self) -> None:
            super().__init__()
            self.mark = torch.nn.Parameter(torch.from_numpy(truth))

        def forward(self, frame: torch.Tensor) -> torch.Tensor:
            return self.mark.expand(len(frame), 1, 2, 2)

    stream = FrozenStream(
        Marks(), replace(views, truth=truth), PreprocessSpec(width=64, height=64), batch=2, jitter=True,
        chance=np.random.default_rng(3),
    )  # fmt: skip
    places = set()
    for _ in range(8):
        batch = stream.next()
        assert torch.equal(batch.frame, batch.truth)
        places |= {tuple(place) for place in torch.nonzero(batch.truth)[:, 2:].tolist()}
    assert len(places) == 4


def test_training_on_kept_maps_trains_neck_and_head_alone(bare: Dataset) -> None:
    line = lines_of(bare, gap="lamp", seed=1).original
    spec = PreprocessSpec(width=64, height=64)
    views = views_of(line, line.train, spec, grid=(1, 1), labelled=True)
    network = cell_network(trunk="resnet18", width=0.125, frozen=True, pooled=True)
    feed = Feed(network, views, spec, SMALL, np.random.default_rng(0))
    _, last = feed.next()
    assert last.shape == (SMALL.batch, network.channels, 1, 1)
    network.head(last).sum().backward()
    assert all(p.grad is None for p in network.trunk.parameters())
    assert all(p.grad is not None for p in network.neck.parameters())


def test_a_classifier_without_a_healthy_picture_is_told(tmp_path: Path) -> None:
    masked = load_dataset(write_set(tmp_path / "masked"))
    lines = lines_of(masked, gap="lamp", seed=1)
    sick = replace(lines, original=replace(lines.original, train=tuple(
        sample for sample in lines.original.train if sample.healthy is False
    )))  # fmt: skip
    with pytest.raises(DatasetError, match="has no healthy picture, and a classifier sees whole pictures"):
        train(masked, sick, SMALL.model_copy(update={"head": "classifier"}))
