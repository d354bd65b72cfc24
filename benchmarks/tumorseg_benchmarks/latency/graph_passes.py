"""What the passes gain on a bundle's network: `python -m tumorseg_benchmarks.latency.graph_passes BUNDLE`.

Every pass that changes the bundle's `model.onnx` is run beside the graph as it is, under every backend that
was asked for, in interleaved rounds: one image for each graph in turn. Printed are the median time, the
median of the ratios within a round, and how far the logits are from PyTorch's on the golden images.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
import onnx

from tumorseg_export.checkpoint.context import ExportContext
from tumorseg_export.onnx import export as onnx_export
from tumorseg_export.onnx.complexity import count_flops
from tumorseg_export.onnx.passes.base import Pass
from tumorseg_export.onnx.passes.choice import PHASES, TRANSPOSED
from tumorseg_export.onnx.passes.dilation import fold_dilation
from tumorseg_export.targets.registry import TARGETS
from tumorseg_runtime.backends import open_session
from tumorseg_runtime.bundle.bundle import Artefact, Bundle
from tumorseg_runtime.cli.terminal import say
from tumorseg_runtime.core.errors import TumorsegError
from tumorseg_runtime.core.files import write_bytes
from tumorseg_runtime.core.session import Session
from tumorseg_runtime.inference.segmenter import Segmenter
from tumorseg_runtime.parity.budget import BUDGETS
from tumorseg_runtime.parity.reference import load_golden
from tumorseg_runtime.parity.replay import ONE_BY_ONE, replay
from tumorseg_runtime.processing.preprocess import Preprocessor

PLAIN = "as it is"
PASSES: dict[str, Pass] = {
    "dilation": fold_dilation,
    "upsampling as four Conv": PHASES,
    "upsampling as ConvTranspose": TRANSPOSED,
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One graph under one backend. gflop: for one image. error: of its logits, in standard deviations."""

    name: str
    backend: str
    gflop: float
    session: Session
    error: float


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backends", default="onnxruntime", show_default=True, help="With commas between.")
@click.option("--rounds", default=9, show_default=True)
@click.option("--threads", default=2, show_default=True)
def main(bundle: Path, backends: str, rounds: int, threads: int) -> None:
    """Time BUNDLE's network as it is and after each pass that changes it."""
    opened = Bundle.open(bundle)
    for backend in backends.split(","):
        with tempfile.TemporaryDirectory() as folder:
            for line in _timed(_variants(opened, backend, threads, Path(folder)), opened, rounds):
                say(line)


def _variants(bundle: Bundle, backend: str, threads: int, folder: Path) -> list[Variant]:
    """The graph as it is, and after each pass that changes it; what a backend cannot run goes to stderr."""
    model = onnx.load(bundle.root / bundle.artefact("onnx", "fp32").file)
    graphs = {PLAIN: model}
    for name, one in PASSES.items():
        result = one(model)
        if result.modified:
            graphs[name] = result.model
    variants = []
    for number, (name, graph) in enumerate(graphs.items()):
        root = folder / str(number)
        root.mkdir()
        (root / "golden").symlink_to((bundle.root / "golden").resolve())
        write_bytes(root / onnx_export.FILE, graph.SerializeToString(), durable=False)
        try:
            draft = bundle.draft(root=root, artefacts=(_convert(bundle, backend, root),))
            session = open_session(draft, backend=backend, threads=threads)
            door = Segmenter(bundle.contract, session, 1)
            report = replay(door, load_golden(bundle), BUDGETS["fp32"], ONE_BY_ONE, artefact=onnx_export.FILE)
        except TumorsegError as error:
            say(f"{backend:12} {name:26} does not run: {error}", err=True)
            if name == PLAIN:
                return []
            continue
        worst = max(image.relative_error for image in report.images)
        variants.append(Variant(name, backend, count_flops(graph) / 1e9, session, worst))
    return variants


def _convert(bundle: Bundle, backend: str, root: Path) -> Artefact:
    """The artefact that the backend opens, made from the `model.onnx` in the folder."""
    if backend == "onnxruntime":
        return Artefact(onnx_export.FILE, "onnx", "fp32", None, {}, ())
    no_network: ExportContext = ExportContext(None, bundle.contract, {}, ())  # type: ignore[arg-type]  # they read the file
    return TARGETS[backend].make(no_network, root).artefact


def _timed(variants: Sequence[Variant], bundle: Bundle, rounds: int) -> Iterator[str]:
    golden = load_golden(bundle)
    preprocess = Preprocessor(bundle.contract)
    images = [preprocess(item.pixels, item.name)[None] for item in golden]
    seconds: list[list[float]] = [[] for _ in variants]
    for number in range(rounds):
        for variant, times in zip(variants, seconds, strict=True):
            batch = np.ascontiguousarray(images[number % len(images)])
            started = time.perf_counter()
            variant.session.infer(batch)
            times.append(time.perf_counter() - started)
    for variant, times in zip(variants, seconds, strict=True):
        ratio = statistics.median(one / base for one, base in zip(times, seconds[0], strict=True))
        yield (
            f"{variant.backend:12} {variant.name:26} {variant.gflop:6.1f} GFLOP  "
            f"{statistics.median(times):.3f} s  ratio {ratio:.3f}  error {variant.error:.1e}"
        )


if __name__ == "__main__":
    main()
