"""A station's state folder: who runs it, and what it last said of itself.

The running station holds the folder's lock and writes ``status.json``; ``edge-sdk status`` and
``edge-sdk activate`` read both.  A lock goes with its process, whatever ends that, so what the lock
says of a station is true even where the file is old.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edge_sdk.errors import EdgeError, StationBusy

__all__ = ["STALE_AFTER_S", "StateFolder"]

log = logging.getLogger(__name__)

STALE_AFTER_S = 10.0
"""A running station that has not written for so long is hanging, or its disk is full."""


DYING = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class StateFolder:
    """The folder; ``hold`` makes this process the one that runs the station.

    Args:
        path: Made when it is first held.
        station: The station's name, for what is told.
    """

    def __init__(self, path: Path, *, station: str) -> None:
        self.path = path
        self.station = station
        self.status_path = path / "status.json"
        self._lock_path = path / "station.lock"
        self._lock: int | None = None

    def hold(self) -> None:
        """Take the lock.  A full or read-only disk is logged and no reason to stand still.

        Raises:
            StationBusy: Another process holds it.
            EdgeError: The folder may not be made or written.
        """
        lock = self._opened()
        if lock is None:
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(lock)
            raise StationBusy(
                f"station {self.station} is already run by process {holder} ({self._lock_path}); "
                "stop that one first, or give this station a state folder of its own"
            ) from error
        with suppress(OSError):  # a full disk: who holds it is not told, but it is held
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _opened(self) -> int | None:
        """The lock's file, made where there is none; ``None`` where the disk takes no more files."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            return os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in DYING:
                raise EdgeError(
                    f"the state folder {self.path} cannot be written ({error.strerror}); "
                    "make it writable for this user, or name another one: state: FOLDER"
                ) from error
            # inspection goes on with a disk that is full or dying; only what is written to it suffers
            log.error(
                "the state folder cannot be written", extra={"path": str(self.path), "reason": error.strerror}
            )
        with suppress(OSError):
            return os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        return None

    def release(self) -> None:
        """Let the lock go.  May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def held(self) -> bool:
        """Whether any process runs the station."""
        try:
            lock = os.open(self._lock_path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    def status(self) -> dict[str, Any] | None:
        """What the station last wrote, or ``None`` where it wrote nothing that can be read."""
        with suppress(OSError, ValueError):
            found = json.loads(self.status_path.read_bytes())
            if isinstance(found, dict):
                return found
        return None

    def age_s(self, status: dict[str, Any], *, now: datetime) -> float:
        """Seconds since a status was written, by the wall clock; 0 where it is from the future."""
        try:
            written_at = datetime.fromisoformat(str(status["written_at"]).replace("Z", "+00:00"))
            return max(0.0, (now.astimezone(timezone.utc) - written_at).total_seconds())
        except (KeyError, ValueError, TypeError):
            return float("inf")
