"""The classes of a model, and the confidences at which each of them counts."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Floats
from edge_sdk.errors import RangeError

__all__ = ["Labels", "Thresholds"]


@dataclass(frozen=True)
class Labels:
    """The names of the K defect classes; a class's id is its place."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.names:
            raise RangeError("a model has no class; give at least one name")
        for name in self.names:
            if self.names.count(name) > 1:
                raise RangeError(f"class {name!r} is named twice; give every class a name of its own")

    def __len__(self) -> int:
        return len(self.names)

    def id_of(self, name: str) -> int:
        """The id of a class.

        Raises:
            RangeError: There is no class of that name.
        """
        if name not in self.names:
            near = difflib.get_close_matches(name, self.names, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(self.names)}"
            raise RangeError(f"no class named {name!r}{hint}")
        return self.names.index(name)


@dataclass(frozen=True, eq=False)
class Thresholds:
    """At which confidence a class counts: ``pass_below ≤ boundary ≤ defective_from``.

    A cell under ``pass_below`` is not reported.  A detection from ``defective_from`` up makes the
    frame defective, one between the two makes it uncertain.  ``boundary`` is the decision boundary
    that precision and recall are stated at.
    """

    boundary: Floats
    """``(K,)`` in (0, 1]."""
    pass_below: Floats
    """``(K,)`` in (0, 1]."""
    defective_from: Floats
    """``(K,)`` in (0, 1]."""
    how: str = "given"
    """How they were chosen."""
    guarantee: str = "none: given by hand"
    """``conformal alpha n``, or ``none`` and why."""

    def __post_init__(self) -> None:
        for name in ("boundary", "pass_below", "defective_from"):
            values = np.atleast_1d(np.asarray(getattr(self, name), np.float32))
            bad = values[~((values > 0) & (values <= 1))]
            if bad.size:
                raise RangeError(f"{name} is {bad[0]:g}; give a confidence above 0 and at most 1")
            object.__setattr__(self, name, values)
        if not self.boundary.shape == self.pass_below.shape == self.defective_from.shape:
            raise RangeError(
                f"boundary, pass_below and defective_from are for {self.boundary.size}, "
                f"{self.pass_below.size} and {self.defective_from.size} classes; give one value a class each"
            )
        for k in range(self.boundary.size):
            low, middle, high = self.pass_below[k], self.boundary[k], self.defective_from[k]
            if not low <= middle <= high:
                raise RangeError(
                    f"class {k} has pass_below {low:g}, boundary {middle:g}, defective_from {high:g}; "
                    "give them in rising order"
                )

    def __len__(self) -> int:
        return int(self.boundary.size)

    @staticmethod
    def uniform(
        classes: int, *, boundary: float = 0.5, pass_below: float | None = None, defective_from: float | None = None
    ) -> Thresholds:
        """The same three numbers for every class; without a band, everything at ``boundary``."""
        return Thresholds(
            boundary=np.full(classes, boundary, np.float32),
            pass_below=np.full(classes, pass_below or boundary, np.float32),
            defective_from=np.full(classes, defective_from or boundary, np.float32),
        )
