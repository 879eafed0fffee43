"""Dealing pictures into parts, and parts to lines."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.errors import ConfigError, DatasetError, RangeError, TruthWithheld
from edge_sdk.quality.datasets import PARTS, Dataset, Sample, deal, folds, lines_of, load_dataset
from edge_sdk.quality.parts import dealt
from tests.quality.drawing import draw, mvtec_set, set_of, table_set


def sample(
    number: int, *, healthy: bool | None = True, domain: str = "a", group: str | None = None, **more
) -> Sample:
    label = {True: "good", False: "tear", None: "unsure"}[healthy]
    name = f"{domain}/{number:04d}.png"
    return Sample(
        path=Path(name), image=name, label=label, healthy=healthy, domain=domain, group=group, **more
    )


def many(good: int = 40, bad: int = 20, domain: str = "a") -> list[Sample]:
    return [sample(n, healthy=n >= bad, domain=domain) for n in range(good + bad)]


def counts(data: Dataset, parts: dict[str, str]) -> Counter[tuple[str, bool | None]]:
    return Counter((parts[s.image], s.healthy) for s in data.samples)


# -- dealing


@given(
    st.lists(
        st.tuples(st.booleans(), st.sampled_from("ab"), st.integers(0, 12) | st.none()),
        min_size=1,
        max_size=60,
    ),
    st.integers(0, 1000),
)
def test_every_picture_has_one_part_and_no_group_is_torn_apart_unsaid(rows, seed):
    data = set_of(
        [
            sample(n, healthy=good, domain=domain, group=None if group is None else f"g{group}")
            for n, (good, domain, group) in enumerate(rows)
        ]
    )
    parts, notes = dealt(data, seed=seed)
    assert set(parts) == {s.image for s in data.samples}
    assert set(parts.values()) <= set(PARTS)
    of_group: dict[str, set[str]] = {}
    for s in data.samples:
        of_group.setdefault(s.unit, set()).add(parts[s.image])
    torn = sum(len(found) > 1 for found in of_group.values())
    assert torn == 0 or any("out of a group that train keeps the rest of" in note for note in notes)


def test_each_part_gets_its_share_of_healthy_and_of_defective_pictures():
    data = set_of(many(good=100, bad=50))
    found = counts(data, deal(data, seed=3))
    assert [found[part, True] for part in PARTS] == [50, 10, 20, 20]
    assert [found[part, False] for part in PARTS] == [25, 5, 10, 10]


def test_the_same_seed_deals_the_same_and_another_seed_deals_otherwise():
    data = set_of(many())
    assert deal(data, seed=1) == deal(data, seed=1)
    assert deal(data, seed=1) != deal(data, seed=2)


def test_the_order_in_which_pictures_are_listed_does_not_matter():
    samples = many()
    assert deal(set_of(samples), seed=1) == deal(set_of(samples[::-1]), seed=1)


def test_a_group_in_two_domains_goes_to_one_part_of_both():
    samples = [
        sample(n, domain=d, healthy=n % 3 > 0, group=f"tile{n}") for n in range(30) for d in ("a", "b")
    ]
    parts = deal(set_of(samples), seed=0)
    assert all(parts[f"a/{n:04d}.png"] == parts[f"b/{n:04d}.png"] for n in range(30))


def test_a_part_that_stays_empty_is_filled_from_train_and_that_is_said():
    samples = [sample(n, healthy=n % 2 > 0, group=f"block{n // 10}") for n in range(40)]
    lines = lines_of(set_of(samples), gap="lamp")
    assert all(lines.new[0].part(part) for part in PARTS)
    groups = [{s.group for s in lines.new[0].part(part)} for part in ("validate", "mentor", "test")]
    assert not groups[0] & groups[1]
    assert not groups[1] & groups[2]
    old, new = ({s.image for s in line.train} for line in (lines.original, *lines.new))
    assert not old & new
    assert any("train has too few groups to halve" in note for note in lines.notes)


def test_of_one_group_alone_its_pictures_are_torn_and_that_is_said():
    samples = [sample(n, healthy=n % 2 > 0, group="block") for n in range(40)]
    lines = lines_of(set_of(samples), gap="lamp")
    assert lines.new[0].test
    assert any(
        "test had no defective picture of a, so" in note and "out of a group" in note for note in lines.notes
    )


def test_a_block_of_defects_goes_where_defects_are_lacking():
    # as on a real line: some blocks hold almost nothing but defects, the others almost none
    samples = [
        sample(100 * block + n, healthy=(n % 10 == 0) == (block < 8), group=f"block{block:02d}")
        for block in range(16)
        for n in range(50)
    ]
    data = set_of(samples)
    for seed in range(20):
        found = counts(data, deal(data, seed=seed, shares=(0.5, 0, 0.25, 0.25)))
        for part, share in (("train", 0.5), ("mentor", 0.25), ("test", 0.25)):
            assert abs(found[part, False] / 400 - share) < 0.15
            assert abs(found[part, True] / 400 - share) < 0.15


def test_shares_may_be_given():
    data = set_of(many(good=60, bad=40))
    assert Counter(deal(data, seed=0, shares=(1, 0, 0, 1)).values()) == {"train": 50, "test": 50}


@pytest.mark.parametrize("shares", [(1, 1), (0, 0, 0, 0), (1, -1, 1, 1)])
def test_shares_out_of_range_are_refused(shares):
    with pytest.raises(RangeError, match="give four numbers from 0 up, of train, validate, mentor, test"):
        deal(set_of(many()), seed=0, shares=shares)


# -- folds


def test_every_picture_is_tested_in_exactly_one_fold():
    data = set_of(many())
    number = folds(data, seed=5, count=4)
    for k in range(4):
        parts = deal(data, seed=5, fold=(k, 4))
        assert {image for image, part in parts.items() if part == "test"} == {
            i for i, f in number.items() if f == k
        }


def test_folds_are_of_equal_size():
    assert set(Counter(folds(set_of(many()), seed=0, count=5).values()).values()) == {12}


def test_a_fold_that_does_not_exist_is_refused():
    with pytest.raises(
        RangeError, match="fold 4 of 4; give a fold from 0 to one below the count, of at least 2"
    ):
        deal(set_of(many()), seed=0, fold=(4, 4))
    with pytest.raises(RangeError, match="1 folds; give at least 2"):
        folds(set_of(many()), seed=0, count=1)


# -- the split column


def split_set(train: list[bool], test: list[bool], *, masks: bool = True) -> Dataset:
    samples = []
    for n, (part, good) in enumerate([("train", g) for g in train] + [("test", g) for g in test]):
        mask = Path("m.png") if masks and not good else None
        samples.append(sample(n, healthy=good, split=part, mask=mask))
    return set_of(samples)


def test_a_split_with_defects_on_both_sides_is_honoured():
    data = split_set([True] * 10 + [False] * 10, [True] * 5 + [False] * 5)
    parts = deal(data, seed=0)
    assert {s.image for s in data.samples if s.split == "test"} == {
        i for i, p in parts.items() if p == "test"
    }
    assert {"train", "validate", "mentor"} <= set(parts.values())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (split_set([True] * 20, [True] * 5 + [False] * 15), "leaves train without a defect"),
        (split_set([True] * 5 + [False] * 5, [False] * 10), "leaves test without a healthy picture"),
    ],
)
def test_a_split_that_no_supervised_training_can_use_is_ignored_and_that_is_said(data, why):
    lines = lines_of(data)
    assert f"the split given for a is ignored for supervised use, since it {why}" in lines.notes
    assert any(s.split == "test" for s in lines.original.train)


def test_a_split_whose_test_defects_have_no_masks_is_ignored_where_others_have_some():
    data = split_set([True] * 5 + [False] * 5, [True] * 10)
    bare = [sample(100 + n, healthy=False, split="test") for n in range(4)]
    lines = lines_of(set_of([*data.samples, *bare]))
    assert any("leaves test without a defect that can be scored" in note for note in lines.notes)


def test_a_split_that_tears_a_group_apart_is_ignored():
    samples = [
        sample(n, healthy=n % 2 > 0, group=f"g{n // 4}", split="train" if n % 4 < 2 else "test")
        for n in range(40)
    ]
    assert any("it tears the group g0 apart" in note for note in lines_of(set_of(samples)).notes)


def test_methods_on_normals_alone_always_honour_the_split():
    data = split_set([True] * 20, [True] * 5 + [False] * 15)
    parts = deal(data, seed=0, honour_split=True)
    assert {s.image for s in data.samples if s.split == "test"} == {
        i for i, p in parts.items() if p == "test"
    }


# -- lines


def test_of_one_domain_the_new_line_is_the_same_behind_a_lamp():
    lines = lines_of(set_of(many()))
    (new,) = lines.new
    assert (lines.original.gap, new.gap) == (None, "lamp")
    old_names = {s.image for s in lines.original.train}
    assert not old_names & {s.image for s in new.train}
    assert len(old_names) + len(new.train) == 30
    assert not lines.original.mentor
    assert [s.image for s in lines.original.test] == [s.image for s in new.test]
    assert lines.notes[0] == (
        "original line: a (it has most labelled pictures); new line: the same pictures behind the gap lamp"
    )


def test_of_several_domains_the_largest_is_original_and_the_next_is_new():
    lines = lines_of(set_of(many(10, 10, "b") + many(30, 10, "a") + many(20, 10, "c")))
    assert lines.original.domains == ("a",)
    assert [line.domains for line in lines.new] == [("c",)]
    assert lines.new[0].gap is None


def test_roles_may_be_given_and_new_may_be_repeated():
    data = set_of(many(10, 10, "a") + many(10, 10, "b") + many(10, 10, "c") + many(10, 10, "d"))
    lines = lines_of(data, original="d", new=["a,b", "c"])
    assert lines.original.domains == ("d",)
    assert [(line.name, line.domains) for line in lines.new] == [("new", ("a", "b")), ("new2", ("c",))]
    assert lines.line("new2") is lines.new[1]


def test_a_gap_may_be_asked_for_where_a_set_has_several_domains():
    lines = lines_of(set_of(many(10, 10, "a") + many(30, 10, "b")), gap="gamma")
    assert lines.original.domains == lines.new[0].domains == ("b",)
    assert lines.new[0].gap == "gamma"


def test_pictures_without_a_truth_are_streamed_and_adapted_to_and_nothing_else():
    samples = many(40, 20, "a") + many(40, 20, "b")
    samples += [sample(n, healthy=None, domain=d) for n in range(100, 130) for d in "ab"]
    lines = lines_of(set_of(samples), original="a", new=["b"], evaluating=True)
    of = {
        (line.name, part): any(s.healthy is None for s in line.part(part))
        for line in (lines.original, *lines.new)
        for part in PARTS
    }
    assert {key for key, found in of.items() if found} == {("new", "train"), ("new", "mentor")}


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"original": "exposur1"}, "has no domain named exposur1; did you mean exposure1?"),
        ({"new": ["x"]}, "has no domain named x; there are exposure1, exposure2"),
        (
            {"original": "exposure1", "new": ["exposure1"]},
            "domain exposure1 is given to the original line and to new",
        ),
        (
            {"new": ["exposure2"], "gap": "lamp"},
            "--new exposure2 and --gap lamp both make the new line; give one of",
        ),
    ],
)
def test_roles_that_cannot_be_right_are_refused(asked, sentence):
    data = set_of(many(10, 10, "exposure1") + many(10, 10, "exposure2"))
    with pytest.raises(ConfigError, match=sentence):
        lines_of(data, **asked)


def test_a_line_or_part_that_does_not_exist_is_refused():
    lines = lines_of(set_of(many()))
    with pytest.raises(ConfigError, match="no line named knew; there are original, new"):
        lines.line("knew")
    with pytest.raises(ConfigError, match="no part named tets; there are train, validate, mentor and test"):
        lines.original.part("tets")


def test_a_set_without_a_defect_is_refused():
    with pytest.raises(
        DatasetError, match=r"has no defective picture on the original line .labels: good.; label some"
    ):
        lines_of(set_of(many(good=20, bad=0)))


def test_a_set_without_anything_healthy_is_refused():
    with pytest.raises(
        DatasetError, match="has neither a healthy picture nor a mask on the original line .labels: tear."
    ):
        lines_of(set_of(many(good=0, bad=20)))


def test_a_set_without_a_healthy_picture_will_do_where_masks_show_what_is_healthy(tmp_path):
    lines = lines_of(load_dataset(mvtec_set(tmp_path / "cracks", good=0, defective=20)))
    truth = lines.original.truth(lines.original.train[0])
    assert truth.known
    assert truth.mask is not None
    assert set(np.unique(truth.mask)) == {0, 1}


# -- truth


def test_the_truth_of_a_test_picture_is_withheld_from_training(tmp_path):
    lines = lines_of(load_dataset(mvtec_set(tmp_path / "weave", good=20, defective=20)))
    for line in (lines.original, *lines.new):
        for one in line.test:
            with pytest.raises(
                TruthWithheld, match=r"the truth of t.* is withheld, since the picture is in the part"
            ):
                line.truth(one)


@pytest.mark.parametrize("fact", ["label", "mask", "probability", "healthy"])
def test_not_even_the_label_of_a_test_picture_is_handed_out(tmp_path, fact):
    lines = lines_of(load_dataset(mvtec_set(tmp_path / "weave", good=20, defective=20)))
    with pytest.raises(TruthWithheld, match="only an evaluation may ask"):
        getattr(lines.original.test[0], fact)


def test_a_test_picture_may_still_be_looked_at(tmp_path):
    lines = lines_of(load_dataset(mvtec_set(tmp_path / "weave", good=20, defective=20)))
    one = lines.original.test[0]
    assert one.path.exists()
    assert "truth withheld" in repr(one)
    assert len({one, lines.new[0].test[0]}) == 1


def test_an_evaluation_is_told_the_truth(tmp_path):
    lines = lines_of(load_dataset(mvtec_set(tmp_path / "weave", good=20, defective=20)), evaluating=True)
    assert {lines.new[0].truth(one).healthy for one in lines.new[0].test} == {True, False}


def truths(root: Path) -> dict[str, object]:
    lines = lines_of(load_dataset(root), evaluating=True)
    line = lines.original
    found = {}
    for part in PARTS:
        for one in (*line.part(part), *lines.new[0].part(part)):
            found[one.image] = line.truth(one)
    return found


def test_what_is_known_of_healthy_defective_bare_blank_and_ignored_pictures(tmp_path):
    root = table_set(
        tmp_path / "s",
        "image,label,mask\ngood.png,good,\nmasked.png,tear,m1.png\nbare.png,tear,\nblank.png,blot,m2.png\nodd.png,odd,\n",
    )
    draw(root / "m2.png", np.zeros((24, 32), np.uint8))
    (root / "dataset.yaml").write_text("ignore: [odd]\n")
    data = load_dataset(root)
    line = lines_of(data, evaluating=True).original
    by_name = {s.image: line.truth(s) for s in data.samples}
    good, masked, bare = by_name["good.png"], by_name["masked.png"], by_name["bare.png"]
    assert (
        good.known
        and good.healthy
        and good.mask is not None
        and not good.mask.any()
        and good.class_id is None
    )
    assert masked.known and masked.class_id == 1 and masked.mask is not None and masked.mask.max() == 2
    assert not bare.known and bare.healthy is False and bare.mask is None
    assert not by_name["blank.png"].known
    assert by_name["odd.png"].healthy is None and not by_name["odd.png"].known


def test_a_set_may_say_that_an_empty_mask_is_healthy(tmp_path):
    root = table_set(tmp_path / "s", "image,label\na.png,tear\nb.png,good\n")
    (root / "dataset.yaml").write_text("empty_mask: healthy\n")
    data = load_dataset(root)
    truth = lines_of(data, evaluating=True).original.truth(data.samples[0])
    assert truth.known
    assert truth.mask is not None
    assert not truth.mask.any()
