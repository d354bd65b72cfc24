"""`tumorseg install` and `tumorseg rollback`: bundles of a device in the field."""

from __future__ import annotations

from pathlib import Path

import click

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.deployment.store import install as install_bundle
from tumorseg_runtime.deployment.store import roll_back
from tumorseg_runtime.inference.segmenter import Segmenter


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", default="onnxruntime", show_default=True, help="Backend of the self-test.")
@click.option("--device", help="Device of the self-test.  [default: cpu]")
@click.option("--precision", help="Artefact of the self-test.  [default: fp32]")
@click.option(
    "--public-key", type=click.Path(path_type=Path), help="Demand a signature by this key (PEM, Ed25519)."
)
def install(
    store: Path,
    bundle: Path,
    backend: str,
    device: str | None,
    precision: str | None,
    public_key: Path | None,
) -> None:
    """Copy BUNDLE into the folder STORE, test it on this device, and let it serve from now on.

    With --public-key only a bundle that the key's owner has signed. Whatever happens meanwhile, STORE still
    holds a bundle that was tested; the one before is kept.
    """

    def test(copy: Bundle) -> None:
        Segmenter.open(copy, backend=backend, device=device, precision=precision, self_test=True)

    done = install_bundle(store, bundle, test=test, public_key=public_key)
    click.echo(f"{done.name} {done.digest()[:16]} serves from {done.root}")


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
def rollback(store: Path) -> None:
    """Let the bundle serve again that served in the folder STORE before."""
    done = roll_back(store)
    click.echo(f"{done.name} {done.digest()[:16]} serves again from {done.root}")
