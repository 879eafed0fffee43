"""The hub's client against a real HTTP server on this machine."""

from __future__ import annotations

import base64
import socket
from collections.abc import Iterator
from datetime import datetime, timezone
from hashlib import sha256
from pathlib import Path

import pytest

from edge_sdk.clock import FakeClock
from edge_sdk.errors import ConfigError, HubError, HubRefused
from edge_sdk.outbox.hub_client import Backoff, HubBroke, HubClient, Reply
from tests.outbox.hubs import StoringHub

DATA = b"an item"
NAME = sha256(DATA).hexdigest()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[StoringHub]:
    with StoringHub(tmp_path / "hub") as hub:
        yield hub


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_an_item_is_put_under_its_digest_and_known_the_second_time(hub: StoringHub) -> None:
    with HubClient(hub.url) as client:
        assert client.put(NAME, DATA) == Reply(201, "")
        assert client.put(NAME, DATA) == Reply(200, "")
        assert client.put(NAME, DATA).stored
    assert hub.items == {NAME: DATA}
    assert hub.connections == 1, "one connection is kept open"
    assert hub.seen[0]["Content-Digest"] == f"sha-256=:{base64.b64encode(bytes.fromhex(NAME)).decode()}:"
    assert hub.seen[0]["Content-Length"] == str(len(DATA))


def test_the_hub_says_what_it_lacks(hub: StoringHub) -> None:
    with HubClient(hub.url) as client:
        client.put(NAME, DATA)
        assert client.missing([NAME, "0" * 64]) == {"0" * 64}


def test_a_hub_that_does_not_say_what_it_has_is_told_of(hub: StoringHub) -> None:
    hub.answer = lambda handler, *_: StoringHub.answer(hub, handler, 404, {})  # type: ignore[method-assign]
    with HubClient(hub.url) as client, pytest.raises(HubRefused) as refused:
        client.missing([NAME])
    assert str(refused.value) == f"{hub.url} does not say what it has (404); send everything"
    assert refused.value.status == 404


def test_the_token_is_read_at_every_request_and_only_its_holder_is_let_in(
    hub: StoringHub, tmp_path: Path
) -> None:
    hub.token = "s3cret"
    token = tmp_path / "token"
    token.write_text("wrong\n")
    with HubClient(hub.url, token_file=token) as client:
        assert client.put(NAME, DATA) == Reply(401, "the token is not known here")
        token.write_text("s3cret\n")
        assert client.put(NAME, DATA).stored


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff\xfe", b"line\nline"])
def test_a_token_file_without_a_token_is_told(hub: StoringHub, tmp_path: Path, content: bytes) -> None:
    token = tmp_path / "token"
    token.write_bytes(content)
    with HubClient(hub.url, token_file=token) as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == f"{token} holds no token; write the token and nothing else"


def test_a_missing_token_file_is_told(hub: StoringHub, tmp_path: Path) -> None:
    with HubClient(hub.url, token_file=tmp_path / "token") as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == (
        f"the token in {tmp_path / 'token'} cannot be read (No such file or directory); put the file there"
    )


