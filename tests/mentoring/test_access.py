"""The token: made once, read by its owner alone, asked of every call under /v1."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge_sdk.errors import ConfigError
from mentoring.access import token_from


def test_a_token_is_made_once_and_its_owner_alone_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = token_from(path)
    assert len(token) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert token_from(path) == token


@pytest.mark.parametrize(
    "text", ["", "short", "two words of thirty letters or so", "ümläüte-ümläüte-ümläüte"]
)
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(ConfigError) as refused:
        token_from(tmp_path / "token")
    assert str(refused.value) == (
        f"{tmp_path / 'token'} holds no token of at least 16 letters and digits; "
        "delete the file and the hub writes a new one"
    )


def test_a_token_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="cannot be written \\(No such file or directory\\); give another --token"
    ):
        token_from(tmp_path / "none" / "token")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot be read as a token"):
        token_from(tmp_path / "folder")
