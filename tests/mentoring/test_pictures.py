"""Kind and size of a picture, from its first bytes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mentoring.pictures import PictureKind, kind_of
from mentoring.problems import NotAcceptable, RefusalError, TooLarge, WrongKind


@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from([".png", ".jpg"]), st.booleans())
def test_tells_type_and_size_as_the_decoder_does(
    width: int, height: int, suffix: str, progressive: bool
) -> None:
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)] if suffix == ".jpg" else []
    done, data = cv2.imencode(suffix, np.zeros((height, width, 3), np.uint8), options)
    assert done
    kind = "image/png" if suffix == ".png" else "image/jpeg"
    assert kind_of(data.tobytes()) == PictureKind(kind, width, height)


@given(st.binary(max_size=400), st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
def test_whatever_the_bytes_are_the_refusal_is_a_sentence(data: bytes, start: bytes) -> None:
    try:
        found = kind_of(start + data)
    except RefusalError as refused:
        told = str(refused)
    else:
        told = f"the item's picture is {'one' if found.width * found.height else 'empty'}"
    assert told.startswith("the item's picture is ")
    assert not told.endswith("empty")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(WrongKind) as refused:
        kind_of(b"GIF89a" + bytes(100))
    assert str(refused.value) == "the item's picture is neither PNG nor JPEG; send frames as one of the two"


def test_a_picture_that_would_unpack_to_gigabytes_is_refused_unopened() -> None:
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + bytes(9)
    with pytest.raises(TooLarge) as refused:
        kind_of(bomb)
    assert str(refused.value) == ("the item's picture is 60000 x 60000; at most 64 million pixels are taken")


def test_a_torn_picture_is_refused() -> None:
    with pytest.raises(NotAcceptable, match="is a torn JPEG; it has no size"):
        kind_of(b"\xff\xd8\xff\xe0\x00\x10JFIF")
    with pytest.raises(NotAcceptable, match="is a torn PNG; it has no header"):
        kind_of(b"\x89PNG\r\n\x1a\n")
