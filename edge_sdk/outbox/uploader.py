"""Sends what waits in the outbox to the hub: a process of its own, beside the inspecting one.

It may be killed at any moment.  An item is released after the hub's 2xx alone, so the worst is that the hub
is sent one a second time, which it recognises by its digest.
"""

from __future__ import annotations

import json
import logging
import os
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.config import StationConfig
from edge_sdk.documents import utc_text, write_atomic
from edge_sdk.errors import ConfigError, HubError, HubRefused, OutboxError
from edge_sdk.outbox.hub_client import MAX_ASKED, Backoff, HubBroke, HubClient, Reply
from edge_sdk.outbox.store import Item, Outbox

__all__ = ["UploadState", "Uploader", "read_upload_state", "run_uploader"]

log = logging.getLogger(__name__)

BATCH = 8
LEASE_S = 600.0
IDLE_S = 0.5
TELL_S = 2.0
WRITE_S = 1.0
HOLD_BACK_S = 300.0
ASK_FROM = 20
"""With fewer waiting, sending is cheaper than asking which the hub has."""
PATIENCE = 3
"""So often in a row an item may arrive altered, or bring the hub down, before it is held back for a while."""
FOR_GOOD = (413, 415)


@dataclass(frozen=True)
class UploadState:
    """What the uploader has done, over all its runs (``upload/1``, the file ``upload.json``)."""

    uploaded: int = 0
    """Items that the hub has acknowledged."""
    known: int = 0
    """Of these, the ones that it had already: repeats after a break."""
    altered: int = 0
    """Times that the hub found other bytes than were sent."""
    quarantined: int = 0
    """Items set aside: damaged on this disk, or refused for good."""
    held_back: int = 0
    """Times that an item was refused for another reason and put back."""
    waiting: int = 0
    connected: bool = False
    trouble: str | None = None
    """What is wrong now, in a sentence."""
    uploaded_at: str | None = None
    """When the hub last acknowledged something."""


def run_uploader(
    config: StationConfig,
    *,
    until_empty: bool = False,
    give_up_after_s: float | None = None,
    clock: Clock | None = None,
    stop: threading.Event | None = None,
    say: Callable[[str], None] | None = None,
) -> UploadState:
    """Upload a station's outbox, until told to stop.

    While the hub is away everything is kept and tried again, ever more rarely, up to five minutes apart; that
    is said once and not at every try.

    Args:
        config: Of the station: its outbox, its hub, and where the state is written.
        until_empty: Return once nothing waits, whether or not a station is still writing.
        give_up_after_s: With the hub out of reach for so long, raise instead of trying on.
        clock: Time and pauses.
        stop: Set from elsewhere to end after the item under way, as a signal handler does.
        say: Takes the progress lines.

    Raises:
        ConfigError: There is no hub or no outbox in the configuration, or a token would travel in the clear.
        OutboxBusy: Another process uploads this outbox.
        HubError: After ``give_up_after_s``; and with ``until_empty``, when all that is left was refused by the hub.
    """
    if config.hub is None:
        raise ConfigError(
            "there is no hub to upload to; write a section hub, e.g. hub: {url: https://hub.plant}"
        )
    if config.mentoring is None:
        raise ConfigError(
            "the station has no outbox; write a section mentoring, e.g. mentoring: {outbox: ./outbox}"
        )
    clock = clock or SystemClock()
    with (
        HubClient(config.hub.url, token_file=config.hub.token_file, clock=clock) as hub,
        Outbox(config.mentoring.outbox, sending=True, clock=clock) as outbox,
    ):
        uploader = Uploader(
            outbox, hub, state_path=config.state / "upload.json", clock=clock, stop=stop, say=say
        )
        return uploader.run(until_empty=until_empty, give_up_after_s=give_up_after_s)


