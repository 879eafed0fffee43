"""A hub as a process of its own, as an operator's plant would run it, and a small client for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import urllib3

__all__ = ["HubProcess"]

ROOT = Path(__file__).parent.parent.parent


class HubProcess:
    """``python -m mentoring serve`` on a free port; stopped, killed and brought back on the same one."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data = data
        self.port = 0
        self.page = ""
        self._more = more
        self._process: subprocess.Popen[str] | None = None
        self._http = urllib3.PoolManager(retries=False, timeout=30)

    def start(self) -> None:
        """Returns once it listens."""
        command = [sys.executable, "-m", "mentoring", "serve", "--data", str(self.data), "--json"]
        with (self.data.parent / f"{self.data.name}.log").open("a") as log:
            self._process = subprocess.Popen(
                [*command, "--port", str(self.port), *self._more],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, (self.data.parent / f"{self.data.name}.log").read_text()
        facts = json.loads(line)
        self.port, self.page, self.url = facts["port"], facts["page"], facts["url"]
        self.token = Path(facts["token_file"]).read_text().strip()

    def stop(self) -> int:
        """End it as systemd would."""
        return self._end("terminate")

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end("kill")

    def _end(self, how: str) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        getattr(process, how)()
        code = process.wait(20)
        assert process.stdout is not None
        process.stdout.close()
        self._http.clear()
        return code

    def call(self, method: str, path: str, body: Any = None, *, token: str | None = None) -> tuple[int, Any]:
        """Status and decoded body of a call."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token or self.token}"}
        response = self._http.request(method, self.url + path, body=data, headers=headers)
        kind = response.headers.get("Content-Type", "")
        return response.status, json.loads(response.data) if kind == "application/json" else response.data

    def put(self, item: tuple[str, bytes]) -> int:
        """Send an item; its status."""
        return self.call("PUT", f"/v1/items/{item[0]}", item[1])[0]

    def __enter__(self) -> HubProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
