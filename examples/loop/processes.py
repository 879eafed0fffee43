"""Other programs, run as the user would run them: each with a log, none left behind.

Every child has a process group of its own, which is ended with the demo whatever ends it.  What a child
says goes to its log; when it fails the log's last lines are shown.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from edge_sdk.errors import EdgeError

__all__ = ["Child", "ChildFailedError", "Job", "Processes"]

TAIL_LINES = 12


class ChildFailedError(EdgeError, RuntimeError):
    """A program that the demo ran did not do its work; ``tail`` are the last lines it said."""

    def __init__(self, message: str, *, tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.tail = tuple(tail)


class Job:
    """A program to run, and what to call it.

    Args:
        name: Of its log, e.g. ``train-plain``.
        words: ``python -m …`` as the words after ``python``, or a program with its arguments.
    """

    def __init__(self, name: str, *words: object) -> None:
        self.name = name
        self.words = [str(word) for word in words]

    def argv(self) -> list[str]:
        """With this Python in front of ``-m``."""
        return [sys.executable, *self.words] if self.words[0] == "-m" else list(self.words)

    def __str__(self) -> str:
        return " ".join(["python", *self.words] if self.words[0] == "-m" else self.words)


class Child:
    """A program that runs."""

    def __init__(self, job: Job, process: subprocess.Popen[bytes], log: Path, said: Path) -> None:
        self.job = job
        self.process = process
        self.log = log
        self.said = said
        self.began = time.monotonic()

    @property
    def running(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def tail(self) -> list[str]:
        """The last lines of its log."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return [line.rstrip() for line in text.splitlines() if line.strip()][-TAIL_LINES:]

    def answer(self) -> dict[str, Any]:
        """The JSON object that it printed, ``{}`` where it printed none.

        Raises:
            ChildFailedError: It failed.
        """
        code = self.process.wait()
        if code != 0:
            raise self.failure(f"ended with code {code}")
        lines = self.said.read_text(encoding="utf-8").strip()
        for text in (lines, lines.rpartition("\n")[2]):
            with suppress(ValueError):
                found = json.loads(text)
                if isinstance(found, dict):
                    return found
        return {}

    def failure(self, how: str) -> ChildFailedError:
        """The error that says so, with the last lines of the log."""
        tail = self.tail()
        why = f": {tail[-1]}" if tail else ""
        return ChildFailedError(f"{self.job.name} {how}{why} (log: {self.log})", tail=tail)

    def wait_until(self, ready: Callable[[], Any], *, timeout_s: float, what: str) -> Any:
        """Wait for something that the child does.

        Args:
            ready: Returns something true once it is done.
            timeout_s: The longest to wait.
            what: For the error, e.g. ``"listen"``.

        Raises:
            ChildFailedError: It ended before, or it took too long.
        """
        until = time.monotonic() + timeout_s
        while True:
            found = ready()
            if found:
                return found
            if not self.running:
                raise self.failure(f"ended with code {self.process.returncode} before it could {what}")
            if time.monotonic() > until:
                raise self.failure(f"did not {what} within {timeout_s:g} s")
            time.sleep(0.05)

    def first_line(self, *, timeout_s: float = 60) -> str:
        """The first whole line that it printed."""

        def whole() -> str:
            text = self.said.read_text(encoding="utf-8", errors="replace")
            return text.partition("\n")[0] if "\n" in text else ""

        return str(self.wait_until(whole, timeout_s=timeout_s, what="say that it is ready"))

    def stop(self, *, timeout_s: float = 30) -> None:
        """Ask it to end, wait, and end it by force where it does not."""
        if self.running:
            self._signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """End it and everything it started, now."""
        self._signal(signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(5)

    def _signal(self, number: int) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class Processes:
    """Starts programs, and ends those that are left when it is closed.

    Args:
        logs: Folder of the logs.
        threads: For the numeric libraries of each child.
    """

    def __init__(self, logs: Path, *, threads: int = 1) -> None:
        self._logs = logs
        self._children: list[Child] = []
        self._environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "OPENBLAS_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
            "NO_COLOR": "1",
            "TERM": "dumb",
        }
        logs.mkdir(parents=True, exist_ok=True)

    def start(self, job: Job) -> Child:
        """Start a program.

        Raises:
            ChildFailedError: There is no such program.
        """
        log, said = self._logs / f"{job.name}.log", self._logs / f"{job.name}.out"
        with log.open("wb") as talk, said.open("wb") as data:
            talk.write(f"$ {job}\n".encode())
            talk.flush()
            process = self._popen(job, talk, data)
        child = Child(job, process, log, said)
        self._children.append(child)
        return child

    def _popen(self, job: Job, talk: IO[bytes], data: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                job.argv(),
                stdin=subprocess.DEVNULL,
                stdout=data,
                stderr=talk,
                env=self._environment,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildFailedError(f"{job} cannot be started ({error.strerror}); is it installed?") from error

    def run(self, job: Job) -> dict[str, Any]:
        """Run a program to its end; what it printed as JSON."""
        return self.start(job).answer()

    def run_all(self, jobs: Sequence[Job], *, at_once: int = 2) -> list[dict[str, Any]]:
        """Run programs, a few at a time; what they printed, in the order of ``jobs``.

        Raises:
            ChildFailedError: One failed; the others are ended.
        """
        waiting, done = list(jobs), dict[str, dict[str, Any]]()
        running: list[Child] = []
        while waiting or running:
            while waiting and len(running) < at_once:
                running.append(self.start(waiting.pop(0)))
            for child in [child for child in running if not child.running]:
                running.remove(child)
                done[child.job.name] = child.answer()
            time.sleep(0.05)
        return [done[job.name] for job in jobs]

    def close(self) -> None:
        """End what is left."""
        for child in self._children:
            if child.running:
                child._signal(signal.SIGTERM)
        until = time.monotonic() + 5
        for child in self._children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0.0, until - time.monotonic()))
            child.kill()
        self._children.clear()

    def __enter__(self) -> Processes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
