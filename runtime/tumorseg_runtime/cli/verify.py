"""`tumorseg verify`: integrity and self-test of a bundle on this device."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.bundle.signature import verify_signature
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.verify import PASSED, UNVERIFIED, verify_bundle


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", help="Only this backend [default: all].")
@click.option("--device", help="Only this device, cpu or cuda for example [default: all].")
@click.option("--precision", help="Only fp32, fp16 or bf16 [default: all that the bundle has].")
@click.option("--device-folder", type=click.Path(path_type=Path), help="Where engines built here lie.")
@click.option(
    "--public-key", type=click.Path(path_type=Path), help="Demand a signature by this key (PEM, Ed25519)."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(
    bundle: Path,
    backend: str | None,
    device: str | None,
    precision: str | None,
    device_folder: Path | None,
    public_key: Path | None,
    as_json: bool,
) -> None:
    """Check every hash of BUNDLE and replay its golden images on this device.

    From the images' bytes to tensor, logits and decisions, with every backend for which BUNDLE has an
    artefact. What could not be run is printed with the reason. Exit status 1 where a hash differs, a backend
    breaks its budget, or nothing could be run; nothing is run where --public-key is given and its signature
    is not there.
    """
    signer = None if public_key is None else verify_signature(Bundle.read_index(bundle), public_key)
    found = verify_bundle(
        bundle, door_of, backend=backend, device=device, precision=precision, device_folder=device_folder
    )
    if as_json:
        click.echo(json.dumps({**found.to_dict(), "signed_by": signer}, indent=2))
    else:
        click.echo(f"{bundle}: {found.bundle} {found.digest[:16]}")
        if signer is not None:
            click.echo(f"signed by the key {signer}")
        for problem in found.problems:
            click.echo(f"refused: {problem}")
        if not found.problems:
            click.echo("every file is as it was sealed")
        for check in sorted(found.checks, key=lambda check: check.status == UNVERIFIED):
            name = f"{check.backend} {check.device} {check.precision}"
            click.echo(f"{check.status}: {name}: {check.detail}")
    if not found.passed:
        statuses = [check.status for check in found.checks]
        what = (
            f"{len(found.problems)} problems of its files or the device folder's, nothing was run: see above"
            if found.problems
            else "it has no artefact of what was asked for, so nothing is verified: leave out an option"
            if not statuses
            else "nothing could be run here, so nothing is verified: tumorseg doctor tells what is missing"
            if PASSED not in statuses and set(statuses) <= {UNVERIFIED}
            else "this device must not serve with what is marked refused: see above"
        )
        raise CheckFailedError(f"{bundle}: {what}")
