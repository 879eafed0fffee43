"""Open a bundle, folder or tar, and believe none of it before every byte was hashed.

The station, ``edge-sdk activate`` and ``export verify`` open bundles here.  First the signature over
``manifest.json``, then the list of files against what is there, then each file against its digest;
only then is anything handed out.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from edge_sdk.arrays import Array, Image
from edge_sdk.bundles.tar import TarReader, is_plain_name
from edge_sdk.bundles.trust import signed_by
from edge_sdk.documents import canonical_json, parse_json, sha256_hex
from edge_sdk.errors import BundleDamaged, BundleError, FormatError
from edge_sdk.labels import Labels, Thresholds
from edge_sdk.manifest import Manifest, labels_of, thresholds_of

__all__ = ["Bundle", "Golden", "Trust", "open_bundle", "verify_bundle"]

Trust = Sequence[Path] | Literal["unsigned"]
"""Public keys, one of which must have signed; or take what is not signed."""

MANIFEST = "manifest.json"
SIGNATURES = "manifest.sig"
BESIDE = "engines"
"""Engines, timing caches and proofs live in this folder; they are the station's, not the bundle's."""
MANIFEST_MOST = 16 << 20
SIGNATURES_MOST = 1 << 20
PIECE = 1 << 20
MODELS = {"auto": ("int8-cpu", "fp32"), "cpu": ("int8-cpu",), "cpu-fp32": ("fp32",)}
"""Roles of the graph that a platform runs, best first."""


@dataclass(frozen=True, eq=False)
class Golden:
    """The pictures a station proves itself on."""

    frames: tuple[Image, ...]
    """N pictures ``(H, W, 3)`` uint8, blue green red."""
    expected: dict[str, Array]
    """By output name ``(N, …)``: what the reference gave."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose every byte was hashed."""

    manifest: Manifest
    id: str
    """sha256 of ``manifest.json``; it names every file by its digest, so it stands for all bytes."""
    root: Path
    """The folder it lies in; of a tar a temporary one, which goes with this object."""
    signed_by: str | None
    """Id of the trusted key that signed it; ``None``: taken unsigned."""

    @property
    def title(self) -> str:
        """``NAME-VERSION``."""
        return f"{self.manifest.name}-{self.manifest.version}"

    @property
    def labels(self) -> Labels:
        """The classes."""
        return labels_of(self.manifest)

    @property
    def thresholds(self) -> Thresholds:
        """At which confidence a class counts."""
        return thresholds_of(self.manifest)

    def file(self, role: str) -> Path | None:
        """The file of a role, or ``None`` where the bundle has none."""
        for entry in self.manifest.files:
            if entry.role == role:
                return self.root / entry.path
        return None

    def model(self, platform: str = "auto") -> tuple[Path, str]:
        """The graph that a platform runs, and its role.

        Args:
            platform: ``auto`` INT8 for the CPU, else FP32; ``cpu`` INT8 alone; ``cpu-fp32`` FP32 alone.

        Raises:
            BundleError: The bundle has no such graph, or there is no such platform.
        """
        if platform not in MODELS:
            raise BundleError(f"there is no platform {platform!r}; give one of {', '.join(MODELS)}")
        for role in MODELS[platform]:
            path = self.file(role)
            if path is not None:
                return path, role
        has = ", ".join(sorted({entry.role for entry in self.manifest.files})) or "nothing"
        raise BundleError(
            f"{self.title} has no {' or '.join(MODELS[platform])} graph for runner.platform {platform} (it has {has}); "
            "write another platform, or pack the bundle with that graph"
        )

    def model_path(self, platform: str = "auto") -> Path:
        """The graph that a platform runs; see ``model``."""
        return self.model(platform)[0]

    def golden(self) -> Golden:
        """The golden frames and what the reference gave for them.

        ``golden/frames.npz`` holds ``frames (N, H, W, 3)``, or an array a picture in the order of their
        names where they differ in size; ``golden/expected.npz`` an array ``(N, …)`` for every output of the
        FP32 graph, and of a rendering's as ``cells.int8-cpu``.

        Raises:
            BundleError: The bundle has none, or they do not fit together.
        """
        frames = _arrays(self.file("golden-frames"), self.title)
        expected = _arrays(self.file("golden-expected"), self.title)
        stacked = frames.get("frames")
        pictures = list(stacked) if stacked is not None else [frames[name] for name in sorted(frames)]
        for picture in pictures:
            if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
                raise BundleError(
                    f"{self.title}: a golden frame is {picture.shape} {picture.dtype}, not (H, W, 3) uint8; "
                    "pack it again"
                )
        for name, array in expected.items():
            if array.shape[:1] != (len(pictures),):
                raise BundleError(
                    f"{self.title}: expected output {name!r} is {array.shape} for {len(pictures)} golden frames; "
                    "pack it again"
                )
        if not pictures or not expected:
            raise BundleError(f"{self.title} has no golden frames to prove itself on; pack it again")
        return Golden(tuple(pictures), expected)


