"""The hub as a station sees it: one keep-alive connection, two requests.

``PUT /v1/items/{sha256}`` sends an item; its address is its digest, so a repeat changes nothing.
``POST /v1/have``, a list of digests, asks which of them the hub lacks, after a long time offline.

A certificate is always verified; a plant's own authority is added to the system's store, or named in the
environment variable ``SSL_CERT_FILE``.  Plain ``http://`` is for this machine and for hubs without a token: a
token is never sent in the clear to another machine.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timezone
from email.utils import parsedate_to_datetime
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    NameResolutionError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import ConfigError, HubError, HubRefused

__all__ = ["MAX_ASKED", "Backoff", "HubBroke", "HubClient", "Reply"]

MAX_ASKED = 1000
"""Digests in one ``POST /v1/have``."""
REPLY_BYTES = 256 * 1024
RETRY_AFTER_MOST_S = 3600.0


@dataclass(frozen=True)
class Reply:
    """What the hub said to an item."""

    status: int
    said: str
    """Its sentence, shortened; empty where it gave none."""
    retry_after_s: float | None = None

    @property
    def stored(self) -> bool:
        """The item is on the hub's disk, now (201) or already (200)."""
        return self.status in (200, 201)


class HubBroke(HubRefused):
    """The hub took the item and then failed or went silent: it may be the item's fault.

    ``status`` is 500, or 0 where there was no answer.
    """


