"""`tumorseg build`: an engine for the GPU of this device. Imports neither torch nor onnx."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_export.engine.build import DeviceOptions, build_for_device
from tumorseg_runtime.backends.tensorrt import FORMS, PLAIN
from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import Options, bundle_argument, command, device_folder_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.device.engines import Profile


@dataclass(frozen=True)
class BuildOptions(Options):
    """Of `tumorseg build`. workspace: in MiB, None for no limit. batch: a Profile in words."""

    bundle: Path
    device_folder: Path
    workspace: int | None
    batch: str
    precision: str | None
    form: str
    device: str


@command(BuildOptions, example="tumorseg build bundles/breast --device-folder engines --batch 1,8,8")
@bundle_argument
@device_folder_option(required=True, help="Where this device keeps its engines.")
@click.option("--workspace", type=int, help="Limit on TensorRT's scratch memory in MiB. Default: none.")
@click.option(
    "--batch",
    default="1,8,8",
    show_default=True,
    help="Smallest, tuned and largest batch; the engine is tuned for the smallest, too.",
)
@click.option(
    "--precision", type=click.Choice(["fp16", "fp32"]), help="Default: fp16, and fp32 of a deploy form."
)
@click.option(
    "--form",
    type=click.Choice([PLAIN, *FORMS]),
    default=PLAIN,
    show_default=True,
    help="The bundle's ONNX file that it is built from; a deploy form takes resized pixels and gives masks.",
)
@click.option("--device", default="cuda", show_default=True, help="The GPU; cuda:1 is the second.")
def build(options: BuildOptions) -> None:
    """Build a TensorRT engine of BUNDLE on this device, prove it on the golden images, keep it.

    Exit status 1 where the engine decides other than PyTorch; it is not kept then.
    """
    engine_options = DeviceOptions(
        options.precision, options.form, Profile.parse(options.batch), options.workspace, options.device
    )
    results = build_for_device(
        Bundle.open(options.bundle), options.device_folder, engine_options, options.step
    )
    size = results.path.stat().st_size
    if options.as_json:
        result = {
            "engine": str(results.path),
            "key": results.key.digest(),
            "bytes": size,
            "seconds": round(results.seconds, 1),
            "max_logit_error": results.max_logit_error if options.form == PLAIN else None,
            "flipped_pixels": results.flipped_pixels,
        }
        say_text(json.dumps(result, indent=2, ensure_ascii=False))
    error = f"largest logit error {results.max_logit_error:.2g}" if options.form == PLAIN else "no logits"
    options.verdict(
        f"{results.path}: {size / 1e6:.1f} MB, built in {results.seconds:.1f} s, passed parity ({error}, "
        f"{results.flipped_pixels} pixels flipped)"
    )
