"""Who trains and who judges, and what does not belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from calibration.calibrating import calibrate
from calibration.graphs import Graph
from calibration.pictures import pictures_in
from calibration.ranges import RangeTable
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError
from export.qat import Parting, parted, quantisation_aware
from export.tuning import Plan
from tests.calibration.conftest import SPEC
from tests.calibration.networks import excited_model, graph_of, hswish_model
from tests.export.qat.surfaces import PLAN, drawn


def test_who_trains_and_who_judges_share_no_part(typical: Path, table: RangeTable) -> None:
    samples = pictures_in(typical)
    found = parted(samples, table, 20)
    assert {sha256_file(one.path) for one in found.judging} == {one.sha256 for one in table.choosing}
    assert len(found.training) == 20 and not {one.unit for one in found.training} & {one.unit for one in found.judging}
    same = {one.image for one in (*found.judging[:1], *samples[:10])}
    grouped = [replace(one, group="same") if one.image in same else one for one in samples]
    assert len(parted(grouped, table, 256).training) < len(parted(samples, table, 256).training)


def test_pictures_that_cannot_judge_or_train_are_told(typical: Path, table: RangeTable, tmp_path: Path) -> None:
    samples = pictures_in(typical)
    judging = parted(samples, table, 256).judging
    with pytest.raises(DatasetError, match="all 12 pictures judge, and none is left to train on; give more"):
        parted(judging, table, 256)
    others = pictures_in(drawn(tmp_path / "others", 2, seed=500))
    with pytest.raises(DatasetError, match="none of the 12 pictures that chose the rule is among these 2; give the"):
        parted(others, table, 256)
    with pytest.raises(DatasetError, match="made without pictures that choose, so none can judge the fine-tuning"):
        parted(samples, table.model_copy(update={"choosing": ()}), 256)


def test_what_does_not_belong_together_is_refused(graph: Graph, table: RangeTable, parts: Parting) -> None:
    other = graph_of(excited_model(seed=1))
    with pytest.raises(FormatError, match="the range table is of graph .* make the ranges again"):
        quantisation_aware(other, table, parts, SPEC, PLAN)
    with pytest.raises(FormatError, match="the range table was made with another preprocessing"):
        quantisation_aware(graph, table, parts, replace(SPEC, mean=(0.1, 0.1, 0.1)), PLAN)
    everything = [node.name for node in graph.nodes]
    with pytest.raises(FormatError, match="no layer of the graph is rounded to INT8, so there is nothing to fine-tune"):
        quantisation_aware(graph, table, parts, SPEC, PLAN, keep_float=everything)


def test_a_graph_of_a_fixed_batch_is_trained_frame_by_frame_or_refused(typical: Path) -> None:
    for batch in (1, 3):
        model = hswish_model()
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        fixed = graph_of(model)
        samples = pictures_in(typical)[:20]
        if batch == 1:
            table = calibrate(fixed, samples, SPEC, most_float=0, equalise=False)
            assert quantisation_aware(fixed, table, parted(samples, table, 8), SPEC, Plan(epochs=1)).said.losses
        else:
            table = table.model_copy(update={"graph_sha256": fixed.digest})
            with pytest.raises(FormatError, match="takes 3 frames and no other number; export it without --fixed"):
                quantisation_aware(fixed, table, parted(samples, table, 8), SPEC, PLAN)
