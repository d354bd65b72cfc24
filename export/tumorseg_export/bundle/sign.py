"""Keys, and the signature of a bundle: `bundle.json.sig` (what it is: `tumorseg_runtime.bundle.signature`).

A signature can be made at export or later, on another machine, by whoever keeps the key; the bundle's hash
stays the same. Ed25519 signatures hold no time and no random number: signing twice gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_runtime.bundle.bundle import INDEX, SIGNATURE, Bundle
from tumorseg_runtime.bundle.signature import NEW_KEY, check_kind, read_key, require
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_bytes, write_secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PUBLIC = ".pub.pem"


def new_key(path: Path) -> Path:
    """Write a private key to `path`, for its owner's eyes only, and its public key beside it; returns that.

    The private key is not encrypted. Raises InputError where either file exists or cannot be written, and
    BackendError without the package cryptography.
    """
    kinds = require("cryptography.hazmat.primitives.asymmetric.ed25519")
    forms = require("cryptography.hazmat.primitives.serialization")
    public = path.with_name(path.name.removesuffix(".pem") + PUBLIC)
    for file in (path, public):
        if file.exists() or file.is_symlink():
            raise InputError(
                f"{file}: exists, expected a new file: a key is never replaced; choose another name"
            )
    key = kinds.Ed25519PrivateKey.generate()
    private = key.private_bytes(forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption())
    write_secret(path, private)
    write_bytes(
        public,
        key.public_key().public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo),
    )
    return public


def load_private_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """An Ed25519 private key from a PEM file; `ask` is called for the passphrase of an encrypted one.

    Raises InputError, and BackendError without the package cryptography.
    """
    return check_kind(path, read_private_key(path, ask), "Ed25519PrivateKey")  # type: ignore[no-any-return]


def read_private_key(path: Path, ask: Callable[[], str]) -> Any:
    """A private key of any kind, as `load_private_key`."""
    from_pem = require("cryptography.hazmat.primitives.serialization").load_pem_private_key
    unsupported = require("cryptography.exceptions").UnsupportedAlgorithm
    data = read_key(path)
    passphrase = ask().encode() if b"ENCRYPTED" in data else None
    try:
        return from_pem(data, passphrase)
    except (ValueError, TypeError, unsupported) as error:
        what = "no private key in PEM" if passphrase is None else "a key that this passphrase does not open"
        raise InputError(f"{path}: holds {what}, expected a private key: make one by {NEW_KEY}") from error


def write_signature(root: Path, key: Ed25519PrivateKey) -> Path:
    """Sign `bundle.json` of a folder that was just sealed; returns the signature's file."""
    write_bytes(root / SIGNATURE, key.sign((root / INDEX).read_bytes()))
    return root / SIGNATURE


def sign_bundle(bundle: Bundle, key: Ed25519PrivateKey) -> Path:
    """Sign an opened bundle; raises InputError where another signature is there already."""
    path = bundle.root / SIGNATURE
    signature = key.sign(bundle.index)
    if path.is_symlink() or (path.exists() and path.read_bytes() != signature):
        raise InputError(
            f"{path}: is another signature, expected none or this key's: remove it first if it is to go"
        )
    write_bytes(path, signature)
    return path
