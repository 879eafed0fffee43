"""A part of a line in memory: pictures as the network sees them, and what is known of each cell."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array, Bools, Floats, Image, Ints
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Box, Line, Sample, Truth, picture_size, read_image
from edge_sdk.vision.preprocess import PreprocessSpec, cells_of_mask, fitted, valid_cells
from training.data import gaps
from training.data.tiles import Piece, Tiles, grid_of, pieces_of

__all__ = ["CELL_COVERED", "Views", "batches_of", "line_boxes", "line_image", "line_truth", "normalised", "unlabelled",
           "views_of"]  # fmt: skip

CELL_COVERED = 0.08
"""Share of a cell that a defect must cover to make it defective."""


@dataclass(frozen=True, eq=False)
class Views:
    """N pictures of one line."""

    images: Image
    """``(N, H, W, 3)`` uint8 blue green red, resized and padded to the network's input."""
    truth: Floats
    """``(N, K, h, w)`` in {0, 1}."""
    known: Floats
    """``(N, K, h, w)`` in {0, 1}: where ``truth`` is one."""
    maximum: Floats
    """``(N, K)``: 1 where a defect of the class is known to be somewhere, but not where."""
    valid: Bools
    """``(N, h, w)``: cells that show the picture and no padding."""
    defective: Bools
    """``(N,)``."""
    units: tuple[str, ...]
    """What may not be torn apart: the group, or the picture."""
    names: tuple[str, ...]
    tiles: Tiles | None = None
    """Where these are tiles of pictures: then those of one name are one picture, and of each the cells of its core are
    valid and known."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """Of everything that a training sees of them: another answer is another training."""
        pieces = (self.images, self.truth, self.known, self.maximum)
        return sha256_hex(b"".join(piece.tobytes() for piece in pieces))

    @property
    def tiled(self) -> bool:
        """Whether these are tiles."""
        return self.tiles is not None

    @property
    def pictures(self) -> Ints:
        """``(N,)``: which picture each view is of, counted from 0 in the order they come."""
        if not self.tiled:
            return np.arange(len(self), dtype=np.int32)
        order: dict[str, int] = {}
        return np.array([order.setdefault(name, len(order)) for name in self.names], np.int32)

    @property
    def count(self) -> int:
        """Pictures, however many tiles they are cut into."""
        return len(set(self.names)) if self.tiled else len(self)

    def of_pictures(self, values: Array, join: np.ufunc = np.maximum) -> Array:
        """From values of views, ``(N, ...)``, to those of pictures, ``(P, ...)``: joined, by habit the largest."""
        if not self.tiled or not len(values):
            return values
        of = self.pictures
        order = np.argsort(of, kind="stable")
        return np.asarray(join.reduceat(values[order], np.searchsorted(of[order], np.arange(self.count)), axis=0))

    @property
    def shown_defective(self) -> Bools:
        """``(P,)``: which pictures are defective."""
        return np.asarray(self.of_pictures(self.defective, np.logical_or), bool)

    @property
    def picture_units(self) -> tuple[str, ...]:
        """``(P,)``: what may not be torn apart, of pictures."""
        return tuple(dict(zip(self.names, self.units, strict=True)).values()) if self.tiled else self.units

    def whole(self, maps: Array) -> list[Array]:
        """From maps of views, ``(N, K, h, w)``, to those of pictures, each ``(K, rows, columns)`` of all its cells."""
        return list(maps) if self.tiles is None else self.tiles.whole(maps, self.pictures)

    def pieces(self, wholes: Sequence[Array]) -> Array:
        """From maps of pictures back to those of views, ``(N, K, h, w)``; of a tile 0 outside its core."""
        return np.stack(wholes) if self.tiles is None else self.tiles.pieces(wholes, self.pictures)

    def told(self, truth: Sequence[Array], known: Sequence[Array], maximum: Sequence[Array]) -> Views:
        """The same pictures with another truth, given by picture.

        Tiles of which nothing is known then are left out; that a picture shows a defect somewhere teaches none of its
        tiles, since nothing says which one.

        Args:
            truth: Of each picture ``(K, rows, columns)`` in {0, 1}.
            known: The same: where ``truth`` is one.
            maximum: Of each picture ``(K,)``.
        """
        truths, knowns = self.pieces(truth), self.pieces(known)
        maxima = np.zeros_like(self.maximum) if self.tiled else np.stack(maximum)
        defective: Bools = np.asarray(truths.any(axis=(1, 2, 3)) | maxima.any(axis=1))
        found = replace(self, truth=truths, known=knowns, maximum=maxima, defective=defective)
        return found.taken(np.flatnonzero(knowns.any(axis=(1, 2, 3)))) if self.tiled else found

    def taken(self, which: Array) -> Views:
        """Some of the views, by mask or by number."""
        chosen = np.arange(len(self))[which]
        return Views(
            images=self.images[chosen],
            truth=self.truth[chosen],
            known=self.known[chosen],
            maximum=self.maximum[chosen],
            valid=self.valid[chosen],
            defective=self.defective[chosen],
            units=tuple(self.units[n] for n in chosen),
            names=tuple(self.names[n] for n in chosen),
            tiles=None if self.tiles is None else self.tiles.taken(chosen),
        )

    def joined(self, other: Views) -> Views:
        """These pictures, then the other's."""
        return Views(
            images=np.concatenate([self.images, other.images]),
            truth=np.concatenate([self.truth, other.truth]),
            known=np.concatenate([self.known, other.known]),
            maximum=np.concatenate([self.maximum, other.maximum]),
            valid=np.concatenate([self.valid, other.valid]),
            defective=np.concatenate([self.defective, other.defective]),
            units=self.units + other.units,
            names=self.names + other.names,
            tiles=self.tiles and other.tiles and self.tiles.joined(other.tiles),
        )


