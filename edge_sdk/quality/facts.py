"""What a picture looks like in six numbers, to name what changed when something has.

The watch for drift (``quality.drift``) sees *that* the input changed; these numbers say whether it became darker,
blurred, noisy or tinted.  They are measured on the picture as the network gets it, padding left out, so a figure of
the workstation and one of the station mean the same.
"""

from __future__ import annotations

import numpy as np

from edge_sdk.arrays import Array, Floats, Image, check_shape
from edge_sdk.vision.preprocess import Adjustment, PreprocessSpec, shown

__all__ = ["FACTS", "causes", "facts_of", "facts_of_picture"]

FACTS = ("level", "blue", "green", "red", "contrast", "sharpness")
"""``level``: mean of all values, in [0, 1].  ``blue``, ``green``, ``red``: a channel's mean over the level.
``contrast``: standard deviation of the grey picture over the level.  ``sharpness``: natural logarithm of the
Laplacian's variance over the picture's, which neither a gain nor an offset moves: blur lowers it, noise raises it."""
SURE = 4.0
"""Standard errors from which a fact counts as moved: six facts are looked at in every window."""
WORTH = {"level": 0.01, "colour": 0.01, "contrast": 0.05, "sharpness": 0.05}
"""Relative changes below which a fact is not named, however sure: no eye and no network minds them."""
GROUND = 1.0
"""Grey levels squared added to both variances, so that a flat picture's sharpness is a number."""


def facts_of(pixels: Image) -> Floats:
    """The facts of a picture at the network's size.

    Args:
        pixels: ``(H, W, 3)`` uint8 blue green red, at least 1 x 1.

    Returns:
        ``(6,)`` float32 in the order of ``FACTS``.

    Raises:
        ShapeError: It is no picture of three channels.
    """
    import cv2

    check_shape("pixels", pixels, (None, None, 3), as_text="(H, W, 3), blue green red")
    grey = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_BGR2GRAY)
    channels = np.array(cv2.mean(pixels)[:3]) + 0.5
    level = float(channels.mean())
    spread = float(cv2.meanStdDev(grey)[1][0, 0])
    edges = float(cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S))[1][0, 0])
    sharpness = np.log((edges**2 + GROUND) / (spread**2 + GROUND))
    return np.array([level / 255, *(channels / level), spread / level, sharpness], np.float32)


def facts_of_picture(image: Image, spec: PreprocessSpec, *, adjust: Adjustment | None = None) -> Floats:
    """The facts of a camera's picture, measured where the network sees it.

    Args:
        image: ``(H, W, 3)`` uint8 blue green red, as the camera gave it.
        spec: What the network was trained with.
        adjust: The station's gain and offset, where it has them.
    """
    return facts_of(shown(image, spec, adjust=adjust))


def causes(mean: Floats, sd: Floats, now: Floats, *, count: int, reference: int) -> tuple[str, ...]:
    """What changed, the surest first; nothing where no fact moved.

    A fact moved where ``|now - mean| / (sd sqrt(1/count + 1/reference))`` reaches ``SURE`` and the change is large
    enough to mind (``WORTH``).

    Args:
        mean: ``(6,)`` of the reference's pictures.
        sd: ``(6,)`` of the same.
        now: ``(6,)`` mean over ``count`` pictures.
        count: At least 1.
        reference: How many pictures the reference was made of, at least 1.

    Returns:
        Clauses that finish "the picture …".
    """
    error = np.maximum(sd, 1e-6) * np.sqrt(1 / count + 1 / reference)
    z = dict(zip(FACTS, np.abs(now - mean) / error, strict=True))
    was, is_now = dict(zip(FACTS, mean, strict=True)), dict(zip(FACTS, now, strict=True))
    gain = float(is_now["level"] / was["level"])
    contrast = float(is_now["contrast"] / max(was["contrast"], 1e-6))
    sharpness = float(np.exp(is_now["sharpness"] - was["sharpness"]))
    balance = np.array([is_now[name] / was[name] for name in ("blue", "green", "red")])
    found: list[tuple[float, str]] = []
    if abs(gain - 1) >= WORTH["level"]:
        word = "darker" if gain < 1 else "brighter"
        found.append((z["level"], f"became {word}: gain {gain:.2f} of the reference"))
    if np.abs(balance - 1).max() >= WORTH["colour"]:
        told = ", ".join(f"{name} {one:.2f}" for name, one in zip(("blue", "green", "red"), balance, strict=True))
        found.append((max(z["blue"], z["green"], z["red"]), f"changed its colour: {told} of the reference"))
    if abs(sharpness - 1) >= WORTH["sharpness"]:
        word = "became blurred" if sharpness < 1 else "became noisier, or sharper"
        found.append((z["sharpness"], f"{word}: fine detail {sharpness:.2f} of the reference"))
    if abs(contrast - 1) >= WORTH["contrast"]:
        word = "lost contrast" if contrast < 1 else "gained contrast"
        found.append((z["contrast"], f"{word}: {contrast:.2f} of the reference"))
    return tuple(words for sure, words in sorted(found, key=_surest) if sure >= SURE)


def _surest(one: tuple[float, str]) -> Array | float:
    return -one[0]
