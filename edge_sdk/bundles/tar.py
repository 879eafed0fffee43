"""The tar that a bundle is shipped in: written the same twice, read without trust.

Python's reader takes a damaged header for the end of the file and passes over what stands between
the members.  Here every byte of the file means something: the headers' checksums, the members, and
zeros in between, or the file is refused with the name of the member that is wrong.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from edge_sdk.errors import BundleDamaged

__all__ = ["Member", "TarReader", "is_plain_name", "write_tar"]

BLOCK = 512
PIECE = 1 << 20
RECORD = 20 * BLOCK
"""A tar ends on a multiple of this, filled with zeros."""
REGULAR = (b"0", b"\0")
KINDS = {b"1": "a hard link", b"2": "a symbolic link", b"5": "a folder", b"x": "an extended header"}


@dataclass(frozen=True)
class Member:
    """A file inside the tar."""

    name: str
    offset: int
    """Of its first byte in the tar."""
    bytes: int


def is_plain_name(name: str) -> bool:
    """Whether a name stays inside the folder it is unpacked to, on any system, and reads as it is."""
    path = PurePosixPath(name)
    plain = str(path) == name and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")
    return plain and name.isprintable() and not set(name) & set('\\:*?"<>|')


def write_tar(members: Mapping[str, bytes | Path], path: Path) -> None:
    """Write an uncompressed tar: members sorted, no times, no owners; equal members, equal bytes.

    Args:
        members: Plain POSIX names, with what is inside or the file it is in.
        path: Written anew.

    Raises:
        ValueError: A name is not plain, or longer than a tar header takes.
    """
    with path.open("wb") as out:
        for name in sorted(members):
            if not is_plain_name(name):
                raise ValueError(f"{name!r} is no plain name inside a bundle; give one like model/model.onnx")
            content = members[name]
            info = tarfile.TarInfo(name)
            info.size = len(content) if isinstance(content, bytes) else content.stat().st_size
            out.write(info.tobuf(tarfile.USTAR_FORMAT, "utf-8", "strict"))
            with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
                while piece := file.read(PIECE):
                    out.write(piece)
            out.write(b"\0" * (-info.size % BLOCK))
        out.write(b"\0" * (2 * BLOCK))
        out.write(b"\0" * (-out.tell() % RECORD))


class TarReader:
    """The members of a tar, their names and headers checked at once, their bytes when streamed.

    Raises:
        BundleDamaged: A header is altered, a member is no plain file or twice there, or the file is
            cut short.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("rb")
        self._size = path.stat().st_size
        self.members: dict[str, Member] = {}
        try:
            self._index()
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Close the file.  May be called twice."""
        self._file.close()

    def stream(self, name: str) -> Iterator[bytes]:
        """A member's bytes piece by piece; then the zeros after it are checked."""
        member = self.members[name]
        self._file.seek(member.offset)
        left = member.bytes
        while left:
            piece = self._file.read(min(PIECE, left))
            if not piece:
                raise BundleDamaged(f"{self._path}: {name} is cut short; copy the bundle again", member=name)
            left -= len(piece)
            yield piece
        if any(self._file.read(-member.bytes % BLOCK)):
            raise BundleDamaged(f"{self._path}: bytes stand after {name}; copy the bundle again", member=name)

    def _index(self) -> None:
        at, before = 0, "its beginning"
        while True:
            self._file.seek(at)
            header = self._file.read(BLOCK)
            if len(header) < BLOCK:
                raise BundleDamaged(
                    f"{self._path} is no bundle, or is cut short after {before}; copy it again",
                    member=self._path.name,
                )
            if not any(header):
                self._check_end(at)
                return
            member = self._member(header, at + BLOCK, before)
            if member.name in self.members:
                raise BundleDamaged(
                    f"{self._path}: {member.name} is in it twice; pack it again", member=member.name
                )
            if member.offset + member.bytes > self._size:
                raise BundleDamaged(
                    f"{self._path}: {member.name} is cut short; copy the bundle again", member=member.name
                )
            self.members[member.name] = member
            before = member.name
            at = member.offset + member.bytes + -member.bytes % BLOCK

    def _member(self, header: bytes, offset: int, before: str) -> Member:
        total = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
        if header[148:156] not in (b"%06o\0 " % total, b"%07o\0" % total):
            raise BundleDamaged(
                f"{self._path} is no bundle, or is damaged after {before}; copy it again",
                member=self._path.name,
            )
        text = header[:100].split(b"\0")[0]
        if header[257:262] == b"ustar" and header[345:500].split(b"\0")[0]:
            text = header[345:500].split(b"\0")[0] + b"/" + text
        name = text.decode("utf-8", "replace")
        kind = header[156:157]
        if kind not in REGULAR:
            name = name.rstrip("/")
            what = KINDS.get(kind, f"of tar type {kind!r}")
            raise BundleDamaged(
                f"{self._path}: {name} is {what}; a bundle holds plain files alone", member=name
            )
        if not is_plain_name(name):
            raise BundleDamaged(
                f"{self._path}: {name!r} would be unpacked outside its folder; do not use this file",
                member=name,
            )
        try:
            size = int(header[124:136].strip(b" \0") or b"0", 8)
        except ValueError:
            size = -1
        if size < 0:
            raise BundleDamaged(
                f"{self._path}: {name} has no size that can be read; pack it again", member=name
            )
        return Member(name, offset, size)

    def _check_end(self, at: int) -> None:
        self._file.seek(at)
        length = 0
        while piece := self._file.read(PIECE):
            length += len(piece)
            if any(piece):
                raise BundleDamaged(
                    f"{self._path}: bytes stand after its last member; copy it again", member=self._path.name
                )
        if length < 2 * BLOCK:
            raise BundleDamaged(
                f"{self._path} is cut short at its end; copy it again", member=self._path.name
            )
