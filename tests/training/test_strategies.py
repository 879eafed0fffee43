"""Strategies as data: what each knows, where it starts, and that every one of them trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from edge_sdk.errors import ConfigError, DatasetError, RangeError
from edge_sdk.quality.datasets import Dataset, Lines, lines_of, load_dataset
from tests.training.drawn import SMALL, write_set
from training.checkpoint import Checkpoint, digest_of
from training.data.views import Views, views_of
from training.losses.distillation import distillation_loss
from training.losses.masked import masked_bce
from training.mentors import Asked, Mentor, ask, mentored, said
from training.retrain import retrain
from training.strategies import SHIPPED, STRATEGIES, Strategy, strategy_named
from training.taught import pseudo_labels
from training.train import train

FEW = SMALL.model_copy(update={"iterations": 4})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return load_dataset(write_set(tmp_path_factory.mktemp("drawn") / "plates", pictures=40))


@pytest.fixture(scope="module")
def lines(dataset: Dataset) -> Lines:
    return lines_of(dataset, gap="lamp", seed=1, shares=(0.4, 0.1, 0.4, 0.1))


@pytest.fixture(scope="module")
def baseline(dataset: Dataset, lines: Lines) -> Checkpoint:
    torch.set_num_threads(1)
    return train(dataset, lines, SMALL.model_copy(update={"iterations": 60}))


def asked_of(baseline: Checkpoint, lines: Lines, mentor: Mentor = Mentor(ask_from=0.02)) -> Asked:  # noqa: B008
    return ask(baseline, lines.new[0], mentor, seed=1)


# what a strategy is


def test_the_papers_table_and_its_controls_have_a_name_each() -> None:
    assert {"scratch", "scratch+omnia", "scratch+healthy", "scratch+dann"} <= STRATEGIES.keys()
    assert {"masked", "masked+omnia", "masked+omnia+healthy", "masked+dann", "masked+distil"} <= STRATEGIES.keys()
    assert {"longer", "masked-same-rate", "scratch-unbalanced", "unmasked", "pseudo-labels"} <= STRATEGIES.keys()
    assert SHIPPED in STRATEGIES
    transfer = STRATEGIES["masked"]
    assert (transfer.init, transfer.lr_scale, transfer.length, transfer.known) == ("baseline", 0.25, 1.0, "mentored")
    assert STRATEGIES["scratch"] == Strategy()
    assert strategy_named(transfer) == ("masked", transfer)
    assert strategy_named("masked") == ("masked", transfer)


def test_a_strategy_that_makes_no_sense_is_told() -> None:
    with pytest.raises(RangeError, match="epsilon is 1; give a confidence above 0 and below 1"):
        Strategy(epsilon=1)
    with pytest.raises(RangeError, match="domain_weight is -1; give a weight of 0 or more"):
        Strategy(domain_weight=-1)
    with pytest.raises(RangeError, match="lr_scale is 0; give a factor above 0"):
        Strategy(lr_scale=0)
    with pytest.raises(ConfigError, match="without new data can neither know, align nor distil anything"):
        Strategy(new_data=False, known="+omnia")
    with pytest.raises(ConfigError, match="shared statistics are a control: with new data, without distil and"):
        Strategy(init="baseline", may_lose=0.01, shared=True)
    with pytest.raises(ConfigError, match="there is no strategy 'mask'; give one of scratch, scratch"):
        strategy_named("mask")


# losses


def test_the_baselines_word_counts_where_nobody_answered_and_nowhere_else() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 1, 3, 3, requires_grad=True)
    baseline, mentored_ = torch.rand(2, 1, 3, 3), (torch.rand(2, 1, 3, 3) < 0.5).float()
    shown = torch.ones(2, 3, 3, dtype=torch.bool)
    shown[:, 0] = False
    loss = distillation_loss(logits, baseline, mentored_, shown=shown)
    slow, count = 0.0, 0
    for place in np.ndindex(2, 1, 3, 3):
        if mentored_[place] == 0 and shown[place[0], place[2], place[3]]:
            p, q = torch.sigmoid(logits[place]).item(), baseline[place].item()
            slow -= q * np.log(p) + (1 - q) * np.log(1 - p)
            count += 1
    assert loss.item() == pytest.approx(slow / count, rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[(mentored_ == 1) | ~shown[:, None]] == 0).all()
    assert (gradient[(mentored_ == 0) & shown[:, None]] != 0).all()


def test_where_everything_is_answered_there_is_nothing_to_distil() -> None:
    logits = torch.randn(1, 1, 2, 2, requires_grad=True)
    loss = distillation_loss(logits, torch.rand(1, 1, 2, 2), torch.ones(1, 1, 2, 2))
    assert loss.item() == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient == 0).all()


def test_no_gradient_reaches_an_unknown_area_and_an_empty_m_costs_nothing() -> None:
    torch.manual_seed(1)
    logits = torch.randn(3, 2, 4, 4, requires_grad=True)
    truth, known = (torch.rand(3, 2, 4, 4) < 0.3).float(), (torch.rand(3, 2, 4, 4) < 0.2).float()
    (gradient,) = torch.autograd.grad(masked_bce(logits, truth, known), logits)
    assert (gradient[known == 0] == 0).all() and (gradient[known == 1] != 0).all()
    nothing = masked_bce(logits, truth, torch.zeros_like(known))
    assert nothing.item() == 0
    (gradient,) = torch.autograd.grad(nothing, logits)
    assert (gradient == 0).all()


# every strategy trains


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_every_strategy_trains_and_twice_the_same(name: str, baseline: Checkpoint, lines: Lines) -> None:
    asked = asked_of(baseline, lines, Mentor(ask_from=0.02, flagged=0.5))
    taught = asked.taught(name) if STRATEGIES[name].asks else None
    before = digest_of(baseline)
    steps: list[dict[str, float]] = []
    told = retrain(
        baseline, lines, FEW, mentored=taught, strategy=name, progress=lambda _, __, ___, terms: steps.append({**terms})
    )
    assert digest_of(retrain(baseline, lines, FEW, mentored=taught, strategy=name)) == digest_of(told)
    assert digest_of(baseline) == before
    assert set(told.lines) == {"original", "new"}
    way = STRATEGIES[name]
    wanted = {"supervised"} | ({"weak"} if way.new_data else set())
    wanted |= ({"distil"} if way.distil else set()) | ({"domain"} if way.domain_weight else set())
    assert {term for term in steps[-1] if not term.startswith("grad_")} == wanted
    assert len(steps) == int(FEW.iterations * way.length)


def test_fresh_weights_are_fresh_and_deployed_ones_are_gone_on_from(baseline: Checkpoint, lines: Lines) -> None:
    taught = asked_of(baseline, lines).taught("masked")
    old = baseline.network.head.weight.detach()
    near = retrain(baseline, lines, FEW, mentored=taught, strategy="masked").network.head.weight.detach()
    far = retrain(baseline, lines, FEW, mentored=taught, strategy="scratch").network.head.weight.detach()
    assert float((near - old).abs().max()) < 0.02 < float((far - old).abs().max())


def test_shared_statistics_are_of_both_lines_and_the_same_on_both(baseline: Checkpoint, lines: Lines) -> None:
    taught = asked_of(baseline, lines, Mentor(ask_from=0.02, flagged=0.5)).taught("masked")
    found = retrain(baseline, lines, FEW, mentored=taught, strategy=Strategy(init="baseline", shared=True))
    here, there = found.line("original").statistics, found.line("new").statistics
    assert all(torch.equal(one, there[name]) for name, one in here.items())
    apart = retrain(baseline, lines, FEW, mentored=taught, strategy=Strategy(init="baseline"))
    name = next(name for name in here if name.endswith("running_mean"))
    ends = apart.line("original").statistics[name], apart.line("new").statistics[name]
    between = (here[name] - ends[0]) * (here[name] - ends[1])
    assert (between[(ends[0] - ends[1]).abs() > 0.01] < 0).float().mean() > 0.9  # of the first layer: in between


def test_a_batch_holds_as_many_of_both_lines_though_few_were_answered(
    baseline: Checkpoint, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught = asked_of(baseline, lines).taught("masked").taken(np.arange(1))  # smaller than half a batch
    seen: list[int] = []
    features = type(baseline.network).features

    def counted(network: object, frame: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(len(frame))
        return features(network, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(type(baseline.network), "features", counted)
    retrain(baseline, lines, FEW, mentored=taught, strategy="scratch")
    assert seen == [FEW.batch] * (2 * FEW.iterations)
    seen.clear()
    many = FEW.model_copy(update={"iterations": 30})
    retrain(baseline, lines, many, mentored=taught, strategy="scratch-unbalanced")
    mine, theirs = seen[::2], seen[1::2]
    assert all(one + other == 2 * FEW.batch for one, other in zip(mine, theirs, strict=True))
    assert sum(theirs) < 0.5 * sum(mine)  # one answered picture against many original ones


def test_pseudo_labels_are_what_the_baseline_says(baseline: Checkpoint, lines: Lines) -> None:
    line = lines.new[0]
    views = views_of(line, line.mentor, baseline.preprocess, grid=baseline.grid, labelled=False)
    found = pseudo_labels(baseline, views, "new")
    assert found.known.all() and found.defective.all()
    assert 0 < found.truth.mean() < 0.5


# what is known


def test_healthy_knowledge_adds_whole_pictures_and_omnia_sure_cells(baseline: Checkpoint, lines: Lines) -> None:
    asked = asked_of(baseline, lines, Mentor(ask_from=1e-4, flagged=1.0))
    sure = np.full_like(asked.confidence, 0.5)
    sure[:, :, 3] = 0.001
    asked = replace(asked, confidence=sure)
    masked, healthy, omnia = (asked.taught(name) for name in ("masked", "masked+healthy", "masked+omnia"))
    for more in (healthy, omnia):
        assert np.array_equal(more.truth, masked.truth)  # only healthy cells are added
        assert (more.known >= masked.known).all() and more.known.sum() > masked.known.sum()
    defective = masked.truth.any(axis=(1, 2, 3))
    assert np.array_equal(healthy.known[defective], masked.known[defective])
    assert healthy.known[~defective].sum() > masked.known[~defective].sum()
    both = asked.taught("masked+omnia+healthy")
    assert np.array_equal(both.known, np.maximum(healthy.known, omnia.known))


def test_a_flag_against_a_confirmed_defect_is_a_conflict(baseline: Checkpoint, lines: Lines) -> None:
    asked = asked_of(baseline, lines)
    place = next(n for n, given in enumerate(asked.answers) if any(one.answer == "confirm" for one in given))
    headers = tuple(
        one.model_copy(update={"reason": "healthy"}) if n == place else one for n, one in enumerate(asked.headers)
    )
    flagged = replace(asked, headers=headers)
    sentence = rf"item simulated/simulated {place} is flagged healthy by its line and answered defective; withdraw"
    with pytest.raises(DatasetError, match=sentence):
        flagged.taught("masked+healthy")
    flagged.taught("masked")  # the flag is not read


def test_strategies_without_answers_take_none(baseline: Checkpoint, lines: Lines) -> None:
    with pytest.raises(ConfigError, match="strategy pseudo-labels takes no answers; retrain with it without any"):
        asked_of(baseline, lines).taught("pseudo-labels")
    with pytest.raises(DatasetError, match=r"strategy scratch\+omnia needs answers; give the folder of a hub's export"):
        retrain(baseline, lines, FEW, strategy="scratch+omnia")
    with pytest.raises(ConfigError, match="there is no strategy 'best'"):
        retrain(baseline, lines, FEW, strategy="best")


# the simulated operator


def test_an_honest_operator_confirms_a_quarter_and_infirms_nothing() -> None:
    truth = np.zeros((4, 4))
    truth[0, 0] = 1
    assert said(truth, [(0, 0), (0, 1), (1, 0), (1, 1)]) == "confirm"
    assert said(truth, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2)]) == "unsure"
    assert said(truth, [(3, 3)]) == "infirm"


def test_faults_are_as_many_as_asked_for(baseline: Checkpoint, lines: Lines) -> None:
    honest, liar = asked_of(baseline, lines), asked_of(baseline, lines, Mentor(ask_from=0.02, wrong=1.0))
    assert honest.counts["confirm"] == liar.counts["infirm"] and honest.counts["infirm"] == liar.counts["confirm"]
    assert honest.counts["unsure"] == liar.counts["unsure"]
    short = asked_of(baseline, lines, Mentor(ask_from=0.02, budget=3, seconds=4.0))
    assert sum(short.counts.values()) == 3 and short.minutes == pytest.approx(0.2)
    wide = asked_of(baseline, lines, Mentor(ask_from=0.02, dilate_cells=1))
    assert wide.counts == honest.counts
    assert wide.taught("masked").known.sum() > honest.taught("masked").known.sum()
    beside = asked_of(baseline, lines, Mentor(ask_from=0.02, shift_cells=1)).taught("masked")
    assert beside.known.sum() != honest.taught("masked").known.sum() or not np.array_equal(
        beside.known, honest.taught("masked").known
    )
    again, counts = mentored(baseline, lines.new[0], "masked", Mentor(ask_from=0.02), seed=1)
    assert np.array_equal(again.known, honest.taught("masked").known) and counts == honest.counts


def test_what_is_taught_is_what_was_answered_and_not_the_truth(baseline: Checkpoint, lines: Lines) -> None:
    asked = asked_of(baseline, lines)
    taught = asked.taught("masked")
    cells = sum(
        len(header.questions[one.question].cells)
        for header, given in zip(asked.headers, asked.answers, strict=True)
        for one in given
        if one.question is not None and one.answer != "unsure"
    )
    whole = sum(one.question is None for given in asked.answers for one in given)
    assert 0 < taught.known.sum() <= cells + whole * taught.known[0].size
    assert (taught.truth <= taught.known).all()


def test_an_operator_that_cannot_be_is_told() -> None:
    with pytest.raises(RangeError, match=r"wrong is 1.5; give a share from 0 to 1"):
        Mentor(wrong=1.5)
    with pytest.raises(RangeError, match="budget is 0; give at least 1 answer, or none for no limit"):
        Mentor(budget=0)
    with pytest.raises(RangeError, match="ask_from is 1; give a confidence above 0 and below 1"):
        Mentor(ask_from=1)
    with pytest.raises(RangeError, match="shift_cells is -1; give 0 cells or more"):
        Mentor(shift_cells=-1)


def test_pictures_are_taken_and_joined(baseline: Checkpoint, lines: Lines) -> None:
    views: Views = asked_of(baseline, lines).taught("masked")
    again = views.taken(np.arange(2)).joined(views.taken(np.arange(2, len(views))))
    assert again.names == views.names and np.array_equal(again.known, views.known)
    assert len(views.taken(np.zeros(len(views), bool))) == 0
