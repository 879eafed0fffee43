"""TORCH: source training, adaptation, retraining from answers, and their evaluation.

``from training.api import Config, adapt, retrain, evaluate`` for notebooks; ``training.api`` is there after
``import training`` too, and is loaded when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "api":
        return importlib.import_module("training.api")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
