"""`tumorseg verify`: integrity and self-test of a bundle on this device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.bundle.signature import fingerprint, load_public_key
from tumorseg_runtime.cli.options import (
    Options,
    bundle_argument,
    command,
    device_folder_option,
    public_key_option,
)
from tumorseg_runtime.cli.terminal import say, say_text
from tumorseg_runtime.core.errors import CheckFailedError
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.verify import PASSED, UNVERIFIED, verify_bundle


@dataclass(frozen=True)
class VerifyOptions(Options):
    """Of `tumorseg verify`; None: all backends, all devices, all precisions."""

    bundle: Path
    backend: str | None
    device: str | None
    precision: str | None
    device_folder: Path | None
    public_key: Path | None


@command(VerifyOptions, example="tumorseg verify bundles/breast --device cpu")
@bundle_argument
@click.option("--backend", help="Only this backend [default: all].")
@click.option("--device", help="Only this device, cpu or cuda for example [default: all].")
@click.option("--precision", help="Only fp32, fp16, bf16 or int8 [default: all that the bundle has].")
@device_folder_option()
@public_key_option
def verify(options: VerifyOptions) -> None:
    """Check every hash of BUNDLE and replay its golden images on this device.

    From the images' bytes to tensor, logits and decisions, with every backend for which BUNDLE has an
    artefact. What could not be run is printed with the reason. Exit status 1 where a hash differs, a backend
    breaks its budget, or nothing could be run; nothing is run where --public-key is given and its signature
    is not there.
    """
    bundle, key = options.bundle, options.public_key
    signer = None if key is None else fingerprint(load_public_key(key))
    with options.progress("verifying") as tell:
        found = verify_bundle(
            bundle,
            door_of,
            backend=options.backend,
            device=options.device,
            precision=options.precision,
            device_folder=options.device_folder,
            public_key=key,
            tell=tell,
        )
    statuses = [check.status for check in found.checks]
    if options.as_json:
        say_text(json.dumps({**found.to_dict(), "signed_by": signer}, indent=2))
    else:
        say(f"{bundle}: {found.bundle} {found.digest[:16]}")
        if signer is not None:
            say(f"signed by the key {signer}")
        for problem in found.problems:
            say(f"refused: {problem}")
        if not found.problems:
            say("every file is as it was sealed")
        for check in sorted(found.checks, key=lambda check: check.status == UNVERIFIED):
            name = f"{check.backend} {check.device} {check.precision}"
            say(f"{check.status}: {name}: {check.detail}")
    if not found.passed:
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
    passed = statuses.count(PASSED)
    options.verdict(f"{bundle}: verified: {passed} passed, {len(statuses) - passed} unverified")
