"""The control: the new line gets what the original line has."""

from __future__ import annotations

from training.methods.task import Adapted, Task

__all__ = ["source"]


def source(task: Task) -> Adapted:
    """No adaptation: the original line's network with its own normalisations."""
    home = task.checkpoint.line("original")
    return Adapted(task.checkpoint.network, home, home.statistics, measured=False)
