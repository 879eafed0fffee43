"""From a picture to the network's input: the only resize and normalisation there is.

Training, calibration, the export checks and the station all call ``preprocess``; truth masks and
boxes go through the same ``Geometry``, so a cell means the same place everywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, Image, check_shape
from edge_sdk.errors import DefectErased, RangeError, ShapeError
from edge_sdk.vision.cuts import Cuts, cuts
from edge_sdk.vision.resampling import Sampling, kept_contrast, resized

__all__ = ["LEAST_KEPT", "Adjustment", "Geometry", "PreprocessSpec", "cells_of_mask", "check_defect", "fitted",
           "geometry", "kept_of_defect", "normalised", "preprocess", "shown", "tiled", "valid_cells"]  # fmt: skip

LEAST_KEPT = 0.1
"""Of a defect's contrast: of 100 grey levels 10 must be left, which is what a camera's noise hides no more."""


@dataclass(frozen=True)
class PreprocessSpec:
    """How a picture becomes the network's input.  Travels in the checkpoint and in the bundle."""

    width: int
    """Of the network's input, pixels."""
    height: int
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Taken off each channel after the division by 255, in the order of ``colour``."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    colour: Literal["rgb", "bgr"] = "rgb"
    """Channel order of the network's input; pictures come in as blue green red."""
    resize: Literal["letterbox", "stretch"] = "letterbox"
    """``letterbox`` keeps the ratio of the sides and pads; ``stretch`` fills the input."""
    pad: tuple[int, int, int] = (114, 114, 114)
    """Blue, green, red of the padding, 0 to 255."""
    sampling: Sampling | None = None
    """How a picture is made smaller; without it by ``area``."""
    defect_px: int | None = None
    """Side of the smallest defect that must be seen, in pixels of the frame: a resize that would erase it is refused.
    Without it nothing is."""
    tile_overlap_px: int | None = None
    """Cut the frame into tiles of the input's size that share so many input pixels or more, instead of making all of it
    fit (``edge_sdk.vision.tiles``).  A defect on a seam is reported once; give it room: the largest defect that must be
    seen whole, and what the network looks at around it."""
    shrink: int | None = None
    """With tiles: the frame is made smaller by this whole ratio first; without it by none."""

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise RangeError(f"the network's input is {self.width} x {self.height}; give at least 1 x 1 pixels")
        if min(self.std) <= 0:
            raise RangeError(f"std is {self.std}; give three numbers above 0")
        if self.defect_px is not None and self.defect_px < 1:
            raise RangeError(f"defect_px is {self.defect_px}; give the smallest defect's side, 1 pixel or more")
        if self.tile_overlap_px is not None:
            if self.tile_overlap_px < 0:
                raise RangeError(f"tile_overlap_px is {self.tile_overlap_px}; give 0 or more pixels")
            for side in (self.width, self.height):
                cuts(2 * side, side, self.tile_overlap_px)
        if self.shrink is not None and (self.shrink < 1 or self.tile_overlap_px is None):
            raise RangeError(
                f"shrink is {self.shrink}; give a whole ratio of 1 or more, and tile_overlap_px with it"
            )

    def document(self) -> dict[str, Any]:
        """As files hold it: what is not said is not there, so that a file of before says what it said."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Adjustment:
    """A station's own gain and offset of each channel, before everything else: ``gain * pixel + offset``, 0 to 255.

    It brings a light or a camera that changed back to what the network knows, and belongs to the station, not to the
    bundle: taken out of ``station.yaml``, everything is as it was.  The padding is left as it is.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Blue, green, red; above 0."""
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Blue, green, red, in grey levels."""

    def __post_init__(self) -> None:
        if not all(0 < one < np.inf for one in self.gain) or not np.isfinite(self.offset).all():
            raise RangeError(f"gain is {self.gain} and offset {self.offset}; give three gains above 0, three offsets")

    def applied(self, image: Image) -> Image:
        """The picture adjusted, rounded and cut at 0 and 255, as a camera would.

        Args:
            image: ``(H, W, 3)`` uint8 blue green red.
        """
        import cv2

        levels = np.arange(256, dtype=np.float64)[:, None] * self.gain + self.offset
        table = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
        found: Image = cv2.LUT(image, table[:, None, :]).astype(np.uint8, copy=False)
        return found


@dataclass(frozen=True)
class Geometry:
    """Where a picture lies on the network's input."""

    scale_x: float
    """Input pixels a frame pixel, across."""
    scale_y: float
    left: int
    """Input pixels of padding before the picture."""
    top: int
    inner_width: int
    """Of the picture on the input, pixels."""
    inner_height: int
    frame_width: int
    frame_height: int

    def boxes_to_input(self, boxes: Floats) -> Floats:
        """``(D, 4)`` boxes on the frame to boxes on the network's input."""
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        return np.asarray(boxes * scale + shift, np.float32)

    def boxes_to_frame(self, boxes: Floats) -> Floats:
        """``(D, 4)`` boxes on the input to boxes on the frame, cut at its borders."""
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        most = np.array([self.frame_width, self.frame_height] * 2, np.float32)
        found: Floats = np.clip((boxes - shift) / scale, 0, most).astype(np.float32)
        return found


