"""`tumorseg sign`: keys, and the signature of a bundle. Imports neither torch nor onnx."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_export.bundle.model_signing import load_p256_key, sign_for_others
from tumorseg_export.bundle.sign import load_private_key, new_key, sign_bundle
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.bundle.signature import fingerprint
from tumorseg_runtime.cli.options import PATH, Existing, Options, command
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError


@dataclass(frozen=True)
class SignOptions(Options):
    """Of `tumorseg sign`: bundle and key, or new alone. model_signing: where a detached signature goes."""

    bundle: Path | None
    key: Path | None
    new: Path | None
    model_signing: Path | None


@command(SignOptions, example="tumorseg sign bundles/breast --key key.pem")
@click.argument("bundle", required=False, type=Existing("a bundle"))
@click.option(
    "--key", type=Existing("a private key"), help="Private key (PEM, Ed25519; or P-256) that signs BUNDLE."
)
@click.option("--new-key", "new", type=PATH, help="Make a key pair: this file, and .pub.pem.")
@click.option(
    "--model-signing", type=PATH, metavar="FILE",
    help="With a --key on P-256: write a detached signature in OpenSSF Model Signing's format to FILE.",
)  # fmt: skip
def sign(options: SignOptions) -> None:
    """Sign BUNDLE with --key, after a check of every file; or make a pair of keys with --new-key.

    Devices check the signature by `tumorseg verify BUNDLE --public-key FILE`. Keep the private key off them.
    With --model-signing, OpenSSF's tool model_signing checks it instead.
    """
    bundle, key, new = options.bundle, options.key, options.new
    if (bundle is None) != (key is None) or (bundle is None) == (new is None):
        raise InputError(
            "expected either BUNDLE with --key FILE, or --new-key FILE: see tumorseg sign --help"
        )
    if options.model_signing is not None and bundle is None:
        raise InputError("--model-signing signs a bundle, got none: give BUNDLE and --key FILE")
    if new is not None:
        public = new_key(new)
        values = {"private_key": str(new), "public_key": str(public)}
        lines = [
            f"{new}: the private key, not encrypted, for you alone",
            f"{public}: the public key, for devices",
        ]
    else:
        assert bundle is not None
        assert key is not None
        opened = Bundle.open(bundle)
        if options.model_signing is not None:
            path = options.model_signing
            signer = sign_for_others(opened, load_p256_key(key, ask_passphrase), path)
        else:
            private = load_private_key(key, ask_passphrase)
            path, signer = sign_bundle(opened, private), fingerprint(private.public_key())
        values = {"signature": str(path), "signed_by": signer}
        lines = [f"{path}: signed by the key {signer}"]
    if options.as_json:
        say_text(json.dumps(values, indent=2))
    for line in lines:
        options.verdict(line)


def ask_passphrase() -> str:
    """The passphrase of a private key, from the terminal."""
    return str(click.prompt("Passphrase of the key", hide_input=True, err=True))
