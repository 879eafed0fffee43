"""A network that INT8 costs much, its ranges, and what fine-tuning makes of it, each made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from calibration.calibrating import calibrate
from calibration.graphs import Graph
from calibration.pictures import pictures_in
from calibration.ranges import RangeTable
from calibration.tuned import Tuned
from export.qat import Parting, parted, quantisation_aware
from tests.calibration.conftest import SPEC
from tests.calibration.networks import excited_model, graph_of
from tests.export.qat.surfaces import PLAN, drawn


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def typical(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn(tmp_path_factory.mktemp("typical") / "pictures", 60)


@pytest.fixture(scope="session")
def graph() -> Graph:
    return graph_of(excited_model())


@pytest.fixture(scope="session")
def table(graph: Graph, typical: Path) -> RangeTable:
    return calibrate(graph, pictures_in(typical), SPEC, most_float=0, equalise=False)


@pytest.fixture(scope="session")
def parts(typical: Path, table: RangeTable) -> Parting:
    return parted(pictures_in(typical), table, 256)


@pytest.fixture(scope="session")
def tuned(graph: Graph, table: RangeTable, parts: Parting) -> Tuned:
    return quantisation_aware(graph, table, parts, SPEC, PLAN)
