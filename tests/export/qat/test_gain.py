"""Fine-tuning regains what calibration lost, or leaves everything as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibration.choosing import Noise
from calibration.collect import frames_of
from calibration.graphs import Graph
from calibration.pictures import pictures_in
from calibration.qdq import qdq_from_onnx
from calibration.ranges import RangeTable
from calibration.sessions import open_session
from calibration.tuned import Tuned
from export.qat import Parting, quantisation_aware
from export.tuning import Plan
from tests.calibration.conftest import SPEC
from tests.export.qat.surfaces import drawn


def test_where_calibration_loses_much_fine_tuning_regains_some(tuned: Tuned) -> None:
    trt = tuned.said.trt
    assert trt.taken and trt.before_db is not None and trt.after_db is not None
    assert trt.before_db < 28 and trt.after_db > trt.before_db + 0.5
    assert tuned.said.judged_on == 12 and len(tuned.said.pictures) == 48


def test_the_gain_holds_on_pictures_that_neither_trained_nor_judged(
    graph: Graph, table: RangeTable, tuned: Tuned, tmp_path: Path
) -> None:
    others = pictures_in(drawn(tmp_path / "others", 24, seed=1000))
    fp32 = open_session(graph.model)
    lost = []
    for weights in (None, tuned):
        session = open_session(qdq_from_onnx(graph, table, layout="tensorrt", tuned=weights), reference=True)
        noise = Noise()
        for _, frame in frames_of(others, SPEC):
            noise.see(fp32.run(frame), session.run(frame))
        lost.append(noise.sqnr_db)
    assert lost[1] > lost[0] + 0.5


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(
    graph: Graph, table: RangeTable, parts: Parting
) -> None:
    parts = replace(parts, training=parts.training[:16], judging=parts.judging[:3])
    first, again, other = (
        quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, seed=seed)).data for seed in (3, 3, 4)
    )
    assert first == again != other


@pytest.mark.parametrize("rate", [1e-9, 0.3])
def test_weights_that_are_not_better_are_not_taken(
    graph: Graph, table: RangeTable, parts: Parting, rate: float
) -> None:
    found = quantisation_aware(graph, table, parts, SPEC, Plan(epochs=1, rate=rate)).said
    assert not found.trt.taken and not found.cpu.taken
