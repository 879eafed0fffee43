"""Who signed a manifest: Ed25519 signatures against the public keys that a station trusts.

``manifest.sig`` is canonical JSON, a list of ``{"keyid", "sig"}``: the sha256 of a raw 32-byte public
key and the signature over the bytes of ``manifest.json``, both hexadecimal.  A ``.pub`` file is one
line, the base64 of the raw key.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from pathlib import Path

from edge_sdk.documents import canonical_json, sha256_hex
from edge_sdk.errors import BundleDamaged, BundleUntrusted, ConfigError, FormatError, MissingPackage

__all__ = ["key_id", "read_public_key", "signed_by"]

MEMBER = "manifest.sig"


def key_id(key: bytes) -> str:
    """What a raw public key is called."""
    return sha256_hex(key)


def read_public_key(path: Path) -> bytes:
    """The raw 32 bytes of a ``.pub`` file.

    Raises:
        ConfigError: The file is missing or holds something else.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
        key = base64.b64decode(text, validate=True)
    except OSError as error:
        raise ConfigError(
            f"trust names {path}, which cannot be read ({error.strerror}); is the path right?"
        ) from error
    except (UnicodeDecodeError, binascii.Error):
        key = b""
    if len(key) != 32:
        raise ConfigError(
            f"trust names {path}, which is no public key; give the .pub file that python -m export keys wrote"
        )
    return key


def signed_by(manifest: bytes, signatures: bytes | None, trust: Sequence[Path], *, what: str) -> str:
    """The id of the first trusted key that signed the manifest.

    Args:
        manifest: The bytes of ``manifest.json``.
        signatures: The bytes of ``manifest.sig``, ``None`` where there is none.
        trust: ``.pub`` files.
        what: What the bundle is called in an error.

    Raises:
        BundleUntrusted: It is not signed, or by other keys.
        BundleDamaged: A trusted key's signature does not fit, or the file is no list of signatures.
        ConfigError: A file in ``trust`` is no public key.
        MissingPackage: ``cryptography`` is not installed.
    """
    keys = {key_id(key): key for key in map(read_public_key, trust)}
    if not keys:
        raise BundleUntrusted(
            f"{what} cannot be trusted, as no key is; name one in trust, or write trust: unsigned"
        )
    if signatures is None:
        raise BundleUntrusted(
            f"{what} is not signed, and this station demands it; sign it with python -m export pack --key, "
            "or write trust: unsigned"
        )
    found = _parsed(signatures, what)
    ours = [(keyid, signature) for keyid, signature in found if keyid in keys]
    if not ours:
        names = ", ".join(keyid[:12] for keyid, _ in found) or "nobody"
        raise BundleUntrusted(
            f"{what} is signed by {names}, not by a key this station trusts ({', '.join(key[:12] for key in keys)}); "
            "have it signed, or add the key to trust"
        )
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MissingPackage(
            "signed bundles need the package cryptography, which is not installed; pip install 'edge-sdk[ota]'"
        ) from error
    for keyid, signature in ours:
        try:
            Ed25519PublicKey.from_public_bytes(keys[keyid]).verify(bytes.fromhex(signature), manifest)
        except InvalidSignature:
            raise BundleDamaged(
                f"{what}: manifest.json is not what key {keyid[:12]} signed; it or manifest.sig was altered, "
                "copy the bundle again",
                member="manifest.json",
            ) from None
    return ours[0][0]


def _parsed(signatures: bytes, what: str) -> list[tuple[str, str]]:
    damaged = BundleDamaged(
        f"{what}: manifest.sig is no list of signatures; copy the bundle again", member=MEMBER
    )
    try:
        value = json.loads(signatures)
        exact = canonical_json(value) == signatures
    except (ValueError, RecursionError, FormatError):
        raise damaged from None
    if not exact or not isinstance(value, list):
        raise damaged
    found = []
    for entry in value:
        if not isinstance(entry, dict) or set(entry) != {"keyid", "sig"}:
            raise damaged
        keyid, signature = entry["keyid"], entry["sig"]
        if not (isinstance(keyid, str) and isinstance(signature, str)):
            raise damaged
        if not (re.fullmatch(r"[0-9a-f]{64}", keyid) and re.fullmatch(r"[0-9a-f]{128}", signature)):
            raise damaged
        found.append((keyid, signature))
    return found