def geometry(spec: PreprocessSpec, height: int, width: int) -> Geometry:
    """Where a picture of ``height`` x ``width`` pixels lies on the input of ``spec``, or on all its tiles together."""
    if height < 1 or width < 1:
        raise ShapeError(f"the picture is {width} x {height}; give one with at least one pixel")
    if spec.tile_overlap_px is not None:
        ratio = spec.shrink or 1
        inner_width, inner_height = max(1, round(width / ratio)), max(1, round(height / ratio))
        return Geometry(inner_width / width, inner_height / height, 0, 0, inner_width, inner_height, width, height)
    if spec.resize == "stretch":
        inner_width, inner_height = spec.width, spec.height
    else:
        scale = min(spec.width / width, spec.height / height)
        inner_width = min(spec.width, max(1, round(width * scale)))
        inner_height = min(spec.height, max(1, round(height * scale)))
    return Geometry(
        scale_x=inner_width / width,
        scale_y=inner_height / height,
        left=(spec.width - inner_width) // 2,
        top=(spec.height - inner_height) // 2,
        inner_width=inner_width,
        inner_height=inner_height,
        frame_width=width,
        frame_height=height,
    )


def tiled(spec: PreprocessSpec, height: int, width: int) -> tuple[Cuts, Cuts]:
    """Where the tiles of a frame lie, down and across, in input pixels; without tiling the one input there is.

    Args:
        spec: Says whether and how frames are cut.
        height: Of the frame, pixels.
        width: Of the frame.
    """
    if spec.tile_overlap_px is None:
        return Cuts((0,), spec.height), Cuts((0,), spec.width)
    place = geometry(spec, height, width)
    return (
        cuts(place.inner_height, spec.height, spec.tile_overlap_px),
        cuts(place.inner_width, spec.width, spec.tile_overlap_px),
    )


def kept_of_defect(spec: PreprocessSpec, height: int, width: int) -> float:
    """What the resize leaves of the smallest defect's contrast, in [0, 1]; 1 where no defect is said to be smallest."""
    if spec.defect_px is None:
        return 1.0
    place = geometry(spec, height, width)
    return kept_contrast(
        height, width, place.inner_height, place.inner_width, spec.defect_px, spec.sampling or "area"
    )


def check_defect(spec: PreprocessSpec, height: int, width: int) -> None:
    """Refuse a resize that would erase the smallest defect.

    Args:
        spec: Says how small the smallest defect is.
        height: Of the frame, pixels.
        width: Of the frame.

    Raises:
        DefectErased: Less than ``LEAST_KEPT`` of its contrast is left somewhere.  Nothing is measured for the sentence,
            since a line may wait; its ``priced`` does.
    """
    kept = kept_of_defect(spec, height, width)
    if kept < LEAST_KEPT:
        from edge_sdk.vision.erasing import loss, refusal  # it measures with what stands here

        advice = "give frames of the size that the model was made for, or a model that is made for these"
        said = f"{loss(spec, height, width)}; {advice}"
        raise DefectErased(said, kept=kept, priced=lambda: refusal(spec, height, width))


def shown(image: Image, spec: PreprocessSpec, *, adjust: Adjustment | None = None) -> Image:
    """The picture at the network's scale, without padding, still uint8 blue green red.

    Unless the spec says otherwise, shrinking averages over the pixels that fall together, so that no small defect is
    stepped over; enlarging is linear.

    Args:
        image: ``(H, W, 3)`` uint8.
        spec: Size, padding and resize rule.
        adjust: The station's gain and offset; none as a rule.

    Returns:
        ``(inner_height, inner_width, 3)`` uint8 of its ``geometry``.

    Raises:
        ShapeError: The picture is not ``(H, W, 3)`` uint8.
        DefectErased: The resize would erase the smallest defect that the spec says must be seen.
    """
    check_shape("image", image, (None, None, 3), as_text="(H, W, 3), blue green red")
    if image.dtype != np.uint8:
        raise ShapeError(f"image is {image.dtype}; give uint8, 0 to 255")
    if spec.defect_px is not None:
        check_defect(spec, image.shape[0], image.shape[1])
    place = geometry(spec, image.shape[0], image.shape[1])
    inner: Array = resized(image, place.inner_width, place.inner_height, spec.sampling or "area")
    return inner if adjust is None else adjust.applied(inner)


