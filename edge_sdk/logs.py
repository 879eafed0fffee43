"""Log lines of the command line: an event with its fields, tracebacks only where asked for.

The SDK itself only logs to its modules' loggers; a program that embeds it sets up logging as it
likes.  ``edge-sdk`` calls ``set_up`` here.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TextIO

__all__ = ["LineFormatter", "set_up"]

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """``warning: camera fault (camera=left, reason=no frame in 2 s)``.

    Args:
        tracebacks: Whether an error's traceback follows; otherwise its last line is a field.
        stamped: Whether the line begins with the time.
    """

    def __init__(self, *, tracebacks: bool, stamped: bool = False) -> None:
        super().__init__()
        self._tracebacks = tracebacks
        self._stamped = stamped

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in _STANDARD}
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and not self._tracebacks:
            fields["error"] = f"{type(error).__name__}: {error}"
        line = f"{record.levelname.lower()}: {record.getMessage()}"
        if self._stamped:
            line = f"{self.formatTime(record, '%Y-%m-%dT%H:%M:%S')} {line}"
        if fields:
            line += f" ({', '.join(f'{name}={value}' for name, value in fields.items())})"
        line = line.replace("\n", " ")
        if self._tracebacks and record.exc_info and error is not None:
            line += "\n" + self.formatException(record.exc_info)
        return line


def set_up(*, stream: TextIO, quiet: bool = False, debug: bool = False, file: Path | None = None) -> None:
    """Send what the SDK logs to a stream, and with tracebacks to a file.

    Args:
        stream: Gets one line an event.
        quiet: Warnings and worse alone.
        debug: Also what is logged for developers, and tracebacks on the stream.
        file: Grows to 1 MiB, then begins anew and keeps the one before.
    """
    root = logging.getLogger("edge_sdk")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    talk = logging.StreamHandler(stream)
    talk.setFormatter(LineFormatter(tracebacks=debug))
    root.addHandler(talk)
    if file is not None:
        from logging.handlers import RotatingFileHandler

        keep = RotatingFileHandler(file, maxBytes=1 << 20, backupCount=1, encoding="utf-8", delay=True)
        keep.setFormatter(LineFormatter(tracebacks=True, stamped=True))
        keep.handleError = lambda record: None  # type: ignore[method-assign]  # a full disk is no news for every line
        root.addHandler(keep)