def open_bundle(path: Path, *, trust: Trust, unpack_to: Path | None = None) -> Bundle:
    """Verify a bundle and open it.

    Args:
        path: A bundle's folder (or a link to one), or a ``.bundle`` tar.
        trust: ``.pub`` files, one of whose keys must have signed the manifest; or ``"unsigned"``.
        unpack_to: Where a copy of the files is written while they are verified, and fsynced; default: a
            folder is used where it lies, a tar is unpacked to a temporary folder.

    Raises:
        BundleError: There is no bundle at ``path``, or its manifest is of another version.
        BundleDamaged: A file is missing, added or altered; the first in order of names is named.
        BundleUntrusted: No trusted key signed it.
        ConfigError: A file in ``trust`` is no public key.
    """
    with _opened(path) as source:
        manifest, identity, signer = _verified_manifest(source, trust)
        _check_names(source, manifest)
        if unpack_to is None and path.is_dir():
            _check_bytes(source, manifest, None)
            return Bundle(manifest, identity, path.resolve(), signer)
        if unpack_to is not None:
            _check_bytes(source, manifest, unpack_to)
            return Bundle(manifest, identity, unpack_to.resolve(), signer)
        return _unpacked(source, manifest, identity, signer)


def verify_bundle(path: Path, *, trust: Trust) -> Manifest:
    """Verify a bundle where it lies, every byte of it, and write nothing; errors as of ``open_bundle``."""
    with _opened(path) as source:
        manifest, _, _ = _verified_manifest(source, trust)
        _check_names(source, manifest)
        _check_bytes(source, manifest, None)
        return manifest


@contextmanager
def _opened(path: Path) -> Iterator[_Source]:
    try:
        if path.is_dir():
            source: _Source = _Folder(path)
        elif path.is_file():
            source = _Tar(path)
        elif path.is_symlink():
            raise BundleError(
                f"{path} leads to {path.readlink()}, which is not there; activate a bundle first"
            )
        else:
            raise BundleError(f"there is no bundle {path}; is the path right?")
        try:
            yield source
        finally:
            source.close()
    except OSError as error:
        where = error.filename or path
        raise BundleError(
            f"{path} cannot be read or unpacked ({error.strerror}: {where}); mind rights and room on the disk"
        ) from error


class _Source(Protocol):
    """Files by name, whether in a folder or in a tar."""

    what: str
    sizes: dict[str, int]

    def stream(self, name: str) -> Iterator[bytes]: ...
    def close(self) -> None: ...


class _Tar:
    def __init__(self, path: Path) -> None:
        self._reader = TarReader(path)
        self.what = str(path)
        self.sizes = {name: member.bytes for name, member in self._reader.members.items()}
        self.stream = self._reader.stream
        self.close = self._reader.close


class _Folder:
    def __init__(self, path: Path) -> None:
        self.what = str(path)
        self._path = path.resolve()
        self.sizes: dict[str, int] = {}
        if not (self._path / MANIFEST).is_file():
            return
        for folder, folders, files in os.walk(self._path):
            if Path(folder) == self._path and BESIDE in folders:
                folders.remove(BESIDE)
            for each in [*folders, *files]:
                found = Path(folder, each)
                name = found.relative_to(self._path).as_posix()
                if found.is_symlink():
                    raise BundleDamaged(
                        f"{path}: {name} is a link; a bundle holds plain files alone", member=name
                    )
                if each in files:
                    if not found.is_file():
                        raise BundleDamaged(f"{path}: {name} is no plain file; take it out", member=name)
                    self.sizes[name] = found.stat().st_size

    def stream(self, name: str) -> Iterator[bytes]:
        with (self._path / name).open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    def close(self) -> None:
        """Nothing stays open."""


