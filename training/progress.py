"""How a command shows what it does: bars on stderr, and the curves that its page is drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

__all__ = ["MOST_POINTS", "Curves", "shown"]

MOST_POINTS = 200
"""Of a curve that is kept: more than anybody sees."""


class Curves:
    """The loss terms and gradients of every step that was told, by what was trained."""

    def __init__(self) -> None:
        self._steps: dict[str, dict[int, Mapping[str, float]]] = {}

    def add(self, what: str, step: int, terms: Mapping[str, float]) -> None:
        """A step; of what has no terms nothing is kept."""
        if terms:
            self._steps.setdefault(what, {})[step] = dict(terms)

    def document(self) -> dict[str, dict[str, list[list[float]]]]:
        """By what was trained and by term: ``[step, value]`` points in order, the value a mean over steps.

        A training that was gone on from begins where it was taken up.
        """
        return {what: _thinned(steps) for what, steps in self._steps.items()}


def _thinned(steps: Mapping[int, Mapping[str, float]]) -> dict[str, list[list[float]]]:
    by_term: dict[str, list[tuple[int, float]]] = {}
    for step, terms in sorted(steps.items()):
        for name, value in terms.items():
            by_term.setdefault(name, []).append((step, value))
    found = {}
    for name, points in by_term.items():
        size = -(-len(points) // MOST_POINTS)
        pieces = [points[n : n + size] for n in range(0, len(points), size)]
        found[name] = [
            [piece[-1][0], float(f"{sum(value for _, value in piece) / len(piece):.6g}")] for piece in pieces
        ]
    return found


@contextmanager
def shown(*, hidden: bool = False) -> Iterator[tuple[Any, Curves]]:
    """Bars, one for each thing that is done.

    Args:
        hidden: Show nothing, as the processes beside the first do.

    Yields:
        What is to be called as ``progress``, and the curves it fills.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[loss]}"),
    )
    curves = Curves()
    with Bars(*columns, console=Console(stderr=True), disable=hidden) as bars:
        tasks: dict[str, Any] = {}

        def progress(what: str, step: int, steps: int, terms: Mapping[str, float]) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=steps, loss="")
            told = " ".join(f"{name} {value:.3f}" for name, value in terms.items() if not name.startswith("grad_"))
            bars.update(tasks[what], completed=step, loss=told)
            curves.add(what, step, terms)

        yield progress, curves
