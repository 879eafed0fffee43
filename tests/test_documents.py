"""Documents: canonical bytes, and sentences that name file and line."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from edge_sdk.documents import (
    Document,
    canonical_json,
    parse_json,
    read_json,
    read_yaml,
    write_atomic,
    write_together,
)
from edge_sdk.errors import ConfigError, FormatError


class Lens(Document):
    exposure_us: float = Field(100, gt=0)
    pace: Literal["real", "max"] = "real"


class Settings(Document):
    station: str
    lens: Lens = Lens()
    keys: tuple[str, ...] = ()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_canonical_json_says_the_same_and_only_once(value: Any) -> None:
    import json

    once = canonical_json(value)
    assert json.loads(once) == value
    assert canonical_json(json.loads(once)) == once
    assert b"\n" not in once


def test_canonical_json_sorts_its_keys_and_keeps_umlauts() -> None:
    assert canonical_json({"b": 1, "a": "ü"}) == '{"a":"ü","b":1}'.encode()


def test_canonical_json_refuses_what_json_has_not() -> None:
    with pytest.raises(FormatError, match="a number is NaN or infinite"):
        canonical_json({"a": float("nan")})
    with pytest.raises(FormatError, match="give text, numbers, lists or objects"):
        canonical_json({"a": object()})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("station: a\nlens:\n  exposure_us: 0\n", ":3: lens.exposure_us is 0; give a number above 0"),
        ("station: a\nlens:\n  exposure: 3\n", ":3: no setting named lens.exposure; did you mean exposure_us?"),
        ("station: a\nwheels: 4\n", ":2: no setting named wheels; there are station, lens, keys"),
        ("lens: {pace: real}\n", ":1: station is missing; add it"),
        ("station: a\nlens: {pace: slow}\n", ":2: lens.pace is \"slow\"; give 'real' or 'max'"),
        ("station: a\nstation: b\n", ":2: station stands here and in line 1; keep one of the two"),
        ("station: [a\n", ":2: not YAML: expected ',' or ']'"),
        ("just words\n", ":1: no settings here; write them as `name: value` lines"),
        ("", ":1: no settings here"),
        ("station: a\nlens: 3\n", ":2: lens is 3; give settings as `name: value`"),
        ("station: a\nkeys: [x, 3]\n", ":2: keys[1] is 3; give text"),
    ],
)
def test_a_wrong_setting_is_told_with_its_file_and_line(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "station.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path, Settings)
    assert f"{path}{sentence}" in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_file_and_one_that_is_no_text_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read .*is the path right"):
        read_yaml(tmp_path / "none.yaml", Settings)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is not UTF-8 text"):
        read_yaml(tmp_path / "binary.yaml", Settings)
    with pytest.raises(FormatError, match="cannot be read"):
        read_json(tmp_path / "none.json", Settings)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_document_are_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError, match="a note"):
        parse_json(data, Settings, name="a note")


def test_json_too_deep_for_a_parser_is_a_format_error() -> None:
    with pytest.raises(FormatError, match="nested too deeply|is not JSON"):
        parse_json(b"[" * 200_000, Settings, name="a note")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_atomic(path, b"first")

    def refuse(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"second")
    assert path.read_bytes() == b"first"
    assert [found.name for found in tmp_path.iterdir()] == ["status.json"]


def test_files_that_belong_together_are_written_all_or_none(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "folder" / "second"
    first.write_bytes(b"before")
    with pytest.raises(FileNotFoundError):
        write_together({first: b"after", second: b"after"})
    assert first.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [first]
    second.parent.mkdir()
    write_together({first: b"after", second: b"after"})
    assert first.read_bytes() == second.read_bytes() == b"after"
