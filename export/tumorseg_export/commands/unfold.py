"""`tumorseg unfold`: the weights of a bundle, to train on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.cli.options import Existing, Options, command, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.core.errors import InputError


@dataclass(frozen=True)
class UnfoldOptions(Options):
    """Of `tumorseg unfold`."""

    bundle: Path
    out: Path


@command(UnfoldOptions, example="tumorseg unfold bundles/breast --out weights.safetensors")
@click.argument("bundle", type=Existing("a bundle", "bundle.json"))
@out_option(required=True, help="A new file of weights (.safetensors).")
def unfold(options: UnfoldOptions) -> None:
    """Write the weights of BUNDLE's ONNX artefact (FP32, else FP16), for `tumorseg train --init`."""
    bundle, out = options.bundle, options.out
    if out.exists() or out.suffix != ".safetensors":
        raise InputError(f"--out is {out}, expected a new file that ends in .safetensors: give another name")
    from tumorseg_export.checkpoint.unfold import unfold as read_back
    from tumorseg_runtime.bundle.bundle import Bundle, sha256_of
    from tumorseg_train.training.checkpointing import save_weights

    state = read_back(bundle)
    save_weights(state, out, Bundle.open(bundle).provenance.get("split_sha256") or "")
    if options.as_json:
        values = {"weights": str(out), "sha256": sha256_of(out), "tensors": len(state)}
        say_text(json.dumps(values, indent=2, ensure_ascii=False))
    options.verdict(f"{out}: {len(state)} tensors of {bundle}")
