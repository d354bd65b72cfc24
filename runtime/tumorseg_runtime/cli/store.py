"""`tumorseg install` and `tumorseg rollback`: bundles of a device in the field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import PATH, Existing, Options, bundle_argument, command, public_key_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import BundleError
from tumorseg_runtime.deployment.store import install as install_bundle
from tumorseg_runtime.deployment.store import roll_back
from tumorseg_runtime.inference.segmenter import Segmenter


@dataclass(frozen=True)
class InstallOptions(Options):
    """Of `tumorseg install`; device, precision: None for cpu and fp32."""

    store: Path
    bundle: Path
    backend: str
    device: str | None
    precision: str | None
    public_key: Path | None


@command(InstallOptions, example="tumorseg install /var/lib/tumorseg bundles/breast --public-key key.pub.pem")
@click.argument("store", type=PATH)
@bundle_argument
@click.option("--backend", default="onnxruntime", show_default=True, help="Backend of the self-test.")
@click.option("--device", help="Device of the self-test.  [default: cpu]")
@click.option("--precision", help="Artefact of the self-test.  [default: fp32]")
@public_key_option
def install(options: InstallOptions) -> None:
    """Copy BUNDLE into the folder STORE, test it on this device, and let it serve from now on.

    With --public-key only a bundle that the key's owner has signed. Whatever happens meanwhile, STORE still
    holds a bundle that was tested; the one before is kept.
    """

    def test(copy: Bundle) -> None:
        try:
            with options.progress("self-test on this device") as tell:
                Segmenter.open(
                    copy,
                    backend=options.backend,
                    device=options.device,
                    precision=options.precision,
                    self_test=True,
                    tell=tell,
                )
        except BundleError as error:  # the copy is removed: it is the bundle that lacks something
            raise BundleError(str(error).replace(str(copy.root), str(options.bundle))) from error

    done = install_bundle(options.store, options.bundle, test=test, public_key=options.public_key)
    report(options, done, "serves from")


@dataclass(frozen=True)
class RollbackOptions(Options):
    """Of `tumorseg rollback`."""

    store: Path


@command(RollbackOptions, example="tumorseg rollback /var/lib/tumorseg")
@click.argument("store", type=Existing("a folder that `tumorseg install` has written"))
def rollback(options: RollbackOptions) -> None:
    """Let the bundle serve again that served in the folder STORE before."""
    report(options, roll_back(options.store), "serves again from")


def report(options: Options, bundle: Bundle, verb: str) -> None:
    """Which bundle serves now."""
    if options.as_json:
        values = {"bundle": str(bundle.root), "name": bundle.name, "sha256": bundle.digest()}
        say_text(json.dumps(values, indent=2))
    options.verdict(f"{bundle.name} {bundle.digest()[:16]} {verb} {bundle.root}")
