"""What a line knows to be healthy, from the station over the hub to what a retraining is taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_sdk import Inspection, Station
from edge_sdk.clock import FakeClock
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.records import item_id
from mentoring.export import SETTLE_S, write_folder
from mentoring.hub import Hub
from tests.mentoring.items import answer
from tests.mentoring.items_in import bring
from tests.stations import picture_folder, settings, spot_bundle
from training.answers import Mentored, read_mentored
from training.truth import truth_and_mentored

GRID = (8, 8)
"""Of the station's graph."""


@pytest.fixture
def export(tmp_path: Path) -> Mentored:
    """Nine pictures, every third with a dark spot; the line knows the fourth (with a spot) and the fifth healthy."""
    spot_bundle(tmp_path / "bundle")
    picture_folder(tmp_path / "pictures", 9)

    def known(inspection: Inspection) -> bool:
        return inspection.frame.index in (3, 4)

    with Station.open(settings(tmp_path, mentoring={"outbox": "./outbox", "control_share": 1.0})) as station:
        station.healthy_if(known)
        assert len(list(station)) == 9
    clock = FakeClock()
    with Hub(tmp_path / "hub", clock=clock) as hub:
        for path in sorted((tmp_path / "outbox" / "items").iterdir()):
            item = path.read_bytes()
            bring(hub, (item_id(item), item))
        while questions := hub.agenda.next(20, holder="web-1").questions:
            said = [answer(one.item, one.question, "unsure" if one.question is None else "infirm") for one in questions]
            assert {done.status for done in hub.answers.record(said)} == {201}
        clock.advance(SETTLE_S)
        write_folder(hub.exports.at(), tmp_path / "export")
    return read_mentored(tmp_path / "export")


def taught(export: Mentored, strategy: str) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Truth and mentored cells by number of the picture."""
    found = {}
    for row in export.rows:
        truth, mentored, _ = truth_and_mentored(
            row.header, export.answers[row.item], classes=["spot"], grid=GRID, strategy=strategy
        )
        found[row.header.seq] = truth, mentored
    return found


def test_the_flag_comes_through_to_the_truth_of_every_cell(export: Mentored) -> None:
    reasons = {row.header.seq: (row.header.reason, row.header.stratum) for row in export.rows}
    assert reasons[3] == reasons[4] == ("healthy", "control")
    assert reasons[0] == ("defect", "control") and reasons[1] == ("control", "control")
    plain, flagged = taught(export, "masked"), taught(export, "masked+healthy")
    assert 0 < plain[3][1].sum() < 64, "the infirmed place alone"
    assert not plain[4][1].any(), "an operator who is not sure teaches nothing"
    for number in (3, 4):
        assert flagged[number][1].all() and not flagged[number][0].any()
    for number in (0, 1, 2, 5, 6, 7, 8):
        assert np.array_equal(plain[number][1], flagged[number][1])


def test_an_operator_who_sees_a_defect_on_a_flagged_part_is_told_of(export: Mentored) -> None:
    (row,) = (row for row in export.rows if row.header.seq == 3)
    (said, *_) = export.answers[row.item]
    against = said.model_copy(update={"answer": "confirm"})
    with pytest.raises(DatasetError, match="press-3/camera 3 is flagged healthy by its line and answered defective"):
        truth_and_mentored(row.header, [against], classes=["spot"], grid=GRID, strategy="masked+healthy")


def test_a_station_without_records_says_that_nothing_could_be_kept(tmp_path: Path) -> None:
    spot_bundle(tmp_path / "bundle")
    picture_folder(tmp_path / "pictures", 1)
    with (
        Station.open(settings(tmp_path)) as station,
        pytest.raises(ConfigError, match="the station has no outbox; write a section mentoring"),
    ):
        station.healthy_if(lambda _: True)