def line_image(line: Line, sample: Sample) -> Image:
    """A sample's picture as this line shows it: read, and behind the line's gap."""
    image = read_image(sample)
    return image if line.gap is None else gaps.apply(line.gap, image, key=sample.image)


def line_truth(line: Line, sample: Sample) -> Truth:
    """What is known of a sample's picture as this line shows it: a gap that moves the part moves its mask.

    Raises:
        TruthWithheld: The picture is of the part test, and this is no evaluation.
        DatasetError: The mask cannot be used.
    """
    said = line.truth(sample)
    if line.gap is None or said.mask is None or not said.mask.any():
        return said
    return replace(said, mask=gaps.moved(line.gap, said.mask))


def line_boxes(line: Line, sample: Sample) -> tuple[Box, ...] | None:
    """The boxes on a sample's picture as this line shows it: a gap that moves the part moves them.

    Of a box that is mostly out of sight there is none (``gaps.LEAST_SHOWN``).

    Returns:
        None on a healthy picture; ``None`` where nobody has drawn any.

    Raises:
        TruthWithheld: The picture is of the part test, and this is no evaluation.
        DatasetError: A box is of a class that no picture is labelled with, or the picture cannot be read.
    """
    said = line.boxes(sample)
    if line.gap is None or not said:
        return said
    height, width = picture_size(sample.path)
    sides = np.array([[one.left, one.top, one.right, one.bottom] for one in said], np.float32)
    moved, kept = gaps.moved_boxes(line.gap, sides, height=height, width=width)
    shown = [one for one, seen in zip(said, kept, strict=True) if seen]
    return tuple(
        Box(one.label, *(float(edge) for edge in edges)) for one, edges in zip(shown, moved, strict=True)
    )


MOST_BYTES = 256 * 2**20
"""Of pictures that are kept as the network sees them; the ones asked for least lately go first."""
_KEPT: OrderedDict[Hashable, tuple[Image, tuple[int, int]]] = OrderedDict()


