"""Who may speak to the hub: whoever holds its token.

An ASGI layer around the whole application, so that no route can be forgotten.  Everything under
``/v1`` needs the token, the page's own calls too; the page itself holds no data.
"""

from __future__ import annotations

import hmac
import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from edge_sdk.errors import ConfigError

__all__ = ["CONTENT_POLICY", "Guard", "token_from"]

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "manifest-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What a browser may load for the page: its own three files and what it fetches from this hub."""
_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_SHORTEST = 16


def token_from(path: Path) -> str:
    """The token in a file; a new one is written, readable by its owner alone, where there is none.

    Raises:
        ConfigError: The file cannot be read or written, or holds no token.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}); give another --token-file"
        ) from error
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def _read(path: Path) -> str:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a token ({error}); give another --token-file") from error
    if len(token) < _SHORTEST or not token.isascii() or any(character.isspace() for character in token):
        raise ConfigError(
            f"{path} holds no token of at least {_SHORTEST} letters and digits; "
            "delete the file and the hub writes a new one"
        )
    return token


class Guard:
    """Asks for the token, and tells browsers what they may not do."""

    def __init__(self, app: ASGIApp, *, token: str) -> None:
        self._app = app
        self._wanted = f"bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(pair for pair in _HEADERS if pair[0] not in given),
                ]
            await send(message)

        path: str = scope["path"]
        if (path == "/v1" or path.startswith("/v1/")) and not self._allowed(scope["headers"]):
            await _refuse(guarded)
            return
        await self._app(scope, receive, guarded)

    def _allowed(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        given = [value for name, value in headers if name == b"authorization"]
        if len(given) != 1:
            return False
        scheme, _, token = given[0].partition(b" ")
        return hmac.compare_digest(scheme.lower() + b" " + token.strip(), self._wanted)


async def _refuse(send: Send) -> None:
    body = json.dumps({"error": "the bearer token is missing or wrong; send the one in the hub's token file"})
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    headers += [(b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})
