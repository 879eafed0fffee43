"""Names for the arrays that travel through the SDK, and the one check of their shapes."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edge_sdk.errors import ShapeError

__all__ = ["Array", "Bools", "Floats", "Image", "Ints", "check_shape"]

Array: TypeAlias = "npt.NDArray[Any]"
Floats: TypeAlias = "npt.NDArray[np.float32]"
Ints: TypeAlias = "npt.NDArray[np.int32]"
Bools: TypeAlias = "npt.NDArray[np.bool_]"
Image: TypeAlias = "npt.NDArray[np.uint8]"
"""``(H, W, 3)`` uint8, blue green red, as OpenCV hands it out."""


def check_shape(name: str, array: Array, wanted: tuple[int | None, ...], *, as_text: str) -> None:
    """Refuse an array of another shape with a sentence.

    Args:
        name: What the array is called where it came from.
        array: Of any shape.
        wanted: One entry a dimension; ``None`` takes any length.
        as_text: The shape as the reader knows it, e.g. ``"(D, 4), one row a detection"``.

    Raises:
        ShapeError: The number of dimensions or a fixed length differs.
    """
    shape = array.shape
    fits = len(shape) == len(wanted) and all(
        length is None or length == found for length, found in zip(wanted, shape, strict=True)
    )
    if not fits:
        raise ShapeError(f"{name} is {shape}; give {as_text}")
