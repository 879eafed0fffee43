"""Adaptation to a new line from its unlabelled pictures: one method a file, each a function of a ``Task``."""

from __future__ import annotations

from collections.abc import Mapping

from training.methods.adabn import adabn
from training.methods.adda import adda
from training.methods.coral import coral
from training.methods.dann import dann
from training.methods.mmd import mmd
from training.methods.source import source
from training.methods.task import Adapted, Method, Task

__all__ = ["METHODS", "Adapted", "Method", "Task"]

METHODS: Mapping[str, Method] = {
    "source": source,
    "adabn": adabn,
    "mmd": mmd,
    "coral": coral,
    "dann": dann,
    "adda": adda,
}
"""By the name that the commands and results give it."""
