"""A hub for the outbox's tests: a real HTTP server that stores by digest and fails as told."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

__all__ = ["StoringHub"]

Fault: TypeAlias = "tuple[int, dict[str, str], bytes] | str | None"
"""An answer instead of storing; or ``cut up`` (before storing), ``cut down`` (stored, no answer), ``bit`` (one bit
flipped on the way), ``silence``."""


class StoringHub:
    """Keeps items in a folder, a file each, written whole; counts what it was asked."""

    def __init__(
        self,
        folder: Path,
        *,
        fault: Callable[[int], Fault] = lambda number: None,
        token: str | None = None,
        port: int = 0,
    ) -> None:
        """
        Args:
            folder: Where items are kept.
            fault: Takes the number of the PUT, from 0, and says what goes wrong.
            token: The bearer token it wants.
            port: 0 takes any.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.fault, self.token = folder, fault, token
        self.puts = 0
        self.repeats = 0
        self.asked: list[list[str]] = []
        self.connections = 0
        self.seen: list[dict[str, str]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 20
            disable_nagle_algorithm = True

            def setup(self) -> None:
                hub.connections += 1
                super().setup()

            def do_PUT(self) -> None:
                hub._put(self)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hub.asked.append(body)
                missing = [item for item in body if not (hub.folder / item).exists()]
                hub.answer(
                    self, 200, {"Content-Type": "application/json"}, json.dumps({"missing": missing}).encode()
                )

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that was killed

        self._server = Server(("127.0.0.1", port), Handler)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def __enter__(self) -> StoringHub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def items(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in self.folder.iterdir() if not path.name.startswith(".")
        }

    def answer(
        self, handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str], body: bytes = b""
    ) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _put(self, handler: BaseHTTPRequestHandler) -> None:
        number, self.puts = self.puts, self.puts + 1
        self.seen.append(dict(handler.headers.items()))
        fault = self.fault(number)
        if fault == "cut up":
            handler.rfile.read(5)
            return self._cut(handler)
        data = handler.rfile.read(int(handler.headers["Content-Length"]))
        if self.token is not None and handler.headers.get("Authorization") != f"Bearer {self.token}":
            return self.answer(handler, 401, {}, b"the token is not known here")
        if fault == "silence":
            handler.close_connection = True
            threading.Event().wait(3)
            return None
        if isinstance(fault, tuple):
            return self.answer(handler, *fault)
        name = handler.path.rpartition("/")[2]
        if fault == "bit":
            data = data[:-1] + bytes([data[-1] ^ 1])
        if sha256(data).hexdigest() != name:
            return self.answer(handler, 422, {}, b'{"detail": "the digest differs"}')
        known = (self.folder / name).exists()
        if not known:
            temporary = self.folder / f".{name}.{number}"
            temporary.write_bytes(data)
            os.replace(temporary, self.folder / name)
        self.repeats += known
        if fault == "cut down":
            return self._cut(handler)
        return self.answer(handler, 200 if known else 201, {"Content-Type": "application/json"}, b"{}")

    def _cut(self, handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.shutdown(socket.SHUT_RDWR)
