"""A second line made of one: how the same parts would look under another lamp or camera.

Where a data set has one domain, its new line shows other pictures through one of these transforms.
The strength of each was fixed before any seed of the results was run.  Every transform is a function
of the picture and of ``key`` alone, so a picture looks the same in training, in the demo's video and
in the report, on every machine.

Gaps are joined with a plus and applied from left to right as written: ``stains+lamp`` soils the
parts, then changes the lamp that lights them.  ``viewpoint`` alone moves anything: ``moved`` moves a mask
with the picture and ``moved_boxes`` boxes; every other gap leaves them true.

Reference:
    The colour-gap paper (Wu, Cheng, Chen, Study on anomaly classifier with domain adaptation), section 3.1, for
    ``grey`` and ``chromaticity``, section 1 for brightness, section 3.2 for other angles; the mentoring paper
    (Cordier, Das, Gutierrez, QCAV 2021) for harmless marks that cause false alarms.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, Image, check_shape
from edge_sdk.errors import ConfigError, RangeError

__all__ = ["DEFAULT_GAP", "LEAST_SHOWN", "STRENGTH", "apply", "boxes_seen", "moved", "moved_boxes", "names"]

DEFAULT_GAP = "lamp"

STRENGTH = 1.0
"""At which the results are stated: 0 changes nothing, 2 is the most."""

LEAST_SHOWN = 1 / 3
"""Of a box's area: what shows less of a defect is no example of it."""

_Transform = Callable[[Floats, np.random.Generator, float], Floats]


def names() -> tuple[str, ...]:
    """The single gaps; joined with a plus they make more."""
    return tuple(_GAPS)


def apply(name: str, image: Image, *, key: str, strength: float = STRENGTH) -> Image:
    """The picture as the new line would have taken it.

    Args:
        name: One of ``names()`` or several joined with a plus.
        image: ``(H, W, 3)`` uint8, blue green red.
        key: What the random part hangs on, by habit the sample's path within its data set.
        strength: In [0, 2]; 0 gives the picture back.

    Returns:
        ``(H, W, 3)`` uint8, blue green red.

    Raises:
        ConfigError: There is no gap of that name.
        RangeError: ``strength`` is outside [0, 2].
    """
    wanted = name.split("+")
    for part in wanted:
        if part not in _GAPS:
            raise ConfigError(f"there is no gap named {part!r}; give one of {', '.join(_GAPS)}, or several joined by +")
    if not 0 <= strength <= 2:
        raise RangeError(f"the strength of the gap is {strength:g}; give 0 to 2, {STRENGTH:g} is what results state")
    if strength == 0:
        return np.array(image, np.uint8)
    pixels = _floats(image.astype(np.float32) / 255)
    for part in wanted:
        seed = hashlib.sha256(f"{part}:{key}".encode()).digest()[:8]
        pixels = _GAPS[part](pixels, np.random.default_rng(int.from_bytes(seed, "little")), strength)
    return np.asarray(np.clip(np.rint(pixels * 255), 0, 255), np.uint8)


def moved(name: str, mask: Array, *, strength: float = STRENGTH) -> Array:
    """A mask where the gap's picture shows what it marks.

    Args:
        name: As of ``apply``.
        mask: ``(H, W)`` uint8, 0 healthy, else the class; what comes into view from beyond the picture is healthy.
        strength: As of ``apply``.

    Returns:
        ``(H, W)`` uint8; a defect that would become smaller than a pixel keeps one.
    """
    import cv2

    if "viewpoint" not in name.split("+") or not strength:
        return mask
    height, width = mask.shape
    turned = _homography(height, width, strength)
    shown = np.asarray(cv2.warpPerspective(mask, turned, (width, height), flags=cv2.INTER_NEAREST), np.uint8)
    for value in set(np.unique(mask)) - {0} - set(np.unique(shown)):
        rows, columns = np.nonzero(mask == value)
        centre = np.array([[[float(columns.mean()), float(rows.mean())]]], np.float32)
        x, y = cv2.perspectiveTransform(centre, turned)[0, 0]
        shown[min(height - 1, max(0, round(float(y)))), min(width - 1, max(0, round(float(x))))] = value
    return shown


