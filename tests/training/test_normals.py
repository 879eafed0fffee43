"""A new line by its normals: every method on a tiny drawn set, what it leaves, what it refuses, and that it exports."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from edge_sdk.arrays import Array
from edge_sdk.errors import ConfigError, DatasetError, RangeError
from edge_sdk.quality.datasets import Dataset, Line, Lines, lines_of, load_dataset
from edge_sdk.quality.thresholds import healthy_band
from export.exporting import export_checkpoint
from tests.training.drawn import SMALL, write_set
from training import normals_choice
from training.checkpoint import Checkpoint, digest_of, load_checkpoint, save_checkpoint
from training.data.views import Views, normalised, views_of
from training.lines import predicted
from training.moments import moments_of, pooled
from training.networks.cellnet import cell_network
from training.networks.referenced import normal_rows, ordinary, referenced
from training.normals import (
    FROZEN,
    TRANSFERS,
    UNTRAINED,
    _band_of_units,
    candidates_of,
    default_of,
    transfer,
    transfer_moments,
)
from training.normals_choice import Choice, audit_drawn, chosen_by_audit, standard_error
from training.statistics import own_weights
from training.train import train

BRIEF = SMALL.model_copy(update={"iterations": 6, "batch": 6})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates", pictures=56))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1)


@pytest.fixture(scope="module", params=["cells", "classifier"])
def source(request: pytest.FixtureRequest, dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(dataset, lines, BRIEF.model_copy(update={"head": request.param}))


def views(source: Checkpoint, line: Line) -> Views:
    return views_of(line, line.train, source.preprocess, grid=source.grid, labelled=True)


def normals(source: Checkpoint, lines: Lines) -> Views:
    found = views(source, lines.new[0])
    return found.taken(~found.defective)


def test_a_defective_row_moves_no_statistic_it_is_normalised_by(source: Checkpoint) -> None:
    torch.manual_seed(0)
    network, frame = referenced(source.network).train(), torch.randn(4, 3, 64, 64)
    rows = torch.tensor([True, True, False, False])
    with normal_rows(network, rows):
        before = network.trunk(frame)
        after = network.trunk(torch.cat([frame[:2], 5 * frame[2:] + 3]))
    torch.testing.assert_close(after[:2], before[:2])
    assert not torch.allclose(after[2:], before[2:])
    with normal_rows(network, torch.ones(4, dtype=torch.bool)):
        every = network.trunk(frame)
    torch.testing.assert_close(every, ordinary(network).train().trunk(frame), rtol=1e-4, atol=1e-4)


def test_normal_referenced_is_ordinary_in_inference_and_folds(source: Checkpoint) -> None:
    torch.manual_seed(0)
    network = referenced(source.network).eval()
    frame = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        found = network(frame).cells
        torch.testing.assert_close(found, ordinary(network).eval()(frame).cells)
        trunk = network.trunk
        folded = torch.nn.utils.fusion.fuse_conv_bn_eval(trunk.conv1, trunk.bn1)  # type: ignore[arg-type]
        torch.testing.assert_close(folded(frame), trunk.bn1(trunk.conv1(frame)), rtol=1e-5, atol=1e-5)
    assert set(network.state_dict()) == set(source.network.state_dict())


@pytest.mark.parametrize("method", TRANSFERS)
def test_a_method_leaves_its_source_and_comes_to_a_line(method: str, source: Checkpoint, lines: Lines) -> None:
    before = digest_of(source)
    given = (lines.original, views(source, lines.original))
    one = transfer(source, normals(source, lines), BRIEF, methods=[method], original=given)
    assert digest_of(source) == before
    assert digest_of(one.chosen) != before
    anew = 2 if method.startswith(("contrastive", "triplet")) else 1  # as many steps as the source and this together
    assert len(one.histories[method]) == (0 if method in UNTRAINED else anew * BRIEF.iterations)
    assert set(one.chosen.lines) == {"original", "new"}
    assert one.chosen.line("new").method == method
    assert np.isfinite(one.chosen.line("new").feature_mean).all()


@pytest.mark.parametrize("method", ["nrbn", "contrastive"])
def test_a_method_is_repeatable(method: str, source: Checkpoint, lines: Lines) -> None:
    given = (lines.original, views(source, lines.original))
    one, again = (transfer(source, normals(source, lines), BRIEF, methods=[method], original=given) for _ in range(2))
    assert digest_of(one.chosen) == digest_of(again.chosen)


def test_lines_differ_in_statistics_alone(source: Checkpoint, lines: Lines) -> None:
    given = (lines.original, views(source, lines.original))
    for method in ("statistics", "nrbn"):
        found = transfer(source, normals(source, lines), BRIEF, methods=[method], original=given).chosen
        home, new = found.line("original").statistics, found.line("new").statistics
        assert set(home) == set(new)
        assert not own_weights(found.network, new)
        assert any(not torch.equal(home[name], new[name]) for name in home)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nrbn", "contrastive"])
def test_a_transferred_line_survives_the_disk_and_is_exported(
    method: str, source: Checkpoint, lines: Lines, tmp_path: Path
) -> None:
    given = (lines.original, views(source, lines.original))
    seen = normals(source, lines)
    save_checkpoint(transfer(source, seen, BRIEF, methods=[method], original=given).chosen, tmp_path / "c")
    again = load_checkpoint(tmp_path / "c")
    logits, _ = predicted(again.network, again.line("new").statistics, seen.images[:1], again.preprocess)
    export_checkpoint(tmp_path / "c", line="new", out=tmp_path / "onnx")
    session = onnxruntime.InferenceSession(tmp_path / "onnx" / "model.onnx")
    frame = normalised(seen.images[:1], again.preprocess).numpy()
    made = session.run(["cells"], {"frame": frame})[0]
    np.testing.assert_allclose(made, logits, atol=1e-3)


def test_pooled_places_make_a_line_without_a_picture(source: Checkpoint, lines: Lines) -> None:
    seen = normals(source, lines)
    batches = [normalised(piece, source.preprocess) for piece in np.array_split(seen.images, 2)]
    under = source.line("original").statistics
    made = transfer_moments(source, pooled([moments_of(source.network, [one], under=under) for one in batches]))
    whole = transfer_moments(source, moments_of(source.network, [torch.cat(batches)], under=under))
    own, other = made.line("new"), whole.line("new")
    assert own.pictures == len(seen)
    for name, tensor in own.statistics.items():
        torch.testing.assert_close(tensor, other.statistics[name], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own.feature_mean, other.feature_mean, atol=1e-5)
    assert own.thresholds.guarantee == "none: the line is known by its statistics alone"


def test_a_frozen_trunk_keeps_its_normalisations_by_default(source: Checkpoint) -> None:
    assert default_of(source) == "statistics"
    frozen = replace(source, network=cell_network(width=0.125, frozen=True))
    assert default_of(frozen) == "source"
    assert candidates_of(frozen) == FROZEN
    assert candidates_of(source)[0] == "nrbn"


def test_a_threshold_counts_groups_of_normals_and_not_their_pictures(source: Checkpoint, lines: Lines) -> None:
    seen = normals(source, lines)
    wide = seen.taken(np.arange(60) % len(seen))
    alone = replace(wide, units=tuple(f"part {n}" for n in range(60)))
    said = transfer(source, alone, BRIEF).chosen.line("new").thresholds
    assert said.guarantee == "conformal alpha 0.1 n 20, of healthy pictures alone"
    twice = replace(wide, units=tuple(f"part {n // 2}" for n in range(60)))
    band = transfer(source, twice, BRIEF).chosen.line("new").thresholds
    assert band.guarantee == "conformal alpha 0.1 n 10, of groups of healthy pictures alone"
    few = replace(wide, units=tuple(f"block {n // 15}" for n in range(60)))
    fixed = transfer(source, few, BRIEF).chosen.line("new").thresholds
    assert fixed.guarantee == "none: 60 normals of 4 groups are too few to keep some back for a threshold"


def test_a_group_stays_below_the_threshold_with_its_highest_picture() -> None:
    maxima = np.linspace(0.1, 0.5, 20)[:, None].astype(np.float32)
    band = _band_of_units(maxima, [f"part {n % 10}" for n in range(20)])  # part n's highest is picture n + 10
    assert band.pass_below[0] == pytest.approx(0.5, abs=1e-4)
    assert _band_of_units(maxima, [str(n) for n in range(20)]).pass_below[0] == pytest.approx(maxima[18, 0], abs=1e-4)


def test_the_audit_leaves_the_first_for_a_good_reason_alone(
    source: Checkpoint, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = views(source, lines.new[0])
    first, other = (source.with_line("new", source.line("original")) for _ in range(2))
    defective, healthy = np.flatnonzero(whole.defective), np.flatnonzero(~whole.defective)

    def chosen(high: int, low: int, wrong: int) -> Choice:
        """The other method ranks all pictures well, the first puts so many defective ones below all healthy ones."""
        audit = whole.taken(np.r_[defective[np.arange(high) % len(defective)], healthy[np.arange(low) % len(healthy)]])
        audit = replace(audit, names=tuple(map(str, range(high + low))), units=tuple(map(str, range(high + low))))
        good = audit.shown_defective + np.linspace(0, 0.5, high + low)
        bad = good - 2.0 * (np.arange(high + low) < wrong)
        monkeypatch.setattr(normals_choice, "_scores", lambda one, *_: bad if one is first else good)
        return chosen_by_audit({"nrbn": first, "mixed": other}, audit)

    sure = chosen(8, 8, 6)
    assert (sure.method, sure.pictures, sure.defective) == ("mixed", 16, 8)
    assert "mixed ranks better than nrbn, named first, by more than chance" in sure.why
    assert "16 pictures, 8 of them defective: nrbn 0.25, mixed 1.00" in sure.why
    unsure = chosen(8, 8, 1)
    assert unsure.method == "nrbn"
    assert "by no more than chance (0.12) makes it" in unsure.why
    few = chosen(4, 8, 4)
    assert few.method == "nrbn"
    assert "fewer than 5 of a kind are too few to leave nrbn, named first" in few.why
    assert chosen(8, 8, 0).why.startswith("nrbn ranks best")
    alone = chosen_by_audit({"nrbn": first, "mixed": other}, whole.taken(healthy[:3]))
    assert alone.method == "nrbn"
    assert "are healthy, so nothing tells the methods apart" in alone.why


def test_the_error_of_a_difference_agrees_with_the_printed_equation() -> None:
    chance = np.random.default_rng(5)
    one, other = chance.integers(0, 6, (2, 30)).astype(float)
    truth = np.arange(30) < 11

    def share(scores: Array, n: int, *, among: Array, sign: float) -> float:
        return float(np.mean([(sign * (scores[n] - scores[m]) > 0) + 0.5 * (scores[n] == scores[m]) for m in among]))

    high, low = np.flatnonzero(truth), np.flatnonzero(~truth)
    of_high = [share(one, n, among=low, sign=1) - share(other, n, among=low, sign=1) for n in high]
    of_low = [share(one, n, among=high, sign=-1) - share(other, n, among=high, sign=-1) for n in low]
    wanted = np.sqrt(np.var(of_high, ddof=1) / len(high) + np.var(of_low, ddof=1) / len(low))
    assert standard_error(one, other, truth) == pytest.approx(wanted, abs=1e-12)


def test_no_audit_sees_more_than_30_pictures_or_a_test_picture(lines: Lines, source: Checkpoint) -> None:
    line = lines.new[0]
    drawn = audit_drawn(line, seed=3)
    assert len(drawn) == -(-len(line.train) // 3) <= 30
    assert not {one.image for one in drawn} & {one.image for one in line.test}
    assert [one.image for one in audit_drawn(line, seed=3)] == [one.image for one in drawn]
    unsure = replace(line, train=tuple(replace(one, healthy=None) for one in line.train[:5]) + line.train[5:])
    assert not {one.image for one in audit_drawn(unsure, seed=3)} & {one.image for one in line.train[:5]}
    with pytest.raises(DatasetError, match="an audit of 31 pictures is asked for; give at most 30"):
        audit_drawn(line, seed=3, most=31)
    leaking = replace(line, train=line.test)
    with pytest.raises(DatasetError, match="is in part test, which no audit may see"):
        audit_drawn(leaking, seed=3)
    whole = views(source, line)
    many = whole.taken(np.arange(31) % len(whole))
    with pytest.raises(DatasetError, match="the audit holds 31 pictures; give 1 to 30"):
        chosen_by_audit({"source": source}, many)


def test_a_normal_that_looks_defective_is_named(source: Checkpoint, lines: Lines) -> None:
    seen = normals(source, lines)
    with torch.no_grad():
        source.network.head.bias.fill_(2.0)  # all normals look defective, and alike
    try:
        assert transfer(source, seen, BRIEF, methods=["source"]).odd == ()
    finally:
        with torch.no_grad():
            source.network.head.bias.fill_(-2.0)


def test_too_little_is_refused(source: Checkpoint, lines: Lines) -> None:
    seen = normals(source, lines)
    given = (lines.original, views(source, lines.original))
    with pytest.raises(DatasetError, match="line new has no normal picture; give at least 2"):
        transfer(source, seen.taken(np.arange(0)), BRIEF)
    with pytest.raises(DatasetError, match="line new has one normal picture alone; give at least 2"):
        transfer(source, seen.taken(np.arange(1)), BRIEF)
    with pytest.raises(ConfigError, match="there is no method named 'magic'; give one of source, statistics"):
        transfer(source, seen, BRIEF, methods=["magic"])
    with pytest.raises(ConfigError, match="method nrbn trains beside the original line's pictures"):
        transfer(source, seen, BRIEF, methods=["nrbn"])
    with pytest.raises(ConfigError, match=r"2 methods are named \(source, statistics\) and nothing chooses"):
        transfer(source, seen, BRIEF, methods=["source", "statistics"])
    with pytest.raises(ConfigError, match="original is the line that the checkpoint was trained for"):
        transfer(source, seen, BRIEF, name="original")
    with pytest.raises(DatasetError, match="is both a normal and in the audit"):
        transfer(source, seen, BRIEF, audit=seen.taken(np.arange(2)))
    sick = given[1].taken(given[1].defective)
    with pytest.raises(DatasetError, match="the original line has no healthy picture"):
        transfer(source, seen, BRIEF, methods=["nrbn"], original=(given[0], sick))
    with pytest.raises(DatasetError, match="the original line shows no defect"):
        transfer(source, seen, BRIEF, methods=["mixed"], original=(given[0], seen))


def test_a_threshold_of_normals_keeps_its_rate_and_refuses_too_few() -> None:
    chance = np.random.default_rng(0)
    stopped = []
    for _ in range(300):
        band = healthy_band(chance.uniform(0.1, 0.6, (19, 1)))
        stopped.append((chance.uniform(0.1, 0.6, 50) >= band.pass_below[0]).mean())
    assert np.mean(stopped) <= 0.1
    assert np.mean(stopped) > 0.05
    assert band.guarantee == "conformal alpha 0.1 n 19, of healthy pictures alone"
    with pytest.raises(RangeError, match="8 healthy pictures are too few for a threshold at alpha 0.1 of 1 classes"):
        healthy_band(np.zeros((8, 1)))
    assert healthy_band(np.ones((9, 1))).guarantee.startswith("none: too many healthy pictures lie nearer")
