"""Stage `onnxruntime`: the CUDA and TensorRT providers on the conformance networks, and on a bundle."""

from __future__ import annotations

import functools

from tumorseg_benchmarks.gpu_evidence.stage import Findings, NotPossibleError, Options
from tumorseg_benchmarks.gpu_evidence.verified import note_verified
from tumorseg_runtime.backends import BACKENDS, has_artefact, why_unavailable
from tumorseg_runtime.conformance.files import CONTRACTS
from tumorseg_runtime.conformance.network import conformance_bundle
from tumorseg_runtime.core.errors import ParityError
from tumorseg_runtime.inference.segmenter import door_of
from tumorseg_runtime.parity.compare import summary
from tumorseg_runtime.parity.conformance import check_conformance

DEVICES = ("cuda", "tensorrt")
# A network in INT8 has its bias in INT32, for which ONNX Runtime has no kernel on CUDA: it is placed in part.
PRECISIONS = ("fp32", "fp16")
NAMES = tuple(name for name, spec in BACKENDS.items() if "cuda" in spec.devices and not spec.device_folder)


def run(options: Options, found: Findings) -> None:
    """Every artefact of ONNX Runtime: opened, placed on the GPU as a whole, and right."""
    wanted = ("cpu",) if options.dry else DEVICES
    reasons = {device: why_unavailable("onnxruntime", device) for device in wanted}
    devices = [device for device, reason in reasons.items() if reason is None]
    for device, reason in reasons.items():
        if reason:
            found.lacks(f"provider {device}: {reason}")
    if not devices:
        raise NotPossibleError("; ".join(f"{device}: {reason}" for device, reason in reasons.items()))
    if options.dry:
        found.lacks("ONNX Runtime on a GPU: its CPU provider stands in")
    for device in devices:
        conformance(device, found)
        if options.bundle is not None:
            for backend in NAMES:
                note_verified(options.bundle, backend, device, found)
    found.lacks("INT8: ONNX Runtime has no kernel on CUDA for a bias in INT32")
    if options.bundle is None:
        found.lacks("a trained network: --bundle was not given")


def conformance(device: str, found: Findings) -> None:
    """The networks whose every logit is known, through the public door."""
    for kind in CONTRACTS:
        bundle = conformance_bundle(kind)
        for backend in NAMES:
            for precision in PRECISIONS:
                if has_artefact(bundle, backend, precision):
                    work = functools.partial(conforms, kind, backend, device, precision)
                    found.attempt(f"conformance {kind}, {backend} {device} {precision}", work)


def conforms(kind: str, backend: str, device: str, precision: str) -> str:
    """How many files are right; raises ParityError where one is not."""
    report = check_conformance(door_of, backend, device, precision, CONTRACTS[kind], full=False).report
    if report.breaches:
        raise ParityError(summary(report.breaches))
    return f"{len(report.images)} predictions right"
