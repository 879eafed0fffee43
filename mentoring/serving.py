"""The hub as a process: one socket, one line that says where, and an orderly end."""

from __future__ import annotations

import errno
import signal
import socket
from collections.abc import Callable

import uvicorn

from edge_sdk.errors import ConfigError, EdgeError
from mentoring.access import Guard

__all__ = ["PortInUseError", "listen", "serve"]

END_S = 5
"""How long the end waits for requests that are under way."""


class PortInUseError(EdgeError):
    """Another process listens there."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        PortInUseError: Another process listens there.
        ConfigError: The host or port is none of this machine's.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ConfigError(
            f"--host {host} is no address of this machine ({error.strerror}); try 127.0.0.1"
        ) from error
    heard = socket.socket(found[0], socket.SOCK_STREAM)
    try:
        # a port of a hub that just ended is free again; one that is listened on is not
        heard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        heard.bind(found[4])
        heard.listen(128)
    except OSError as error:
        heard.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                f"port {port} on {host} is in use; stop what listens there, or give another --port (0 takes any)"
            ) from error
        raise ConfigError(
            f"--host {host} --port {port} cannot be used ({error.strerror}); give others"
        ) from error
    return heard


def serve(app: Guard, heard: socket.socket, *, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``ready`` is called once requests are taken."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=END_S,
    )
    # uvicorn raises the signal again once it has ended; ending was what was asked for
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: None)
    _Server(config, ready).run(sockets=[heard])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()
