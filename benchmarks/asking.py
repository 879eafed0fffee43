"""A process in a peer's environment that is kept alive and asked line by line, so that its runs come between ours."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from benchmarks.peers import PeerError

__all__ = ["Asked"]


class Asked:
    """The process; used with ``with``.

    Args:
        python: Interpreter of the peer's environment.
        worker: A script that answers one JSON object a line, ``hello`` with its versions.
        name: Of the peer, for what is said of it.
        options: Of ``hello``.

    Raises:
        PeerError: It does not say hello.
    """

    def __init__(self, python: Path, worker: Path, *, name: str, **options: Any) -> None:
        self._name = name
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        # -P: the worker's own folder hides no module of the peer's
        self._process = subprocess.Popen(
            [str(python), "-P", "-W", "ignore", str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"},
        )
        try:
            self.versions: dict[str, str] = self.ask("hello", **options)
        except PeerError:
            self.close()
            raise

    def __enter__(self) -> Asked:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let it end, and wait for that."""
        stdin, stdout = self._pipes()
        with suppress(BrokenPipeError):
            stdin.close()
        stdout.close()
        self._process.wait()
        self._said.close()

    def ask(self, what: str, **options: Any) -> dict[str, Any]:
        """One request and its answer.

        Raises:
            PeerError: The peer refused, or died; the last thing it said.
        """
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps({"do": what, **options}) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip().splitlines()
            raise PeerError(f"{self._name} ended while asked to {what} ({said[-1] if said else 'without a word'})")
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise PeerError(f"{self._name} could not {what}: {found['error']}")
        return found

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout
