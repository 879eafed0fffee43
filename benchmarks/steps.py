"""A run that was interrupted goes on where it was: each finished step lies in a small file."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from edge_sdk.documents import write_atomic

__all__ = ["KeptSteps"]

T = TypeVar("T")


class KeptSteps:
    """``benchmarks.results.Steps`` with a progress bar on stderr and a memory on disk.

    Args:
        path: Where finished steps are kept until the run is done.
        same: Whatever must be equal for a kept step to count: the commit, the settings.
        title: What the progress bar is called.
    """

    def __init__(self, path: Path, *, same: str, title: str) -> None:
        self._path = path
        self._same = same
        self._kept: dict[str, object] = {}
        self._named: set[str] = set()
        self._begun, self._before_s = time.monotonic(), 0.0
        with suppress(OSError, ValueError):
            before = json.loads(path.read_bytes())
            if before["same"] == same:
                self._kept, self._before_s = before["steps"], float(before.get("took_s", 0.0))
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
        self._title = title
        self._task = self._bar.add_task(title, total=None)

    @property
    def kept(self) -> int:
        """How many steps an interrupted run had finished."""
        return len(self._kept)

    @property
    def took_s(self) -> float:
        """Seconds until now, with those that an interrupted run took for the steps that are kept."""
        return self._before_s + time.monotonic() - self._begun

    def __enter__(self) -> KeptSteps:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def expect(self, steps: int) -> None:
        """How many steps there will be."""
        self._bar.update(self._task, total=steps)

    def step(self, name: str, compute: Callable[[], T]) -> T:
        """Compute a step, or take it from the run that was interrupted.

        Raises:
            ValueError: A step of this name was already taken; two would share one memory.
        """
        if name in self._named:
            raise ValueError(f"two steps are called {name!r}; give each a name of its own")
        self._named.add(name)
        self._bar.update(self._task, description=f"{self._title}: {name}")
        if name not in self._kept:
            self._kept[name] = compute()
            self._path.parent.mkdir(parents=True, exist_ok=True)
            said = {"same": self._same, "took_s": self.took_s, "steps": self._kept}
            write_atomic(self._path, json.dumps(said).encode())
        self._bar.advance(self._task)
        # what comes back is what a resumed run would get, so both go the same way
        return json.loads(json.dumps(self._kept[name]))  # type: ignore[no-any-return]

    def forget(self) -> None:
        """The run is done: the next one begins anew."""
        with suppress(FileNotFoundError):
            self._path.unlink()
