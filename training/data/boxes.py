"""A part of a line as a detector sees it: pictures, and what is known of each anchor."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from edge_sdk.arrays import Array, Bools, Floats, Image, Ints
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, Sample
from edge_sdk.vision.preprocess import Geometry, PreprocessSpec, fitted, geometry
from training.data.streams import jittered
from training.data.views import line_boxes, line_image, normalised
from training.losses.anchors import matched
from training.networks.anchornet import AnchorNetwork
from training.team import team

__all__ = ["BoxBatch", "BoxStream", "BoxViews", "Drawn", "MapCache", "anchor_shapes", "box_views", "with_maps"]

MapCache = dict[tuple[str, str, int], Floats]
"""What a frozen trunk makes of a picture, ``(C, h, w)``, by the line's gap, the picture's name and the flip's place."""
FLIPS = ((False, False), (True, False), (False, True), (True, True))
"""Across and down: every way a picture is shown; a quarter turn would need every anchor's shape turned too."""


@dataclass(frozen=True, eq=False)
class Drawn:
    """The boxes of one picture."""

    boxes: Floats
    """``(D, 4)`` in frame pixels, right and bottom outside."""
    classes: Ints
    """``(D,)``."""


@dataclass(frozen=True, eq=False)
class BoxViews:
    """N pictures of one line."""

    images: Image
    """``(N, H, W, 3)`` uint8 blue green red, resized and padded to the network's input."""
    truth: Floats
    """``(N, A, K)`` in {0, 1}."""
    known: Floats
    """``(N, A, K)`` in {0, 1}: where ``truth`` is one; of a mentored line the set M."""
    wanted: Floats
    """``(N, A, 4)`` box of each defective anchor, pixels of the network's input; 0 elsewhere, and where mentored."""
    maximum: Floats
    """``(N, K)``: 1 where a defect of the class is known to be somewhere, but not where."""
    places: tuple[Geometry, ...]
    drawn: tuple[Drawn | None, ...]
    """``None`` where nothing was asked or nobody drew."""
    units: tuple[str, ...]
    """What may not be torn apart: the group, or the picture."""
    names: tuple[str, ...]
    maps: Floats | None = None
    """``(N, 4, C, h, w)`` what a frozen trunk makes of each picture, in the order of ``FLIPS``, or only the first."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        """As of ``Views``."""
        pieces = (self.images, self.truth, self.known, self.wanted, self.maximum)
        return sha256_hex(b"".join(piece.tobytes() for piece in pieces))

    @property
    def defective(self) -> Bools:
        """``(N,)``."""
        return np.asarray(self.truth.any(axis=(1, 2)) | self.maximum.any(axis=1))

    def __getitem__(self, chosen: Array) -> BoxViews:
        """Some of the pictures, by place."""
        at = [int(n) for n in np.arange(len(self))[chosen]]
        return replace(
            self,
            images=self.images[at],
            truth=self.truth[at],
            known=self.known[at],
            wanted=self.wanted[at],
            maximum=self.maximum[at],
            places=tuple(self.places[n] for n in at),
            drawn=tuple(self.drawn[n] for n in at),
            units=tuple(self.units[n] for n in at),
            names=tuple(self.names[n] for n in at),
            maps=None if self.maps is None else self.maps[at],
        )


@dataclass(frozen=True, eq=False)
class BoxBatch:
    """What one line gives to one step."""

    seen: Tensor
    """``(N, 3, H, W)`` frames, or of a frozen trunk its maps ``(N, C, h, w)``."""
    truth: Tensor
    """``(N, A, K)``."""
    known: Tensor
    """``(N, A, K)``: of a mentored line the set M."""
    wanted: Tensor
    """``(N, A, 4)``."""
    maximum: Tensor
    """``(N, K)``."""


def box_views(
    line: Line,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    anchors: Array,
    classes: int,
    labelled: bool,
    step: Callable[[], None] = lambda: None,
) -> BoxViews:
    """Read pictures, and with ``labelled`` their boxes; of defective pictures only those that somebody drew on.

    Args:
        line: Whose gap is applied and whose truth is asked.
        samples: Of it.
        spec: Size of the network's input.
        anchors: ``(A, 4)`` of the network.
        classes: K.
        labelled: Without it nothing is asked and nothing is known.
        step: Called after each picture, for a progress bar.

    Raises:
        DatasetError: A picture or a box cannot be used.
        TruthWithheld: The boxes of a test picture were asked for outside an evaluation.
    """
    said = {sample.image: line_boxes(line, sample) if labelled else None for sample in samples}
    kept = [sample for sample in samples if not labelled or said[sample.image] is not None]
    count, number = len(kept), len(anchors)
    images = np.empty((count, spec.height, spec.width, 3), np.uint8)
    truth = np.zeros((count, number, classes), np.float32)
    known, wanted = np.zeros_like(truth), np.zeros((count, number, 4), np.float32)
    places: list[Geometry] = []
    drawn: list[Drawn | None] = []
    for n, sample in enumerate(kept):
        image = line_image(line, sample)
        images[n] = fitted(image, spec)
        place = geometry(spec, image.shape[0], image.shape[1])
        boxes = said[sample.image]
        places.append(place)
        drawn.append(None)
        if boxes is not None:
            sides = np.array([[one.left, one.top, one.right, one.bottom] for one in boxes], np.float32).reshape(-1, 4)
            ids = np.array([line.classes.index(one.label) for one in boxes], np.int32)
            drawn[n] = Drawn(sides, ids)
            found = matched(anchors, place.boxes_to_input(sides), ids, count=classes)
            truth[n], known[n], wanted[n] = found.truth, found.known, found.box
        step()
    return BoxViews(
        images=images,
        truth=truth,
        known=known,
        wanted=wanted,
        maximum=np.zeros((count, classes), np.float32),
        places=tuple(places),
        drawn=tuple(drawn),
        units=tuple(sample.unit for sample in kept),
        names=tuple(sample.image for sample in kept),
    )


def with_maps(
    views: BoxViews,
    network: AnchorNetwork,
    spec: PreprocessSpec,
    *,
    line: Line,
    jitter: bool,
    flips: bool = True,
    cache: MapCache | None = None,
) -> BoxViews:
    """The same pictures with what the frozen trunk makes of each flip; all but the first are jittered once.

    A trunk that is not trained makes the same map of the same picture each time, so it is asked once.

    Args:
        views: At least one picture.
        network: With a frozen trunk.
        spec: Of its input.
        line: That shows the pictures.
        jitter: Brightness, contrast, saturation and hue; the first flip, none, is what the station sees.
        flips: Without it only that first one.
        cache: Looked into, and filled; good for one trunk, one ``spec`` and one ``jitter``.
    """
    cache = {} if cache is None else cache
    wanted = range(len(FLIPS) if flips else 1)
    network.eval()
    maps = []
    for name, image in zip(views.names, views.images, strict=True):
        keys = [(line.gap or "", name, way) for way in wanted]
        lacking = [way for way in wanted if keys[way] not in cache]
        if lacking:
            shown = [_flipped(image, FLIPS[way]) for way in lacking]
            if jitter:
                pairs = zip(lacking, shown, strict=True)
                shown = [jittered(one, _chance_of(name, way)) if way else one for way, one in pairs]
            with torch.inference_mode():
                found = network.trunk(normalised(np.stack(shown), spec)).numpy()
            cache.update({keys[way]: one for way, one in zip(lacking, found, strict=True)})
        maps.append(np.stack([cache[key] for key in keys]))
    return replace(views, maps=np.stack(maps))


def _chance_of(name: str, way: int) -> np.random.Generator:
    seed = hashlib.sha256(f"{way}:{name}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "little"))


class BoxStream:
    """Draws batches for ever, each picture flipped at random: half defective, half healthy where there are both.

    Args:
        views: At least one picture.
        network: Whose anchors are flipped with the picture.
        spec: Of its input.
        batch: Pictures a batch.
        jitter: Whether brightness, contrast, saturation and hue vary; of a frozen trunk's maps they did once.
        chance: All randomness.
        balanced: Whether defective and healthy pictures come in equal parts.
    """

    def __init__(
        self,
        views: BoxViews,
        network: AnchorNetwork,
        spec: PreprocessSpec,
        *,
        batch: int,
        jitter: bool,
        chance: np.random.Generator,
        balanced: bool = True,
    ) -> None:
        self._views, self._spec, self._jitter, self._chance = views, spec, jitter, chance
        self._moved = [_moved(network, flip) for flip in FLIPS]
        everything = np.arange(len(views))
        kinds = [everything[views.defective], everything[~views.defective]]
        self._pools = [pool for pool in kinds if len(pool)] if balanced else [everything]
        self._shares = [len(part) for part in np.array_split(np.arange(batch), len(self._pools))]

    def next(self) -> BoxBatch:
        """The next batch."""
        shares = zip(self._pools, self._shares, strict=True)
        chosen = np.concatenate([pool[self._chance.integers(0, len(pool), count)] for pool, count in shares])
        ways = self._chance.integers(0, len(FLIPS), len(chosen))
        views, maps = self._views, self._views.maps
        if maps is None:
            images = [_flipped(views.images[n], FLIPS[way]) for n, way in zip(chosen, ways, strict=True)]
            if self._jitter:
                images = [jittered(image, self._chance) for image in images]
            seen = normalised(np.stack(images), self._spec)
        else:
            seen = torch.from_numpy(maps[chosen, ways])
        truth, known, wanted = [], [], []
        for n, way in zip(chosen, ways, strict=True):
            order = self._moved[way]
            truth.append(views.truth[n][order])
            known.append(views.known[n][order])
            wanted.append(_mirrored(views.wanted[n][order], FLIPS[way], self._spec))
        pieces = (np.stack(truth), np.stack(known), np.stack(wanted), views.maximum[chosen])
        device = team().device
        return BoxBatch(seen.to(device), *(torch.from_numpy(piece).to(device) for piece in pieces))


def anchor_shapes(sides: Array, *, count: int = 9) -> tuple[tuple[float, float], ...]:
    """Widths and heights of anchors that overlap boxes best: k-means by intersection over union, without chance.

    Begins at the boxes that stand at equal steps in the order of their areas; a cluster's next shape is the median
    width and height of its boxes.

    Args:
        sides: ``(n, 2)`` width and height of boxes, pixels of the network's input.
        count: B; fewer where there are fewer different boxes.

    Returns:
        Smallest area first, rounded to a tenth of a pixel.

    Raises:
        DatasetError: There is no box.

    Reference:
        Redmon and Farhadi, YOLO9000, 2017, section 2, "dimension clusters".
    """
    if not len(sides):
        raise DatasetError("there is no box to choose anchors from; draw some into boxes.csv")
    different = np.unique(np.asarray(sides, np.float64), axis=0)
    order = different[np.lexsort((different[:, 0], different.prod(axis=1)))]
    count = min(count, len(order))
    shapes = order[np.round((np.arange(count) + 0.5) / count * len(order) - 0.5).astype(int)]
    for _ in range(50):
        shared = np.minimum(sides[:, None], shapes[None]).prod(axis=2)
        overlap = shared / (sides.prod(axis=1)[:, None] + shapes.prod(axis=1)[None] - shared)
        mine = overlap.argmax(axis=1)
        moved = np.array(
            [np.median(sides[mine == k], axis=0) if (mine == k).any() else shapes[k] for k in range(count)]
        )
        if np.allclose(moved, shapes):
            break
        shapes = moved
    shapes = np.round(shapes[np.lexsort((shapes[:, 0], shapes.prod(axis=1)))], 1)
    return tuple((float(width), float(height)) for width, height in shapes)


def _flipped(image: Array, flip: tuple[bool, bool]) -> Array:
    across, down = flip
    image = image[:, ::-1] if across else image
    return image[::-1] if down else image


def _moved(network: AnchorNetwork, flip: tuple[bool, bool]) -> Array:
    """``(A,)``: which anchor of the picture stands at each place of its mirror image."""
    rows, columns = network.grid
    places = np.arange(rows * columns * network.per_cell).reshape(rows, columns, network.per_cell)
    return np.ascontiguousarray(_flipped(places, flip)).reshape(-1)


def _mirrored(boxes: Array, flip: tuple[bool, bool], spec: PreprocessSpec) -> Floats:
    """Boxes of the picture as they lie on its mirror image; what is no box stays none."""
    left, top, right, bottom = boxes.T
    there = right > left
    if flip[0]:
        left, right = spec.width - right, spec.width - left
    if flip[1]:
        top, bottom = spec.height - bottom, spec.height - top
    return np.asarray(np.stack([left, top, right, bottom], axis=1) * there[:, None], np.float32)
