"""A test that lacks something is skipped and counted, and fails where nothing may be missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.house.places import ROOT, ask

TESTS = """
from tests.requirements import need
def test_browser():
    need("chromium", found=False, apt="chromium fonts-dejavu-core")
def test_browser_again():
    need("chromium", found=False, apt="chromium fonts-dejavu-core")
def test_data():
    need("../shared/data/steel", found=False)
def test_python():
    need("python", found=True)
"""


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest", "-c", "/dev/null")
SHARED_OUT = ("-n", "2")


def run(tmp_path: Path, required: str, *words: str) -> tuple[int, str]:
    (tmp_path / "test_some.py").write_text(TESTS, encoding="utf-8")
    done = ask(
        [*PYTEST, *words, "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=ROOT,
        extra={"EDGE_SDK_REQUIRE": required},
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("words", [(), SHARED_OUT], ids=["one process", "shared out"])
def test_the_run_ends_with_what_was_missing_and_the_line_that_brings_it(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "test_none.py").write_text(
        "from tests.requirements import need\nneed('a lamp', found=False)\n", encoding="utf-8"
    )
    code, said = run(tmp_path, "", *words)
    assert code == 0
    assert "1 passed, 4 skipped" in said
    assert "4 skipped because this machine lacks: ../shared/data/steel (1), a lamp (1), chromium (2)" in said
    assert "to run what Debian can bring: sudo apt-get install -y chromium fonts-dejavu-core" in said


def test_nothing_may_be_missing_where_everything_is_required(tmp_path: Path) -> None:
    code, said = run(tmp_path, "all")
    assert code == 1
    assert "3 failed, 1 passed" in said
    assert (
        "chromium is missing and EDGE_SDK_REQUIRE=all; apt-get install chromium fonts-dejavu-core" in said
    )


def test_a_skip_of_any_other_kind_fails_the_run_there_too(tmp_path: Path) -> None:
    (tmp_path / "test_other.py").write_text(
        "import pytest\n@pytest.mark.skip(reason='not today')\ndef test_it(): ...\n", encoding="utf-8"
    )
    command = [*PYTEST, "--rootdir", str(tmp_path), str(tmp_path)]
    assert ask(command, cwd=ROOT, extra={"EDGE_SDK_REQUIRE": ""}).returncode == 0
    done = ask([*command, *SHARED_OUT], cwd=ROOT, extra={"EDGE_SDK_REQUIRE": "all"})
    assert done.returncode == 1
    assert "EDGE_SDK_REQUIRE=all, but 1 skipped" in done.stdout
