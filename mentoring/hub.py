"""One hub: a folder with a database and item files, and everything that works on them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.errors import ConfigError, EdgeError
from mentoring.agenda import LEASE_S, Agenda
from mentoring.answers import Answers
from mentoring.database import Database
from mentoring.export import Exports
from mentoring.store import MAX_ITEM_BYTES, ItemStore

__all__ = ["DATABASE", "Hub", "HubBusyError", "exports_of"]

DATABASE = "hub.db"
"""The database's name within the hub's folder."""


class HubBusyError(EdgeError):
    """Another process serves this folder."""


class Hub:
    """Opens a hub's folder for serving; one process at a time.

    Raises:
        HubBusyError: Another process serves it.
        ConfigError: The folder cannot be made or written.
        FormatError: Its database is damaged, or of a later version.
    """

    def __init__(
        self,
        data: Path,
        *,
        clock: Clock | None = None,
        max_item_bytes: int = MAX_ITEM_BYTES,
        lease_s: int = LEASE_S,
    ) -> None:
        clock = clock or SystemClock()
        self._lock = _locked(data)
        try:
            self.database = Database(data / DATABASE)
            self.store = ItemStore(data, self.database, clock=clock, max_item_bytes=max_item_bytes)
            self.adopted = self.store.adopt()
            """Items that a power cut had left without a row."""
        except BaseException:
            self._lock.close()
            raise
        self.agenda = Agenda(self.database, clock=clock, lease_s=lease_s)
        self.answers = Answers(self.database, clock=clock, lease_s=lease_s)
        self.exports = Exports(self.store, self.database, clock=clock)

    def __enter__(self) -> Hub:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the folder back.  May be called twice."""
        self.database.close()
        self._lock.close()


def exports_of(data: Path, *, clock: Clock | None = None) -> Exports:
    """The exports of a hub's folder, whether or not a hub serves it just now.

    Raises:
        ConfigError: There is no hub's data.
        FormatError: Its database is damaged, or of another version.
    """
    if not (data / DATABASE).is_file():
        raise ConfigError(f"{data} holds no hub's data; give the folder that `serve` was given as --data")
    clock = clock or SystemClock()
    database = Database(data / DATABASE, migrate=False)
    return Exports(ItemStore(data, database, clock=clock), database, clock=clock)


def _locked(data: Path) -> BinaryIO:
    try:
        data.mkdir(parents=True, exist_ok=True)
        file = (data / "hub.lock").open("a+b")
    except OSError as error:
        raise ConfigError(
            f"{data} cannot be used as the hub's folder ({error.strerror}); give another --data"
        ) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        who = file.read(20).decode("ascii", "replace").strip() or "unknown"
        file.close()
        raise HubBusyError(
            f"{data} is served by another process (pid {who}); stop that one, or give another --data"
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n".encode())
    file.flush()
    return file
