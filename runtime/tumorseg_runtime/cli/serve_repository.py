"""`tumorseg serve-repository`: a bundle as model repositories of NVIDIA's Triton Inference Server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click

from tumorseg_runtime.bundle.bundle import Bundle
from tumorseg_runtime.cli.options import Options, bundle_argument, command, out_option
from tumorseg_runtime.cli.terminal import say_text
from tumorseg_runtime.inference.segmenter import Segmenter

COUNT = click.IntRange(min=1)


@dataclass(frozen=True)
class ServeRepositoryOptions(Options):
    """Of `tumorseg serve-repository`; threads, timeout: None for the backend's own and none."""

    bundle: Path
    out: Path
    backend: str
    device: str | None
    precision: str | None
    threads: int | None
    instances: int
    batch: int
    queue: int
    delay: int
    timeout: float | None


@command(
    ServeRepositoryOptions,
    example="tumorseg serve-repository bundles/breast --out triton --instances 2 --threads 1",
    sections={
        "Backend": ("backend", "device", "precision", "threads", "timeout"),
        "Serving": ("instances", "batch", "queue", "delay"),
    },
)
@bundle_argument
@out_option(required=True, help="New folder of the repositories.")
@click.option("--backend", default="onnxruntime", show_default=True, help="A name; never substituted.")
@click.option("--device", help="cpu, cuda, ...; never substituted.  [default: cpu]")
@click.option("--precision", help="fp32, fp16, bf16 or int8: which artefact runs.  [default: fp32]")
@click.option("--threads", type=COUNT, help="CPU threads of each instance [default: the backend's].")
@click.option("--timeout", type=float, help="Most seconds for one inference [default: no limit].")
@click.option("--instances", type=COUNT, default=1, show_default=True, help="Segmenters, a process each.")
@click.option("--batch", type=COUNT, default=4, show_default=True, help="Most images of one inference.")
@click.option(
    "--queue", type=COUNT, default=64, show_default=True, help="Requests that wait; more are refused."
)
@click.option(
    "--delay", type=click.IntRange(min=0), default=0, show_default=True,
    help="Microseconds that a batch waits for further requests.",
)  # fmt: skip
def serve_repository(options: ServeRepositoryOptions) -> None:
    """Write BUNDLE as model repositories of Triton into a new folder (docs/scale.md).

    runtime/ holds this runtime under Triton's Python backend: image files or pixels in; masks, lesions and
    margin out. An instance is ready when it has passed the self-test where it runs. onnx/ holds the plain
    ONNX file, the deploy graph where the bundle has it, for Triton's own backends: UNVERIFIED, no server with
    such a backend has run it. serve.py starts a server, golden_client.py compares its masks with this
    machine's.
    """
    from tumorseg_runtime.serving.repository import ONNX_FOLDER, Serving, write_repository

    bundle = Bundle.open(options.bundle)
    given = {
        "BACKEND": options.backend, "DEVICE": options.device, "PRECISION": options.precision,
        "THREADS": options.threads, "TIMEOUT_S": options.timeout,
    }  # fmt: skip
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    with options.progress("self-test on this device") as tell:
        opened = Segmenter.open(
            bundle, backend=options.backend, device=options.device, precision=options.precision,
            threads=options.threads, batch_size=options.batch, self_test=True, tell=tell,
        )  # fmt: skip
    with opened as segmenter:
        serving = Serving(options.instances, options.batch, options.queue, options.delay, parameters)
        artefact = write_repository(bundle, segmenter, serving, options.out)
    form = None if artefact is None else artefact.format
    if artefact is None:
        options.log(f"{options.bundle}: has no ONNX artefact, so there is no {options.out / ONNX_FOLDER}")
    else:
        options.log(f"{options.out / ONNX_FOLDER}: {artefact.file}, unverified: no server has run it")
    if options.as_json:
        values = {
            "out": str(options.out), "bundle": bundle.name, "sha256": bundle.digest(), "onnx": form,
            "instances": options.instances, "golden": list(bundle.golden),
        }  # fmt: skip
        say_text(json.dumps(values, indent=2))
    options.verdict(f"{options.out}: python {options.out / 'serve.py'}, then golden_client.py beside it")
