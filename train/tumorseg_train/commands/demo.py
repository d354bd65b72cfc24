"""`tumorseg demo`: the first five minutes, without data, GPU or torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.cli.options import Existing, Options, command, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.files import make_folder, write_text

OUT = Path("build/demo.html")


@dataclass(frozen=True)
class DemoOptions(Options):
    """Of `tumorseg demo`. bundle: None for the one that ships with this package."""

    bundle: Path | None
    out: Path


@command(DemoOptions, example="tumorseg demo --bundle bundles/latest")
@click.option(
    "--bundle", type=Existing("a bundle"), help="Bundle to show [default: the one in this package]."
)
@out_option(default=OUT, help="The page: one HTML file.")
def demo(options: DemoOptions) -> None:
    """Segment phantoms with a bundle, verify it, and break copies of it.

    Each broken copy must be refused. Needs no data, no GPU and no torch; the bundle needs an ONNX artefact.
    Writes one page with input, mask and truth. Exit status 1 where the bundle is not verified here, or a
    broken copy is not refused.
    """
    from tumorseg_train.demo.demo import choose_artefact, find_bundle, run_demo  # numpy and OpenCV
    from tumorseg_train.demo.demo_page import demo_page

    root = find_bundle(options.bundle)
    with options.progress("demo") as tell:
        found = run_demo(root, options.step, tell)
    steps = next_steps(root, choose_artefact(found.bundle).precision)
    make_folder(options.out.parent)
    write_text(options.out, demo_page(found, steps))
    if options.as_json:
        say_text(json.dumps({**found.to_dict(), "page": str(options.out)}, indent=2))
    options.step(f"page: {options.out}")
    options.step("next:")
    for what, line in steps:
        options.step(f"  {what:<14} {line}")
    options.verdict(f"{found.verdict} ({found.seconds:.0f} s)")


def next_steps(bundle: Path, precision: str) -> list[tuple[str, str]]:
    """What to do next: (what for, command) pairs."""
    return [
        ("my images", f"tumorseg predict {bundle} scans/ --precision {precision} --out build/masks"),
        (
            "my checkpoint",
            "tumorseg export weights.pth --arch unet --encoder resnet34 --images scans/ --out bundles/mine",
        ),
        ("my CI", "tumorseg verify bundles/mine   # exit status 1: must not serve"),
    ]
