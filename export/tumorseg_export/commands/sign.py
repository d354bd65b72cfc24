"""`tumorseg sign`: keys, and the signature of a bundle. Imports neither torch nor onnx."""

from __future__ import annotations

from pathlib import Path

import click

from tumorseg_export.bundle.sign import load_private_key, new_key, sign_bundle
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.bundle.signature import fingerprint
from tumorseg_runtime.core.errors import InputError


@click.command()
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), help="Private key (PEM, Ed25519) that signs BUNDLE.")
@click.option(
    "--new-key", "new", type=click.Path(path_type=Path), help="Make a key pair: this file, and .pub.pem."
)
def sign(bundle: Path | None, key: Path | None, new: Path | None) -> None:
    """Sign BUNDLE with --key, after a check of every file; or make a pair of keys with --new-key.

    Devices check the signature by `tumorseg verify BUNDLE --public-key FILE`. Keep the private key off them.
    """
    if (bundle is None) != (key is None) or (bundle is None) == (new is None):
        raise InputError(
            "expected either BUNDLE with --key FILE, or --new-key FILE: see tumorseg sign --help"
        )
    if new is not None:
        public = new_key(new)
        click.echo(
            f"{new}: the private key, not encrypted, for you alone\n{public}: the public key, for devices"
        )
        return
    assert bundle is not None
    assert key is not None
    private = load_private_key(key, ask_passphrase)
    path = sign_bundle(Bundle.open(bundle), private)
    click.echo(f"{path}: signed by the key {fingerprint(private.public_key())}")


def ask_passphrase() -> str:
    """The passphrase of a private key, from the terminal."""
    return str(click.prompt("Passphrase of the key", hide_input=True, err=True))