def test_a_token_does_not_travel_in_the_clear(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        HubClient("http://10.0.0.5:8080", token_file=tmp_path / "token")
    assert str(refused.value) == (
        "hub.url is http://10.0.0.5:8080: the token would travel in the clear; "
        "write https://, or leave out hub.token_file"
    )
    for url in ("https://10.0.0.5", "http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1"):
        HubClient(url, token_file=tmp_path / "token").close()
    HubClient("http://10.0.0.5:8080").close()


@pytest.mark.parametrize(
    ("status", "headers", "body", "wanted"),
    [
        (413, {}, b"too large", Reply(413, "too large")),
        (415, {}, b'{"detail": "no item"}', Reply(415, "no item")),
        (422, {}, b'{"error": "altered"}', Reply(422, "altered")),
        (429, {"Retry-After": "7"}, b"", Reply(429, "", 7.0)),
        (503, {"Retry-After": "Thu, 01 Jan 2026 00:01:00 GMT"}, b"[1]", Reply(503, "", 60.0)),
        (503, {"Retry-After": "Wed, 31 Dec 2025 00:00:00 GMT"}, b"", Reply(503, "", 0.0)),
        (503, {"Retry-After": "soon"}, b"", Reply(503, "", None)),
        (503, {"Retry-After": "1e9"}, b"", Reply(503, "", 3600.0)),
        (500, {"Content-Type": "text/html"}, b"<h1>Oops</h1>", Reply(500, "")),
        (301, {"Location": "http://127.0.0.1:1/"}, b"", Reply(301, "")),
        (400, {}, b"x" * 5000, Reply(400, "x" * 300)),
    ],
)
def test_a_refusal_comes_with_its_sentence(
    hub: StoringHub, status: int, headers: dict[str, str], body: bytes, wanted: Reply
) -> None:
    hub.fault = lambda number: (status, headers, body)
    clock = FakeClock(start=datetime(2026, 1, 1, tzinfo=timezone.utc))
    with HubClient(hub.url, clock=clock) as client:
        assert client.put(NAME, DATA) == wanted
        assert not client.put(NAME, DATA).stored


def test_a_web_page_is_not_taken_for_a_hub(hub: StoringHub) -> None:
    hub.fault = lambda number: (200, {"Content-Type": "text/html"}, b"<h1>Welcome to the guest network</h1>")
    with HubClient(hub.url) as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == f"{hub.url} answers with a web page; that is no hub, look at hub.url"


def test_an_endless_answer_is_not_read_to_its_end(hub: StoringHub) -> None:
    hub.fault = lambda number: (201, {}, b"x" * 1_000_000)
    with HubClient(hub.url) as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == f"{hub.url} answers at a length that no hub does; look at hub.url"


def test_a_hub_that_is_not_there_is_told() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with HubClient(url) as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == f"{url} refuses connections; is the hub running there?"
    assert not isinstance(refused.value, HubBroke)


def test_a_hub_without_an_address_is_told() -> None:
    with HubClient("http://no-such-host.invalid") as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == (
        "http://no-such-host.invalid cannot be found by its name; is the name right, and the network up?"
    )


def test_a_hub_that_is_silent_is_told(hub: StoringHub) -> None:
    hub.fault = lambda number: "silence"
    with HubClient(hub.url, read_timeout_s=0.05) as client, pytest.raises(HubBroke) as refused:
        client.put(NAME, DATA)
    assert str(refused.value) == f"{hub.url} took the request and does not answer; is it overloaded?"


def test_a_certificate_that_is_not_trusted_is_told(hub: StoringHub) -> None:
    url = hub.url.replace("http:", "https:")
    with HubClient(url) as client, pytest.raises(HubError) as refused:
        client.put(NAME, DATA)
    assert str(refused.value).startswith(f"{url} has a certificate that is not trusted (")
    assert str(refused.value).endswith(
        "); add the plant's authority to this machine's store, or name its file in SSL_CERT_FILE"
    )


def test_a_kept_connection_that_the_hub_has_closed_is_opened_again(hub: StoringHub) -> None:
    with HubClient(hub.url) as client:
        assert client.put(NAME, DATA).stored
        hub.fault = lambda number: "cut up" if number == 1 else None
        assert client.put(NAME, DATA).stored
        hub.fault = lambda number: "cut down"
        with pytest.raises(HubBroke) as refused:
            client.put(NAME, DATA)
    assert str(refused.value) == f"{hub.url} broke off; is it being restarted?"


def test_the_pauses_are_drawn_below_a_bound_that_doubles_up_to_five_minutes() -> None:
    backoff = Backoff(draw=lambda: 0.5)
    assert [backoff.next_s() for _ in range(11)] == [0.5, 1, 2, 4, 8, 16, 32, 64, 128, 150, 150]
    backoff.reset()
    assert backoff.next_s() == 0.5
    assert all(Backoff(draw=lambda: 0.0).next_s() == 0 for _ in range(3))
