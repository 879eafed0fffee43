"""From a file to a picture or a mask, whatever its bit depth and kind."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_sdk.arrays import Array, Image
from edge_sdk.errors import DatasetError
from edge_sdk.quality.samples import Sample

__all__ = ["SUFFIXES", "picture_size", "read_image", "read_mask", "read_picture"]

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
"""What counts as a picture when a folder is looked through."""

Mask = npt.NDArray[np.uint8]


def _decoded(path: Path, flags: int) -> Array:
    import cv2

    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); is the path right?") from error
    found: Any = None
    if data.size:
        try:
            found = cv2.imdecode(data, flags)
        except cv2.error:
            found = None
    if found is None:
        what = "is empty" if not data.size else "is no picture that can be read (damaged, or another format)"
        raise DatasetError(
            f"{path} {what}; replace it by a PNG, JPEG, BMP or TIFF, or take it out of the set"
        )
    return np.asarray(found)


def read_picture(path: Path, *, bits: int = 16) -> Image:
    """Any picture as 8-bit blue green red.

    Grey becomes three equal channels, alpha is dropped, orientation marks are followed, and of more
    than 8 bits the upper 8 of ``bits`` are kept.

    Args:
        path: PNG, JPEG, BMP or TIFF.
        bits: Used bits of a 16-bit picture, 9 to 16.

    Returns:
        ``(H, W, 3)`` uint8.

    Raises:
        DatasetError: The file cannot be read, or holds something else than 8 or 16 bits a channel.
    """
    import cv2

    found = _decoded(path, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    if found.dtype == np.uint16:
        found = np.minimum(found >> (bits - 8), 255).astype(np.uint8)
    elif found.dtype != np.uint8:
        raise DatasetError(f"{path} holds {found.dtype} values; save it with 8 or 16 bits a channel")
    if found.ndim == 2:
        found = found[:, :, None]
    if found.shape[2] in (1, 2):
        found = np.repeat(found[:, :, :1], 3, axis=2)
    return np.ascontiguousarray(found[:, :, :3])


def read_image(sample: Sample) -> Image:
    """The picture of a sample, as ``read_picture`` gives it; the line's gap is not applied."""
    return read_picture(sample.path, bits=sample.bits)


def read_mask(sample: Sample, image_hw: tuple[int, int], *, classes: tuple[str, ...] = ()) -> Mask | None:
    """The mask of a sample as class ids.

    A mask is either 0 and 255, where 255 is the class of the picture, or holds class ids itself.

    Args:
        sample: With or without a mask.
        image_hw: Height and width of its picture, pixels.
        classes: Of the set; ids are places in it + 1.  Without them every defective pixel is 1.

    Returns:
        ``(H, W)`` uint8, 0 healthy, ``k + 1`` class ``k``; ``None`` without a mask.

    Raises:
        DatasetError: The mask has another size than the picture, is not 8-bit, holds values that are
            no class, or contradicts the label.
    """
    import cv2

    if sample.mask is None:
        return None
    found = _decoded(sample.mask, cv2.IMREAD_UNCHANGED)
    if found.dtype != np.uint8:
        raise DatasetError(f"mask {sample.mask} holds {found.dtype} values; save it as 8-bit grey, 0 and 255")
    if found.ndim == 3:
        colours = found[:, :, : 3 if found.shape[2] >= 3 else 1]
        if not (colours == colours[:, :, :1]).all():
            raise DatasetError(
                f"mask {sample.mask} is coloured; save it as 8-bit grey, 0 and 255 or class ids"
            )
        found = colours[:, :, 0]
    if found.shape != tuple(image_hw):
        raise _sizes_differ(sample, found.shape[:2], image_hw)
    values = np.unique(found)
    marked = values[values > 0]
    if sample.healthy and marked.size:
        raise DatasetError(
            f"{sample.path} is labelled {sample.label!r}, which is healthy, but its mask {sample.mask} marks "
            f"{np.count_nonzero(found)} pixels; correct the label or the mask"
        )
    if not marked.size:
        return np.zeros(found.shape, np.uint8)
    own = classes.index(sample.label) + 1 if sample.label in classes else 1
    if marked.tolist() == [255]:
        return np.where(found == 255, own, 0).astype(np.uint8)
    known = max(len(classes), 1)
    if marked[-1] > known:
        odd = int(marked[marked > known][0])
        raise DatasetError(
            f"mask {sample.mask} holds the value {odd}; give 0 for healthy and 255 (or class ids 1 to "
            f"{known}) for defective, without smoothed edges"
        )
    if sample.label in classes and own not in marked:
        raise DatasetError(
            f"{sample.path} is labelled {sample.label!r}, which is class {own}, but its mask {sample.mask} "
            f"holds only {', '.join(map(str, marked.tolist()))}; give 255 for the picture's own class, or class ids"
        )
    return np.ascontiguousarray(found)


def _sizes_differ(sample: Sample, mask_hw: tuple[int, ...], image_hw: tuple[int, ...]) -> DatasetError:
    return DatasetError(
        f"mask {sample.mask} is {mask_hw[1]} x {mask_hw[0]} pixels, but its picture {sample.path} is "
        f"{image_hw[1]} x {image_hw[0]}; give a mask of the picture's size"
    )


def check_mask_size(sample: Sample) -> None:
    """Compare the sizes of picture and mask from their headers alone.

    Raises:
        DatasetError: They differ; both sizes are named.
    """
    if sample.mask is None:
        return
    image_hw, mask_hw = picture_size(sample.path), picture_size(sample.mask)
    if image_hw != mask_hw:
        raise _sizes_differ(sample, mask_hw, image_hw)


def picture_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels, from the header where that is enough, else by decoding.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); is the path right?") from error
    found = _png_size(head) or _jpeg_size(head)
    if found is not None:
        return found
    picture = read_picture(path)
    return picture.shape[0], picture.shape[1]


def _png_size(head: bytes) -> tuple[int, int] | None:
    # an eXIf chunk could turn the picture; it is rare enough to decode then
    if head[:8] != b"\x89PNG\r\n\x1a\n" or len(head) < 24 or b"eXIf" in head[:4096]:
        return None
    width, height = struct.unpack(">II", head[16:24])
    return height, width


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    if head[:2] != b"\xff\xd8":
        return None
    at = 2
    while at + 9 < len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker == 0xE1 and head[at + 4 : at + 8] == b"Exif":
            return None  # may say that the picture lies on its side
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return height, width
        at += 2 + int(struct.unpack(">H", head[at + 2 : at + 4])[0])
    return None