class Uploader:
    """One outbox, one hub, and what has come of it."""

    def __init__(
        self,
        outbox: Outbox,
        hub: HubClient,
        *,
        state_path: Path,
        clock: Clock | None = None,
        stop: threading.Event | None = None,
        say: Callable[[str], None] | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """
        Args:
            outbox: Open for sending.
            hub: Where to.
            state_path: ``upload.json``; what an earlier run counted there is carried on.
            clock: Time and pauses.
            stop: Ends the run.
            say: Takes the progress lines.
            draw: Uniform in [0, 1), for the pauses.
        """
        self._outbox, self._hub = outbox, hub
        self._clock = clock or SystemClock()
        self._stop = stop or threading.Event()
        self._say = say or (lambda line: None)
        self._backoff = Backoff(draw=draw)
        self._path = state_path
        self.state = replace(read_upload_state(state_path) or UploadState(), connected=False, trouble=None)
        self._altered: dict[str, int] = {}
        self._stumbled, self._stumbles = "", 0
        self._refused: dict[str, HubError] = {}
        self._away_ns: int | None = None
        self._told_ns = self._written_ns = -(10**18)
        self._told = self.state.uploaded
        self._ask = True

    def run(self, *, until_empty: bool = False, give_up_after_s: float | None = None) -> UploadState:
        """Send until stopped; see :func:`run_uploader`."""
        self._note(force=True)
        try:
            while not self._stop.is_set():
                try:
                    sent = self._round()
                except HubError as error:
                    self._away(error)
                    self._pause(self._wait_s(error), give_up_after_s=give_up_after_s, error=error)
                except OutboxError as error:
                    self._trouble(str(error))
                    self._pause(self._backoff.next_s())
                else:
                    if sent:
                        self._progress()
                    elif until_empty:
                        self._nothing_left()
                        break
                    else:
                        self._progress()
                        self._pause(IDLE_S)
        finally:
            self._progress(force=True)
            self._note(force=True)
        return self.state

    # -- sending ---------------------------------------------------------------------------------

    def _round(self) -> bool:
        """Send some items; whether there were any."""
        if self._ask:
            self._pass_over_known()
        items = self._outbox.lease(BATCH, for_s=LEASE_S)
        left = list(items)
        try:
            for item in items:
                if self._stop.is_set():
                    break
                self._send(item)
                left.remove(item)
                self._note()
        finally:
            self._outbox.release([item.id for item in left])
        return bool(items)

    def _send(self, item: Item) -> None:
        try:
            reply = self._hub.put(item.id, item.data)
            if reply.status == 500:
                raise HubBroke(_line(f"{self._hub.url} failed", reply), status=500)
        except HubBroke as error:
            # perhaps it is this item that the hub, or a proxy before it, cannot stand: then the others go first
            self._stumbles = self._stumbles + 1 if self._stumbled == item.id else 1
            self._stumbled = item.id
            if self._stumbles >= PATIENCE:
                self._stumbled = ""
                return self._hold_back(item, error)
            raise
        if reply.stored:
            self._outbox.acknowledge([item.id])
            self._altered.pop(item.id, None)
            self._refused.pop(item.id, None)
            self._count(uploaded=1, known=int(reply.status == 200))
            self._back()
        elif reply.status in FOR_GOOD:
            self._set_aside(item, reply)
        elif reply.status == 422:
            self._resend(item, reply)
        elif reply.status in (401, 403):
            raise self._refusal("does not take this station's token", reply)
        elif reply.status in (408, 429):
            raise _HubBusy(_line(f"{self._hub.url} is busy", reply), reply)
        elif reply.status >= 500:
            raise _HubBusy(_line(f"{self._hub.url} cannot take items now", reply), reply)
        elif reply.status in (404, 405) or reply.status < 400:
            raise self._refusal("takes no items; that is no hub, look at hub.url", reply)
        else:
            self._hold_back(item, self._refusal(f"refused item {item.id[:12]}", reply))
        return None

    def _refusal(self, what: str, reply: Reply) -> HubRefused:
        return HubRefused(_line(f"{self._hub.url} {what}", reply), status=reply.status)

    def _resend(self, item: Item, reply: Reply) -> None:
        """The hub found other bytes, or bytes it will not have: damaged here, on the way, or at odds with it."""
        self._count(altered=1)
        if self._outbox.recheck(item.id):
            self._altered[item.id] = self._altered.get(item.id, 0) + 1
            if self._altered[item.id] < PATIENCE:
                self._outbox.release([item.id])
            else:
                self._altered.pop(item.id)
                self._hold_back(item, self._refusal(f"does not take item {item.id[:12]} as it is", reply))
        else:
            self._count(quarantined=1)
            self._say(f"item {item.id[:12]} is damaged on this disk and was set aside")

    def _set_aside(self, item: Item, reply: Reply) -> None:
        why = _line("the hub refused it for good", reply)
        self._outbox.set_aside(item.id, why)
        self._count(quarantined=1)
        self._say(f"item {item.id[:12]} was set aside: {why}")
        self._back()

    def _hold_back(self, item: Item, why: HubError) -> None:
        """Let the others go first; the item stays in the outbox and is tried again later."""
        if item.id not in self._refused:
            self._say(f"{why}; it stays in the outbox and is tried again later")
        self._refused[item.id] = why
        self._outbox.release([item.id], after_s=HOLD_BACK_S)
        self._count(held_back=1)

    def _pass_over_known(self) -> None:
        """After a long time offline: release what the hub has already, without sending it."""
        ids = self._outbox.waiting_ids(MAX_ASKED)
        if len(ids) >= ASK_FROM:
            try:
                known = set(ids) - self._hub.missing(ids)
            except HubRefused:
                known = set()
            if known:
                self._outbox.acknowledge(known)
                self._count(uploaded=len(known), known=len(known))
                self._back()
            if len(known) == MAX_ASKED:
                return
        self._ask = False

    # -- what is said and written ----------------------------------------------------------------

    def _nothing_left(self) -> None:
        if self._refused and self._outbox.counts().waiting:
            raise next(iter(self._refused.values()))
        self._trouble(None)

    def _away(self, error: HubError) -> None:
        if self._away_ns is None:
            self._away_ns = self._clock.monotonic_ns()
        waiting = self._outbox.counts().waiting
        if self.state.connected or self.state.trouble is None:
            self._say(f"{error}; {waiting} waiting, nothing is lost, trying on")
            log.warning("hub away", extra={"error": str(error), "waiting": waiting})
        self.state = replace(self.state, connected=False, waiting=waiting)
        self._trouble(str(error), said=True)

    def _back(self) -> None:
        self._backoff.reset()
        if self._away_ns is not None:
            away_s = (self._clock.monotonic_ns() - self._away_ns) / 1e9
            self._away_ns = None
            self._ask = away_s > 600
            self._say(f"{self._hub.url} is back after {away_s:.0f} s")
        self.state = replace(self.state, connected=True, trouble=None)

    def _wait_s(self, error: HubError) -> float:
        asked = error.retry_after_s if isinstance(error, _HubBusy) else None
        return self._backoff.next_s() if asked is None else asked

    def _trouble(self, sentence: str | None, *, said: bool = False) -> None:
        if sentence is not None and sentence != self.state.trouble and not said:
            self._say(sentence)
        changed = sentence != self.state.trouble
        self.state = replace(self.state, trouble=sentence)
        self._note(force=changed)

    def _count(self, **more: int) -> None:
        counted: dict[str, Any] = {name: getattr(self.state, name) + count for name, count in more.items()}
        if more.get("uploaded"):
            counted["uploaded_at"] = utc_text(self._clock.now())
        self.state = replace(self.state, **counted)

    def _progress(self, *, force: bool = False) -> None:
        """``uploaded N, waiting M``, when it has changed and not too often."""
        now = self._clock.monotonic_ns()
        if self.state.uploaded != self._told and (force or now - self._told_ns > TELL_S * 1e9):
            self._told, self._told_ns = self.state.uploaded, now
            waiting = self._outbox.counts().waiting
            self._say(f"uploaded {self.state.uploaded}, waiting {waiting}")

    def _note(self, *, force: bool = False) -> None:
        """Write ``upload.json``, at most once a second; a killed process may miss the last second's counts."""
        now = self._clock.monotonic_ns()
        if not force and now - self._written_ns < WRITE_S * 1e9:
            return
        self._written_ns = now
        self.state = replace(self.state, waiting=self._outbox.counts().waiting)
        found = {
            "schema": "upload/1",
            "hub": self._hub.url,
            "pid": os.getpid(),
            "written_at": utc_text(self._clock.now()),
            **asdict(self.state),
        }
        with suppress(OSError):  # a full disk must not keep the uploader from emptying it
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, json.dumps(found, indent=1).encode() + b"\n")

    def _pause(
        self, seconds: float, *, give_up_after_s: float | None = None, error: HubError | None = None
    ) -> None:
        end_ns = self._clock.monotonic_ns() + round(seconds * 1e9)
        while not self._stop.is_set():
            now = self._clock.monotonic_ns()
            if error is not None and give_up_after_s is not None and self._away_ns is not None:
                if now - self._away_ns >= give_up_after_s * 1e9:
                    waiting = self._outbox.counts().waiting
                    raise HubError(
                        f"{error}; {waiting} waiting stay in the outbox, upload again later"
                    ) from error
            if (left_s := (end_ns - now) / 1e9) <= 0:
                return
            self._clock.sleep(min(left_s, 0.25))


class _HubBusy(HubRefused):
    """The hub asks to come again."""

    def __init__(self, message: str, reply: Reply) -> None:
        super().__init__(message, status=reply.status)
        self.retry_after_s = reply.retry_after_s


def _line(what: str, reply: Reply) -> str:
    return f"{what} ({reply.status}{': ' + reply.said if reply.said else ''})"


def read_upload_state(path: Path) -> UploadState | None:
    """What ``upload.json`` says; ``None`` where there is none, or it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        known = {name: value[name] for name in UploadState.__dataclass_fields__ if name in value}
        return UploadState(**known) if isinstance(value, dict) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
