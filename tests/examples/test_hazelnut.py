"""The shipped set of pictures is small, whole and attributed."""

from __future__ import annotations

from pathlib import Path

from edge_sdk.quality.datasets import lines_of, load_dataset, read_image, read_mask, require_masks

ROOT = Path(__file__).parents[2] / "examples" / "data" / "hazelnut"


def test_it_is_whole_and_reads():
    data = load_dataset(ROOT)
    assert len(data.samples) == 51
    assert data.classes == ("ink",)
    require_masks(data)
    for sample in data.samples:
        image = read_image(sample)
        mask = read_mask(sample, image.shape[:2], classes=data.classes)
        assert (mask is not None and bool(mask.any())) == (not sample.healthy)


def test_it_takes_at_most_three_megabytes():
    assert sum(path.stat().st_size for path in ROOT.rglob("*") if path.is_file()) < 3e6


def test_it_says_where_it_comes_from_and_on_which_terms():
    text = (ROOT / "README.md").read_text()
    assert "Creative Commons Attribution 4.0" in text
    assert "Intel" in text and "anomalib" in text
    assert "What was changed" in text
    assert load_dataset(ROOT).licence == "CC BY 4.0, Intel / anomalib"


def test_every_line_has_defects_to_learn_from_and_to_be_tested_on():
    lines = lines_of(load_dataset(ROOT), evaluating=True)
    for samples in (lines.original.train, lines.original.test, lines.new[0].mentor, lines.new[0].test):
        assert {sample.healthy for sample in samples} == {True, False}