def moved_boxes(
    name: str, boxes: Array, *, height: int, width: int, strength: float = STRENGTH
) -> tuple[Floats, Bools]:
    """Boxes where the gap's picture shows what they hold.

    Args:
        name: As of ``apply``.
        boxes: ``(D, 4)`` left, top, right, bottom in pixels of the picture; right and bottom lie outside.
        height: Of the picture, pixels.
        width: Of the picture.
        strength: As of ``apply``.

    Returns:
        As of ``boxes_seen``.
    """
    if "viewpoint" not in name.split("+") or not strength:
        return _floats(boxes), np.ones(len(boxes), bool)
    return boxes_seen(boxes, _homography(height, width, strength), height=height, width=width)


def boxes_seen(boxes: Array, turned: Array, *, height: int, width: int) -> tuple[Floats, Bools]:
    """Boxes as a camera sees them behind a homography: upright around what of each lies on the new picture.

    Args:
        boxes: ``(D, 4)`` left, top, right, bottom in pixels; right and bottom lie outside.
        turned: ``(3, 3)`` from centres of pixels to centres of pixels, with every box in front of the camera.
        height: Of the new picture, pixels.
        width: Of the new picture.

    Returns:
        ``(n, 4)`` the boxes of which ``LEAST_SHOWN`` or more is seen, and ``(D,)`` which those are.
    """
    import cv2

    check_shape("boxes", boxes, (None, 4), as_text="(D, 4), one row a box")
    # a pixel's centre has whole coordinates, its edges lie half a pixel beside
    picture = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32) - 0.5
    seen = np.zeros((len(boxes), 4), np.float32)
    kept = np.zeros(len(boxes), bool)
    for n, (left, top, right, bottom) in enumerate(boxes.astype(np.float32)):
        corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float32) - 0.5
        whole = np.asarray(cv2.perspectiveTransform(corners[None], turned)[0], np.float32)
        area, shown = cv2.intersectConvexConvex(whole, picture)
        if area <= 0 or area < LEAST_SHOWN * cv2.contourArea(whole):
            continue
        points = shown.reshape(-1, 2) + 0.5
        lows, highs = points.min(axis=0), points.max(axis=0)
        seen[n] = max(0, lows[0]), max(0, lows[1]), min(width, highs[0]), min(height, highs[1])
        kept[n] = True
    return seen[kept], kept


