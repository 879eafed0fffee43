"""One stage after the other: a progress line each, and done stages are not done again."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.loop.schema import Stage

__all__ = ["Stages"]


class Stages:
    """Runs stages, tells them, and remembers what each of them found.

    A stage's result is a JSON object kept in ``FOLDER/NAME.json`` with a digest of the settings and of all
    results before it; with ``resume`` a stage whose digest still holds is taken from there.

    Args:
        folder: Of the results.
        settings: What the whole run hangs on.
        count: How many stages there will be, for the progress line.
        resume: Take from the folder what is there.
        say: Takes the progress lines.
    """

    def __init__(
        self,
        folder: Path,
        settings: dict[str, Any],
        *,
        count: int,
        resume: bool = False,
        say: Callable[[str], None] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._digest = _digest(settings)
        self._count = count
        self._resume = resume
        self._say = say or _to_stderr
        self.done: list[Stage] = []

    def __call__(
        self,
        name: str,
        work: Callable[[], dict[str, Any]],
        tell: Callable[[dict[str, Any]], str],
        *,
        only_with: str | None = None,
    ) -> Any:
        """Do a stage, or take what it found before.

        Args:
            name: Of the stage, unique.
            work: Does it; returns what it found.
            tell: What it found as a phrase for the progress line.
            only_with: A later stage without whose result this one's is worth nothing: processes that it
                started live until then.
        """
        number = f"[{len(self.done) + 1:>2}/{self._count}]"
        path = self._path(name)
        kept = self._kept(path)
        if only_with is not None and not self._path(only_with).exists():
            kept = None
        if kept is not None:
            found, took_s = kept["found"], float(kept["took_s"])
            self._say(f"{number} {name:<10} done before: {tell(found)}")
        else:
            self._forget()
            self._say(f"{number} {name:<10} …")
            began = time.monotonic()
            found = work()
            took_s = time.monotonic() - began
            self._say(f"{number} {name:<10} {took_s:6.1f} s  {tell(found)}")
            path.write_text(
                json.dumps({"digest": self._digest, "took_s": took_s, "found": found}), encoding="utf-8"
            )
        self._digest = _digest([self._digest, found])
        self.done.append(Stage(name=name, took_s=round(took_s, 2)))
        return found

    def _path(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-')}.json"

    def _forget(self) -> None:
        """What follows hangs on the stage that is done now."""
        self._resume = False
        done = {self._path(stage.name) for stage in self.done}
        for path in self._folder.glob("*.json"):
            if path not in done:
                path.unlink()

    def _kept(self, path: Path) -> dict[str, Any] | None:
        if not self._resume or not path.exists():
            return None
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept if kept.get("digest") == self._digest else None


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
