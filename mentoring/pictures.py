"""What kind of picture some bytes are, told by their first bytes alone.

The hub decodes no picture: it looks at the kind and the size in the file's header, so that a
picture that unpacks to gigabytes is refused before anything unpacks it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mentoring.problems import NotAcceptable, TooLarge, WrongKind

__all__ = ["MAX_PIXELS", "PictureKind", "kind_of"]

MAX_PIXELS = 64_000_000
"""More than any sensor in use on a line; a larger claim is a mistake or an attack."""

_PNG = b"\x89PNG\r\n\x1a\n"
# start-of-frame markers of JPEG; C4, C8 and CC lie between them and mean something else
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD8)})


@dataclass(frozen=True)
class PictureKind:
    """Type and size of a picture, from its header."""

    type: str
    """``image/png`` or ``image/jpeg``."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""


def kind_of(data: bytes) -> PictureKind:
    """Read the header of a PNG or JPEG picture.

    Raises:
        WrongKind: It is neither.
        NotAcceptable: Its header is torn or says that it has no pixels.
        TooLarge: It claims more than 64 million pixels.
    """
    if data.startswith(_PNG):
        found = _png(data)
    elif data.startswith(b"\xff\xd8\xff"):
        found = _jpeg(data)
    else:
        raise WrongKind("the item's picture is neither PNG nor JPEG; send frames as one of the two")
    if not found.width or not found.height:
        raise NotAcceptable(f"the item's picture is {found.width} x {found.height}; it has no pixels")
    if found.width * found.height > MAX_PIXELS:
        raise TooLarge(
            f"the item's picture is {found.width} x {found.height}; "
            f"at most {MAX_PIXELS // 1_000_000} million pixels are taken"
        )
    return found


def _png(data: bytes) -> PictureKind:
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise NotAcceptable("the item's picture is a torn PNG; it has no header")
    return PictureKind("image/png", int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))


def _jpeg(data: bytes) -> PictureKind:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill bytes may stand before a marker
            at += 1
        elif marker in _WITHOUT_LENGTH:
            at += 2
        elif marker in _FRAMES and at + 9 <= len(data):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            return PictureKind("image/jpeg", int.from_bytes(data[at + 7 : at + 9], "big"), height)
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    raise NotAcceptable("the item's picture is a torn JPEG; it has no size")