def _grey(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """Towards one channel, as a monochrome camera sees it."""
    weights = np.array([0.114, 0.587, 0.299], np.float32)
    grey = (pixels @ weights)[:, :, None]
    share = min(1.0, strength)
    return _floats(pixels + share * (grey - pixels))


def _chromaticity(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """Colour without its lightness: each channel's share of the pixel's sum."""
    total = pixels.sum(axis=2, keepdims=True)
    shares = np.where(total > 0.02, pixels / np.maximum(total, 0.02), 1 / 3)
    share = min(1.0, strength)
    return _floats(pixels + share * (shares - pixels))


def _gamma(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """A camera with another response: middle greys darker."""
    return _floats(np.power(pixels, 1 + 0.6 * strength))


def _brightness(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """A longer exposure: everything lighter, whites clipped."""
    return _floats(np.minimum(pixels * (1 + 0.4 * strength), 1))


def _tint(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """Another white balance: blue up, red down."""
    gains = 1 + strength * np.array([0.35, 0.05, -0.25], np.float32)
    return _floats(np.clip(pixels * gains, 0, 1))


def _viewpoint(pixels: Floats, _: np.random.Generator, strength: float) -> Floats:
    """A camera mounted elsewhere: a homography, the same for every picture, with nothing cut off.

    What comes into view beyond the picture has the colour of the picture's border.
    """
    import cv2

    height, width = pixels.shape[:2]
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    beyond = tuple(float(one) for one in np.median(edge, axis=0))
    turned = _homography(height, width, strength)
    return _floats(
        cv2.warpPerspective(pixels, turned, (width, height), flags=cv2.INTER_LINEAR, borderValue=beyond)
    )


def _homography(height: int, width: int, strength: float) -> Array:
    """From pixels of the picture to pixels of the new view: its far side is narrower and lower, and turned a little."""
    import cv2

    right, bottom = float(width - 1), float(height - 1)
    corners = np.array([[0, 0], [right, 0], [right, bottom], [0, bottom]], np.float32)
    inwards = np.array([[0.12, 0.10], [-0.06, 0.03], [-0.01, -0.01], [0.02, -0.04]], np.float32)
    return np.asarray(
        cv2.getPerspectiveTransform(corners, corners + strength * inwards * np.array([right, bottom], np.float32))
    )


def _lamp(pixels: Floats, chance: np.random.Generator, strength: float) -> Floats:
    """A changed lamp: colder, dimmer, falling off to one side, with another gamma and sensor noise.

    One lamp lights the whole line; from picture to picture only its level flickers and the noise differs.
    """
    height, width = pixels.shape[:2]
    flicker = 1 + 0.05 * strength * float(chance.uniform(-1, 1))
    balance = 1 + strength * np.array([0.6, 0.0, -0.4], np.float32)
    dimmer = (1 - 0.3 * strength) * flicker
    down = np.linspace(0, 1, height, dtype=np.float32)[:, None]
    across = np.linspace(0, 1, width, dtype=np.float32)[None, :]
    fall_off = 1 - 0.45 * strength * (0.7 * across + 0.3 * down)
    lit = np.clip(pixels * balance * dimmer * fall_off[:, :, None], 0, 1)
    lit = np.power(lit, 1 + 0.2 * strength)
    noise = chance.normal(0, 0.06 * strength, pixels.shape)
    return _floats(np.clip(lit + noise, 0, 1))


def _stains(pixels: Floats, chance: np.random.Generator, strength: float) -> Floats:
    """Harmless marks on the part: dust, oil, water.  They are no defect, whatever they look like.

    Two to five soft blotches a picture, darker or lighter than what they lie on and without a colour of
    their own, on what stands out from the background.
    """
    import cv2

    height, width = pixels.shape[:2]
    side = min(height, width)
    rows, columns = np.nonzero(_part_of(pixels))
    soiled = pixels
    for _ in range(int(chance.integers(2, 6))):
        at = int(chance.integers(len(rows)))
        size = float(chance.uniform(0.012, 0.04)) * side
        blotch = np.zeros((height, width), np.float32)
        for _ in range(int(chance.integers(2, 5))):
            x = columns[at] + chance.normal(0, size)
            y = rows[at] + chance.normal(0, size)
            axes = (max(1, round(size * chance.uniform(0.4, 1.1))), max(1, round(size * chance.uniform(0.4, 1.1))))
            turned = float(chance.uniform(0, 180))
            cv2.ellipse(blotch, (round(float(x)), round(float(y))), axes, turned, 0, 360, 1.0, -1)
        blotch = np.asarray(cv2.GaussianBlur(blotch, (0, 0), max(0.6, 0.006 * side)), np.float32)
        dark = bool(chance.random() < 0.6)
        covers = min(0.9, float(chance.uniform(0.55, 0.8)) * strength)
        tone = np.array([0.12, 0.14, 0.17] if dark else [0.95, 0.95, 0.95], np.float32)
        soiled = soiled + covers * blotch[:, :, None] * (tone - soiled)
    return _floats(soiled)


def _part_of(pixels: Floats) -> Array:
    """``(H, W)`` bool: what stands out from the picture's border; everything where nothing does."""
    height, width = pixels.shape[:2]
    rim = max(1, min(height, width) // 32)
    border = np.concatenate(
        [
            pixels[:rim].reshape(-1, 3),
            pixels[-rim:].reshape(-1, 3),
            pixels[:, :rim].reshape(-1, 3),
            pixels[:, -rim:].reshape(-1, 3),
        ]
    )
    background = np.median(border, axis=0)
    away = np.abs(pixels - background).sum(axis=2)
    stands_out = away > max(0.25, 2 * float(np.quantile(np.abs(border - background).sum(axis=1), 0.9)))
    share = float(stands_out.mean())
    return stands_out if 0.03 <= share <= 0.9 else np.ones((height, width), bool)


def _floats(pixels: Array) -> Floats:
    return np.asarray(pixels, np.float32)


_GAPS: dict[str, _Transform] = {
    "grey": _grey,
    "chromaticity": _chromaticity,
    "gamma": _gamma,
    "brightness": _brightness,
    "tint": _tint,
    "viewpoint": _viewpoint,
    "lamp": _lamp,
    "stains": _stains,
}
