"""``edge-sdk`` called in this process, with what it said and how it ended."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from edge_sdk.cli import main


class Said:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last(self) -> str:
        return self.err.strip().splitlines()[-1]


Edge = Callable[..., Said]
"""What the fixture gives: words in, what was said out."""


def caller(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Edge]:
    """Runs commands; for a fixture, which cleans up behind them."""

    def call(*words: object) -> Said:
        try:
            code = main([str(word) for word in words])
        except SystemExit as left:
            code = int(left.code or 0)
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        said = Said(code, out.decode(), err.decode())
        assert "Traceback" not in said.err or "--debug" in words
        return said

    yield call
    log = logging.getLogger("edge_sdk")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)
