"""Log lines are events with fields; tracebacks go where they are wanted."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_sdk import logs


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    yield
    log = logging.getLogger("edge_sdk")
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    log.setLevel(logging.NOTSET)


def test_an_event_is_one_line_with_its_fields() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream)
    logging.getLogger("edge_sdk.x").warning("frame\ndropped", extra={"camera": "left", "index": 7})
    logging.getLogger("edge_sdk.x").debug("not now")
    assert stream.getvalue() == "warning: frame dropped (camera=left, index=7)\n"


def test_an_error_is_a_field_on_the_stream_and_a_traceback_in_the_file(tmp_path: Path) -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream, file=tmp_path / "station.log")
    try:
        raise ValueError("the lamp is off")
    except ValueError:
        logging.getLogger("edge_sdk.x").exception("a listener failed")
    assert stream.getvalue() == "error: a listener failed (error=ValueError: the lamp is off)\n"
    kept = (tmp_path / "station.log").read_text()
    assert "error: a listener failed" in kept
    assert "Traceback" in kept


def test_debug_shows_everything_on_the_stream() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream, debug=True)
    logging.getLogger("edge_sdk.x").debug("now", exc_info=KeyError("k"))
    assert stream.getvalue().startswith("debug: now\n")
    assert "KeyError" in stream.getvalue()


def test_a_full_disk_under_the_log_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up(stream=io.StringIO(), file=Path("/nowhere/station.log"))
    logging.getLogger("edge_sdk.x").warning("anything")
    assert capsys.readouterr() == ("", "")


def test_quiet_keeps_to_what_matters() -> None:
    stream = io.StringIO()
    logs.set_up(stream=stream, quiet=True)
    logging.getLogger("edge_sdk.x").info("a step")
    logging.getLogger("edge_sdk.x").warning("trouble")
    assert stream.getvalue() == "warning: trouble\n"


def test_setting_up_twice_writes_each_line_once() -> None:
    stream = io.StringIO()
    logs.set_up(stream=io.StringIO())
    logs.set_up(stream=stream)
    logging.getLogger("edge_sdk.x").info("once")
    assert stream.getvalue() == "info: once\n"
