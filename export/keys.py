"""Keys that sign bundles: Ed25519, the private one in PKCS8 PEM, the public one as one line of base64."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge_sdk.bundles.trust import key_id
from edge_sdk.documents import canonical_json
from edge_sdk.errors import ConfigError

__all__ = ["PRIVATE", "PUBLIC", "make_keys", "read_private_key", "signatures"]

PRIVATE = "release.pem"
PUBLIC = "release.pub"


def make_keys(folder: Path) -> tuple[Path, Path, str]:
    """Write a new pair of keys.

    Returns:
        Paths of the private and the public key, and the key's id.

    Raises:
        ConfigError: There are keys already; what they signed would be lost.
    """
    folder.mkdir(parents=True, exist_ok=True)
    private, public = folder / PRIVATE, folder / PUBLIC
    for path in (private, public):
        if path.exists():
            raise ConfigError(
                f"{path} is there already and is never overwritten; give another folder, or move it away"
            )
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    # for nobody's eyes but the owner's from the first byte on
    with os.fdopen(os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    raw = key.public_key().public_bytes_raw()
    public.write_text(base64.b64encode(raw).decode("ascii") + "\n", encoding="ascii")
    return private, public, key_id(raw)


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """The key of a PEM file.

    Raises:
        ConfigError: The file is missing, or holds something else.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the key {path} cannot be read ({error.strerror}); is the path right?") from error
    try:
        key = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(
            f"{path} is no private key; give the {PRIVATE} that python -m export keys wrote"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(
            f"{path} is another kind of key; give the {PRIVATE} that python -m export keys wrote"
        )
    return key


def signatures(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """``manifest.sig``: canonical JSON with one signature."""
    raw = key.public_key().public_bytes_raw()
    return canonical_json([{"keyid": key_id(raw), "sig": key.sign(manifest).hex()}])
