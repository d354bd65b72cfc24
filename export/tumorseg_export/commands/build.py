"""`tumorseg build`: an engine for the GPU of this device. Imports neither torch nor onnx."""

from __future__ import annotations

import json
from pathlib import Path

import click

from tumorseg_export.engine.build import DeviceOptions, build_for_device
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.device.engines import Profile


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--device-folder",
    required=True,
    type=click.Path(path_type=Path),
    help="Where this device keeps its engines.",
)
@click.option("--workspace", type=int, help="Limit on TensorRT's scratch memory in MiB. Default: none.")
@click.option("--batch", default="1,4,8", show_default=True, help="Smallest, tuned and largest batch.")
@click.option("--precision", type=click.Choice(["fp16", "fp32"]), default="fp16", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, the progress on stderr.")
def build(
    bundle: Path, device_folder: Path, workspace: int | None, batch: str, precision: str, as_json: bool
) -> None:
    """Build a TensorRT engine of BUNDLE on this device, prove it on the golden images, keep it.

    Exit status 1 where the engine decides other than PyTorch; it is not kept then.
    """
    options = DeviceOptions(precision, Profile.parse(batch), workspace)
    results = build_for_device(
        Bundle.open(bundle), device_folder, options, lambda line: click.echo(line, err=as_json)
    )
    size = results.path.stat().st_size
    result = {
        "engine": str(results.path),
        "key": results.key.digest(),
        "bytes": size,
        "seconds": round(results.seconds, 1),
        "max_logit_error": results.max_logit_error,
        "flipped_pixels": results.flipped_pixels,
    }
    if as_json:
        click.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    click.echo(
        f"{results.path}: {size / 1e6:.1f} MB, built in {results.seconds:.1f} s, passed parity "
        f"(largest logit error {results.max_logit_error:.2g}, {results.flipped_pixels} pixels flipped)"
    )
