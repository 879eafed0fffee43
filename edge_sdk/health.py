"""How the station is: the ledger of frames, latencies, the state file and systemd's watchdog.

Nothing here touches a disk in the verdict path: counting is an addition in memory, and a thread of
its own writes ``status.json`` about once a second.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.inspections import Verdict

__all__ = ["LATENCY_BOUNDS_MS", "Heartbeat", "Latencies", "Ledger", "StatusWriter", "notify", "write_state"]

log = logging.getLogger(__name__)

LATENCY_BOUNDS_MS = (1, 2, 3, 5, 8, 12, 18, 25, 35, 50, 70, 100, 150, 250, 500, 1000, 2500)
"""Upper edges of the latency histogram, inclusive, in milliseconds; one more bucket lies above."""


class Ledger:
    """Each frame that came in leaves with exactly one outcome.

    ``frames_in`` counts frames as the camera delivered them, the outcomes count them as they leave;
    what lies between the two is in flight.  After a stop the two sides are equal.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames_in = 0
        self._outcomes = dict.fromkeys(Verdict, 0)
        self._not_inspected_by: dict[str, int] = {}
        self._late = 0

    def came_in(self) -> None:
        """A frame was delivered by the camera or the integrator."""
        with self._lock:
            self._frames_in += 1

    def left(self, verdict: Verdict, reason: str = "", *, late: bool = False) -> None:
        """A frame got its outcome.

        Args:
            verdict: What became of it.
            reason: Of a frame that was not inspected; counted by the words before its first colon,
                so that error texts make no endless list of kinds.
            late: The verdict came after the deadline; counted beside the outcome.
        """
        with self._lock:
            self._outcomes[verdict] += 1
            self._late += late
            if verdict is Verdict.NOT_INSPECTED:
                kind = reason.partition(":")[0] or "no reason given"
                self._not_inspected_by[kind] = self._not_inspected_by.get(kind, 0) + 1

    @property
    def in_flight(self) -> int:
        """Frames that came in and have no outcome yet."""
        with self._lock:
            return self._frames_in - sum(self._outcomes.values())

    def snapshot(self) -> dict[str, Any]:
        """The counts at one moment, ready for JSON."""
        with self._lock:
            outcomes = {verdict.value: count for verdict, count in self._outcomes.items()}
            return {
                "frames_in": self._frames_in,
                "outcomes": outcomes,
                "not_inspected_by": dict(sorted(self._not_inspected_by.items())),
                "late": self._late,
                "in_flight": self._frames_in - sum(outcomes.values()),
            }


class Latencies:
    """Capture to verdict: a histogram of all frames, exact percentiles of the last ones.

    Args:
        keep: How many of the last frames the percentiles and the rate are taken from.
    """

    def __init__(self, *, keep: int = 8192) -> None:
        self._lock = threading.Lock()
        self._buckets = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self._latency_ms = np.zeros(keep)
        self._decided_ns = np.zeros(keep, np.int64)
        self._count = 0

    def add(self, latency_ms: float, decided_ns: int) -> None:
        """Note one verdict.

        Args:
            latency_ms: From capture to verdict.
            decided_ns: When it was decided, monotonic.
        """
        place = bisect_left(LATENCY_BOUNDS_MS, latency_ms)
        with self._lock:
            slot = self._count % len(self._latency_ms)
            self._latency_ms[slot] = latency_ms
            self._decided_ns[slot] = decided_ns
            self._buckets[place] += 1
            self._count += 1

    def snapshot(self) -> dict[str, Any]:
        """``fps``, ``p50_ms``, ``p99_ms`` (nearest rank; ``None`` before the first frame) and the histogram."""
        with self._lock:
            kept = min(self._count, len(self._latency_ms))
            latency_ms = np.sort(self._latency_ms[:kept])
            decided_ns = self._decided_ns[:kept].copy()
            buckets = list(self._buckets)
        found: dict[str, Any] = {"fps": None, "p50_ms": None, "p99_ms": None}
        if kept:
            found["p50_ms"] = round(float(latency_ms[_rank(kept, 0.50)]), 3)
            found["p99_ms"] = round(float(latency_ms[_rank(kept, 0.99)]), 3)
        if kept > 1:
            took_s = float(decided_ns.max() - decided_ns.min()) / 1e9
            found["fps"] = round((kept - 1) / took_s, 2) if took_s > 0 else None
        found["latency_histogram"] = {"upper_ms": [*LATENCY_BOUNDS_MS, None], "counts": buckets}
        return found


def _rank(count: int, share: float) -> int:
    """Place of a percentile by nearest rank in a sorted list."""
    return max(0, -int(-count * share // 1) - 1)


def notify(message: str, *, address: str | None = None) -> bool:
    """Tell systemd something, e.g. ``READY=1``; without systemd nothing happens.

    Args:
        message: Lines of ``NAME=value``.
        address: The socket; ``$NOTIFY_SOCKET`` without it.  A leading ``@`` is an abstract one.

    Returns:
        Whether it was sent.
    """
    address = address if address is not None else os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        return True
    return False


class Heartbeat:
    """Pings systemd's watchdog from the loop that decides, at most a few times an interval.

    Only that loop may call ``beat``: a stuck engine must end the pings.
    """

    def __init__(self, *, address: str | None = None, watchdog_us: int | None = None) -> None:
        self._address = address
        if watchdog_us is None:
            given = os.environ.get("WATCHDOG_USEC", "")
            watchdog_us = int(given) if given.isdigit() else 0
        self._every_ns = min(1_000_000_000, watchdog_us * 1000 // 4) if watchdog_us else 1_000_000_000
        self._last_ns: int | None = None

    def beat(self, monotonic_ns: int) -> None:
        """The loop lives.  The first call also says that the station is ready."""
        if self._last_ns is None:
            notify("READY=1\nWATCHDOG=1", address=self._address)
        elif monotonic_ns - self._last_ns < self._every_ns:
            return
        else:
            notify("WATCHDOG=1", address=self._address)
        self._last_ns = monotonic_ns


def write_state(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a state file in one step.

    Readers see the old or the new one, never half.  It is not flushed to the disk: after a power
    cut the state is out of date anyway, and a flush a second would wear out flash memory.

    Raises:
        OSError: The disk refused; ``path`` is as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n")
        os.replace(temporary, path)
    except OSError:
        with suppress(OSError):
            temporary.unlink()
        raise


class StatusWriter:
    """Writes what ``snapshot`` returns into a file, about once a second, on a thread of its own.

    A disk that refuses is counted and logged once; the station goes on.

    Args:
        path: The file; its folder exists.
        snapshot: Called on the thread; returns what is to be written.
        every_s: Seconds between two writings.
    """

    def __init__(
        self, path: Path, snapshot: Callable[[], Mapping[str, Any]], *, every_s: float = 1.0
    ) -> None:
        self._path = path
        self._snapshot = snapshot
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-sdk-status", daemon=True)
        self.refused = 0
        """How often the disk or the snapshot failed."""

    def start(self) -> None:
        """Write once now, then on the thread."""
        self._write()
        self._thread.start()

    def close(self) -> None:
        """Stop the thread and write for the last time.  May be called twice, and before ``start``."""
        if self._stop.is_set():
            return
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=10)
            self._write()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        try:
            write_state(self._path, self._snapshot())
        except Exception as error:
            self.refused += 1
            if self.refused == 1:
                log.warning(
                    "the state file cannot be written", exc_info=error, extra={"path": str(self._path)}
                )