def _verified_manifest(source: _Source, trust: Trust) -> tuple[Manifest, str, str | None]:
    if MANIFEST not in source.sizes:
        raise BundleDamaged(f"{source.what} has no manifest.json; is it a bundle?", member=MANIFEST)
    data = _small(source, MANIFEST, MANIFEST_MOST)
    signatures = _small(source, SIGNATURES, SIGNATURES_MOST) if SIGNATURES in source.sizes else None
    signer = (
        None if trust == "unsigned" else signed_by(data, signatures, list(map(Path, trust)), what=source.what)
    )
    try:
        exact = canonical_json(json.loads(data)) == data
    except (ValueError, RecursionError, FormatError):
        exact = False
    if not exact:
        raise BundleDamaged(
            f"{source.what}: manifest.json is not the canonical JSON it was packed as; copy the bundle again",
            member=MANIFEST,
        )
    try:
        manifest = parse_json(data, Manifest, name=f"{source.what}: manifest.json")
    except FormatError as error:
        raise BundleError(str(error)) from error
    return manifest, sha256_hex(data), signer


def _small(source: _Source, name: str, most: int) -> bytes:
    if source.sizes[name] > most:
        raise BundleDamaged(
            f"{source.what}: {name} has {source.sizes[name]} bytes, at most {most} may be; pack it again",
            member=name,
        )
    return b"".join(source.stream(name))


def _check_names(source: _Source, manifest: Manifest) -> None:
    listed = {entry.path: entry.bytes for entry in manifest.files}
    there = {name: size for name, size in source.sizes.items() if name not in (MANIFEST, SIGNATURES)}
    for name in sorted(listed.keys() | there.keys()):
        if not is_plain_name(name):
            raise BundleDamaged(
                f"{source.what}: {name!r} is no plain name inside a bundle; pack it again", member=name
            )
        if name not in there:
            raise BundleDamaged(f"{source.what}: {name} is missing; copy the bundle again", member=name)
        if name not in listed:
            raise BundleDamaged(f"{source.what}: {name} is not in the manifest; take it out", member=name)
        if there[name] != listed[name]:
            raise BundleDamaged(
                f"{source.what}: {name} has {there[name]} bytes, not {listed[name]}; copy the bundle again",
                member=name,
            )


def _check_bytes(source: _Source, manifest: Manifest, target: Path | None) -> None:
    """Hash every file, in order of names; write it to ``target`` on the way."""
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    for name in sorted(source.sizes):
        digest = hashlib.sha256()
        out = None
        if target is not None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            out = (target / name).open("xb")
        try:
            for piece in source.stream(name):
                digest.update(piece)
                if out is not None:
                    out.write(piece)
            if out is not None:
                out.flush()
                os.fsync(out.fileno())
        finally:
            if out is not None:
                out.close()
        if digests.get(name, digest.hexdigest()) != digest.hexdigest():
            raise BundleDamaged(
                f"{source.what}: {name} was altered (sha256 {digest.hexdigest()[:12]}…, not {digests[name][:12]}…); "
                "copy the bundle again",
                member=name,
            )


def _unpacked(source: _Source, manifest: Manifest, identity: str, signer: str | None) -> Bundle:
    folder = tempfile.mkdtemp(prefix="edge-sdk-bundle-")
    try:
        _check_bytes(source, manifest, Path(folder))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    bundle = Bundle(manifest, identity, Path(folder), signer)
    weakref.finalize(bundle, shutil.rmtree, folder, True)
    return bundle


def _arrays(path: Path | None, title: str) -> dict[str, Array]:
    if path is None:
        raise BundleError(f"{title} has no golden frames to prove itself on; pack it again")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
        raise BundleError(f"{title}: {path.name} is no archive of arrays ({error}); pack it again") from error
