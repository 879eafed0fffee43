"""Items on the hub's disk: whole or not at all, and never lost once acknowledged."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_sdk.clock import FakeClock
from edge_sdk.documents import sha256_hex
from edge_sdk.records import Part, Record, decode_item, encode_item, item_id
from mentoring import catalogue
from mentoring import store as store_module
from mentoring.catalogue import entry_of
from mentoring.hub import Hub
from mentoring.problems import NoRoom, NotAcceptable, NotFound, RefusalError, TooLarge, WrongKind
from tests.mentoring.items import altered, drawn_item
from tests.mentoring.items_in import bring

Item = tuple[str, bytes]
SMALL = drawn_item(0, width=80, height=60, side=96)[1]


def test_an_item_comes_back_as_it_was_sent(hub: Hub, drawn: list[Item]) -> None:
    digest, item = drawn[0]
    assert bring(hub, drawn[0]) == "new"
    assert hub.store.path_of(digest).read_bytes() == item
    record = decode_item(item)
    assert hub.store.read_part(digest, "frame") == (record.parts["frame"], "image/png")
    assert hub.store.header_of(digest) == record.header
    assert hub.store.count() == 1


def test_an_item_sent_twice_is_kept_once(hub: Hub, drawn: list[Item]) -> None:
    assert [bring(hub, drawn[0]) for _ in range(3)] == ["new", "known", "known"]
    assert hub.store.count() == 1


def test_a_wrong_digest_is_refused_and_nothing_stays(hub: Hub, drawn: list[Item], tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(NotAcceptable) as refused:
        bring(hub, drawn[0], digest=wrong)
    assert str(refused.value) == (
        f"the bytes have the digest {drawn[0][0]}, not {wrong}; they were altered on the way, send them again"
    )
    assert files_under(tmp_path / "hub" / "items") == []
    assert files_under(tmp_path / "hub" / "incoming") == []


def test_an_item_longer_than_the_limit_is_refused_while_it_comes(
    tmp_path: Path, clock: FakeClock, drawn: list[Item]
) -> None:
    with Hub(tmp_path / "small", clock=clock, max_item_bytes=1000) as hub:
        with pytest.raises(TooLarge) as refused:
            bring(hub, drawn[0])
        assert str(refused.value) == "the item has more than 1000 bytes; the hub takes no more"
        assert files_under(tmp_path / "small" / "incoming") == []


def test_bytes_that_are_no_item_are_of_the_wrong_kind(hub: Hub) -> None:
    with pytest.raises(WrongKind, match=r"^these bytes are no item of item/1: "):
        bring(hub, named(b'{"schema":"pickle/1"}\n'))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"captured_at": "2026-11-21T10:00:00"},
            "captured_at is 2026-11-21 10:00:00; give it in UTC with a Z",
        ),
        ({"seq": 2**70}, f"the item's seq is {2**70}; give one below 2^63"),
        (
            {"questions": [{"class": "pit", "confidence": 0.6, "box": [0, 0, 9000, 20], "cells": [[0, 0]]}]},
            "question 0 asks about the box [0.0, 0.0, 9000.0, 20.0] on a picture of 400 x 300",
        ),
        (
            {"questions": [{"class": "pit", "confidence": 0.6, "box": [0, 0, 20, 20], "cells": [[0, 12]]}]},
            "question 0 asks about a cell outside the confidence map of 12 x 12 cells",
        ),
    ],
)
def test_a_header_that_says_what_cannot_be_is_refused(
    hub: Hub, drawn: list[Item], change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(NotAcceptable) as refused:
        bring(hub, altered(drawn[0][1], **change))
    assert sentence in str(refused.value)


def test_a_value_that_is_no_number_is_refused(hub: Hub, drawn: list[Item]) -> None:
    with pytest.raises(NotAcceptable) as refused:
        bring(hub, altered(drawn[0][1], value=float("nan")))
    assert str(refused.value) == "the item's value is nan; give a finite number"


def test_text_that_no_database_can_keep_is_refused(hub: Hub, drawn: list[Item]) -> None:
    for text in ("\ud800", "\0"):
        with pytest.raises(
            NotAcceptable, match="the item's header (cannot be kept: .*surrogates|holds a NUL)"
        ):
            bring(hub, altered(drawn[0][1], camera=text))
    assert hub.store.count() == 0


def test_an_altered_part_is_refused_by_name(hub: Hub, drawn: list[Item]) -> None:
    item = bytearray(drawn[0][1])
    item[-1] ^= 1
    with pytest.raises(NotAcceptable, match="part 'confidence' is not what its digest says"):
        bring(hub, named(bytes(item)))


def test_a_confidence_map_with_a_nan_is_refused(hub: Hub, drawn: list[Item]) -> None:
    file = io.BytesIO()
    np.save(file, np.full((2, 12, 12), np.nan, np.float16))
    with pytest.raises(NotAcceptable, match="the item's confidence map holds NaN or infinity"):
        bring(hub, with_confidence(drawn[0][1], file.getvalue()))


@given(st.data())
def test_whatever_is_wrong_with_an_item_the_refusal_is_a_sentence(data: st.DataObject) -> None:
    item = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, len(item) - 1) | st.integers(0, item.index(b"\n") + 200))
        item[where] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del item[data.draw(st.integers(0, len(item) - 1)) :]
    try:
        entry_of(bytes(item))
    except RefusalError as refused:
        told = str(refused)
    else:
        told = "taken"  # such a change makes another item, not a damaged one
    assert told


def test_a_map_that_claims_more_than_fits_is_refused(hub: Hub, drawn: list[Item]) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f2", "fortran_order": False, "shape": (2, 2**30, 2**30)}
    )
    with pytest.raises(NotAcceptable, match="confidence map (claims more cells than fit|cannot be read)"):
        bring(hub, with_confidence(drawn[0][1], file.getvalue()))


@pytest.mark.parametrize("name", ["..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "/..", ""])
def test_only_digests_become_names(hub: Hub, name: str) -> None:
    for ask in (hub.store.receive, hub.store.path_of, hub.store.header_of):
        with pytest.raises(NotAcceptable, match="is no item id; give the 64 lower-case hex digits"):
            ask(name)


def test_says_which_items_are_missing_in_their_order(hub: Hub, drawn: list[Item]) -> None:
    bring(hub, drawn[1])
    ids = [digest for digest, _ in drawn[:3]]
    assert hub.store.missing(ids) == [ids[0], ids[2]]
    with pytest.raises(NotAcceptable, match="1001 digests were asked for at once; ask for at most 1000"):
        hub.store.missing(["0" * 64] * 1001)


def test_a_missing_item_or_part_is_not_found(hub: Hub, drawn: list[Item]) -> None:
    with pytest.raises(NotFound) as refused:
        hub.store.read_part("0" * 64, "frame")
    assert str(refused.value) == f"there is no item {'0' * 64} here"
    bring(hub, drawn[0])
    with pytest.raises(NotFound, match="has no part 'thumbnail'; it has frame, confidence"):
        hub.store.read_part(drawn[0][0], "thumbnail")


def test_the_file_is_safe_before_the_row_is_written(
    hub: Hub, drawn: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    real_fsync, real_link, real_add = os.fsync, os.link, catalogue.add

    def fsync(handle: int) -> None:
        happened.append("fsync folder" if Path(f"/proc/self/fd/{handle}").is_dir() else "fsync file")
        real_fsync(handle)

    def link(path: Any, final: Any) -> None:
        happened.append("link")
        real_link(path, final)

    def add(*args: Any, **more: Any) -> bool:
        happened.append("row")
        return real_add(*args, **more)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    monkeypatch.setattr(store_module, "add", add)
    bring(hub, drawn[0])
    assert happened == ["fsync file", "fsync folder", "link", "fsync folder", "row"]


@pytest.mark.parametrize("cut", ["link", "add"])
def test_a_power_cut_leaves_an_item_whole_or_not_at_all(
    tmp_path: Path, clock: FakeClock, drawn: list[Item], monkeypatch: pytest.MonkeyPatch, cut: str
) -> None:
    class PowerCut(BaseException):
        pass

    def fall(*_: Any, **__: Any) -> None:
        raise PowerCut

    with Hub(tmp_path / "hub", clock=clock) as hub:
        arrival = hub.store.receive(drawn[0][0])  # no clean-up runs in a power cut, so no `with`
        arrival.write(drawn[0][1])
        with monkeypatch.context() as patch:
            patch.setattr(*((os, "link", fall) if cut == "link" else (store_module, "add", fall)))
            with pytest.raises(PowerCut):
                arrival.finish()
        assert hub.store.count() == 0
        assert arrival._file is not None
        arrival._file.close()
    with Hub(tmp_path / "hub", clock=clock) as hub:
        assert hub.adopted == (0 if cut == "link" else 1)
        assert len(hub.agenda.next(20).questions) == 2 * hub.adopted
        assert files_under(tmp_path / "hub" / "incoming") == []
        assert bring(hub, drawn[0]) == ("new" if cut == "link" else "known")


def test_a_destroyed_database_is_read_back_from_the_items(
    tmp_path: Path, clock: FakeClock, drawn: list[Item]
) -> None:
    with Hub(tmp_path / "hub", clock=clock) as hub:
        for item in drawn:
            bring(hub, item)
    for file in (tmp_path / "hub").glob("hub.db*"):
        file.unlink()
    with Hub(tmp_path / "hub", clock=clock) as hub:
        assert hub.adopted == len(drawn)
        assert hub.store.missing([digest for digest, _ in drawn]) == []


def test_a_rotten_file_is_set_aside_and_never_asked_about(
    tmp_path: Path, clock: FakeClock, drawn: list[Item]
) -> None:
    digest, item = drawn[0]
    folder = tmp_path / "hub" / "items" / digest[:2]
    folder.mkdir(parents=True)
    (folder / f"{digest}.item").write_bytes(item[:-1] + b"\0")
    with Hub(tmp_path / "hub", clock=clock) as hub:
        assert hub.adopted == 0
        assert hub.agenda.next(20).questions == ()
        assert bring(hub, drawn[0]) == "new"
    assert (tmp_path / "hub" / "damaged" / f"{digest}.item").is_file()


def test_a_full_disk_refuses_the_item_and_keeps_nothing(
    hub: Hub, drawn: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(NoRoom) as refused:
            bring(hub, drawn[0])
    assert str(refused.value) == (
        "the hub cannot write to its disk (No space left on device); the item was not kept, send it again later"
    )
    assert refused.value.retry_after_s == 30
    assert files_under(tmp_path / "hub" / "items") == []
    assert files_under(tmp_path / "hub" / "incoming") == []
    assert bring(hub, drawn[0]) == "new"


def test_a_file_system_without_hard_links_is_good_enough(
    hub: Hub, drawn: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_here(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", none_here)
    assert bring(hub, drawn[0]) == "new"
    assert hub.store.path_of(drawn[0][0]).read_bytes() == drawn[0][1]


def test_an_item_of_a_healthy_control_frame_has_no_question_and_is_taken(hub: Hub) -> None:
    assert bring(hub, drawn_item(3, peaks=0, reason="control")) == "new"


def with_confidence(item: bytes, data: bytes) -> Item:
    """The item with other bytes for its confidence map, told rightly in its header."""
    record = decode_item(item)
    part = Part(role="confidence", type="application/x-npy", bytes=len(data), sha256=sha256_hex(data))
    header = record.header.model_copy(update={"parts": (record.header.parts[0], part)})
    return named(encode_item(Record(header, {**record.parts, "confidence": data})))


def named(item: bytes) -> Item:
    return item_id(item), item


def files_under(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