class HubClient:
    """One hub, over one connection that is kept open between items."""

    def __init__(
        self,
        url: str,
        *,
        token_file: Path | None = None,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        clock: Clock | None = None,
    ) -> None:
        """
        Args:
            url: ``https://hub.plant``, with a path before ``/v1`` if there is one.
            token_file: Holds the bearer token; read at every request, so that it can be renewed.
            connect_timeout_s: Until the hub takes the connection.
            read_timeout_s: Until it answers, which includes its fsync.
            clock: For a ``Retry-After`` that names a date.

        Raises:
            ConfigError: A token would travel in the clear.
        """
        parts = urlsplit(url)
        if parts.scheme == "http" and token_file is not None and not _is_here(parts.hostname or ""):
            raise ConfigError(
                f"hub.url is {url}: the token would travel in the clear; write https://, or leave out hub.token_file"
            )
        self.url = url.rstrip("/")
        self._path = parts.path.rstrip("/")
        self._token_file = token_file
        self._clock = clock or SystemClock()
        self._pool = urllib3.connection_from_url(
            self.url,
            maxsize=1,
            block=True,
            retries=False,
            timeout=urllib3.Timeout(connect=connect_timeout_s, read=read_timeout_s),
        )

    def __enter__(self) -> HubClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; may be called twice."""
        self._pool.close()

    def put(self, item: str, data: bytes) -> Reply:
        """Send an item.

        Args:
            item: Its id, the sha256 of ``data``.
            data: The whole item file.

        Returns:
            The hub's answer, whatever it is; the item may be released only if it is ``stored``.

        Raises:
            HubBroke: It broke off, or did not answer in time; it may or may not have the item.
            HubError: The hub cannot be reached.
        """
        digest = base64.b64encode(bytes.fromhex(item)).decode()
        headers = {"Content-Type": "application/octet-stream", "Content-Digest": f"sha-256=:{digest}:"}
        reply, _ = self._request("PUT", f"/v1/items/{item}", data, headers)
        return reply

    def missing(self, items: Sequence[str]) -> set[str]:
        """Which of up to 1000 items the hub lacks.

        Raises:
            HubRefused: It does not answer this question.
            HubError: The hub cannot be reached, or broke off.
        """
        body = json.dumps(list(items)).encode()
        reply, text = self._request("POST", "/v1/have", body, {"Content-Type": "application/json"})
        if reply.status == 200:
            try:
                return {str(name) for name in json.loads(text)["missing"]}
            except (ValueError, KeyError, TypeError):
                pass
        raise HubRefused(
            f"{self.url} does not say what it has ({reply.status}); send everything", status=reply.status
        )

    def _request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[Reply, str]:
        headers = {**headers, **self._authorization()}
        again = self._pool.num_connections > 0  # the kept connection may have been closed meanwhile
        while True:
            try:
                response = self._pool.urlopen(
                    method,
                    self._path + path,
                    body=body,
                    headers=headers,
                    redirect=False,
                    preload_content=False,
                )
                data = response.read(REPLY_BYTES)
                if response.read(1):
                    response.close()
                    raise HubError(f"{self.url} answers at a length that no hub does; look at hub.url")
            except HTTPError as error:
                if again and isinstance(error, ProtocolError):
                    again = False
                    continue
                raise _hub_error(self.url, error) from error
            response.release_conn()
            return self._reply(response, data), data.decode("utf-8", "replace")

    def _reply(self, response: urllib3.BaseHTTPResponse, data: bytes) -> Reply:
        status, kind = response.status, response.headers.get("Content-Type", "")
        if status < 300 and "html" in kind:
            raise HubError(f"{self.url} answers with a web page; that is no hub, look at hub.url")
        return Reply(status, _sentence(data, kind), self._retry_after_s(response.headers.get("Retry-After")))

    def _retry_after_s(self, text: str | None) -> float | None:
        if text is None:
            return None
        try:
            seconds = float(text)
        except ValueError:
            try:
                when = parsedate_to_datetime(text)
            except ValueError:
                return None
            if when.tzinfo is None:
                when = when.replace(tzinfo=timezone.utc)
            seconds = (when - self._clock.now()).total_seconds()
        return min(max(seconds, 0.0), RETRY_AFTER_MOST_S) if seconds == seconds else None

    def _authorization(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except OSError as error:
            raise HubError(
                f"the token in {self._token_file} cannot be read ({error.strerror}); put the file there"
            ) from error
        except UnicodeDecodeError:
            token = ""
        if not token or any(character.isspace() or not character.isprintable() for character in token):
            raise HubError(f"{self._token_file} holds no token; write the token and nothing else")
        return {"Authorization": f"Bearer {token}"}


class Backoff:
    """How long to wait after each failure in a row: drawn between nothing and a bound that doubles."""

    def __init__(
        self, *, first_s: float = 1.0, most_s: float = 300.0, draw: Callable[[], float] = random.random
    ) -> None:
        """
        Args:
            first_s: The bound of the first wait.
            most_s: The bound of all of them.
            draw: Uniform in [0, 1); drawing keeps a hundred stations from coming back at once.
        """
        self._first_s, self._most_s, self._draw = first_s, most_s, draw
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        bound = min(self._most_s, self._first_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return self._draw() * bound

    def reset(self) -> None:
        """It worked again."""
        self._failures = 0


def _is_here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _hub_error(url: str, error: HTTPError) -> HubError:
    if isinstance(error, NameResolutionError):
        return HubError(f"{url} cannot be found by its name; is the name right, and the network up?")
    if isinstance(error, SSLError):
        return HubError(
            f"{url} has a certificate that is not trusted ({error}); add the plant's authority to this machine's "
            "store, or name its file in SSL_CERT_FILE"
        )
    if isinstance(error, NewConnectionError):  # in urllib3 also a ConnectTimeoutError
        return HubError(f"{url} refuses connections; is the hub running there?")
    if isinstance(error, ConnectTimeoutError):
        return HubError(f"{url} does not take a connection; is it switched on?")
    if isinstance(error, ReadTimeoutError):
        return HubBroke(f"{url} took the request and does not answer; is it overloaded?", status=0)
    return HubBroke(f"{url} broke off; is it being restarted?", status=0)


def _sentence(data: bytes, kind: str) -> str:
    """What a refusal says, from JSON or text; not from a web page."""
    if "html" in kind:
        return ""
    text = data.decode("utf-8", "replace").strip()
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    if isinstance(value, dict):
        value = value.get("detail") or value.get("error") or ""
    return value[:300] if isinstance(value, str) else ""