def fitted(image: Image, spec: PreprocessSpec, *, adjust: Adjustment | None = None) -> Image:
    """The picture resized and padded to the input's size, still uint8 blue green red; see ``shown``.

    Args:
        image: ``(H, W, 3)`` uint8.
        spec: Size, padding and resize rule.
        adjust: The station's gain and offset; none as a rule.

    Returns:
        ``(height, width, 3)`` uint8.

    Raises:
        ShapeError: The picture is not ``(H, W, 3)`` uint8, or is to be cut into tiles.
        DefectErased: The resize would erase the smallest defect that the spec says must be seen.
    """
    if spec.tile_overlap_px is not None:
        raise ShapeError(
            "pictures are cut into tiles here (tile_overlap_px), and this takes a picture as one input; train, "
            "evaluate, calibration, export and the station take tiles"
        )
    inner = shown(image, spec, adjust=adjust)
    if inner.shape[:2] == (spec.height, spec.width):
        return inner
    place = geometry(spec, image.shape[0], image.shape[1])
    canvas = np.empty((spec.height, spec.width, 3), np.uint8)
    canvas[:] = spec.pad
    canvas[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width] = inner
    return canvas


def preprocess(
    image: Image, spec: PreprocessSpec, *, out: Floats | None = None, adjust: Adjustment | None = None
) -> Floats:
    """Resize, pad, order the channels and normalise one picture.

    Args:
        image: ``(H, W, 3)`` uint8, blue green red.
        spec: What the network was trained with.
        out: ``(1, 3, height, width)`` float32 to write into; a new array without it.
        adjust: The station's gain and offset; none as a rule.

    Returns:
        ``(1, 3, height, width)`` float32, contiguous: ``(pixel / 255 - mean) / std``.

    Raises:
        ShapeError: The picture is not ``(H, W, 3)`` uint8, or ``out`` has another shape.
        DefectErased: The resize would erase the smallest defect that the spec says must be seen.
    """
    return normalised(fitted(image, spec, adjust=adjust), spec, out=out)


def normalised(pixels: Image, spec: PreprocessSpec, *, out: Floats | None = None) -> Floats:
    """Order the channels of a picture that has the input's size, and normalise it.

    Args:
        pixels: ``(height, width, 3)`` uint8, blue green red.
        spec: What the network was trained with.
        out: ``(1, 3, height, width)`` float32 to write into; a new array without it.

    Returns:
        ``(1, 3, height, width)`` float32, contiguous: ``(pixel / 255 - mean) / std``.

    Raises:
        ShapeError: ``out`` has another shape.
    """
    shape = (1, 3, spec.height, spec.width)
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ShapeError(f"out is {out.dtype} {out.shape}; give float32 {shape}")
    order = (2, 1, 0) if spec.colour == "rgb" else (0, 1, 2)
    for channel, source in enumerate(order):
        scale = np.float32(1 / (255 * spec.std[channel]))
        offset = np.float32(spec.mean[channel] / spec.std[channel])
        plane = out[0, channel]
        np.multiply(pixels[:, :, source], scale, out=plane, casting="unsafe", dtype=np.float32)
        np.subtract(plane, offset, out=plane)
    return out


def cells_of_mask(mask: Array, spec: PreprocessSpec, grid: tuple[int, int]) -> Floats:
    """How much of each cell a mask covers, in the geometry that the picture goes through.

    Args:
        mask: ``(H, W)``, zero where healthy.
        spec: What the picture is preprocessed with.
        grid: Rows and columns of cells on the network's input, or on all its tiles together.

    Returns:
        ``(h, w)`` float32 covered share of each cell in [0, 1]; padding counts as not covered.
    """
    import cv2

    check_shape("mask", mask, (None, None), as_text="(H, W), one value a pixel")
    place = geometry(spec, mask.shape[0], mask.shape[1])
    # whatever the picture's own rule is: a mask says how much is covered
    inner = resized((mask != 0).astype(np.float32), place.inner_width, place.inner_height, "area")
    canvas = np.zeros([axis.total for axis in tiled(spec, mask.shape[0], mask.shape[1])], np.float32)
    canvas[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width] = inner
    rows, columns = grid
    found: Floats = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32)
    return found


def valid_cells(spec: PreprocessSpec, height: int, width: int, grid: tuple[int, int]) -> Bools:
    """Which cells show the picture: at least half of the cell is no padding.

    Returns:
        ``(h, w)`` bool; padding is known healthy and left out of figures.
    """
    place = geometry(spec, height, width)
    rows, columns = grid

    def seen(start: int, length: int, cells: int, total: int) -> Array:
        edges = np.linspace(0, total, cells + 1)
        overlap = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
        return np.asarray(overlap >= 0.5 * total / cells)

    down, across = (axis.total for axis in tiled(spec, height, width))
    tall = seen(place.top, place.inner_height, rows, down)
    wide = seen(place.left, place.inner_width, columns, across)
    # a picture thinner than half a cell is still shown by the cells that hold it
    if not tall.any():
        tall[int((place.top + place.inner_height / 2) * rows / down)] = True
    if not wide.any():
        wide[int((place.left + place.inner_width / 2) * columns / across)] = True
    return np.asarray(tall[:, None] & wide[None, :])
