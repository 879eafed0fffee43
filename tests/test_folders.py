"""Whether something can be written: told before minutes of work, and nothing is left behind by asking."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_sdk.errors import ConfigError
from edge_sdk.folders import check_file, check_folder


def test_a_folder_that_can_be_made_is_not_made_by_asking(tmp_path: Path) -> None:
    check_folder(tmp_path / "a" / "b")
    check_folder(tmp_path)
    check_file(tmp_path / "a" / "file.json")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    for folder in (tmp_path / "file", tmp_path / "file" / "b"):
        with pytest.raises(ConfigError) as told:
            check_folder(folder)
        assert str(told.value) == f"nothing can be made in {folder}: {tmp_path}/file is a file; give another place"
    with pytest.raises(ConfigError, match=r"/file is a file; give another place$"):
        check_file(tmp_path / "file" / "b.json")
    with pytest.raises(ConfigError, match=r" is a folder; give the name of a file to write$"):
        check_file(tmp_path)


def test_a_disk_that_refuses_is_told_even_to_the_superuser() -> None:
    # the kernel's own file system takes no file from anyone
    with pytest.raises(ConfigError, match=r"^nothing can be made in /proc/new: /proc cannot be written to \(.+\)"):
        check_folder(Path("/proc/new"))
