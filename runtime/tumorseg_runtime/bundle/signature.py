"""The signature of a bundle: who sealed it, where the seal alone says only that nothing has changed.

`bundle.json.sig` holds the 64 bytes of an Ed25519 signature (RFC 8032) over the bytes of `bundle.json`,
which lists the SHA-256 of every other file. It is the one file that the seal leaves out: a signature cannot
be in what it signs. Any tool that knows Ed25519 can check it (docs/bundle.md shows openssl). This module
checks; `tumorseg_export.bundle.sign` signs.
"""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_runtime.bundle.seal import INDEX, SIGNATURE
from tumorseg_runtime.core.errors import BackendError, CheckFailedError, InputError
from tumorseg_runtime.core.reading import read_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

LENGTH = 64  # bytes of an Ed25519 signature
MAX_KEY_BYTES = 2**16
NEW_KEY = "tumorseg sign --new-key FILE"


def verify_signature(root: Path, index: bytes, public_key: str | Path) -> str:
    """Pass if `bundle.json` was signed by the owner of the public key; returns the key's fingerprint.

    root: the bundle's folder, for the signature's file. index: the bytes of `bundle.json`.
    Raises CheckFailedError where the signature is missing or is not of this key and this index, InputError
    for a file that holds no Ed25519 public key, BackendError where the package cryptography is missing.
    """
    key = load_public_key(Path(public_key))
    path = root / SIGNATURE
    try:
        signature = read_regular(path, LENGTH)
    except FileNotFoundError:
        raise CheckFailedError(
            f"{root}: has no {SIGNATURE}, expected a signed bundle: ask its maker for a signed copy"
        ) from None
    except OSError as error:
        raise _no_signature(path, error.strerror or str(error)) from error
    if len(signature) != LENGTH:
        raise _no_signature(path, f"it has {len(signature)} bytes")
    try:
        key.verify(signature, index)
    except require("cryptography.exceptions").InvalidSignature:
        raise CheckFailedError(
            f"{root}: {SIGNATURE} is not this key's ({fingerprint(key)[:16]}) for this {INDEX}, "
            "expected it to be: the bundle was altered, or another key signed it; ask its maker"
        ) from None
    return fingerprint(key)


def load_public_key(path: Path) -> Ed25519PublicKey:
    """An Ed25519 public key from a PEM file; raises InputError."""
    from_pem = require("cryptography.hazmat.primitives.serialization").load_pem_public_key
    data = read_key(path)
    if b"PRIVATE KEY" in data:
        raise InputError(
            f"{path}: holds a private key, expected the public one: give the .pub.pem file beside it, and "
            "keep this one off devices"
        )
    try:
        key = from_pem(data)
    except (ValueError, require("cryptography.exceptions").UnsupportedAlgorithm) as error:
        raise InputError(
            f"{path}: holds no public key in PEM, expected one: make keys by {NEW_KEY}"
        ) from error
    return check_kind(path, key, "Ed25519PublicKey")  # type: ignore[no-any-return]


def check_kind(path: Path, key: Any, expected: str) -> Any:
    """The key if it is of the named class of `cryptography`; else InputError."""
    kinds = require("cryptography.hazmat.primitives.asymmetric.ed25519")
    if not isinstance(key, getattr(kinds, expected)):
        kind = type(key).__name__.lstrip("_")
        raise InputError(f"{path}: holds an {kind}, expected an {expected}: make keys by {NEW_KEY}")
    return key


def read_key(path: Path) -> bytes:
    """The bytes of a key's file; raises InputError."""
    try:
        return read_regular(path, MAX_KEY_BYTES, follow=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror or error}), expected a PEM file: check the path"
        ) from error


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the 32 bytes of a public key, as 64 hexadecimal digits: what two people compare."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()


def require(module: str) -> Any:
    """A module of the package cryptography; raises BackendError naming the extra where it is missing."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackendError(
            "signatures need the package cryptography, which is not installed: pip install 'tumorseg[sign]'"
        ) from error


def _no_signature(path: Path, why: str) -> CheckFailedError:
    return CheckFailedError(
        f"{path}: is no signature ({why}), expected the {LENGTH} bytes of an Ed25519 signature: "
        "copy the bundle again"
    )
