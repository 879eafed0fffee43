"""The thread that notices a newly activated bundle and brings it in between two frames.

The new bundle is opened, proved and warmed beside the one at work.  One that fails its proof is not
used: the old one goes on, and the status says why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_sdk.clock import Clock
from edge_sdk.documents import utc_text
from edge_sdk.errors import EdgeError
from edge_sdk.judge import Judge
from edge_sdk.pipeline import Pipeline

__all__ = ["BundleWatch", "identity"]

log = logging.getLogger(__name__)

CLOSE_S = 5.0
"""For a proof under way when the station ends; its thread is left behind then."""


def identity(path: Path) -> tuple[str, int, int] | None:
    """Which bundle a link leads to right now, at the cost of a few system calls.

    Returns:
        The folder with the inode and change time of its manifest; ``None`` while there is none.
    """
    try:
        folder = path.resolve(strict=True)
        found = (folder / "manifest.json").stat()
    except OSError:
        return None
    return str(folder), found.st_ino, found.st_mtime_ns


class BundleWatch:
    """Watches the link of two slots and swaps the pipeline's judge when it leads elsewhere.

    Args:
        path: The link, ``bundles/current``: it is flipped by one rename and leads to whole bundles only.
        load: Opens and proves what ``path`` leads to; raises where it must not be used.
        pipeline: Where the judge is swapped.
        announce: Called with the new judge before its first frame.
        seen: ``identity`` of what the pipeline's judge was opened from.
        clock: Stamps what happened.
        every_s: Seconds between two looks.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], Judge],
        pipeline: Pipeline,
        *,
        announce: Callable[[Judge], None] = lambda judge: None,
        seen: tuple[str, int, int] | None,
        clock: Clock,
        every_s: float = 0.5,
    ) -> None:
        self._path = path
        self._load = load
        self._pipeline = pipeline
        self._announce = announce
        self._clock = clock
        self._every_s = every_s
        self._seen = seen
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="edge-sdk-bundles", daemon=True)
        self.swaps: list[dict[str, Any]] = []
        """What was brought in: ``at``, ``from``, ``to`` (ids), ``name``, and ``frames_lost``: those that were not
        inspected, for whatever reason, from the moment the new bundle was seen until it judged."""
        self.refused: dict[str, Any] | None = None
        """The last bundle that was not brought in, ``at`` and ``why``; ``None`` after a good one."""

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def close(self) -> None:
        """Stop watching; a bundle that is just being proved will not be used.  May be called twice."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=CLOSE_S)

    def look(self) -> None:
        """Look once; the thread does so about twice a second."""
        found = identity(self._path)
        if found is None or found == self._seen:
            return
        self._seen = found
        before = self._pipeline.ledger.snapshot()["outcomes"]["not_inspected"]
        try:
            judge = self._load()
        except Exception as error:
            why = str(error) if isinstance(error, EdgeError) else f"{type(error).__name__}: {error}"
            self.refused = {"at": utc_text(self._clock.now()), "bundle": found[0], "why": why}
            log.error(
                "a bundle was refused; the one before goes on", exc_info=error, extra={"bundle": found[0]}
            )
            return
        if self._stop.is_set() or judge.model == self._pipeline.model:
            judge.close()
            self.refused = None
            return
        self._announce(judge)
        left = self._pipeline.swap(judge)
        lost = self._pipeline.ledger.snapshot()["outcomes"]["not_inspected"] - before
        self.refused = None
        manifest = judge.manifest
        swap = {
            "at": utc_text(self._clock.now()),
            "from": left.model,
            "to": judge.model,
            "name": f"{manifest.name}-{manifest.version}",
            "frames_lost": lost,
        }
        self.swaps = [*self.swaps[-99:], swap]
        log.info(
            "another bundle judges from now on", extra={"bundle": swap["name"], "model": judge.model[:12]}
        )
        left.close()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self.look()
