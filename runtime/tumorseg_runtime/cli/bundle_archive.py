"""`tumorseg bundle`: a bundle as one file, and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.bundle.archive import pack as pack_bundle
from tumorseg_runtime.bundle.archive import unpack as unpack_archive
from tumorseg_runtime.bundle.bundle import sha256_of
from tumorseg_runtime.cli.options import (
    Existing,
    Options,
    SuggestingGroup,
    bundle_argument,
    command,
    epilog,
    out_option,
)
from tumorseg_runtime.cli.terminal import say_text


@click.group(cls=SuggestingGroup, epilog=epilog("tumorseg bundle pack bundles/breast --out breast.zip"))
def bundle() -> None:
    """Pack a bundle into one file, and unpack it: for releases, caches and CI (docs/ci.md)."""


@dataclass(frozen=True)
class PackOptions(Options):
    """Of `tumorseg bundle pack`. out: None for BUNDLE.zip beside the bundle."""

    bundle: Path
    out: Path | None


@command(PackOptions, example="tumorseg bundle pack bundles/breast --out breast.zip")
@bundle_argument
@out_option(help="The archive [default: BUNDLE.zip beside the bundle].")
def pack(options: PackOptions) -> None:
    """Pack BUNDLE into one zip: the same bundle gives the same bytes.

    Every file is checked against the seal first; a signature comes along.
    """
    out = options.out or options.bundle.with_name(f"{options.bundle.resolve().name}.zip")
    digest = pack_bundle(options.bundle, out)
    report(options, {"archive": str(out), "archive_sha256": digest, "bytes": out.stat().st_size})
    options.verdict(f"{out}: {out.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")


@dataclass(frozen=True)
class UnpackOptions(Options):
    """Of `tumorseg bundle unpack`. sha256: None where the seal inside is enough."""

    archive: Path
    out: Path
    sha256: str | None


@command(UnpackOptions, example="tumorseg bundle unpack breast.zip --out bundles/breast")
@click.argument("archive", type=Existing("an archive of `tumorseg bundle pack`"))
@out_option(required=True, help="New folder of the bundle.")
@click.option("--sha256", help="What the archive's SHA-256 must be, as `pack` said it.")
def unpack(options: UnpackOptions) -> None:
    """Unpack ARCHIVE into a new folder, which appears only if every hash is right.

    The seal inside tells damage. That the bundle is the one you mean, --sha256 tells, or a signature:
    `tumorseg verify --public-key`.
    """
    opened = unpack_archive(options.archive, options.out, options.sha256)
    report(options, {"archive": str(options.archive), "archive_sha256": sha256_of(options.archive),
                     "bundle": str(opened.root), "name": opened.name, "sha256": opened.digest()})  # fmt: skip
    options.verdict(f"{opened.root}: {opened.name} {opened.digest()[:16]}, every file is as it was sealed")


def report(options: Options, values: dict[str, str | int]) -> None:
    """The result as JSON, where it is asked for."""
    if options.as_json:
        say_text(json.dumps(values, indent=2))


for one in (pack, unpack):
    bundle.add_command(one)