def _seen(line: Line, sample: Sample, spec: PreprocessSpec) -> tuple[Image, tuple[int, int]]:
    """The line's picture at the network's size, and its own height and width; read once while its file stays."""
    try:
        file = sample.path.stat()
        key = sample.path, file.st_mtime_ns, file.st_size, sample.image, sample.bits, line.gap, repr(spec)
    except OSError:
        key = None  # reading says what is wrong
    if key is not None and key in _KEPT:
        _KEPT.move_to_end(key)
        return _KEPT[key]
    image = line_image(line, sample)
    found = fitted(image, spec), (image.shape[0], image.shape[1])
    if key is not None:
        _KEPT[key] = found
        while len(_KEPT) > max(1, MOST_BYTES // found[0].nbytes):
            _KEPT.popitem(last=False)
    return found


def views_of(
    line: Line,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    grid: tuple[int, int],
    labelled: bool,
    step: Callable[[], None] = lambda: None,
) -> Views:
    """Read pictures, and with ``labelled`` their truth.

    Args:
        line: Whose gap is applied and whose truth is asked.
        samples: At least one.
        spec: Size of the network's input; where it cuts pictures into tiles, each tile is a view.
        grid: ``(h, w)`` cells on it.
        labelled: Without it nothing is asked and nothing is known.
        step: Called after each picture, for a progress bar.

    Raises:
        DatasetError: A picture or a mask cannot be used.
        TruthWithheld: The truth of a test picture was asked for outside an evaluation.
    """
    if spec.tile_overlap_px is not None:
        return _tiles_of(line, samples, spec, grid=grid, labelled=labelled, step=step)
    classes, count = max(1, len(line.classes)), len(samples)
    images = np.empty((count, spec.height, spec.width, 3), np.uint8)
    truth = np.zeros((count, classes, *grid), np.float32)
    known = np.zeros_like(truth)
    maximum = np.zeros((count, classes), np.float32)
    valid = np.ones((count, *grid), bool)
    defective = np.zeros(count, bool)
    for n, sample in enumerate(samples):
        images[n], (height, width) = _seen(line, sample, spec)
        valid[n] = valid_cells(spec, height, width, grid)
        if labelled:
            said = line_truth(line, sample)
            defective[n] = said.healthy is False
            if grid == (1, 1) and said.healthy is not None:
                truth[n, :, 0, 0], known[n] = _shown(said, classes), 1
            elif said.known and said.mask is not None:
                known[n] = 1
                for k in range(classes):
                    if (said.mask == k + 1).any():
                        truth[n, k] = cells_of_mask(said.mask == k + 1, spec, grid) >= CELL_COVERED
            elif said.healthy is False and said.class_id is not None:
                maximum[n, said.class_id] = 1
                known[n][:, ~valid[n]] = 1  # wherever the defect is, it is not in the padding
        step()
    return Views(
        images=images,
        truth=truth,
        known=known,
        maximum=maximum,
        valid=valid,
        defective=defective,
        units=tuple(sample.unit for sample in samples),
        names=tuple(sample.image for sample in samples),
    )


def _tiles_of(
    line: Line,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    grid: tuple[int, int],
    labelled: bool,
    step: Callable[[], None],
) -> Views:
    """As ``views_of``, with a view a tile, of which the cells of its core are valid and known: each cell of a picture
    is in one view, as it is on the station."""
    classes = max(1, len(line.classes))
    truths: list[Array] = []
    knowns: list[Array] = []

    def read() -> Iterator[tuple[Image, str, str]]:
        for sample in samples:
            image = line_image(line, sample)
            whole = grid_of(spec, image.shape[0], image.shape[1], grid)
            truth, known = np.zeros((2, classes, *whole), np.float32)
            if labelled:
                said = line_truth(line, sample)
                if said.known and said.mask is not None:
                    known[:] = 1
                    for k in range(classes):
                        if (said.mask == k + 1).any():
                            truth[k] = cells_of_mask(said.mask == k + 1, spec, whole) >= CELL_COVERED
                elif said.healthy is False:
                    raise DatasetError(
                        f"{sample.path} is defective and has no mask, and nothing says in which of its tiles the "
                        "defect is; draw its mask, or leave tile_overlap_px out"
                    )
            truths.append(truth)
            knowns.append(known)
            yield image, sample.unit, sample.image
            step()

    seen = unlabelled(read(), spec, grid=grid, classes=classes)
    if not labelled or not truths:
        return seen
    truth = seen.pieces(truths)
    defective: Bools = np.asarray(truth.any(axis=(1, 2, 3)))
    return replace(seen, truth=truth, known=seen.pieces(knowns), defective=defective)


def unlabelled(
    pictures: Iterable[tuple[Image, str, str]], spec: PreprocessSpec, *, grid: tuple[int, int], classes: int
) -> Views:
    """Pictures of which nothing is known, as the network sees them; where it cuts them into tiles each is a view.

    Args:
        pictures: Each with its unit and its name; of a large set one after the other.
        spec: Size of the network's input.
        grid: ``(h, w)`` cells on it.
        classes: K.
    """
    found: list[Piece] = []
    valid, units, names = [], [], []
    for image, unit, name in pictures:
        height, width = image.shape[:2]
        shows = valid_cells(spec, height, width, grid_of(spec, height, width, grid))
        for piece in pieces_of(image, spec, grid):
            found.append(piece)
            rows, columns = slice(piece.row, piece.row + grid[0]), slice(piece.column, piece.column + grid[1])
            valid.append(shows[rows, columns] & piece.core)
            units.append(unit)
            names.append(name)
    truth = np.zeros((len(found), classes, *grid), np.float32)
    return Views(
        images=np.array([piece.image for piece in found], np.uint8).reshape(-1, spec.height, spec.width, 3),
        truth=truth,
        known=np.zeros_like(truth),
        maximum=np.zeros((len(found), classes), np.float32),
        valid=np.array(valid, bool).reshape(-1, *grid),
        defective=np.zeros(len(found), bool),
        units=tuple(units),
        names=tuple(names),
        tiles=None if spec.tile_overlap_px is None else Tiles.of(found, grid),
    )


def _shown(said: Truth, classes: int) -> Array:
    """``(K,)``: which defects a picture as a whole shows, from its label and, where it has one, its mask."""
    found = np.zeros(classes, np.float32)
    if said.healthy is False and said.class_id is not None:
        found[said.class_id] = 1
    if said.mask is not None:
        for k in range(classes):
            found[k] = max(found[k], float((said.mask == k + 1).any()))
    return found


def normalised(images: Array, spec: PreprocessSpec) -> Tensor:
    """``(N, H, W, 3)`` pictures in [0, 255] to the ``(N, 3, H, W)`` that ``preprocess`` would give.

    The memory stays in the order of the picture (``torch.channels_last``), which a CPU convolves and pools a third
    faster.
    """
    order = images[..., ::-1] if spec.colour == "rgb" else images
    pixels = np.ascontiguousarray(order, np.float32)
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)
    return torch.from_numpy((pixels / np.float32(255) - mean) / std).permute(0, 3, 1, 2)


def batches_of(images: Image, spec: PreprocessSpec, *, size: int = 32, flips: bool = False) -> Iterator[Tensor]:
    """Pictures in order, preprocessed, in batches of nearly the same size; none of a single picture.

    Args:
        images: ``(N, H, W, 3)`` uint8.
        flips: Each batch again, mirrored across and down: a steadier estimate from few pictures.
    """
    parts = max(1, round(len(images) / size))
    for piece in np.array_split(images, parts):
        batch = normalised(piece, spec)
        if flips or len(batch) == 1:
            batch = torch.cat([batch, batch.flip(3), batch.flip(2)])
        yield batch
