"""How small a picture may be that a network learns from."""

from __future__ import annotations

from collections.abc import Sequence

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Sample, picture_size

__all__ = ["LEAST_PX", "check_sides"]

LEAST_PX = 16
"""Of a side: the cell of the networks that are shipped.  A smaller picture would be enlarged to many cells, each
of which shows a few of its pixels."""


def check_sides(samples: Sequence[Sample]) -> None:
    """Whether each picture is as large as one cell.

    Raises:
        DatasetError: One is smaller, or cannot be read.
    """
    for sample in samples:
        height, width = picture_size(sample.path)
        if min(height, width) < LEAST_PX:
            raise DatasetError(
                f"{sample.path} is {width} x {height} px; a network takes pictures from {LEAST_PX} px a side, so give "
                "larger ones, or leave it out"
            )
