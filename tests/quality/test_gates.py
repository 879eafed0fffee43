"""One table of gates, and what it lets through."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.arrays import Floats
from edge_sdk.detections import Detections
from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.inspections import Verdict
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.quality.areas import Areas
from edge_sdk.quality.gates import ClassRecall, Gates, Measured, all_findings, compare, judge, verdicts
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import confidence_from_logits, decode_cells
from edge_sdk.vision.preprocess import PreprocessSpec, geometry

BAND = Thresholds.uniform(2, boundary=0.5, pass_below=0.3, defective_from=0.8)


def areas(logits: Floats) -> Areas:
    """Each of which shows its picture."""
    return Areas(logits, np.ones((len(logits), *logits.shape[2:]), bool))


def sentences(measured: Measured, *, against: str = "fp32") -> list[str]:
    return [finding.sentence for finding in judge(measured, Gates(), against=against)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pictures", "fp32", "graph"),
    [(1, 1, 1), (30, 1, 1), (99, 2, 1), (100, 3, 2), (150, 4, 3), (1000, 30, 20)],
)
def test_a_picture_may_always_flip_and_then_as_many_as_the_rate_says(
    pictures: int, fp32: int, graph: int
) -> None:
    assert Gates().flips_allowed(pictures, "fp32") == fp32
    assert Gates().flips_allowed(pictures, "graph") == graph


def test_what_holds_gives_no_finding() -> None:
    assert judge(Measured(200, (4, 9), 0.999, 30.0, 0.4), Gates(), against="fp32") == ()


def test_each_broken_gate_is_a_sentence_with_what_was_seen_and_what_is_asked() -> None:
    measured = Measured(
        200,
        tuple(range(7)),
        cells_agreement=0.99496,
        sqnr_db=8.26,
        score_drop_points=1.5,
        recall={
            "crack": ClassRecall(400, 390, 387),
            "dent": ClassRecall(20, 20, 19),
            "none": ClassRecall(0, 0, 0),
        },
    )
    assert sentences(measured) == [
        "7 of 200 pictures got another verdict than from FP32; at most 6 may",
        "99.49 % of the cells are decided as by FP32; at least 99.50 % must be",
        "the outputs are 8.3 dB from those of FP32; at least 10 dB must be reached",
        "the score falls by 1.50 points; at most 1 may be lost",
        "3 of 400 pictures with crack are no longer found; at most 2 may be",
    ]


def test_an_engine_is_held_closer_to_its_own_graph() -> None:
    measured = Measured(200, tuple(range(5)), sqnr_db=15.0)
    assert sentences(measured) == []
    assert sentences(measured, against="graph") == [
        "5 of 200 pictures got another verdict than from its own graph; at most 4 may",
        "the outputs are 15.0 dB from those of its own graph; at least 20 dB must be reached",
    ]


def test_few_pictures_are_weak_evidence_and_say_so() -> None:
    few, many = Measured(40, (1, 2)), Measured(100, (1, 2))
    assert sentences(few) == [
        "2 of 40 pictures got another verdict than from FP32; at most 1 may "
        "(weak evidence: 40 of the 100 pictures wanted)"
    ]
    assert all(finding.weak for finding in all_findings(few, Gates(), against="fp32"))
    assert not any(finding.weak for finding in all_findings(many, Gates(), against="fp32"))


@pytest.mark.parametrize("pictures", [1, 40, 99, 100, 1000])
def test_a_point_of_score_may_be_lost_on_few_pictures_as_on_many(pictures: int) -> None:
    assert sentences(Measured(pictures, (), score_drop_points=1.0)) == []
    (said,) = sentences(Measured(pictures, (), score_drop_points=1.1))
    assert said.startswith("the score falls by 1.10 points; at most 1 may be lost")
    assert said.endswith(f"(weak evidence: {pictures} of the 100 pictures wanted)") == (pictures < 100)


def test_a_figure_that_is_no_number_holds_no_gate() -> None:
    nan = float("nan")
    broken = judge(Measured(200, (), nan, nan, nan), Gates(), against="fp32")
    assert [finding.gate for finding in broken] == ["cells_agreement", "sqnr_db", "score_drop"]


def test_nothing_compared_is_refused() -> None:
    with pytest.raises(RangeError, match="^no picture was compared; give at least one$"):
        judge(Measured(0, ()), Gates(), against="fp32")


@pytest.mark.parametrize(
    ("setting", "value", "sentence"),
    [
        ("agreement_fp32", 1.2, "agreement_fp32 is 1.2; give a share from 0 to 1"),
        ("cells_agreement", float("nan"), "cells_agreement is nan; give a share from 0 to 1"),
        ("score_drop_points", -1.0, "score_drop_points is -1; give 0 or more"),
    ],
)
def test_a_limit_out_of_range_is_refused(setting: str, value: float, sentence: str) -> None:
    with pytest.raises(RangeError, match=f"^{sentence}$"):
        Gates(**{setting: value})


logits = st.floats(-6, 6, width=32)


@given(st.lists(logits, min_size=8, max_size=8))
def test_the_verdict_of_the_cells_is_the_verdict_of_the_detections(values: list[float]) -> None:
    confidence = confidence_from_logits(np.array(values, np.float32).reshape(2, 2, 2))
    place = geometry(PreprocessSpec(width=16, height=16), 16, 16)
    detections: Detections = decode_cells(confidence, BAND.pass_below, place=place, cell_px=8)
    verdict, _ = decide(detections, BAND, Labels(("crack", "dent")))
    order = (Verdict.PASSED, Verdict.UNCERTAIN, Verdict.DEFECTIVE)
    assert order[int(verdicts(confidence[None], BAND)[0])] is verdict


def test_a_map_that_is_no_number_never_passes() -> None:
    confidence = np.zeros((1, 2, 2, 2), np.float32)
    confidence[0, 1, 0, 0] = np.nan
    assert verdicts(confidence, BAND).tolist() == [1]
    seen = compare(areas(np.zeros((1, 2, 2, 2), np.float32)), areas(np.full((1, 2, 2, 2), np.nan, np.float32)), BAND)
    assert seen.sqnr_db == float("-inf")
    assert judge(seen, Gates(), against="graph")


def test_compares_verdicts_cells_and_outputs() -> None:
    reference = np.full((4, 2, 3, 3), -4.0, np.float32)
    reference[1, 0, 1, 1] = 3.0
    other = reference.copy()
    other[1, 0, 1, 1] = 0.1  # defective, and still above the boundary: uncertain
    other[3, 1, 0, 0] = 0.1  # passed, now uncertain, and across the boundary
    seen = compare(areas(reference), areas(other), BAND)
    assert seen.pictures == 4
    assert seen.flips == (1, 3)
    assert seen.agreement == 0.5
    assert seen.cells_agreement == pytest.approx(1 - 1 / 72)
    noise = (3.0 - 0.1) ** 2 + (-4.0 - 0.1) ** 2
    assert seen.sqnr_db == pytest.approx(10 * np.log10((71 * 16 + 9) / noise), abs=1e-4)
    same = compare(areas(reference), areas(reference), BAND)
    assert same.flips == () and same.cells_agreement == 1 and same.sqnr_db == float("inf")


def test_temperature_moves_the_decision() -> None:
    reference = np.full((1, 2, 1, 1), 1.0, np.float32)
    other = np.full((1, 2, 1, 1), 2.0, np.float32)
    assert compare(areas(reference), areas(other), BAND).flips == (0,)
    assert compare(areas(reference), areas(other), BAND, temperature=np.array([4.0, 4.0])).flips == ()


def test_maps_that_do_not_fit_are_refused() -> None:
    with pytest.raises(
        ShapeError, match=r"^the outputs are \(1, 2, 2, 2\) against \(1, 2, 3, 3\); compare"
    ):
        compare(areas(np.zeros((1, 2, 3, 3), np.float32)), areas(np.zeros((1, 2, 2, 2), np.float32)), BAND)
    with pytest.raises(ShapeError, match="^confidence has 3 classes but there are thresholds for 2$"):
        verdicts(np.zeros((1, 3, 2, 2), np.float32), BAND)
