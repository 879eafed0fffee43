"""The hub over HTTP: statuses, sentences, and who is let in."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import httpx
import pytest

from edge_sdk.clock import FakeClock
from edge_sdk.records import decode_item, item_id
from mentoring.api import application
from mentoring.hub import Hub
from tests.mentoring.items import answer
from tests.mentoring.items_in import bring

Item = tuple[str, bytes]
TOKEN = "a-token-of-more-than-sixteen"


class Client:
    """Calls the application in this process."""

    def __init__(self, hub: Hub, *, token: str | None = TOKEN, at_once: int = 8, body_s: float = 60) -> None:
        self.app = application(hub, token=TOKEN, at_once=at_once, body_s=body_s)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def call(self, method: str, path: str, **more: object) -> httpx.Response:
        async def go() -> httpx.Response:
            async with self.open() as client:
                return await client.request(method, path, **more)  # type: ignore[arg-type]

        return anyio.run(go)

    def open(self) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://hub", headers=self._headers)


@pytest.fixture
def client(hub: Hub) -> Client:
    return Client(hub)


def put(client: Client, item: Item, *, digest: str | None = None) -> httpx.Response:
    return client.call("PUT", f"/v1/items/{digest or item[0]}", content=item[1])


def test_an_item_is_new_once_and_known_afterwards(client: Client, drawn: list[Item]) -> None:
    digest = drawn[0][0]
    assert put(client, drawn[0]).json() == {"item": digest, "status": "new"}
    again = put(client, drawn[0])
    assert (again.status_code, again.json()["status"]) == (200, "known")
    assert client.call("HEAD", f"/v1/items/{digest}").status_code == 200
    assert client.call("GET", f"/v1/items/{digest}").content == drawn[0][1]


def test_refusals_of_an_item_have_their_status_and_a_sentence(
    hub: Hub, client: Client, drawn: list[Item]
) -> None:
    wrong = put(client, drawn[0], digest="0" * 64)
    assert (wrong.status_code, wrong.json()["error"][:24]) == (422, "the bytes have the diges")
    junk = put(client, (item_id(b"GIF89a"), b"GIF89a"))
    assert junk.status_code == 415
    assert junk.json()["error"].startswith("these bytes are no item of item/1: ")
    assert hub.store.count() == 0


def test_an_item_too_large_is_refused_by_its_length_and_by_its_bytes(
    tmp_path: Path, clock: FakeClock, drawn: list[Item]
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(drawn[0][1]), 4096):
            yield drawn[0][1][start : start + 4096]

    with Hub(tmp_path / "small", clock=clock, max_item_bytes=20_000) as hub:
        client = Client(hub)
        said = put(client, drawn[0])
        assert said.status_code == 413
        assert said.json()["error"] == f"the item has {len(drawn[0][1])} bytes; the hub takes at most 20000"
        silent = client.call("PUT", f"/v1/items/{drawn[0][0]}", content=pieces())
        assert silent.status_code == 413
        assert silent.json()["error"] == "the item has more than 20000 bytes; the hub takes no more"


def test_one_item_too_many_at_once_is_told_to_come_again(hub: Hub, drawn: list[Item]) -> None:
    client = Client(hub, at_once=1)

    async def both() -> tuple[httpx.Response, httpx.Response]:
        begun, go_on = anyio.Event(), anyio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            yield drawn[0][1]

        found: list[httpx.Response] = []

        async def first() -> None:
            async with client.open() as http:
                found.append(await http.put(f"/v1/items/{drawn[0][0]}", content=slow()))

        async with anyio.create_task_group() as group, client.open() as http:
            group.start_soon(first)
            await begun.wait()
            second = await http.put(f"/v1/items/{drawn[1][0]}", content=drawn[1][1])
            go_on.set()
        return found[0], second

    first, second = anyio.run(both)
    assert (first.status_code, second.status_code) == (201, 429)
    assert second.headers["Retry-After"] == "1"
    assert second.json()["error"] == "1 items are coming in already; send it again later"
    assert put(client, drawn[1]).status_code == 201


def test_an_item_that_does_not_come_is_given_up(hub: Hub, drawn: list[Item]) -> None:
    client = Client(hub, body_s=0.05)

    async def never() -> AsyncIterator[bytes]:
        yield drawn[0][1][:100]
        await anyio.sleep_forever()

    given_up = client.call("PUT", f"/v1/items/{drawn[0][0]}", content=never())
    assert given_up.status_code == 408
    assert given_up.json()["error"] == "the item did not come within 0.05 s; send it again"
    assert list((hub.store._incoming).iterdir()) == []


def test_a_full_disk_says_when_to_come_again(
    client: Client, drawn: list[Item], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused = put(client, drawn[0])
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
    assert "No space left on device" in refused.json()["error"]


def test_says_which_items_it_has_not(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    ids = [drawn[1][0], drawn[0][0]]
    assert client.call("POST", "/v1/have", json=ids).json() == {"missing": [drawn[1][0]]}
    assert client.call("POST", "/v1/have", json=[1]).json()["error"] == (
        "the list holds something else than digests; send them as text"
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "the body is not JSON; send a list of answers"),
        (b'{"id":1}', "the body is no list; send a list of answers"),
        (b"[" * 200_000, "the body is not JSON; send a list of answers"),
    ],
)
def test_a_body_that_is_no_list_is_refused(client: Client, body: bytes, sentence: str) -> None:
    refused = client.call("POST", "/v1/answers", content=body)
    assert (refused.status_code, refused.json()) == (422, {"error": sentence})


def test_a_list_too_long_is_refused(client: Client) -> None:
    refused = client.call("POST", "/v1/answers", content=b" " * (1024 * 1024 + 1))
    assert refused.status_code == 413
    assert refused.json()["error"] == "the list has more than 1048576 bytes; send it in several"


def test_the_picture_is_the_frame_as_it_was_judged(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    picture = client.call("GET", f"/v1/pictures/{drawn[0][0]}")
    assert picture.content == decode_item(drawn[0][1]).parts["frame"]
    assert picture.headers["Content-Type"] == "image/png"
    assert picture.headers["X-Content-Type-Options"] == "nosniff"
    assert "private" in picture.headers["Cache-Control"]


@pytest.mark.parametrize("name", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "%00", "A" * 64, "0" * 63, "0" * 64])
def test_names_that_lead_elsewhere_find_nothing(client: Client, name: str) -> None:
    for path in (f"/v1/pictures/{name}", f"/v1/items/{name}"):
        refused = client.call("GET", path)
        assert refused.status_code in (404, 422)
        assert refused.json()["error"]


def test_questions_are_leased_and_answers_taken(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    lease = client.call("GET", "/v1/next?lease=20&holder=web-1").json()
    assert [(q["item"], q["question"], q["class"]) for q in lease["questions"]] == [
        (drawn[0][0], 0, "scratch"),
        (drawn[0][0], 1, "pit"),
    ]
    assert (lease["open"], lease["elsewhere"], lease["lease_s"], lease["holder"]) == (2, 0, 60, "web-1")
    assert all(q["classes"] == ["pit", "scratch"] for q in lease["questions"])
    said = [answer(drawn[0][0], 0), answer(drawn[0][0], 1, "infirm")]
    first, second = (client.call("POST", "/v1/answers", json=said) for _ in range(2))
    assert (first.status_code, second.status_code) == (201, 200)
    assert [one["status"] for one in first.json()["answers"]] == [201, 201]
    counts = client.call("GET", "/v1/counts").json()
    assert counts == {"confirm": 1, "infirm": 1, "unsure": 0, "withdrawn": 0, "open": 0, "items": 1}


def test_a_list_with_a_refusal_is_no_success_and_says_which(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    said = client.call("POST", "/v1/answers", json=[answer(drawn[0][0]), answer(drawn[0][0], 7)])
    assert said.status_code == 422
    assert [one["status"] for one in said.json()["answers"]] == [201, 422]
    assert "is about question 7 of item" in said.json()["error"]


def test_a_tab_gives_back_what_it_held(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    client.call("GET", "/v1/next?lease=20&holder=a")
    assert client.call("GET", "/v1/next?holder=b").json()["elsewhere"] == 2
    assert client.call("POST", "/v1/release?holder=a").json() == {"frames": 1}
    assert len(client.call("GET", "/v1/next?holder=b").json()["questions"]) == 2


@pytest.mark.parametrize(
    ("lease", "wanted"),
    [("0", "greater than or equal to 1"), ("1000", "less than or equal"), ("x", "valid integer")],
)
def test_a_lease_out_of_range_is_refused(client: Client, lease: str, wanted: str) -> None:
    refused = client.call("GET", f"/v1/next?lease={lease}")
    assert refused.status_code == 422
    assert refused.json()["error"].startswith(f'lease is "{lease}"; input should be ')
    assert wanted in refused.json()["error"]


def test_an_export_comes_as_a_tar(hub: Hub, clock: FakeClock, client: Client, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    hub.answers.record([answer(drawn[0][0])])
    young = client.call("GET", "/v1/exports/1")
    assert (young.status_code, young.headers["Retry-After"]) == (409, "10")
    clock.advance(10)
    for mark in ("1", "newest"):
        export = client.call("GET", f"/v1/exports/{mark}")
        assert export.headers["Mark"] == "1"
        with tarfile.open(fileobj=io.BytesIO(export.content)) as tar:
            assert "export.json" in tar.getnames()
    assert client.call("GET", "/v1/exports/2").status_code == 404
    assert client.call("GET", "/v1/exports/-1").json()["error"] == (
        "'-1' is no mark; give the number of an answer, or newest"
    )


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN + "x", TOKEN[:-1], TOKEN.upper()])
def test_every_call_needs_the_token(hub: Hub, token: str | None, drawn: list[Item]) -> None:
    client = Client(hub, token=token)
    calls = [
        ("GET", "/v1/next"),
        ("POST", "/v1/answers"),
        ("POST", "/v1/have"),
        ("PUT", f"/v1/items/{drawn[0][0]}"),
    ]
    calls += [("GET", f"/v1/pictures/{'0' * 64}"), ("GET", "/v1/exports/0"), ("GET", "/v1/openapi.json")]
    calls += [("GET", "/v1/counts"), ("POST", "/v1/release?holder=a"), ("GET", "/v1/nothing")]
    for method, path in calls:
        refused = client.call(method, path)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.json() == {
            "error": "the bearer token is missing or wrong; send the one in the hub's token file"
        }


def test_the_page_and_the_health_check_need_no_token_and_show_no_data(hub: Hub, drawn: list[Item]) -> None:
    bring(hub, drawn[0])
    client = Client(hub, token=None)
    for path in (
        "/",
        "/page.js",
        "/ahead.js",
        "/outbox.js",
        "/stage.js",
        "/page.css",
        "/icon.svg",
        "/healthz",
    ):
        shown = client.call("GET", path)
        assert shown.status_code == 200
        assert drawn[0][0] not in shown.text
    assert client.call("GET", "/healthz").json() == {"status": "ok"}


def test_the_page_loads_nothing_from_elsewhere_and_nothing_inline(client: Client) -> None:
    page = client.call("GET", "/")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in policy
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon[a-z]+=|\bstyle=|<style", page.text)
    everything = page.text + "".join(client.call("GET", f"/{name}").text for name in ("page.js", "page.css"))
    assert set(re.findall(r"https?://[^\"' )]+", everything)) <= {"http://www.w3.org/2000/svg"}


def test_figures_for_prometheus_count_what_happened(client: Client, drawn: list[Item]) -> None:
    put(client, drawn[0])
    put(client, drawn[0])
    put(client, drawn[1], digest="0" * 64)
    client.call("POST", "/v1/answers", json=[answer(drawn[0][0])])
    text = client.call("GET", "/metrics").text
    for line in (
        'hub_items_total{outcome="new"} 1.0',
        'hub_items_total{outcome="known"} 1.0',
        'hub_items_total{outcome="refused"} 1.0',
        'hub_answers_total{outcome="new"} 1.0',
        f"hub_item_bytes_total {float(len(drawn[0][1]))}",
        "hub_open_questions 1.0",
        "hub_fsync_seconds_count 1.0",
        'hub_request_seconds_count{route="/v1/items/{sha256}"} 3.0',
    ):
        assert line in text


@pytest.mark.parametrize(
    ("method", "path", "status", "sentence"),
    [
        ("GET", "/v1/nothing", 404, "there is nothing at /v1/nothing; see /v1/openapi.json"),
        ("DELETE", "/v1/answers", 405, "DELETE is not for /v1/answers; see /v1/openapi.json"),
        ("GET", "/../../etc/passwd", 404, "there is nothing at /etc/passwd; see /v1/openapi.json"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    client: Client, method: str, path: str, status: int, sentence: str
) -> None:
    refused = client.call(method, path)
    assert (refused.status_code, refused.json()) == (status, {"error": sentence})


def test_a_failure_inside_tells_no_secrets(client: Client, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise RuntimeError("the database's password is 1234")

    monkeypatch.setattr(hub.store, "count", fail)
    failed = client.call("GET", "/v1/counts")
    assert (failed.status_code, failed.json()) == (500, {"error": "the hub failed inside; its log says why"})


@pytest.fixture(autouse=True)
def no_stray_logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert not [
        record for record in caplog.records if record.levelname == "ERROR" and "failed" not in record.msg
    ]
