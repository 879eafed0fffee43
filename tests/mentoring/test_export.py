"""The export: what a mark covers, the same bytes for the same mark."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from edge_sdk.answers import Answer, MentoredExport, MentoredRow
from edge_sdk.clock import FakeClock
from edge_sdk.documents import canonical_json, parse_json, sha256_file, sha256_hex
from edge_sdk.errors import ConfigError
from edge_sdk.records import decode_item
from mentoring.export import SETTLE_S, write_folder
from mentoring.hub import Hub, exports_of
from mentoring.problems import NotFound, NotSettled
from tests.mentoring.items import altered, answer, drawn_item
from tests.mentoring.items_in import bring

Item = tuple[str, bytes]


@pytest.fixture
def answered(hub: Hub, clock: FakeClock, drawn: list[Item]) -> list[Item]:
    """Three items at the hub, two of them answered, the answers settled."""
    for item in drawn[:3]:
        bring(hub, item)
    hub.answers.record(
        [answer(drawn[0][0], 0), answer(drawn[0][0], 1, "infirm"), answer(drawn[1][0], 0, "unsure")]
    )
    clock.advance(SETTLE_S)
    return drawn[:3]


def test_a_row_carries_all_that_training_needs(hub: Hub, answered: list[Item], tmp_path: Path) -> None:
    write_folder(hub.exports.at(), tmp_path / "out")
    rows = [
        parse_json(line, MentoredRow, name="row")
        for line in (tmp_path / "out" / "records.jsonl").read_bytes().splitlines()
    ]
    assert [row.item for row in rows] == sorted(digest for digest, _ in answered[:2])
    sent = {digest: decode_item(item) for digest, item in answered}
    for row in rows:
        record = sent[row.item]
        assert row.header == record.header
        assert row.header.questions[0].cells
        assert (tmp_path / "out" / row.picture).read_bytes() == record.parts["frame"]
        assert row.confidence is not None
        scores = np.load(tmp_path / "out" / row.confidence)
        assert (scores.shape, scores.dtype) == ((2, 12, 12), np.float16)


def test_the_summary_names_every_file_by_its_digest(hub: Hub, answered: list[Item], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_folder(hub.exports.at(), out)
    summary = parse_json((out / "export.json").read_bytes(), MentoredExport, name="export.json")
    assert summary.mark == 3
    assert summary.counts == {"records": 2, "confirm": 1, "infirm": 1, "unsure": 1, "withdrawn": 0}
    files = {path.relative_to(out).as_posix(): sha256_file(path) for path in out.rglob("*") if path.is_file()}
    assert files.pop("export.json")
    assert files == summary.files


def test_answers_come_in_the_order_of_their_arrival(hub: Hub, answered: list[Item]) -> None:
    data = {member.path: member.read() for member in hub.exports.at().members}["answers.jsonl"]
    said = [parse_json(line, Answer, name="answer") for line in data.splitlines()]
    assert [(one.item, one.question, one.answer) for one in said] == [
        (answered[0][0], 0, "confirm"),
        (answered[0][0], 1, "infirm"),
        (answered[1][0], 0, "unsure"),
    ]


def test_the_same_mark_gives_the_same_bytes_whatever_happens_later(
    hub: Hub, clock: FakeClock, answered: list[Item], drawn: list[Item], tmp_path: Path
) -> None:
    before = b"".join(hub.exports.at(2).tar())
    write_folder(hub.exports.at(2), tmp_path / "before")
    bring(hub, drawn[5])
    first = next(m for m in hub.exports.at(2).members if m.path == "answers.jsonl").read().splitlines()[0]
    taken = parse_json(first, Answer, name="answer").id
    hub.answers.record([answer(answered[0][0], 0, "unsure", withdraws=taken), answer(drawn[5][0])])
    clock.advance(3600)
    assert b"".join(hub.exports.at(2).tar()) == before
    write_folder(hub.exports.at(2), tmp_path / "after")
    for path in (tmp_path / "before").rglob("*"):
        if path.is_file():
            assert (
                tmp_path / "after" / path.relative_to(tmp_path / "before")
            ).read_bytes() == path.read_bytes()


def test_a_withdrawal_belongs_to_the_next_mark(hub: Hub, clock: FakeClock, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    said = answer(drawn[0][0], 0)
    hub.answers.record([said])
    clock.advance(SETTLE_S)
    hub.answers.record([answer(drawn[0][0], 0, "unsure", withdraws=said["id"])])
    assert hub.exports.at().summary.counts["confirm"] == 1
    clock.advance(SETTLE_S)
    assert hub.exports.at().summary.counts == {
        "records": 1,
        "confirm": 0,
        "infirm": 0,
        "unsure": 0,
        "withdrawn": 1,
    }


def test_an_answer_is_covered_once_it_can_no_longer_be_taken_back(
    hub: Hub, clock: FakeClock, drawn: list[Item]
) -> None:
    bring(hub, drawn[0])
    hub.answers.record([answer(drawn[0][0], 0)])
    clock.advance(SETTLE_S - 0.001)
    assert hub.exports.newest_mark() == 0
    with pytest.raises(NotSettled) as refused:
        hub.exports.at(1)
    assert str(refused.value) == (
        "mark 1 covers an answer younger than 10 s, which may still be taken back; ask again then, or for mark 0"
    )
    clock.advance(0.001)
    assert hub.exports.newest_mark() == 1
    hub.answers.record([answer(drawn[0][0], 1)])
    assert hub.exports.newest_mark() == 1
    assert hub.exports.at(settle_s=0).summary.mark == 2


def test_a_clock_set_back_covers_no_young_answer(hub: Hub, clock: FakeClock, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    hub.answers.record([answer(drawn[0][0], 0)])
    clock.step_wall_clock(-3600)
    hub.answers.record([answer(drawn[0][0], 1)])
    clock.advance(SETTLE_S)
    assert hub.exports.newest_mark() == 0


def test_there_is_no_mark_beyond_the_last_answer(hub: Hub, answered: list[Item]) -> None:
    with pytest.raises(NotFound) as refused:
        hub.exports.at(4)
    assert str(refused.value) == "there is no mark 4; the last answer is number 3"


def test_what_a_later_station_adds_to_a_header_is_handed_on(hub: Hub, clock: FakeClock) -> None:
    item = altered(drawn_item(0)[1], lamp={"kelvin": 5600})
    bring(hub, item)
    hub.answers.record([answer(item[0])])
    clock.advance(SETTLE_S)
    rows = {member.path: member.read() for member in hub.exports.at().members}["records.jsonl"]
    assert b'"lamp":{"kelvin":5600}' in rows


def test_the_tar_holds_what_the_folder_holds(hub: Hub, answered: list[Item], tmp_path: Path) -> None:
    export = hub.exports.at()
    write_folder(export, tmp_path / "out")
    with tarfile.open(fileobj=io.BytesIO(b"".join(export.tar()))) as tar:
        assert tar.getnames() == sorted(tar.getnames())
        for entry in tar:
            file = tar.extractfile(entry)
            assert file is not None
            assert file.read() == (tmp_path / "out" / entry.name).read_bytes()
            assert (entry.mtime, entry.uid, entry.uname) == (0, 0, "")


def test_an_older_export_is_replaced_and_nothing_else_is(
    hub: Hub, answered: list[Item], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_folder(hub.exports.at(1), out)
    write_folder(hub.exports.at(3), out)
    assert len((out / "answers.jsonl").read_bytes().splitlines()) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "out"]
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.tex").write_text("x")
    with pytest.raises(ConfigError) as refused:
        write_folder(hub.exports.at(3), other)
    assert str(refused.value) == f"{other} is there and is no export; give another --out, or an empty folder"


def test_a_disk_that_fails_leaves_the_older_export(
    hub: Hub, answered: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_folder(hub.exports.at(1), out)
    before = sha256_hex((out / "export.json").read_bytes())

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", fail)
        with pytest.raises(OSError, match="No space left"):
            write_folder(hub.exports.at(3), out)
    assert sha256_hex((out / "export.json").read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "out"]


def test_a_swap_that_fails_half_way_brings_the_older_export_back(
    hub: Hub, answered: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    write_folder(hub.exports.at(1), out)
    before, rename = sha256_hex((out / "export.json").read_bytes()), Path.rename

    def second_fails(self: Path, target: Path) -> Path:
        if self.name == ".out.part":
            raise OSError(5, "Input/output error")
        return rename(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", second_fails)
        with pytest.raises(OSError, match="Input/output error"):
            write_folder(hub.exports.at(3), out)
    assert sha256_hex((out / "export.json").read_bytes()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hub", "out"]


def test_a_hub_without_answers_exports_an_empty_set(hub: Hub, tmp_path: Path) -> None:
    write_folder(hub.exports.at(), tmp_path / "out")
    assert (tmp_path / "out" / "records.jsonl").read_bytes() == b""
    assert hub.exports.at().summary.counts["records"] == 0


def test_exports_are_made_beside_a_hub_that_serves(
    hub: Hub, clock: FakeClock, answered: list[Item], tmp_path: Path
) -> None:
    beside = exports_of(tmp_path / "hub", clock=clock)
    assert canonical_json(beside.at().summary) == canonical_json(hub.exports.at().summary)
    with pytest.raises(
        ConfigError, match="holds no hub's data; give the folder that `serve` was given as --data"
    ):
        exports_of(tmp_path / "elsewhere")
