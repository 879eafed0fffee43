from __future__ import annotations

import pytest

from calibration.graphs import Graph
from calibration.ranges import PictureEntry, RangeTable, table_of
from edge_sdk.vision.preprocess import PreprocessSpec
from tests.calibration.networks import SIDE, concat_graph, frames, graph_of, residual_model, watched

SPEC = PreprocessSpec(width=SIDE, height=SIDE)


def table(graph: Graph, *, count: int = 16) -> RangeTable:
    seen = watched(graph, frames(count))
    return table_of(seen, graph=graph, spec=SPEC, pictures=[PictureEntry(name="a.png", sha256="0" * 64)])


@pytest.fixture(scope="session")
def residual() -> Graph:
    return graph_of(residual_model())


@pytest.fixture(scope="session")
def residual_ranges(residual: Graph) -> RangeTable:
    return table(residual)


@pytest.fixture(scope="session")
def concat() -> Graph:
    return graph_of(concat_graph())


@pytest.fixture(scope="session")
def concat_ranges(concat: Graph) -> RangeTable:
    return table(concat)
