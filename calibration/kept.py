"""What a calibration that was ended in the midst had seen, so that the next one goes on from there.

A histogram does not depend on the order in which its values came, so what goes on from kept histograms ends with
the very bytes of what was never interrupted.
"""

from __future__ import annotations

import io
import json
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from calibration.observers import Histogram, Observer
from edge_sdk.documents import write_atomic

__all__ = ["Kept"]

_EVERY_S = 10.0


class Kept:
    """The histograms so far, in a file.

    Args:
        path: Of the file.
        same: Whatever must be equal for what is kept to count: graph, preprocessing, pictures.
        every_s: Seconds between two writings.
    """

    def __init__(self, path: Path, *, same: str, every_s: float = _EVERY_S) -> None:
        self._path = path
        self._same = same
        self._every_s = every_s
        self._written = time.monotonic()

    def read(self, tensors: Sequence[str]) -> tuple[int, dict[str, Observer]]:
        """How many pictures were seen, and the observers as they then were; 0 and empty ones where nothing fits."""
        empty = {name: Observer(name) for name in tensors}
        # a file that is damaged, or of another format, is as good as none
        nothing = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
        with suppress(*nothing), np.load(io.BytesIO(self._path.read_bytes()), allow_pickle=False) as held:
            said = json.loads(str(held["said"]))
            if said["same"] != self._same or list(said["tensors"]) != list(tensors):
                return 0, empty
            found = {}
            for number, (name, row) in enumerate(said["tensors"].items()):
                histogram = Histogram(row["lo"], row["hi"], row["width"], row["first"], held[f"counts{number}"])
                found[name] = Observer.of(histogram, name)
            return int(said["pictures"]), found
        return 0, empty

    def keep(self, pictures: int, observers: Mapping[str, Observer], *, now: bool = False) -> None:
        """Write what was seen, unless that was done a moment ago and need not be done ``now``.

        Raises:
            OSError: The disk refused; what was kept before is as it was.
        """
        if not now and time.monotonic() - self._written < self._every_s:
            return
        rows, counts = {}, {}
        for number, (name, observer) in enumerate(observers.items()):
            seen = observer.histogram()
            rows[name] = {"lo": seen.lo, "hi": seen.hi, "width": seen.width, "first": seen.first}
            counts[f"counts{number}"] = seen.counts
        said = json.dumps({"same": self._same, "pictures": pictures, "tensors": rows})
        out = io.BytesIO()
        np.savez_compressed(out, said=np.array(said), **counts)  # type: ignore[arg-type]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path, out.getvalue())
        self._written = time.monotonic()
