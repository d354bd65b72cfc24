"""A detached signature that OpenSSF Model Signing's public tool verifies, beside the Ed25519 one for devices.

The file is a Sigstore bundle in JSON: a DSSE envelope, signed by ECDSA on P-256 with SHA-256, around an
in-toto statement that lists every file with its SHA-256. It lies outside of the bundle, whose seal admits
no further file. A device needs neither the tool nor this file (`tumorseg_runtime.bundle.signature`).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tumorseg_export.bundle.sign import read_private_key
from tumorseg_runtime.bundle.bundle import INDEX, INDEX_HASH, SIGNATURE, Bundle
from tumorseg_runtime.bundle.signature import require
from tumorseg_runtime.core.errors import InputError
from tumorseg_runtime.core.files import write_text
from tumorseg_runtime.core.records import to_json

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://model_signing/signature/v1.0"
PAYLOAD = "application/vnd.in-toto+json"
MEDIA = "application/vnd.dev.sigstore.bundle.v0.3+json"
CURVE = "secp256r1"  # P-256
NEW_KEY = "openssl ecparam -name prime256v1 -genkey -noout -out key.pem"


def load_p256_key(path: Path, ask: Callable[[], str]) -> EllipticCurvePrivateKey:
    """A private key on P-256 from a PEM file, as `tumorseg_export.bundle.sign.load_private_key`."""
    key = read_private_key(path, ask)
    curve = getattr(getattr(key, "curve", None), "name", None)
    if curve != CURVE:
        kind = f"one on {curve}" if curve else type(key).__name__.lstrip("_")
        raise InputError(f"{path}: holds {kind}, expected a private key on P-256: make one by {NEW_KEY}")
    return key  # type: ignore[no-any-return]


def statement(bundle: Bundle) -> dict[str, Any]:
    """Every file of an opened bundle with its SHA-256, but for the signature for devices."""
    hashes = {name: seal.sha256 for name, seal in bundle.files.items()}
    hashes[INDEX] = bundle.digest()
    if INDEX_HASH in (beside := bundle.beside()):
        hashes[INDEX_HASH] = hashlib.sha256(beside[INDEX_HASH]).hexdigest()
    names = sorted(hashes, key=lambda name: Path(name).parts)
    root = hashlib.sha256(b"".join(bytes.fromhex(hashes[name]) for name in names)).hexdigest()
    return {
        "_type": STATEMENT,
        "subject": [{"name": bundle.name, "digest": {"sha256": root}}],
        "predicateType": PREDICATE,
        "predicate": {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [{"name": name, "algorithm": "sha256", "digest": hashes[name]} for name in names],
        },
    }


def sign_for_others(bundle: Bundle, key: EllipticCurvePrivateKey, path: Path) -> str:
    """Write the signature of an opened bundle to a file outside of it; returns the key's fingerprint.

    Raises InputError for a file inside of the bundle, or one that cannot be written.
    """
    if path.resolve().is_relative_to(bundle.root.resolve()):
        raise InputError(f"{path}: lies in the bundle, which is sealed: choose another --model-signing")
    algorithms = require("cryptography.hazmat.primitives.hashes")
    curves = require("cryptography.hazmat.primitives.asymmetric.ec")
    payload = json.dumps(statement(bundle)).encode()
    message = f"DSSEv1 {len(PAYLOAD)} {PAYLOAD} {len(payload)} ".encode() + payload
    signature = key.sign(message, curves.ECDSA(algorithms.SHA256()))
    signer = fingerprint(key.public_key())
    values = {
        "mediaType": MEDIA,
        "verificationMaterial": {"publicKey": {"hint": signer}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    write_text(path, to_json(values))
    return signer


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """SHA-256 of a public key in PEM, which the format names it by."""
    forms = require("cryptography.hazmat.primitives.serialization")
    pem = key.public_bytes(forms.Encoding.PEM, forms.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()
