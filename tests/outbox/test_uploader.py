"""What the uploader does with each of the hub's answers; time is a fake clock."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge_sdk.clock import FakeClock
from edge_sdk.config import HubConfig, MentoringConfig, StationConfig
from edge_sdk.errors import ConfigError, HubError, HubRefused, OutboxBusy
from edge_sdk.outbox import Outbox
from edge_sdk.outbox.hub_client import HubBroke, HubClient, Reply
from edge_sdk.outbox.uploader import Uploader, UploadState, read_upload_state, run_uploader
from edge_sdk.records import item_id
from tests.outbox.hubs import StoringHub
from tests.outbox.making import record

URL = "https://hub.plant"
AWAY = HubError(f"{URL} refuses connections; is the hub running there?")


class FakeHub(HubClient):
    """Answers from a list, then stores everything."""

    def __init__(self, *answers: Reply | HubError | Callable[[str], Reply | None]) -> None:
        self.url = URL
        self.answers = list(answers)
        self.items: dict[str, bytes] = {}
        self.tries: list[str] = []
        self.asked: list[int] = []

    def put(self, item: str, data: bytes) -> Reply:
        self.tries.append(item)
        answer = self.answers.pop(0) if self.answers else None
        if isinstance(answer, HubError):
            raise answer
        if callable(answer):
            answer = answer(item)
        if answer is not None:
            return answer
        known = item in self.items
        self.items[item] = data
        return Reply(200 if known else 201, "")

    def missing(self, items: object) -> set[str]:
        ids = list(items)  # type: ignore[call-overload]
        self.asked.append(len(ids))
        return {name for name in ids if name not in self.items}


class Bench:
    """An outbox with some records, a hub, and what was said."""

    def __init__(self, folder: Path, hub: FakeHub, count: int = 3) -> None:
        self.folder, self.hub, self.clock = folder, hub, FakeClock()
        self.outbox = Outbox(folder / "outbox", writing=True, sending=True, clock=self.clock)
        self.names = [self.outbox.put(record(seq)) for seq in range(count)]
        self.said: list[str] = []
        self.stop = threading.Event()
        self.uploader = Uploader(
            self.outbox,
            hub,
            state_path=folder / "state" / "upload.json",
            clock=self.clock,
            stop=self.stop,
            say=self.said.append,
            draw=lambda: 0.5,
        )

    def run(self, **how: float) -> UploadState:
        return self.uploader.run(until_empty=True, give_up_after_s=how.get("give_up_after_s"))

    @property
    def waiting(self) -> int:
        return self.outbox.counts().waiting


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(*answers: Reply | HubError | Callable[[str], Reply | None], count: int = 3) -> Bench:
        made.append(Bench(tmp_path, FakeHub(*answers), count))
        return made[-1]

    yield make
    for one in made:
        one.outbox.close()


def test_everything_is_sent_in_order_and_released(bench: Callable[..., Bench]) -> None:
    b = bench()
    state = b.run()
    assert b.hub.tries == b.names
    assert {item_id(data) for data in b.hub.items.values()} == set(b.names)
    assert (state.uploaded, state.known, state.waiting, state.connected, b.waiting) == (3, 0, 0, True, 0)
    assert b.said == ["uploaded 3, waiting 0"]


def test_what_the_hub_has_already_counts_as_uploaded_and_known(bench: Callable[..., Bench]) -> None:
    b = bench(Reply(200, ""))
    state = b.run()
    assert (state.uploaded, state.known) == (3, 1)


def test_a_hub_that_is_away_is_said_once_and_nothing_is_lost(bench: Callable[..., Bench]) -> None:
    b = bench(*[AWAY] * 12)
    state = b.run()
    assert state.uploaded == 3
    assert b.said[0] == f"{AWAY}; 3 waiting, nothing is lost, trying on"
    assert b.said[1].startswith(f"{URL} is back after ")
    assert b.said[2] == "uploaded 3, waiting 0"
    assert len(b.said) == 3


def test_a_hub_that_stays_away_can_be_given_up(bench: Callable[..., Bench]) -> None:
    b = bench(*[AWAY] * 1000)
    with pytest.raises(HubError) as refused:
        b.run(give_up_after_s=60)
    assert str(refused.value) == f"{AWAY}; 3 waiting stay in the outbox, upload again later"
    assert b.waiting == 3
    state = read_upload_state(b.folder / "state" / "upload.json")
    assert state is not None
    assert (state.connected, state.trouble, state.waiting) == (False, str(AWAY), 3)


def test_the_hub_is_asked_again_as_late_as_it_wants(bench: Callable[..., Bench]) -> None:
    b = bench(Reply(429, "", 77.0))
    before = b.clock.monotonic_ns()
    b.run()
    assert (b.clock.monotonic_ns() - before) / 1e9 == pytest.approx(77, abs=0.5)
    assert b.said[0] == f"{URL} is busy (429); 3 waiting, nothing is lost, trying on"


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (Reply(503, "disk full"), f"{URL} cannot take items now (503: disk full)"),
        (Reply(502, ""), f"{URL} cannot take items now (502)"),
        (Reply(401, "who?"), f"{URL} does not take this station's token (401: who?)"),
        (Reply(403, ""), f"{URL} does not take this station's token (403)"),
        (Reply(404, ""), f"{URL} takes no items; that is no hub, look at hub.url (404)"),
        (Reply(301, ""), f"{URL} takes no items; that is no hub, look at hub.url (301)"),
        (Reply(204, ""), f"{URL} takes no items; that is no hub, look at hub.url (204)"),
    ],
)
def test_a_refusal_that_concerns_all_items_is_waited_out(
    bench: Callable[..., Bench], reply: Reply, sentence: str
) -> None:
    b = bench(*[reply] * 5)
    state = b.run()
    assert b.said[0] == f"{sentence}; 3 waiting, nothing is lost, trying on"
    assert (state.uploaded, state.quarantined, state.held_back) == (3, 0, 0)


@pytest.mark.parametrize("status", [413, 415])
def test_an_item_that_is_refused_for_good_is_set_aside(bench: Callable[..., Bench], status: int) -> None:
    b = bench(Reply(status, "not here"))
    state = b.run()
    assert (state.uploaded, state.quarantined, b.waiting) == (2, 1, 0)
    why = f"the hub refused it for good ({status}: not here)"
    assert b.said[0] == f"item {b.names[0][:12]} was set aside: {why}"
    assert (b.folder / "outbox" / "quarantine" / f"{b.names[0]}.why").read_text() == f"{why}\n"


def test_an_item_that_arrives_altered_is_sent_again(bench: Callable[..., Bench]) -> None:
    b = bench(Reply(422, "differs"), Reply(422, "differs"))
    state = b.run()
    assert (state.uploaded, state.altered, state.quarantined) == (3, 2, 0)


def test_an_item_that_is_damaged_here_is_set_aside(bench: Callable[..., Bench]) -> None:
    def rot(name: str) -> Reply:
        (b.folder / "outbox" / "items" / name).write_bytes(b"rot")
        return Reply(422, "differs")

    b = bench(rot)
    state = b.run()
    assert (state.uploaded, state.altered, state.quarantined) == (2, 1, 1)
    assert b.said[0] == f"item {b.names[0][:12]} is damaged on this disk and was set aside"


def test_an_item_that_the_hub_will_not_have_lets_the_others_go_first_and_is_kept(
    bench: Callable[..., Bench],
) -> None:
    def never(name: str) -> Reply | None:
        return Reply(422, "at odds") if name == b.names[0] else None

    b = bench(*[never] * 20)
    with pytest.raises(HubRefused) as refused:
        b.run()
    assert str(refused.value) == f"{URL} does not take item {b.names[0][:12]} as it is (422: at odds)"
    assert set(b.hub.items) == set(b.names[1:])
    assert (b.waiting, b.uploader.state.held_back) == (1, 1)
    b.clock.advance(301)
    b.hub.answers = []
    b.run()
    assert b.waiting == 0


def test_another_refusal_holds_the_item_back_and_is_said_once(bench: Callable[..., Bench]) -> None:
    b = bench(Reply(400, "hm"))
    with pytest.raises(HubRefused, match=r"refused item [0-9a-f]{12} \(400: hm\)"):
        b.run()
    assert b.said[0] == (
        f"{URL} refused item {b.names[0][:12]} (400: hm); it stays in the outbox and is tried again later"
    )
    assert b.waiting == 1


@pytest.mark.parametrize("how", [Reply(500, "bug"), HubBroke("broke off", status=0)])
def test_an_item_that_brings_the_hub_down_does_not_block_the_others(
    bench: Callable[..., Bench], how: Reply | HubError
) -> None:
    def poison(name: str) -> Reply | None:
        if name != b.names[0]:
            return None
        if isinstance(how, HubError):
            raise how
        return how

    b = bench(*[poison] * 30)
    with pytest.raises(HubRefused):
        b.run()
    assert set(b.hub.items) == set(b.names[1:])
    assert b.hub.tries.count(b.names[0]) == 3
    assert b.waiting == 1


def test_after_a_long_time_offline_the_hub_is_asked_what_it_has(bench: Callable[..., Bench]) -> None:
    b = bench(count=30)
    b.hub.items = dict.fromkeys(b.names[:25], b"")
    state = b.run()
    assert b.hub.asked == [30]
    assert b.hub.tries == b.names[25:]
    assert (state.uploaded, state.known, b.waiting) == (30, 25, 0)


def test_a_hub_that_cannot_be_asked_is_sent_everything(bench: Callable[..., Bench]) -> None:
    def refuse(items: object) -> set[str]:
        raise HubRefused("no", status=404)

    b = bench(count=30)
    b.hub.missing = refuse  # type: ignore[method-assign]
    assert b.run().uploaded == 30


def test_the_counts_are_carried_on_from_run_to_run(bench: Callable[..., Bench]) -> None:
    b = bench()
    b.run()
    written = json.loads((b.folder / "state" / "upload.json").read_text())
    assert written["schema"] == "upload/1"
    assert (written["uploaded"], written["waiting"], written["hub"]) == (3, 0, URL)
    assert written["uploaded_at"] == "2026-01-01T00:00:00.000000Z"
    b.outbox.put(record(9))
    again = Uploader(b.outbox, b.hub, state_path=b.folder / "state" / "upload.json", clock=b.clock)
    assert again.run(until_empty=True).uploaded == 4


@pytest.mark.parametrize("content", ["", "[]", '{"uploaded": ', "7"])
def test_a_state_that_cannot_be_read_begins_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "upload.json").write_text(content)
    assert read_upload_state(tmp_path / "upload.json") in (None, UploadState())


def test_a_stop_ends_the_run_after_the_item_under_way_and_gives_the_others_back(
    bench: Callable[..., Bench],
) -> None:
    def last(name: str) -> None:
        b.stop.set()

    b = bench(last)
    state = b.uploader.run()
    assert (state.uploaded, b.waiting) == (1, 2)
    assert len(b.outbox.lease(5, for_s=1)) == 2


def test_an_idle_uploader_waits_for_more(bench: Callable[..., Bench]) -> None:
    b = bench(count=1)
    sleep = b.clock.sleep

    def put_meanwhile(seconds: float) -> None:
        sleep(seconds)
        if b.waiting == 0 and len(b.names) < 4:
            b.names.append(b.outbox.put(record(len(b.names))))
        elif len(b.names) == 4 and b.waiting == 0:
            b.stop.set()

    b.clock.sleep = put_meanwhile  # type: ignore[method-assign]
    assert b.uploader.run().uploaded == 4


# -- as a command runs it ----------------------------------------------------------------------------


def station(folder: Path, *, url: str | None, outbox: bool = True) -> StationConfig:
    return StationConfig(
        station="press-3",
        bundle=folder / "bundle",
        trust="unsigned",
        camera={"uri": "file:line.avi"},
        mentoring=MentoringConfig(outbox=folder / "outbox") if outbox else None,
        hub=None if url is None else HubConfig(url=url),
        state=folder / "state",
    )


def test_a_station_uploads_over_real_http(tmp_path: Path) -> None:
    with Outbox(tmp_path / "outbox", writing=True) as outbox:
        names = {outbox.put(record(seq)) for seq in range(30)}
        with StoringHub(tmp_path / "hub") as hub:
            state = run_uploader(station(tmp_path, url=hub.url), until_empty=True)
            assert set(hub.items) == names
            assert hub.connections == 1
            assert len(hub.asked) == 1
    assert (state.uploaded, state.waiting) == (30, 0)


def test_without_a_hub_or_an_outbox_there_is_nothing_to_upload(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        run_uploader(station(tmp_path, url=None))
    assert str(refused.value) == (
        "there is no hub to upload to; write a section hub, e.g. hub: {url: https://hub.plant}"
    )
    with pytest.raises(ConfigError) as refused:
        run_uploader(station(tmp_path, url=URL, outbox=False))
    assert str(refused.value) == (
        "the station has no outbox; write a section mentoring, e.g. mentoring: {outbox: ./outbox}"
    )


def test_a_second_uploader_is_refused(tmp_path: Path) -> None:
    with (
        Outbox(tmp_path / "outbox", sending=True),
        pytest.raises(OutboxBusy, match="is already uploaded by process"),
    ):
        run_uploader(station(tmp_path, url=URL))
