"""A video out of a folder of pictures: what a camera over the line would have sent.

Motion JPEG in AVI: every frame stands for itself, any player reads it, and the bytes are the same on every
machine.  All frames share one canvas; a picture is scaled to fit and padded, never stretched.
"""

from __future__ import annotations

import csv
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.vision.preprocess import PreprocessSpec, fitted, geometry

__all__ = ["Canvas", "Filmed", "LineVideo", "canvas_for", "write_avi", "write_line_video"]

JPEG = [
    cv2.IMWRITE_JPEG_QUALITY, 95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
]  # fmt: skip
MOST_PIXELS = 720
"""The longest side of a canvas."""


@dataclass(frozen=True)
class Canvas:
    """The frame that every picture is put on."""

    width: int
    height: int
    pad: tuple[int, int, int] = (114, 114, 114)

    @property
    def spec(self) -> PreprocessSpec:
        """The same letterbox that a network's input is made with."""
        return PreprocessSpec(self.width, self.height, pad=self.pad)

    def picture(self, image: Image) -> Image:
        """A picture on the canvas."""
        return fitted(image, self.spec)

    def mask(self, mask: Array) -> Array:
        """A mask on the canvas; nothing is marked on the padding."""
        place = geometry(self.spec, mask.shape[0], mask.shape[1])
        inner = cv2.resize(mask, (place.inner_width, place.inner_height), interpolation=cv2.INTER_NEAREST)
        canvas = np.zeros((self.height, self.width), np.uint8)
        canvas[place.top : place.top + place.inner_height, place.left : place.left + place.inner_width] = (
            inner
        )
        return canvas


@dataclass(frozen=True, eq=False)
class Filmed:
    """A picture of the line, and what is known of it."""

    name: str
    image: Image
    """As the line's camera saw it."""
    healthy: bool | None
    """``None``: nobody knows."""
    mask: Array | None = None
    """``(H, W)``, 0 healthy, ``k + 1`` class ``k``; ``None`` where nothing was drawn."""
    label: str = ""


@dataclass(frozen=True)
class LineVideo:
    """A video with what is known of each of its frames."""

    path: Path
    canvas: Canvas
    pictures: tuple[Filmed, ...]
    """In the order of the frames."""


def canvas_for(sizes: Sequence[tuple[int, int]], spec: PreprocessSpec) -> Canvas:
    """One canvas for pictures of many sizes, in the proportions of the network's input.

    So each picture meets the network scaled and padded as it was in training.

    Args:
        sizes: Height and width of each picture, pixels.
        spec: Of the network.
    """
    widest, tallest = max(width for _, width in sizes), max(height for height, _ in sizes)
    scale = max(widest / spec.width, tallest / spec.height)
    scale = max(min(scale, MOST_PIXELS / max(spec.width, spec.height)), 0.01)
    # an even size, as every decoder takes it
    return Canvas(
        2 * max(1, round(spec.width * scale / 2)), 2 * max(1, round(spec.height * scale / 2)), spec.pad
    )


def write_line_video(
    pictures: Sequence[Filmed], out: Path, *, spec: PreprocessSpec, rate_hz: float
) -> LineVideo:
    """Write ``line.avi``, ``frames.csv`` (index, picture, mask) and the masks on the canvas.

    Args:
        pictures: In the order in which they pass; one or more.
        out: Folder; made where there is none.
        spec: Of the network that will look at the video.
        rate_hz: Frames a second that the video states.
    """
    (out / "masks").mkdir(parents=True, exist_ok=True)
    canvas = canvas_for([one.image.shape[:2] for one in pictures], spec)
    path = out / "line.avi"
    write_avi(path, [canvas.picture(one.image) for one in pictures], rate_hz=rate_hz)
    with (out / "frames.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["index", "picture", "mask"])
        for index, one in enumerate(pictures):
            name = ""
            if one.mask is not None:
                name = f"masks/{index:05d}.png"
                cv2.imwrite(str(out / name), canvas.mask(one.mask))
            table.writerow([index, one.name, name])
    return LineVideo(path, canvas, tuple(pictures))


def write_avi(path: Path, frames: Sequence[Image], *, rate_hz: float) -> None:
    """Write pictures of one size as Motion JPEG in an AVI file with an index.

    Args:
        path: To write.
        frames: ``(H, W, 3)`` uint8 each, one or more.
        rate_hz: Frames a second.
    """
    height, width = frames[0].shape[:2]
    pictures = []
    for frame in frames:
        raw = bytes(cv2.imencode(".jpg", frame, JPEG)[1].tobytes())
        pictures.append(raw + b"\0" * (len(raw) % 2))
    largest = max(map(len, pictures))
    count, per_frame_us = len(pictures), round(1e6 / rate_hz)
    main = struct.pack(
        "<14I", per_frame_us, round(largest * rate_hz), 0, 0x10, count, 0, 1, largest, width, height, 0, 0, 0, 0
    )  # fmt: skip
    stream = struct.pack(
        "<4s4sIHHIIIIIIIIHHHH",
        b"vids", b"MJPG", 0, 0, 0, 0, 1000, round(1000 * rate_hz), 0, count, largest, 10000, 0, 0, 0, width, height,
    )  # fmt: skip
    bitmap = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
    header = _list(
        b"hdrl", _chunk(b"avih", main), _list(b"strl", _chunk(b"strh", stream), _chunk(b"strf", bitmap))
    )
    movie = _list(b"movi", *(_chunk(b"00dc", jpeg) for jpeg in pictures))
    places, at = [], 4
    for jpeg in pictures:
        places.append(struct.pack("<4sIII", b"00dc", 0x10, at, len(jpeg)))
        at += 8 + len(jpeg)
    body = b"AVI " + header + movie + _chunk(b"idx1", b"".join(places))
    path.write_bytes(_chunk(b"RIFF", body))


def _chunk(name: bytes, data: bytes) -> bytes:
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def _list(name: bytes, *chunks: bytes) -> bytes:
    return _chunk(b"LIST", name + b"".join(chunks))
