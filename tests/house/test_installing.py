"""What a newcomer types first, and what is said where something is missing."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.house.places import ROOT, ask

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def pretend(folder: Path, *, lacks: str) -> Path:
    """A Python that cannot import one module."""
    path = folder / "python"
    look = f'for word in "$@"; do case "$word" in *{lacks}*) exit 1;; esac; done'
    path.write_text(f'#!/bin/bash\n{look}\nexec {sys.executable} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What making an environment reads, in a folder of its own."""
    shutil.copytree(ROOT / ".ci", tmp_path / "here" / ".ci")
    for name in ("constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "here")
    return tmp_path / "here"


def test_make_alone_explains_every_goal() -> None:
    done = ask(["make", "--no-print-directory"])
    assert done.returncode == 0
    goals = set(re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)) - {"help"}
    assert goals <= set(re.findall(r"^make ([a-z-]+)", done.stdout, flags=re.MULTILINE))
    assert max(map(len, done.stdout.splitlines())) < 100


def test_a_python_without_venv_is_told_as_one_command(checkout: Path, tmp_path: Path) -> None:
    python = pretend(tmp_path, lacks="venv")
    done = ask(["bash", ".ci/venv.sh", ".venv", ".", str(python)], cwd=checkout)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "edge-sdk: no CPython of 3.11 or newer with venv was found; on Debian: sudo apt-get install python3-venv",
        "edge-sdk: another one is taken with: make PYTHON=/path/to/python3",
    ]
    assert not (checkout / ".venv").exists()


def test_an_environment_is_made_where_debian_s_ensurepip_is_missing(checkout: Path, tmp_path: Path) -> None:
    python = pretend(tmp_path, lacks="ensurepip")
    done = ask(["bash", ".ci/venv.sh", ".venv", ".", str(python)], cwd=checkout, extra={"PIP_NO_INDEX": "1"})
    # nothing can be installed without a registry; the way there, and what is said then, is what counts
    assert done.returncode == 1
    assert "and its pip" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_install_that_fails_says_where_its_story_is(checkout: Path) -> None:
    extra = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}
    done = ask(["bash", ".ci/venv.sh", ".venv", ".", sys.executable], cwd=checkout, extra=extra)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "edge-sdk: installing failed, the whole story is in build/install-.venv.log; "
        "with the package registry in reach, the same command goes on"
    )
    assert (checkout / "build" / "install-.venv.log").exists()


def test_an_environment_whose_python_is_gone_is_made_again(checkout: Path, tmp_path: Path) -> None:
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").write_text("#!/bin/sh\nexit 127\n", encoding="utf-8")
    (checkout / ".venv" / "bin" / "python").chmod(0o755)
    python = pretend(tmp_path, lacks="venv")
    done = ask(["bash", ".ci/venv.sh", ".venv", ".", str(python)], cwd=checkout)
    assert done.stderr.startswith("edge-sdk: .venv does not work any more (its Python was removed?), making it again")
    assert not (checkout / ".venv").exists()


def test_every_goal_that_needs_the_environment_makes_it() -> None:
    for goal in ("demo", "test", "check", "docs", "wheel", "install"):
        assert re.search(rf"^{goal}: \$\(VENV\)/complete$", MAKEFILE, flags=re.MULTILINE), goal
