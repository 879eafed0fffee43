"""``training commission`` in one process: of its six commands of other packages, the start alone costs seconds each.

As processes of their own they run in ``tests/system/test_scorer_page.py`` and in the demo.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from calibration.cli import app as calibration_app
from export.cli import app as export_app
from tests.export.conftest import call
from training.cli import app
from training.scorers import commission as commissioning

__all__ = ["commission"]

APPS = {"calibration": calibration_app, "export": export_app}


def commission(*words: object) -> tuple[int, str, str]:
    """The command's exit code, stdout and stderr."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(commissioning, "_run", _here)
        return call(app, "commission", *words)


def _here(package: object, *words: object) -> dict[str, Any]:
    code, told, talk = call(APPS[str(package)], *words, "--json")
    assert code == 0, talk
    found: dict[str, Any] = json.loads(told)
    return found
